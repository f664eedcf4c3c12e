"""Requests that each reader profile makes after a mail. Times in seconds since the relay accepted the mail."""

import random
from collections.abc import Callable, Iterator
from math import log

from campaigns.demo.traffic_model import PROFILE_SHARES, Action, Mail, ReaderProfile, Request

BROWSERS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36",
)
APPLE_AGENT = "Mozilla/5.0"
GMAIL_PROXY_AGENT = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
GMAIL_PREFETCH_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
    "Safari/537.36 Edge/12.246 Mozilla/5.0"
)
GATEWAY_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0.0.0 Safari/537.36"
)
LINK_CHECKER_AGENT = "LinkCheck/2.1"
_HTTP_LIBRARY_AGENTS = ("python-requests/2.32.3", "Go-http-client/2.0", "Apache-HttpClient/4.5.14 (Java/17.0.9)")
_CHAT_PREVIEW_AGENTS = (
    "WhatsApp/2.24.20.89 A",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "TelegramBot (like TwitterBot)",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
)
_CLOUD_RANGES = ((3, 80, 95), (13, 52, 59), (18, 130, 170), (20, 10, 60), (34, 120, 190), (54, 70, 200))
_GATEWAY_RANGES = (
    ("104.47", 1, 60),
    ("67.231", 144, 159),
    ("209.222", 80, 87),
    ("205.139", 110, 111),
    ("85.158", 136, 143),
)


class _ClientProfile:
    """A client with a user agent and an IP address."""

    def __init__(self, agent: str, address: str, *, is_person: bool, sends_fetch_metadata: bool = False) -> None:
        self._agent, self._address, self._is_person, self._sends_fetch_metadata = (
            agent,
            address,
            is_person,
            sends_fetch_metadata,
        )

    def request(self, after: float, action: Action, link: int = 0, *, head: bool = False) -> Request:
        return Request(
            after,
            action,
            self._agent,
            self._address,
            self._is_person,
            link,
            head,
            user_navigated=self._sends_fetch_metadata and action is Action.CLICK,
        )


def profile_of(seed: int, address: str) -> ReaderProfile:
    """Return the mailbox's reader profile, which depends on the seed and the address only."""
    return draw_profile(random.Random(f"{seed}:{address}"))


def draw_profile(rng: random.Random) -> ReaderProfile:
    """Draw a profile by the shares of the mixed audience."""
    return rng.choices(list(PROFILE_SHARES), list(PROFILE_SHARES.values()))[0]


def simulate_requests(profile: ReaderProfile, rng: random.Random, mail: Mail, shared_seed: str) -> tuple[Request, ...]:
    """Return one recipient's requests, ordered by time. ``shared_seed`` seeds what recipients of one office share."""
    requests = sorted(
        _GENERATORS[profile](rng, mail, random.Random(f"{shared_seed}:{profile}")), key=lambda one: one.after
    )
    return tuple(requests)


def _home_address(rng: random.Random) -> str:
    if rng.random() < 0.08:  # mobile carrier: many users share few addresses (CGNAT)
        return f"92.40.{rng.randint(170, 199)}.{rng.randint(1, 254)}"
    return f"{rng.randint(77, 95)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}"


def _cloud_address(rng: random.Random) -> str:
    first, low, high = rng.choice(_CLOUD_RANGES)
    return f"{first}.{rng.randint(low, high)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}"


def _gateway_address(rng: random.Random) -> str:
    start, low, high = rng.choice(_GATEWAY_RANGES)
    return f"{start}.{rng.randint(low, high)}.{rng.randint(1, 254)}"


def _person_client(rng: random.Random, mail: Mail, address: str | None = None) -> _ClientProfile:
    agent = rng.choice(BROWSERS)
    sends_fetch_metadata = mail.https and ("Chrome" in agent or "Firefox" in agent)
    return _ClientProfile(
        agent, address or _home_address(rng), is_person=True, sends_fetch_metadata=sends_fetch_metadata
    )


def _read_delay(rng: random.Random, mail: Mail) -> float:
    """Return the delay in seconds until a person reads the mail: log-normal, so a few at once and some after days."""
    return max(12.0, rng.lognormvariate(log(mail.median_read_delay), 1.5))


