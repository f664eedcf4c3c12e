"""Counted facts of an activity, a channel or a campaign, and how they add up.

``None`` means *not measured* and is never the same as 0: a social post has no opens at all. Adding
keeps what is known; the sum of things that were all not measured stays not measured.
"""

import dataclasses
from collections.abc import Callable, Iterable
from decimal import Decimal
from operator import add, attrgetter
from typing import Any, Protocol, Self, TypeVar


class _Addable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Part = TypeVar("Part", bound=_Addable)


def plus(one: Part | None, other: Part | None) -> Part | None:
    """The sum of what is known."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


@dataclasses.dataclass(frozen=True, slots=True)
class HitCounts:
    """Hits of one kind, apart by who it was."""

    human: int = 0
    settling: int = 0
    machine: int = 0
    scanner: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        return self.human + self.settling + self.machine + self.scanner + self.unknown

    def __add__(self, other: "HitCounts") -> "HitCounts":
        return HitCounts(*map(add, _hits(self), _hits(other)))


@dataclasses.dataclass(frozen=True, slots=True)
class MailCounts:
    """Sends by what became of them. ``openers`` to ``complainers`` are among the delivered."""

    audience: int = 0
    waiting: int = 0
    delivered: int = 0
    returned: int = 0  # bounced after the relay had accepted it
    refused: int = 0  # bounced at once
    unknown: int = 0
    skipped: int = 0
    failed: int = 0
    cancelled: int = 0
    trackable: int = 0
    openers: int = 0
    clickers: int = 0
    unsubscribers: int = 0
    complainers: int = 0
    hard: int = 0  # of the bounced, returned or refused: the address does not exist
    soft: int = 0
    blocked: int = 0

    def __add__(self, other: "MailCounts") -> "MailCounts":
        return MailCounts(*map(add, _mails(self), _mails(other)))


@dataclasses.dataclass(frozen=True, slots=True)
class VisitCounts:
    """Human web visits that an activity brought. Every sum of these is a sum of rows, visitors too: each
    counts once in a campaign, for the activity that brought their first visit."""

    visits: int = 0
    visitors: int = 0
    engaged: int = 0
    active_seconds: int = 0
    pages: int = 0
    new: int = 0

    def __add__(self, other: "VisitCounts") -> "VisitCounts":
        return VisitCounts(*map(add, _visits(self), _visits(other)))


@dataclasses.dataclass(frozen=True, slots=True)
class ActivityCounts:
    """Everything that a metric can be made of."""

    mails: MailCounts | None = None
    opens: HitCounts | None = None
    clicks: HitCounts | None = None
    views: HitCounts | None = None
    visits: VisitCounts | None = None
    leads: int = 0
    conversions: int = 0
    first_touch: float = 0.0
    last_touch: float = 0.0
    influenced: int | None = None
    """Conversions with a touch of it. One may have touches of several, so no sum is known: it is asked anew."""
    cost: Decimal | None = None
    revenue: Decimal | None = None
    first_touch_revenue: Decimal | None = None
    last_touch_revenue: Decimal | None = None

    def __add__(self, other: "ActivityCounts") -> "ActivityCounts":
        return ActivityCounts(
            mails=plus(self.mails, other.mails),
            opens=plus(self.opens, other.opens),
            clicks=plus(self.clicks, other.clicks),
            views=plus(self.views, other.views),
            visits=plus(self.visits, other.visits),
            leads=self.leads + other.leads,
            conversions=self.conversions + other.conversions,
            first_touch=self.first_touch + other.first_touch,
            last_touch=self.last_touch + other.last_touch,
            cost=plus(self.cost, other.cost),
            revenue=plus(self.revenue, other.revenue),
            first_touch_revenue=plus(self.first_touch_revenue, other.first_touch_revenue),
            last_touch_revenue=plus(self.last_touch_revenue, other.last_touch_revenue),
        )


def total(parts: Iterable[ActivityCounts]) -> ActivityCounts:
    """Sum first, divide later: rates are made of this, never of other rates.

    The same as adding them one after the other, but column by column: a company has thousands.
    """
    parts = list(parts)
    return ActivityCounts(*(_column_sum(list(map(attrgetter(name), parts)), name) for name in _COUNTS))


def _column_sum(values: list[Any], name: str) -> Any:
    if name == "influenced":
        return None
    known = [value for value in values if value is not None]
    if name in _PARTS:
        kind, numbers = _PARTS[name]
        return kind(*map(sum, zip(*map(numbers, known), strict=True))) if known else None
    return sum(known[1:], known[0]) if known else _EMPTY[name]


def _fields(record: type[HitCounts | MailCounts | VisitCounts]) -> Callable[[object], tuple[int, ...]]:
    """How to read all of its numbers at once: a page adds thousands."""
    return attrgetter(*(field.name for field in dataclasses.fields(record)))


_hits, _mails, _visits = _fields(HitCounts), _fields(MailCounts), _fields(VisitCounts)
_COUNTS = tuple(field.name for field in dataclasses.fields(ActivityCounts))
_EMPTY = {field.name: field.default for field in dataclasses.fields(ActivityCounts)}
_PARTS: dict[str, tuple[type[Any], Callable[[object], tuple[int, ...]]]] = {
    "mails": (MailCounts, _mails),
    "visits": (VisitCounts, _visits),
    "opens": (HitCounts, _hits),
    "clicks": (HitCounts, _hits),
    "views": (HitCounts, _hits),
}
