"""Simulated visitors of the channels other than mail: they view a landing page, and some submit its form."""

import random
from collections.abc import Mapping
from urllib.parse import urljoin

from campaigns.demo import sample_company
from campaigns.demo.http_client import links_and_images
from campaigns.demo.reader_behaviour import BROWSERS
from campaigns.demo.simulated_audience import SimulatedAudience
from campaigns.planning.models import Channel

_VISITORS: dict[Channel, tuple[int, float, str]] = {
    Channel.SOCIAL: (46, 0.24, "https://social.example/"),
    Channel.ADS: (58, 0.12, "https://ads.example/"),
    Channel.SEARCH: (34, 0.26, "https://search.example/"),
    Channel.CONTENT: (26, 0.19, "https://kettleandpine.example/blog/cold"),
    Channel.EVENT: (14, 0.43, "https://kettleandpine.example/open-day"),
}
"""By channel: number of visitors, share of them who submit the form, referrer."""
_WITHIN = (5.0, 330.0)  # Real-life seconds after the start, while the mails are read.
_AT_HOME = ((77, 95), (1, 254), (1, 254), (1, 254))


def invite(audience: SimulatedAudience, pages: Mapping[Channel, str], seed: int) -> None:
    """Schedule every visitor's visit; ``pages`` are the paths of the landing pages."""
    number = 0
    for channel, path in pages.items():
        many, share, came_from = _VISITORS[channel]
        for _ in range(many):
            number += 1
            visitor = _Visitor(audience, path, share, came_from, random.Random(f"{seed}:visitor:{number}"), number)
            audience.later(visitor.comes_after, visitor.look)


class _Visitor:
    """A person with a browser at a home address, drawn from the seed."""

    def __init__(
        self, audience: SimulatedAudience, path: str, share: float, came_from: str, chance: random.Random, number: int
    ) -> None:
        self._audience, self._path, self._chance = audience, path, chance
        self.comes_after = chance.uniform(*_WITHIN)
        self._interested = chance.random() < share
        self._name, self._address = sample_company.stranger(chance, number)
        self._browsing = {
            "User-Agent": chance.choice(BROWSERS),
            "X-Forwarded-For": ".".join(str(chance.randint(low, high)) for low, high in _AT_HOME),
            "Accept": "text/html",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-User": "?1",
            "Referer": came_from,
        }

    def look(self) -> None:
        page = self._audience.fetch(self._path, self._browsing)
        self._audience.note("visits")
        for image in links_and_images(page.body)[1]:
            self._audience.fetch(urljoin(page.url, image), {**self._browsing, "Accept": "image/*", "Referer": page.url})
        self._audience.browse(page, self._browsing, self._chance, self._browsing["Referer"])
        if self._interested:
            self._audience.later(
                self._chance.uniform(30, 150),
                lambda: self._audience.fill_in(page, self._browsing, self._address, self._name),
            )
