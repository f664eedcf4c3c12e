"""Model of simulated traffic with ground truth: requests of people, mail clients and gateways after a mailing.

Drawn from a seed alone, without network or database. The demo performs the requests over HTTP; the benchmark of the
bot rules (``tests/benchmarks/bot_rules.py``) evaluates them directly. :mod:`campaigns.demo.reader_behaviour` defines
the behaviour of each profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ReaderProfile(StrEnum):
    """Ways in which a mail is read.

    The profiles in HELD_OUT were written after the bot rules, and the rules were not adapted to them.
    """

    READER = "people with images on"
    IMAGES_OFF = "people with images off"
    IMMEDIATE = "people who look at once"
    OFFICE = "an office behind one address"
    APPLE = "Apple's prefetch, and people later"
    GMAIL = "people behind Gmail's image proxy"
    CLICK_CHECKED = "people whose clicks are checked first"
    GATEWAY = "gateways that click everything at once"
    CHECKER = "link checkers asking by HEAD"
    SANDBOX = "sandboxes that come later"
    SLOW_SCANNER = "scanners that take their time"
    SPOOFED_AGENT = "scanners that change their name"
    UNOPENED = "mails that nobody opens"
    CHAT = "links passed on in a chat, with its previews"
    PROXY = "office proxies that fetch one link ahead"
    FORWARDED = "mails forwarded to colleagues"
    ANTIVIRUS = "machines whose own protection checks links"
    HELPDESK = "a shared mailbox behind a program"


HELD_OUT = frozenset({ReaderProfile.FORWARDED, ReaderProfile.ANTIVIRUS, ReaderProfile.HELPDESK})

PROFILE_SHARES: Mapping[ReaderProfile, float] = {
    ReaderProfile.READER: 20,
    ReaderProfile.IMAGES_OFF: 6,
    ReaderProfile.IMMEDIATE: 3,
    ReaderProfile.OFFICE: 8,
    ReaderProfile.APPLE: 20,
    ReaderProfile.GMAIL: 18,
    ReaderProfile.CLICK_CHECKED: 4,
    ReaderProfile.GATEWAY: 6,
    ReaderProfile.CHECKER: 2,
    ReaderProfile.SANDBOX: 2,
    ReaderProfile.SLOW_SCANNER: 1,
    ReaderProfile.SPOOFED_AGENT: 1,
    ReaderProfile.UNOPENED: 7,
    ReaderProfile.CHAT: 1,
    ReaderProfile.PROXY: 1,
}
"""Shares (weights) of the profiles in a mixed audience of business and private recipients."""


class Action(StrEnum):
    OPEN = "open"
    CLICK = "click"
    VIEW = "view"
    """Images of the landing page are loaded; follows the click that led there."""
    SUBMIT = "submit"


@dataclass(frozen=True, slots=True)
class Mail:
    """Properties of a mail that influence how it is read. Links are numbered from 1."""

    links: int = 6
    landing_link: int = 1
    """Number of the link to our own landing page; 0: none."""
    legal_links: frozenset[int] = frozenset({6})
    https: bool = True
    """Browsers send Sec-Fetch headers over HTTPS only."""
    median_read_delay: float = 2_400.0
    """Median delay in seconds until the mail is read."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request with its ground truth: whether a person made it."""

    after: float
    """Seconds since the relay accepted the mail."""
    action: Action
    agent: str
    address: str
    by_person: bool
    link: int = 0
    is_head: bool = False
    user_navigated: bool = False
