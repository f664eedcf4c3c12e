"""Simulated traffic with its truth: what people, mail clients and gateways ask for after a mailing.

Drawn from a seed alone, without network and without a database: the demo acts it out over HTTP, the
benchmark of the rules looks at it directly. What each family does stands in :mod:`campaigns.demo.reader_behaviour`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ReaderProfile(StrEnum):
    """How a mail is read. HELD_OUT families were written after the rules, which were not changed for them."""

    READER = "people with images on"
    HIDDEN = "people with images off"
    QUICK = "people who look at once"
    OFFICE = "an office behind one address"
    APPLE = "Apple's prefetch, and people later"
    GMAIL = "people behind Gmail's image proxy"
    CHECKED = "people whose clicks are checked first"
    GATEWAY = "gateways that click everything at once"
    CHECKER = "link checkers asking by HEAD"
    SANDBOX = "sandboxes that come later"
    DRIP = "scanners that take their time"
    SPOOFED = "scanners that change their name"
    NOBODY = "mails that nobody opens"
    CHAT = "links passed on in a chat, with its previews"
    PROXY = "office proxies that fetch one link ahead"
    FORWARDED = "mails forwarded to colleagues"
    ANTIVIRUS = "machines whose own protection checks links"
    HELPDESK = "a shared mailbox behind a program"


HELD_OUT = frozenset({ReaderProfile.FORWARDED, ReaderProfile.ANTIVIRUS, ReaderProfile.HELPDESK})

SHARES: Mapping[ReaderProfile, float] = {
    ReaderProfile.READER: 20,
    ReaderProfile.HIDDEN: 6,
    ReaderProfile.QUICK: 3,
    ReaderProfile.OFFICE: 8,
    ReaderProfile.APPLE: 20,
    ReaderProfile.GMAIL: 18,
    ReaderProfile.CHECKED: 4,
    ReaderProfile.GATEWAY: 6,
    ReaderProfile.CHECKER: 2,
    ReaderProfile.SANDBOX: 2,
    ReaderProfile.DRIP: 1,
    ReaderProfile.SPOOFED: 1,
    ReaderProfile.NOBODY: 7,
    ReaderProfile.CHAT: 1,
    ReaderProfile.PROXY: 1,
}
"""A mixed audience of businesses and private people."""


class Action(StrEnum):
    OPEN = "open"
    CLICK = "click"
    VIEW = "view"
    """Pictures of the landing page loaded; follows the click that led there."""
    SUBMIT = "submit"


@dataclass(frozen=True, slots=True)
class Mail:
    """What of a mail decides how it is read. Links count from 1."""

    links: int = 6
    landing: int = 1
    """The link that leads to our own landing page; 0: none."""
    small_print: frozenset[int] = frozenset({6})
    https: bool = True
    """Browsers tell who navigates over HTTPS only."""
    half_read_within: float = 2_400.0
    """Seconds within which half of those who read it get to it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked for, and who asked in truth."""

    after: float
    """Seconds since the relay took the mail."""
    what: Action
    agent: str
    address: str
    by_person: bool
    link: int = 0
    head: bool = False
    navigated: bool = False
