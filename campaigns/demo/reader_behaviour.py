"""Requests that each reader profile makes after a mail. Times in seconds since the relay accepted the mail."""

import random
from collections.abc import Callable, Iterator
from math import log

from campaigns.demo.traffic_model import SHARES, Action, Mail, ReaderProfile, Request

BROWSERS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36",
)
APPLE = "Mozilla/5.0"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
    "Safari/537.36 Edge/12.246 Mozilla/5.0"
)
GATEWAY = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0.0.0 Safari/537.36"
)
CHECKER = "LinkCheck/2.1"
_LIBRARIES = ("python-requests/2.32.3", "Go-http-client/2.0", "Apache-HttpClient/4.5.14 (Java/17.0.9)")
_PREVIEWS = (
    "WhatsApp/2.24.20.89 A",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "TelegramBot (like TwitterBot)",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
)
_CLOUDS = ((3, 80, 95), (13, 52, 59), (18, 130, 170), (20, 10, 60), (34, 120, 190), (54, 70, 200))
_GATEWAYS = (("104.47", 1, 60), ("67.231", 144, 159), ("209.222", 80, 87), ("205.139", 110, 111), ("85.158", 136, 143))


class _ClientProfile:
    """A client with a user agent and an IP address."""

    def __init__(self, agent: str, address: str, *, person: bool, tells: bool = False) -> None:
        self._agent, self._address, self._person, self._tells = agent, address, person, tells

    def asks(self, after: float, what: Action, link: int = 0, *, head: bool = False) -> Request:
        return Request(
            after,
            what,
            self._agent,
            self._address,
            self._person,
            link,
            head,
            navigated=self._tells and what is Action.CLICK,
        )


def family_of(seed: int, address: str) -> ReaderProfile:
    """Return the mailbox's reader profile, which depends on the seed and the address only."""
    return drawn(random.Random(f"{seed}:{address}"))


def drawn(chance: random.Random) -> ReaderProfile:
    """Draw a profile by the shares of the mixed audience."""
    return chance.choices(list(SHARES), list(SHARES.values()))[0]


def requests_of(family: ReaderProfile, chance: random.Random, mail: Mail, place: str) -> tuple[Request, ...]:
    """Return one recipient's requests, ordered by time. ``shared_seed`` seeds what recipients of one office share."""
    found = sorted(_FAMILIES[family](chance, mail, random.Random(f"{place}:{family}")), key=lambda one: one.after)
    return tuple(found)


def _home(chance: random.Random) -> str:
    if chance.random() < 0.08:  # mobile carrier: many users share few addresses (CGNAT)
        return f"92.40.{chance.randint(170, 199)}.{chance.randint(1, 254)}"
    return f"{chance.randint(77, 95)}.{chance.randint(1, 254)}.{chance.randint(1, 254)}.{chance.randint(1, 254)}"


def _cloud(chance: random.Random) -> str:
    first, low, high = chance.choice(_CLOUDS)
    return f"{first}.{chance.randint(low, high)}.{chance.randint(1, 254)}.{chance.randint(1, 254)}"


def _gateway(chance: random.Random) -> str:
    start, low, high = chance.choice(_GATEWAYS)
    return f"{start}.{chance.randint(low, high)}.{chance.randint(1, 254)}"


def _person(chance: random.Random, mail: Mail, address: str | None = None) -> _ClientProfile:
    agent = chance.choice(BROWSERS)
    tells = mail.https and ("Chrome" in agent or "Firefox" in agent)
    return _ClientProfile(agent, address or _home(chance), person=True, tells=tells)


def _looks(chance: random.Random, mail: Mail) -> float:
    """Return the delay in seconds until a person reads the mail: log-normal, so a few at once and some after days."""
    return max(12.0, chance.lognormvariate(log(mail.half_read_within), 1.5))


