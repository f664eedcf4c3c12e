"""The simulated audience: reads real mails and fetches what people, mail clients and gateways fetch.

Who somebody is follows from the seed and the address alone, so that two runs give nearly the same
figures. Waiting times are those of real life divided by a factor, as TIME_SCALE divides ours.
"""

import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from urllib.parse import urljoin

from campaigns.demo.browser import Browser, Page, first_form, links_and_images

_THREADS = 6
_APPLE = "Mozilla/5.0"
_GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
_CHECKER = "LinkCheck/2.1"
_GATEWAY = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0.0.0 Safari/537.36"
)
BROWSERS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36",
)


class Family(StrEnum):
    """How somebody's mail is read."""

    READER = "people with images on"
    GMAIL = "people behind Gmail's image proxy"
    APPLE = "Apple's prefetch, and people later"
    GATEWAY = "security gateways that click everything"
    CHECKER = "link checkers asking by HEAD"
    NOBODY = "mails that nobody opens"


_SHARES = {
    Family.READER: 24, Family.GMAIL: 20, Family.APPLE: 22, Family.GATEWAY: 5, Family.CHECKER: 3, Family.NOBODY: 26,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Letter:
    """A caught mail, as far as its reader cares."""

    address: str
    html: str
    one_click: str = ""
    """Where a one-click unsubscription is posted."""


@dataclass
class Audience:
    """Reads letters by ``read`` as they come; ``finish`` waits until everybody has done their part."""

    origin: str
    landing: str
    """Path of the landing page, to know the one link that leads there."""
    seed: int = 2026
    hurry: float = 60.0
    """By how much real life's waiting is shortened."""
    planned: int = 0
    acted: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._browser = Browser(self.origin)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._lock = threading.Lock()

    def read(self, letters: Iterable[Letter]) -> None:
        """Put what each recipient will do on the agenda."""
        for letter in letters:
            person = _Recipient(self, letter, random.Random(f"{self.seed}:{letter.address}"))
            self.note(person.family)
            person.plan()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        with self._lock:
            self.planned += 1
            heapq.heappush(self._agenda, (time.monotonic() + seconds / self.hurry, next(self._order), act))

    def note(self, what: str) -> None:
        with self._lock:
            self.tally[what] += 1

    def live(self, until: Callable[[], bool], watch: Callable[[], None] = lambda: None) -> None:
        """Let people act when their time has come, until ``until`` says so and nobody has plans left."""
        with ThreadPoolExecutor(_THREADS) as pool:
            busy: set[Future[None]] = set()
            while True:
                while (act := self._next()) is not None:
                    busy.add(pool.submit(self._attempt, act))
                busy = {future for future in busy if not future.done()}
                if not busy and not self._agenda and until():
                    return
                watch()
                time.sleep(0.01)

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._agenda and self._agenda[0][0] <= time.monotonic():
                return heapq.heappop(self._agenda)[2]
        return None

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self.acted += 1

    def fetch(self, url: str, headers: dict[str, str], **options: object) -> Page:
        page = self._browser.fetch(url, headers, **options)  # type: ignore[arg-type]
        if page.status >= 400:
            self.problems.append(f"{page.status} for {url}")
        return page

    def fill_in(self, page: Page, browsing: dict[str, str], address: str, first_name: str) -> None:
        """Send the page's form with every box ticked."""
        form = first_form(page)
        if form is None:
            self.problems.append(f"no form on {page.url}")
            return
        answers = dict(form.fields)
        for name in answers:
            if "email" in name:
                answers[name] = address
            elif "first_name" in name:
                answers[name] = first_name
        answers.update(dict.fromkeys(form.boxes, "y"))
        self.fetch(form.action, {**browsing, "Referer": page.url}, method="POST", fields=answers)
        self.note("forms sent")


class _Recipient:
    """One mailbox: its owner's habits, drawn from the seed."""

    def __init__(self, audience: Audience, letter: Letter, chance: random.Random) -> None:
        self._audience, self._letter, self._chance = audience, letter, chance
        self.family = chance.choices(list(_SHARES), list(_SHARES.values()))[0]
        self._agent = chance.choice(BROWSERS)
        self._at_home = (
            f"{chance.randint(77, 95)}.{chance.randint(1, 254)}.{chance.randint(1, 254)}.{chance.randint(1, 254)}"
        )
        links, images = links_and_images(letter.html)
        self._tracked = [url for url in links if "/c/" in url]
        self._pixels = [url for url in images if "/o/" in url]

    def plan(self) -> None:
        chance, later = self._chance, self._audience.later
        looks = chance.uniform(20, 300)
        match self.family:
            case Family.READER:
                later(looks, lambda: self._open(self._agent, self._at_home))
                self._maybe_click(looks, 0.28)
            case Family.GMAIL:
                later(looks, lambda: self._open(_GMAIL, f"66.249.84.{chance.randint(1, 254)}"))
                self._maybe_click(looks, 0.26)
            case Family.APPLE:
                later(chance.uniform(1, 9), lambda: self._open(_APPLE, f"17.58.{chance.randint(1, 63)}.10"))
                self._maybe_click(looks, 0.15)
            case Family.GATEWAY:
                later(2, self._scan)
                if chance.random() < 0.4:
                    later(looks, lambda: self._open(self._agent, self._at_home))
                    self._maybe_click(looks, 0.3)
            case Family.CHECKER:
                later(3, self._check)

    def _maybe_click(self, looked: float, share: float) -> None:
        if self._chance.random() >= share or not self._tracked:
            if self._chance.random() < 0.006 and self._letter.one_click:
                self._audience.later(looked + 30, self._unsubscribe)
            return
        # The button stands first and is what the mail is about.
        chosen = 0 if self._chance.random() < 0.72 else self._chance.randrange(len(self._tracked))
        self._audience.later(looked + self._chance.uniform(20, 120), lambda: self._click(self._tracked[chosen]))

    def _headers(self, agent: str, address: str, **more: str) -> dict[str, str]:
        return {"User-Agent": agent, "X-Forwarded-For": address, **{k.replace("_", "-"): v for k, v in more.items()}}

    def _open(self, agent: str, address: str) -> None:
        for pixel in self._pixels:
            self._audience.fetch(pixel, self._headers(agent, address, Accept="image/*"))
            self._audience.note("pixels fetched")

    def _click(self, url: str) -> None:
        browsing = self._headers(
            self._agent, self._at_home, Accept="text/html", Sec_Fetch_User="?1", Sec_Fetch_Mode="navigate"
        )
        page = self._audience.fetch(url, browsing)
        self._audience.note("links followed")
        if self._audience.landing not in page.url:
            return
        for image in links_and_images(page.body)[1]:
            self._audience.fetch(urljoin(page.url, image), browsing)
        if self._chance.random() < 0.42:
            address = self._letter.address
            self._audience.later(
                self._chance.uniform(30, 200),
                lambda: self._audience.fill_in(page, browsing, address, address.split(".")[0].title()),
            )

    def _scan(self) -> None:
        """Everything at once, from the data centre of the gateway."""
        address = f"104.47.{self._chance.randint(1, 60)}.{self._chance.randint(1, 254)}"
        self._open(_GATEWAY, address)
        for url in self._tracked:
            self._audience.fetch(url, self._headers(_GATEWAY, address))
            self._audience.note("links scanned")

    def _check(self) -> None:
        address = f"40.94.{self._chance.randint(1, 60)}.{self._chance.randint(1, 254)}"
        for url in self._tracked:
            self._audience.fetch(url, self._headers(_CHECKER, address), method="HEAD")
            self._audience.note("links checked")

    def _unsubscribe(self) -> None:
        """Their mail provider's button: RFC 8058."""
        provider = self._headers("Mozilla/5.0 (mail provider)", "66.249.84.7")
        self._audience.fetch(self._letter.one_click, provider, method="POST", fields={"List-Unsubscribe": "One-Click"})
        self._audience.note("unsubscribed")
