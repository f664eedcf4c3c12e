"""Simulated audience: performs the requests of :mod:`campaigns.demo.reader_behaviour` for caught mails over HTTP.

A recipient's behaviour depends on the seed and the address only, so that two runs give nearly the same figures.
Delays are real delays divided by a factor, as TIME_SCALE divides those of the application.
"""

import heapq
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from urllib.parse import parse_qsl, urljoin, urlsplit

from campaigns.demo import reader_behaviour
from campaigns.demo.http_client import Browser, HttpPage, first_form, links_and_images
from campaigns.demo.traffic_model import Action, Mail, Request

_THREADS = 6
_HALF_READ_WITHIN = 150.0
_ZONES = (("ka-GE", "Asia/Tbilisi"), ("en-GB", "Europe/London"), ("fr-FR", "Europe/Paris"), ("fa-IR", "Asia/Tehran"))
_LATEST = 600.0  # The demo ends before later requests would be due.


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """The parts of a caught mail that its reader needs."""

    address: str
    html: str
    one_click: str = ""
    """URL of the one-click unsubscription (RFC 8058)."""


@dataclass
class SimulatedAudience:
    """Schedules the recipients' requests with ``schedule_mails`` and performs them in ``run``."""

    origin: str
    landing: str
    """Path of the landing page that the mail links to."""
    seed: int = 2026
    hurry: float = 60.0
    """Factor by which real delays are divided."""
    planned: int = 0
    acted: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._browser = Browser(self.origin)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._lock = threading.Lock()

    def read(self, letters: Iterable[ReceivedMail]) -> None:
        """Schedule the requests of each mail's recipient."""
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
        """Perform actions when they are due, until ``is_finished`` returns True and none is scheduled or running."""
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

    def fetch(self, url: str, headers: dict[str, str], **options: object) -> HttpPage:
        page = self._browser.fetch(url, headers, **options)  # type: ignore[arg-type]
        if page.status >= 400:
            self.problems.append(f"{page.status} for {url}")
        return page

    def browse(self, page: HttpPage, headers: dict[str, str], chance: random.Random, referrer: str = "") -> None:
        """Send the page script's events of a person who views the page for a while."""
        if "/k.js" not in page.body:
            return
        address = urlsplit(urljoin(self.origin, page.url))
        query = dict(parse_qsl(address.query))
        form = first_form(page)
        zone = chance.choice(_ZONES)
        said = {
            "t": "v",
            "u": address._replace(query="").geturl(),
            "r": referrer,
            "p": chance.randint(1, 1 << 30),
            "a": 0,
            "s": chance.randint(20, 60),
            "k": query.get("k"),
            "f": form and form.fields.get("external_id"),
            "l": zone[0],
            "z": zone[1],
        }

        def tell(**more: object) -> None:
            body = json.dumps({**said, **more}).encode()
            sent = {**headers, "Origin": self.origin, "Content-Type": "text/plain;charset=UTF-8"}
            self.fetch("/e", sent, method="POST", body=body)

        tell()
        stays = int(chance.lognormvariate(2.6, 1.0))
        if stays >= 2:
            self.later(stays, lambda: tell(t="h", a=stays, s=chance.randint(60, 100)))

    def fill_in(self, page: HttpPage, browsing: dict[str, str], address: str, first_name: str) -> None:
        """Submit the page's form with every checkbox ticked."""
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


def _together(requests: Iterable[Request]) -> list[list[Request]]:
    """Group the image requests of a page with the click that led to it.

    Delays are so short in the demo that the page could otherwise arrive after its images are due.
    """
    acts: list[list[Request]] = []
    for request in requests:
        if request.what is Action.VIEW:
            led = next(
                (one for one in reversed(acts) if (one[0].agent, one[0].what) == (request.agent, Action.CLICK)), None
            )
            if led is not None:
                led.append(request)
        else:
            acts.append([request])
    return acts


class _Recipient:
    """One mailbox and the requests of its reader profile."""

    def __init__(self, audience: SimulatedAudience, letter: ReceivedMail, chance: random.Random) -> None:
        self._audience, self._letter, self._chance = audience, letter, chance
        self.family = reader_behaviour.drawn(chance)
        links, images = links_and_images(letter.html)
        self._tracked = [url for url in links if "/c/" in url]
        self._pixels = [url for url in images if "/o/" in url]
        self._page: HttpPage | None = None

    def plan(self) -> None:
        if not self._tracked:
            return
        mail = Mail(len(self._tracked), landing=1, small_print=frozenset(), half_read_within=_HALF_READ_WITHIN)
        office = f"{self._audience.seed}:{self._letter.address.rpartition('@')[2]}"
        for acts in _together(reader_behaviour.requests_of(self.family, self._chance, mail, office)):
            if acts[0].after < _LATEST:
                self._audience.later(acts[0].after, partial(self._act_out, acts))
        if self._chance.random() < 0.003 and self._letter.one_click:
            self._audience.later(self._chance.uniform(60, _LATEST), self._unsubscribe)

    def _act_out(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._act(request)

    def _act(self, request: Request) -> None:
        headers = {"User-Agent": request.agent, "X-Forwarded-For": request.address}
        if request.navigated:
            headers |= {"Sec-Fetch-User": "?1", "Sec-Fetch-Mode": "navigate"}
        match request.what:
            case Action.OPEN:
                for pixel in self._pixels:
                    self._audience.fetch(pixel, {**headers, "Accept": "image/*"})
                    self._audience.note("pixels fetched")
            case Action.CLICK:
                page = self._audience.fetch(
                    self._tracked[request.link - 1], headers, method="HEAD" if request.head else "GET"
                )
                self._audience.note("links followed" if request.by_person else "links scanned")
                if self._audience.landing in page.url:
                    self._page = page
                    if request.by_person:
                        self._audience.browse(page, headers, self._chance)
            case Action.VIEW if self._page is not None:
                for image in links_and_images(self._page.body)[1]:
                    self._audience.fetch(urljoin(self._page.url, image), headers)
            case Action.SUBMIT if self._page is not None:
                address = self._letter.address
                self._audience.fill_in(self._page, headers, address, address.split(".")[0].title())

    def _unsubscribe(self) -> None:
        """The mail provider's unsubscribe button (RFC 8058)."""
        provider = {"User-Agent": "Mozilla/5.0 (mail provider)", "X-Forwarded-For": "66.249.84.7"}
        self._audience.fetch(self._letter.one_click, provider, method="POST", fields={"List-Unsubscribe": "One-Click"})
        self._audience.note("unsubscribed")