def _chosen(chance: random.Random, mail: Mail) -> int:
    """Return the link a person clicks: mostly the first, the call to action; rarely a legal link."""
    if chance.random() < 0.7:
        return 1
    link = chance.randint(1, mail.links)
    return 1 if link in mail.small_print and chance.random() < 0.8 else link


def _reads_on(chance: random.Random, mail: Mail, who: _ClientProfile, read: float, share: float) -> Iterator[Request]:
    """Yield what a person does after reading: mostly nothing, else one click, sometimes several."""
    if chance.random() >= share:
        return
    at = read + chance.lognormvariate(log(25), 0.8)
    yield from _follows(chance, mail, who, at, _chosen(chance, mail))
    again = chance.random()
    if again < 0.015:  # Opens several links in tabs, as fast as a scanner.
        links = chance.sample(range(1, mail.links + 1), min(3, mail.links))
        for n, link in enumerate(links, 1):
            yield who.asks(at + n * chance.uniform(0.8, 3), Action.CLICK, link)
    elif again < 0.13:
        for n in range(chance.randint(1, 2)):
            yield who.asks(at + (n + 1) * chance.uniform(12, 120), Action.CLICK, _chosen(chance, mail))


def _follows(chance: random.Random, mail: Mail, who: _ClientProfile, at: float, link: int) -> Iterator[Request]:
    yield who.asks(at, Action.CLICK, link)
    if link == mail.landing and chance.random() < 0.85:
        yield who.asks(at + chance.uniform(0.4, 2.5), Action.VIEW)
        if chance.random() < 0.25:
            yield who.asks(at + chance.uniform(25, 200), Action.SUBMIT)