def _choose_link(rng: random.Random, mail: Mail) -> int:
    """Return the link a person clicks: mostly the first, the call to action; rarely a legal link."""
    if rng.random() < 0.7:
        return 1
    link = rng.randint(1, mail.links)
    return 1 if link in mail.legal_links and rng.random() < 0.8 else link


def _requests_after_reading(
    rng: random.Random, mail: Mail, client: _ClientProfile, read_at: float, click_probability: float
) -> Iterator[Request]:
    """Yield what a person does after reading: mostly nothing, else one click, sometimes several."""
    if rng.random() >= click_probability:
        return
    at = read_at + rng.lognormvariate(log(25), 0.8)
    yield from _click_requests(rng, mail, client, at, _choose_link(rng, mail))
    repeat = rng.random()
    if repeat < 0.015:  # Opens several links in tabs, as fast as a scanner.
        links = rng.sample(range(1, mail.links + 1), min(3, mail.links))
        for n, link in enumerate(links, 1):
            yield client.request(at + n * rng.uniform(0.8, 3), Action.CLICK, link)
    elif repeat < 0.13:
        for n in range(rng.randint(1, 2)):
            yield client.request(at + (n + 1) * rng.uniform(12, 120), Action.CLICK, _choose_link(rng, mail))


def _click_requests(rng: random.Random, mail: Mail, client: _ClientProfile, at: float, link: int) -> Iterator[Request]:
    yield client.request(at, Action.CLICK, link)
    if link == mail.landing_link and rng.random() < 0.85:
        yield client.request(at + rng.uniform(0.4, 2.5), Action.VIEW)
        if rng.random() < 0.25:
            yield client.request(at + rng.uniform(25, 200), Action.SUBMIT)


