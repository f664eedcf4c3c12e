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
_ARRIVAL_SECONDS = (5.0, 330.0)  # Real-life seconds after the start, while the mails are read.
_HOME_ADDRESS_RANGES = ((77, 95), (1, 254), (1, 254), (1, 254))


def schedule_visits(audience: SimulatedAudience, pages: Mapping[Channel, str], seed: int) -> None:
    """Schedule every visitor's visit; ``pages`` are the paths of the landing pages."""
    number = 0
    for channel, path in pages.items():
        visitors, submit_share, referrer = _VISITORS[channel]
        for _ in range(visitors):
            number += 1
            visitor = _Visitor(
                audience, path, submit_share, referrer, random.Random(f"{seed}:visitor:{number}"), number
            )
            audience.schedule(visitor.arrival_delay, visitor.visit_page)


class _Visitor:
    """A person with a browser at a home address, drawn from the seed."""

    def __init__(
        self,
        audience: SimulatedAudience,
        path: str,
        submit_share: float,
        referrer: str,
        rng: random.Random,
        number: int,
    ) -> None:
        self._audience, self._path, self._rng = audience, path, rng
        self.arrival_delay = rng.uniform(*_ARRIVAL_SECONDS)
        self._submits_form = rng.random() < submit_share
        self._name, self._address = sample_company.new_person(rng, number)
        self._headers = {
            "User-Agent": rng.choice(BROWSERS),
            "X-Forwarded-For": ".".join(str(rng.randint(low, high)) for low, high in _HOME_ADDRESS_RANGES),
            "Accept": "text/html",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-User": "?1",
            "Referer": referrer,
        }

    def visit_page(self) -> None:
        page = self._audience.fetch(self._path, self._headers)
        self._audience.increment("visits")
        for image in links_and_images(page.body)[1]:
            self._audience.fetch(urljoin(page.url, image), {**self._headers, "Accept": "image/*", "Referer": page.url})
        self._audience.send_page_events(page, self._headers, self._rng, self._headers["Referer"])
        if self._submits_form:
            self._audience.schedule(
                self._rng.uniform(30, 150),
                lambda: self._audience.submit_form(page, self._headers, self._address, self._name),
            )