def _reader(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    who, read = _person(chance, mail), _looks(chance, mail)
    yield who.asks(read, Action.OPEN)
    yield from _reads_on(chance, mail, who, read, 0.28)
    if chance.random() < 0.2:
        yield who.asks(read + chance.uniform(600, 90_000), Action.OPEN)


def _hidden(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    yield from _reads_on(chance, mail, _person(chance, mail), _looks(chance, mail), 0.25)


def _quick(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    who, read = _person(chance, mail), chance.uniform(4, 30)
    yield who.asks(read, Action.OPEN)
    if chance.random() < 0.5:
        yield from _follows(chance, mail, who, read + chance.uniform(3, 25), _chosen(chance, mail))


def _office(chance: random.Random, mail: Mail, place: random.Random) -> Iterator[Request]:
    """An office behind one IP address; half of the recipients read the mail at the same time."""
    address = f"{place.randint(193, 195)}.{place.randint(1, 254)}.{place.randint(1, 254)}.{place.randint(1, 254)}"
    called_out = place.uniform(300, 5_000)
    who = _person(chance, mail, address)
    read = called_out + chance.uniform(0, 50) if chance.random() < 0.5 else _looks(chance, mail)
    if chance.random() < 0.75:
        yield who.asks(read, Action.OPEN)
    yield from _reads_on(chance, mail, who, read, 0.35)


def _apple(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    address = f"17.58.{chance.randint(1, 63)}.10" if chance.random() < 0.5 else f"172.224.{chance.randint(224, 255)}.9"
    prefetch = _ClientProfile(APPLE, address, person=False)
    yield prefetch.asks(chance.choice((chance.uniform(1, 20), chance.uniform(60, 7_200))), Action.OPEN)
    reader = _ClientProfile(chance.choice(BROWSERS[:2]), _home(chance), person=True)
    yield from _reads_on(chance, mail, reader, _looks(chance, mail), 0.15)


def _gmail(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    read, address = _looks(chance, mail), f"66.249.{chance.randint(80, 95)}.{chance.randint(1, 254)}"
    if chance.random() < 0.15:
        yield _ClientProfile(GMAIL_PREFETCH, address, person=False).asks(chance.uniform(1, 60), Action.OPEN)
    yield _ClientProfile(GMAIL, address, person=True).asks(read, Action.OPEN)
    yield from _reads_on(chance, mail, _person(chance, mail), read, 0.24)


def _checked(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    """The gateway rewrites links and scans each one at the time of the click, before it redirects the person."""
    who, read = _person(chance, mail), _looks(chance, mail)
    yield who.asks(read, Action.OPEN)
    for one in list(_reads_on(chance, mail, who, read, 0.5)):
        if one.what is Action.CLICK:
            address = _cloud(chance) if chance.random() < 0.6 else _gateway(chance)
            check = _ClientProfile(GATEWAY, address, person=False)
            yield check.asks(one.after - chance.uniform(0.3, 4), Action.CLICK, one.link)
        yield one


def _scans(
    chance: random.Random,
    mail: Mail,
    start: float,
    gap: Callable[[], float],
    hands: list[_ClientProfile],
    renders: float = 0.0,
) -> Iterator[Request]:
    """Click every link once, in the order of the mail."""
    at = start
    for link in range(1, mail.links + 1):
        yield chance.choice(hands).asks(at, Action.CLICK, link)
        if link == mail.landing and chance.random() < renders:
            yield hands[0].asks(at + chance.uniform(0.3, 2), Action.VIEW)
        at += gap()


def _gateway_family(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    agent = GATEWAY if chance.random() < 0.75 else chance.choice(_LIBRARIES)
    address = _gateway(chance) if chance.random() < 0.45 else _cloud(chance)
    hand, start = _ClientProfile(agent, address, person=False), chance.uniform(0.5, 40)
    if chance.random() < 0.4:
        yield hand.asks(start, Action.OPEN)
    yield from _scans(chance, mail, start + 0.2, lambda: chance.uniform(0.02, 1.2), [hand], renders=0.3)
    if chance.random() < 0.4:
        yield from _reader(chance, mail, _place)


def _checker(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    hand = _ClientProfile(CHECKER, f"40.94.{chance.randint(1, 60)}.{chance.randint(1, 254)}", person=False)
    start = chance.uniform(1, 10)
    for link in range(1, mail.links + 1):
        yield hand.asks(start + link / 5, Action.CLICK, link, head=True)
    if chance.random() < 0.3:
        yield from _reader(chance, mail, _place)


def _sandbox(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    """A real browser without a user, minutes later: usually all links, sometimes one."""
    tells = mail.https and chance.random() < 0.5
    hand = _ClientProfile(GATEWAY, _cloud(chance), person=False, tells=tells)
    start = chance.uniform(60, 3_600)
    if chance.random() < 0.25:
        link = chance.randint(1, mail.links)
        yield hand.asks(start, Action.CLICK, link)
        if link == mail.landing:
            yield hand.asks(start + 1.5, Action.VIEW)
        return
    yield from _scans(chance, mail, start, lambda: chance.uniform(0.5, 4), [hand], renders=0.7)


def _drip(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    """A link now and then, in random order, each from another address of the same cloud provider."""
    start, at = chance.uniform(30, 1_800), 0.0
    for link in chance.sample(range(1, mail.links + 1), mail.links):
        yield _ClientProfile(BROWSERS[3], _cloud(chance), person=False).asks(start + at, Action.CLICK, link)
        at += chance.uniform(20, 150)


def _spoofed(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    hands = [_ClientProfile(agent, _cloud(chance), person=False) for agent in chance.sample(BROWSERS, 3)]
    start = chance.uniform(1, 900)
    if chance.random() < 0.5:
        yield hands[0].asks(start - 0.5, Action.OPEN)
    yield from _scans(chance, mail, start, lambda: chance.uniform(0.1, 2.5), hands)


def _nobody(_chance: random.Random, _mail: Mail, _place: random.Random) -> Iterator[Request]:
    yield from ()


def _chat(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    """A reader shares a link in a chat: the chat fetches a preview, other people click the link."""
    who, read = _person(chance, mail), _looks(chance, mail)
    yield who.asks(read, Action.OPEN)
    link, at = _chosen(chance, mail), read + chance.uniform(15, 90)
    yield from _follows(chance, mail, who, at, link)
    sent_on = at + chance.uniform(20, 200)
    for n in range(chance.randint(1, 2)):
        preview = _ClientProfile(chance.choice(_PREVIEWS), _cloud(chance), person=False)
        yield preview.asks(sent_on + n * 0.4, Action.CLICK, link)
    for _ in range(chance.randint(0, 3)):
        later = sent_on + chance.uniform(10, 3_600)
        yield from _follows(chance, mail, _person(chance, mail), later, link)


def _proxy(chance: random.Random, mail: Mail, place: random.Random) -> Iterator[Request]:
    """The office's proxy prefetches the first link when the mail is displayed; the reader may click later."""
    address = f"{place.randint(193, 195)}.{place.randint(1, 254)}.{place.randint(1, 254)}.{place.randint(1, 254)}"
    who, read = _person(chance, mail, address), _looks(chance, mail)
    yield who.asks(read, Action.OPEN)
    ahead = _ClientProfile(BROWSERS[3], address, person=False)
    yield ahead.asks(read + chance.uniform(0.1, 1.5), Action.CLICK, 1)
    yield from _reads_on(chance, mail, who, read, 0.3)


def _forwarded(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    who, read = _person(chance, mail), _looks(chance, mail)
    yield who.asks(read, Action.OPEN)
    yield from _reads_on(chance, mail, who, read, 0.2)
    for _ in range(chance.randint(1, 3)):
        colleague, later = _person(chance, mail), read + chance.uniform(120, 20_000)
        yield colleague.asks(later, Action.OPEN)
        yield from _reads_on(chance, mail, colleague, later, 0.5)


def _antivirus(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    """Antivirus software on the reader's machine scans some links while the mail is read."""
    address = _home(chance)
    who, read = _person(chance, mail, address), _looks(chance, mail)
    yield who.asks(read, Action.OPEN)
    check = _ClientProfile(GATEWAY, address, person=False)
    for n, link in enumerate(chance.sample(range(1, mail.links + 1), chance.randint(1, 2))):
        yield check.asks(read + chance.uniform(0.5, 6) + n, Action.CLICK, link, head=chance.random() < 0.4)
    yield from _reads_on(chance, mail, who, read, 0.3)


def _helpdesk(chance: random.Random, mail: Mail, _place: random.Random) -> Iterator[Request]:
    """A helpdesk program imports the mail with its images; several people of an office read it there."""
    taken_in = chance.uniform(5, 60)
    yield _ClientProfile("Mozilla/5.0 (compatible; DeskImages 1.0)", _cloud(chance), person=False).asks(
        taken_in, Action.OPEN
    )
    office = _home(chance)
    for _ in range(chance.randint(1, 3)):
        yield from _reads_on(chance, mail, _person(chance, mail, office), taken_in + _looks(chance, mail), 0.4)


_FAMILIES: dict[ReaderProfile, Callable[[random.Random, Mail, random.Random], Iterator[Request]]] = {
    ReaderProfile.READER: _reader,
    ReaderProfile.HIDDEN: _hidden,
    ReaderProfile.QUICK: _quick,
    ReaderProfile.OFFICE: _office,
    ReaderProfile.APPLE: _apple,
    ReaderProfile.GMAIL: _gmail,
    ReaderProfile.CHECKED: _checked,
    ReaderProfile.GATEWAY: _gateway_family,
    ReaderProfile.CHECKER: _checker,
    ReaderProfile.SANDBOX: _sandbox,
    ReaderProfile.DRIP: _drip,
    ReaderProfile.SPOOFED: _spoofed,
    ReaderProfile.NOBODY: _nobody,
    ReaderProfile.CHAT: _chat,
    ReaderProfile.PROXY: _proxy,
    ReaderProfile.FORWARDED: _forwarded,
    ReaderProfile.ANTIVIRUS: _antivirus,
    ReaderProfile.HELPDESK: _helpdesk,
}