def _reader(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    client, read_at = _person_client(rng, mail), _read_delay(rng, mail)
    yield client.request(read_at, Action.OPEN)
    yield from _requests_after_reading(rng, mail, client, read_at, 0.28)
    if rng.random() < 0.2:
        yield client.request(read_at + rng.uniform(600, 90_000), Action.OPEN)


def _hidden(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    yield from _requests_after_reading(rng, mail, _person_client(rng, mail), _read_delay(rng, mail), 0.25)


def _quick(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    client, read_at = _person_client(rng, mail), rng.uniform(4, 30)
    yield client.request(read_at, Action.OPEN)
    if rng.random() < 0.5:
        yield from _click_requests(rng, mail, client, read_at + rng.uniform(3, 25), _choose_link(rng, mail))


def _office(rng: random.Random, mail: Mail, shared: random.Random) -> Iterator[Request]:
    """An office behind one IP address; half of the recipients read the mail at the same time."""
    address = f"{shared.randint(193, 195)}.{shared.randint(1, 254)}.{shared.randint(1, 254)}.{shared.randint(1, 254)}"
    announced_at = shared.uniform(300, 5_000)
    client = _person_client(rng, mail, address)
    read_at = announced_at + rng.uniform(0, 50) if rng.random() < 0.5 else _read_delay(rng, mail)
    if rng.random() < 0.75:
        yield client.request(read_at, Action.OPEN)
    yield from _requests_after_reading(rng, mail, client, read_at, 0.35)


def _apple(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    address = f"17.58.{rng.randint(1, 63)}.10" if rng.random() < 0.5 else f"172.224.{rng.randint(224, 255)}.9"
    prefetch = _ClientProfile(APPLE_AGENT, address, is_person=False)
    yield prefetch.request(rng.choice((rng.uniform(1, 20), rng.uniform(60, 7_200))), Action.OPEN)
    reader = _ClientProfile(rng.choice(BROWSERS[:2]), _home_address(rng), is_person=True)
    yield from _requests_after_reading(rng, mail, reader, _read_delay(rng, mail), 0.15)


def _gmail(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    read_at, address = _read_delay(rng, mail), f"66.249.{rng.randint(80, 95)}.{rng.randint(1, 254)}"
    if rng.random() < 0.15:
        yield _ClientProfile(GMAIL_PREFETCH_AGENT, address, is_person=False).request(rng.uniform(1, 60), Action.OPEN)
    yield _ClientProfile(GMAIL_PROXY_AGENT, address, is_person=True).request(read_at, Action.OPEN)
    yield from _requests_after_reading(rng, mail, _person_client(rng, mail), read_at, 0.24)


def _checked(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    """The gateway rewrites links and scans each one at the time of the click, before it redirects the person."""
    client, read_at = _person_client(rng, mail), _read_delay(rng, mail)
    yield client.request(read_at, Action.OPEN)
    for request in list(_requests_after_reading(rng, mail, client, read_at, 0.5)):
        if request.action is Action.CLICK:
            address = _cloud_address(rng) if rng.random() < 0.6 else _gateway_address(rng)
            check = _ClientProfile(GATEWAY_AGENT, address, is_person=False)
            yield check.request(request.after - rng.uniform(0.3, 4), Action.CLICK, request.link)
        yield request


def _scan_requests(
    rng: random.Random,
    mail: Mail,
    start: float,
    gap: Callable[[], float],
    clients: list[_ClientProfile],
    render_probability: float = 0.0,
) -> Iterator[Request]:
    """Click every link once, in the order of the mail."""
    at = start
    for link in range(1, mail.links + 1):
        yield rng.choice(clients).request(at, Action.CLICK, link)
        if link == mail.landing_link and rng.random() < render_probability:
            yield clients[0].request(at + rng.uniform(0.3, 2), Action.VIEW)
        at += gap()


def _gateway_family(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    agent = GATEWAY_AGENT if rng.random() < 0.75 else rng.choice(_HTTP_LIBRARY_AGENTS)
    address = _gateway_address(rng) if rng.random() < 0.45 else _cloud_address(rng)
    client, start = _ClientProfile(agent, address, is_person=False), rng.uniform(0.5, 40)
    if rng.random() < 0.4:
        yield client.request(start, Action.OPEN)
    yield from _scan_requests(rng, mail, start + 0.2, lambda: rng.uniform(0.02, 1.2), [client], render_probability=0.3)
    if rng.random() < 0.4:
        yield from _reader(rng, mail, _shared)


def _checker(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    client = _ClientProfile(LINK_CHECKER_AGENT, f"40.94.{rng.randint(1, 60)}.{rng.randint(1, 254)}", is_person=False)
    start = rng.uniform(1, 10)
    for link in range(1, mail.links + 1):
        yield client.request(start + link / 5, Action.CLICK, link, head=True)
    if rng.random() < 0.3:
        yield from _reader(rng, mail, _shared)


def _sandbox(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    """A real browser without a user, minutes later: usually all links, sometimes one."""
    sends_fetch_metadata = mail.https and rng.random() < 0.5
    client = _ClientProfile(
        GATEWAY_AGENT, _cloud_address(rng), is_person=False, sends_fetch_metadata=sends_fetch_metadata
    )
    start = rng.uniform(60, 3_600)
    if rng.random() < 0.25:
        link = rng.randint(1, mail.links)
        yield client.request(start, Action.CLICK, link)
        if link == mail.landing_link:
            yield client.request(start + 1.5, Action.VIEW)
        return
    yield from _scan_requests(rng, mail, start, lambda: rng.uniform(0.5, 4), [client], render_probability=0.7)


def _drip(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    """A link now and then, in random order, each from another address of the same cloud provider."""
    start, at = rng.uniform(30, 1_800), 0.0
    for link in rng.sample(range(1, mail.links + 1), mail.links):
        yield _ClientProfile(BROWSERS[3], _cloud_address(rng), is_person=False).request(start + at, Action.CLICK, link)
        at += rng.uniform(20, 150)


def _spoofed(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    clients = [_ClientProfile(agent, _cloud_address(rng), is_person=False) for agent in rng.sample(BROWSERS, 3)]
    start = rng.uniform(1, 900)
    if rng.random() < 0.5:
        yield clients[0].request(start - 0.5, Action.OPEN)
    yield from _scan_requests(rng, mail, start, lambda: rng.uniform(0.1, 2.5), clients)


def _nobody(_rng: random.Random, _mail: Mail, _shared: random.Random) -> Iterator[Request]:
    yield from ()


def _chat(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    """A reader shares a link in a chat: the chat fetches a preview, other people click the link."""
    client, read_at = _person_client(rng, mail), _read_delay(rng, mail)
    yield client.request(read_at, Action.OPEN)
    link, at = _choose_link(rng, mail), read_at + rng.uniform(15, 90)
    yield from _click_requests(rng, mail, client, at, link)
    shared_at = at + rng.uniform(20, 200)
    for n in range(rng.randint(1, 2)):
        preview = _ClientProfile(rng.choice(_CHAT_PREVIEW_AGENTS), _cloud_address(rng), is_person=False)
        yield preview.request(shared_at + n * 0.4, Action.CLICK, link)
    for _ in range(rng.randint(0, 3)):
        later = shared_at + rng.uniform(10, 3_600)
        yield from _click_requests(rng, mail, _person_client(rng, mail), later, link)


def _proxy(rng: random.Random, mail: Mail, shared: random.Random) -> Iterator[Request]:
    """The office's proxy prefetches the first link when the mail is displayed; the reader may click later."""
    address = f"{shared.randint(193, 195)}.{shared.randint(1, 254)}.{shared.randint(1, 254)}.{shared.randint(1, 254)}"
    client, read_at = _person_client(rng, mail, address), _read_delay(rng, mail)
    yield client.request(read_at, Action.OPEN)
    prefetcher = _ClientProfile(BROWSERS[3], address, is_person=False)
    yield prefetcher.request(read_at + rng.uniform(0.1, 1.5), Action.CLICK, 1)
    yield from _requests_after_reading(rng, mail, client, read_at, 0.3)


def _forwarded(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    client, read_at = _person_client(rng, mail), _read_delay(rng, mail)
    yield client.request(read_at, Action.OPEN)
    yield from _requests_after_reading(rng, mail, client, read_at, 0.2)
    for _ in range(rng.randint(1, 3)):
        colleague, forwarded_read_at = _person_client(rng, mail), read_at + rng.uniform(120, 20_000)
        yield colleague.request(forwarded_read_at, Action.OPEN)
        yield from _requests_after_reading(rng, mail, colleague, forwarded_read_at, 0.5)


def _antivirus(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    """Antivirus software on the reader's machine scans some links while the mail is read."""
    address = _home_address(rng)
    client, read_at = _person_client(rng, mail, address), _read_delay(rng, mail)
    yield client.request(read_at, Action.OPEN)
    check = _ClientProfile(GATEWAY_AGENT, address, is_person=False)
    for n, link in enumerate(rng.sample(range(1, mail.links + 1), rng.randint(1, 2))):
        yield check.request(read_at + rng.uniform(0.5, 6) + n, Action.CLICK, link, head=rng.random() < 0.4)
    yield from _requests_after_reading(rng, mail, client, read_at, 0.3)


def _helpdesk(rng: random.Random, mail: Mail, _shared: random.Random) -> Iterator[Request]:
    """A helpdesk program imports the mail with its images; several people of an office read it there."""
    imported_at = rng.uniform(5, 60)
    yield _ClientProfile("Mozilla/5.0 (compatible; DeskImages 1.0)", _cloud_address(rng), is_person=False).request(
        imported_at, Action.OPEN
    )
    office = _home_address(rng)
    for _ in range(rng.randint(1, 3)):
        yield from _requests_after_reading(
            rng, mail, _person_client(rng, mail, office), imported_at + _read_delay(rng, mail), 0.4
        )


_GENERATORS: dict[ReaderProfile, Callable[[random.Random, Mail, random.Random], Iterator[Request]]] = {
    ReaderProfile.READER: _reader,
    ReaderProfile.IMAGES_OFF: _hidden,
    ReaderProfile.IMMEDIATE: _quick,
    ReaderProfile.OFFICE: _office,
    ReaderProfile.APPLE: _apple,
    ReaderProfile.GMAIL: _gmail,
    ReaderProfile.CLICK_CHECKED: _checked,
    ReaderProfile.GATEWAY: _gateway_family,
    ReaderProfile.CHECKER: _checker,
    ReaderProfile.SANDBOX: _sandbox,
    ReaderProfile.SLOW_SCANNER: _drip,
    ReaderProfile.SPOOFED_AGENT: _spoofed,
    ReaderProfile.UNOPENED: _nobody,
    ReaderProfile.CHAT: _chat,
    ReaderProfile.PROXY: _proxy,
    ReaderProfile.FORWARDED: _forwarded,
    ReaderProfile.ANTIVIRUS: _antivirus,
    ReaderProfile.HELPDESK: _helpdesk,
}
