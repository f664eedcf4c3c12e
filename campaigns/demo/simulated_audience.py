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
from campaigns.demo.http_client import Browser, HttpPage, first_post_form, links_and_images
from campaigns.demo.traffic_model import Action, Mail, Request

_MAX_THREADS = 6
_MEDIAN_READ_DELAY = 150.0
_LOCALES = (("ka-GE", "Asia/Tbilisi"), ("en-GB", "Europe/London"), ("fr-FR", "Europe/Paris"), ("fa-IR", "Asia/Tehran"))
_MAX_DELAY = 600.0  # The demo ends before later requests would be due.


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """The parts of a caught mail that its reader needs."""

    address: str
    html: str
    one_click_url: str = ""
    """URL of the one-click unsubscription (RFC 8058)."""


@dataclass
class SimulatedAudience:
    """Schedules the recipients' requests with ``schedule_mails`` and performs them in ``run``."""

    origin: str
    landing_path: str
    """Path of the landing page that the mail links to."""
    seed: int = 2026
    speedup: float = 60.0
    """Factor by which real delays are divided."""
    scheduled: int = 0
    performed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._browser = Browser(self.origin)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()
        self._lock = threading.Lock()

    def schedule_mails(self, mails: Iterable[ReceivedMail]) -> None:
        """Schedule the requests of each mail's recipient."""
        for mail in mails:
            recipient = _Recipient(self, mail, random.Random(f"{self.seed}:{mail.address}"))
            self.increment(recipient.profile)
            recipient.schedule_requests()

    def schedule(self, seconds: float, action: Callable[[], None]) -> None:
        with self._lock:
            self.scheduled += 1
            heapq.heappush(self._queue, (time.monotonic() + seconds / self.speedup, next(self._sequence), action))

    def increment(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def run(self, is_finished: Callable[[], bool], on_idle: Callable[[], None] = lambda: None) -> None:
        """Perform actions when they are due, until ``is_finished`` returns True and none is scheduled or running."""
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            busy: set[Future[None]] = set()
            while True:
                while (action := self._next_due()) is not None:
                    busy.add(pool.submit(self._perform, action))
                busy = {future for future in busy if not future.done()}
                if not busy and not self._queue and is_finished():
                    return
                on_idle()
                time.sleep(0.01)

    def _next_due(self) -> Callable[[], None] | None:
        with self._lock:
            if self._queue and self._queue[0][0] <= time.monotonic():
                return heapq.heappop(self._queue)[2]
        return None

    def _perform(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self.performed += 1

    def fetch(self, url: str, headers: dict[str, str], **options: object) -> HttpPage:
        page = self._browser.fetch(url, headers, **options)  # type: ignore[arg-type]
        if page.status >= 400:
            self.problems.append(f"{page.status} for {url}")
        return page

    def send_page_events(self, page: HttpPage, headers: dict[str, str], rng: random.Random, referrer: str = "") -> None:
        """Send the page script's events of a person who views the page for a while."""
        if "/k.js" not in page.body:
            return
        address = urlsplit(urljoin(self.origin, page.url))
        query = dict(parse_qsl(address.query))
        form = first_post_form(page)
        locale = rng.choice(_LOCALES)
        event = {
            "t": "v",
            "u": address._replace(query="").geturl(),
            "r": referrer,
            "p": rng.randint(1, 1 << 30),
            "a": 0,
            "s": rng.randint(20, 60),
            "k": query.get("k"),
            "f": form and form.fields.get("external_id"),
            "l": locale[0],
            "z": locale[1],
        }

        def send_event(**more: object) -> None:
            body = json.dumps({**event, **more}).encode()
            sent = {**headers, "Origin": self.origin, "Content-Type": "text/plain;charset=UTF-8"}
            self.fetch("/e", sent, method="POST", body=body)

        send_event()
        dwell_seconds = int(rng.lognormvariate(2.6, 1.0))
        if dwell_seconds >= 2:
            self.schedule(dwell_seconds, lambda: send_event(t="h", a=dwell_seconds, s=rng.randint(60, 100)))

    def submit_form(self, page: HttpPage, headers: dict[str, str], address: str, first_name: str) -> None:
        """Submit the page's form with every checkbox ticked."""
        form = first_post_form(page)
        if form is None:
            self.problems.append(f"no form on {page.url}")
            return
        answers = dict(form.fields)
        for name in answers:
            if "email" in name:
                answers[name] = address
            elif "first_name" in name:
                answers[name] = first_name
        answers.update(dict.fromkeys(form.checkboxes, "y"))
        self.fetch(form.action, {**headers, "Referer": page.url}, method="POST", fields=answers)
        self.increment("forms sent")


def _group_page_requests(requests: Iterable[Request]) -> list[list[Request]]:
    """Group the image requests of a page with the click that led to it.

    Delays are so short in the demo that the page could otherwise arrive after its images are due.
    """
    groups: list[list[Request]] = []
    for request in requests:
        if request.action is Action.VIEW:
            click_group = next(
                (one for one in reversed(groups) if (one[0].agent, one[0].action) == (request.agent, Action.CLICK)),
                None,
            )
            if click_group is not None:
                click_group.append(request)
        else:
            groups.append([request])
    return groups


class _Recipient:
    """One mailbox and the requests of its reader profile."""

    def __init__(self, audience: SimulatedAudience, mail: ReceivedMail, rng: random.Random) -> None:
        self._audience, self._mail, self._rng = audience, mail, rng
        self.profile = reader_behaviour.draw_profile(rng)
        links, images = links_and_images(mail.html)
        self._tracked_links = [url for url in links if "/c/" in url]
        self._pixels = [url for url in images if "/o/" in url]
        self._page: HttpPage | None = None

    def schedule_requests(self) -> None:
        if not self._tracked_links:
            return
        mail = Mail(
            len(self._tracked_links), landing_link=1, legal_links=frozenset(), median_read_delay=_MEDIAN_READ_DELAY
        )
        office = f"{self._audience.seed}:{self._mail.address.rpartition('@')[2]}"
        for group in _group_page_requests(reader_behaviour.simulate_requests(self.profile, self._rng, mail, office)):
            if group[0].after < _MAX_DELAY:
                self._audience.schedule(group[0].after, partial(self._perform_all, group))
        if self._rng.random() < 0.003 and self._mail.one_click_url:
            self._audience.schedule(self._rng.uniform(60, _MAX_DELAY), self._unsubscribe)

    def _perform_all(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._perform(request)

    def _perform(self, request: Request) -> None:
        headers = {"User-Agent": request.agent, "X-Forwarded-For": request.address}
        if request.user_navigated:
            headers |= {"Sec-Fetch-User": "?1", "Sec-Fetch-Mode": "navigate"}
        match request.action:
            case Action.OPEN:
                for pixel in self._pixels:
                    self._audience.fetch(pixel, {**headers, "Accept": "image/*"})
                    self._audience.increment("pixels fetched")
            case Action.CLICK:
                page = self._audience.fetch(
                    self._tracked_links[request.link - 1], headers, method="HEAD" if request.is_head else "GET"
                )
                self._audience.increment("links followed" if request.by_person else "links scanned")
                if self._audience.landing_path in page.url:
                    self._page = page
                    if request.by_person:
                        self._audience.send_page_events(page, headers, self._rng)
            case Action.VIEW if self._page is not None:
                for image in links_and_images(self._page.body)[1]:
                    self._audience.fetch(urljoin(self._page.url, image), headers)
            case Action.SUBMIT if self._page is not None:
                address = self._mail.address
                self._audience.submit_form(self._page, headers, address, address.split(".")[0].title())

    def _unsubscribe(self) -> None:
        """The mail provider's unsubscribe button (RFC 8058)."""
        provider = {"User-Agent": "Mozilla/5.0 (mail provider)", "X-Forwarded-For": "66.249.84.7"}
        self._audience.fetch(
            self._mail.one_click_url, provider, method="POST", fields={"List-Unsubscribe": "One-Click"}
        )
        self._audience.increment("unsubscribed")
