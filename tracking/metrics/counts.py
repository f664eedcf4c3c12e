"""Value types for the counts of an activity, a channel or a campaign, and their addition.

``None`` means *not measured* and differs from 0: a social post has no opens at all. Addition ignores ``None``; a sum
in which every term is ``None`` is ``None``.
"""

import dataclasses
from collections.abc import Callable, Iterable
from decimal import Decimal
from operator import add, attrgetter
from typing import Any, Protocol, Self, TypeVar


class _SupportsAdd(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Part = TypeVar("Part", bound=_SupportsAdd)


def add_known(one: Part | None, other: Part | None) -> Part | None:
    """Add two counts, of which either may be None (not measured)."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


@dataclasses.dataclass(frozen=True, slots=True)
class HitCounts:
    """Number of hits of one kind by traffic label. The fields are named like the members of ``TrafficLabel``."""

    human: int = 0
    settling: int = 0
    machine: int = 0
    scanner: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        return self.human + self.settling + self.machine + self.scanner + self.unknown

    def __add__(self, other: "HitCounts") -> "HitCounts":
        return HitCounts(*map(add, _hit_values(self), _hit_values(other)))


@dataclasses.dataclass(frozen=True, slots=True)
class MailCounts:
    """Number of sends by delivery status. ``openers`` to ``complainers`` are subsets of ``delivered``."""

    audience: int = 0
    waiting: int = 0
    delivered: int = 0
    returned: int = 0  # bounced after the relay had accepted the mail
    refused: int = 0  # refused by the relay (5xx), never accepted
    unknown: int = 0
    skipped: int = 0
    failed: int = 0
    cancelled: int = 0
    trackable: int = 0
    openers: int = 0
    clickers: int = 0
    unsubscribers: int = 0
    complainers: int = 0
    hard: int = 0  # hard, soft and blocked split the bounced (returned + refused) ones; hard: no such address
    soft: int = 0
    blocked: int = 0

    def __add__(self, other: "MailCounts") -> "MailCounts":
        return MailCounts(*map(add, _mail_values(self), _mail_values(other)))


@dataclasses.dataclass(frozen=True, slots=True)
class VisitCounts:
    """Human web visits that an activity brought; ``active_seconds`` is in seconds.

    Visitors can be added up within a campaign too: a visitor counts once per campaign, for the activity that brought
    the first visit.
    """

    visits: int = 0
    visitors: int = 0
    engaged: int = 0
    active_seconds: int = 0
    pages: int = 0
    new: int = 0

    def __add__(self, other: "VisitCounts") -> "VisitCounts":
        return VisitCounts(*map(add, _visit_values(self), _visit_values(other)))


@dataclasses.dataclass(frozen=True, slots=True)
class ActivityCounts:
    """All counts that metrics are computed from, of one activity or of several added together."""

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
    """Conversions with at least one touch of this activity, channel or campaign.

    One conversion may have touches of several activities, so these numbers cannot be added: a sum drops them (None),
    and the caller queries the number for the whole.
    """
    cost: Decimal | None = None
    revenue: Decimal | None = None
    first_touch_revenue: Decimal | None = None
    last_touch_revenue: Decimal | None = None

    def __add__(self, other: "ActivityCounts") -> "ActivityCounts":
        return ActivityCounts(
            mails=add_known(self.mails, other.mails),
            opens=add_known(self.opens, other.opens),
            clicks=add_known(self.clicks, other.clicks),
            views=add_known(self.views, other.views),
            visits=add_known(self.visits, other.visits),
            leads=self.leads + other.leads,
            conversions=self.conversions + other.conversions,
            first_touch=self.first_touch + other.first_touch,
            last_touch=self.last_touch + other.last_touch,
            cost=add_known(self.cost, other.cost),
            revenue=add_known(self.revenue, other.revenue),
            first_touch_revenue=add_known(self.first_touch_revenue, other.first_touch_revenue),
            last_touch_revenue=add_known(self.last_touch_revenue, other.last_touch_revenue),
        )


def sum_counts(parts: Iterable[ActivityCounts]) -> ActivityCounts:
    """Return the sum of all parts. Rates are computed from such sums, never from other rates.

    The result equals adding the parts one after the other. It is computed field by field, which avoids one
    intermediate object per part: an organisation has thousands of activities.
    """
    parts = list(parts)
    return ActivityCounts(*(_column_sum(list(map(attrgetter(name), parts)), name) for name in _FIELD_NAMES))


def _column_sum(values: list[Any], name: str) -> Any:
    if name == "influenced":
        return None
    known = [value for value in values if value is not None]
    if name in _COUNT_TYPES:
        kind, numbers = _COUNT_TYPES[name]
        return kind(*map(sum, zip(*map(numbers, known), strict=True))) if known else None
    return sum(known[1:], known[0]) if known else _DEFAULTS[name]


def _values_getter(record: type[HitCounts | MailCounts | VisitCounts]) -> Callable[[object], tuple[int, ...]]:
    """Return a getter that reads all fields of a record as one tuple."""
    return attrgetter(*(field.name for field in dataclasses.fields(record)))


_hit_values, _mail_values, _visit_values = (
    _values_getter(HitCounts),
    _values_getter(MailCounts),
    _values_getter(VisitCounts),
)
_FIELD_NAMES = tuple(field.name for field in dataclasses.fields(ActivityCounts))
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ActivityCounts)}
_COUNT_TYPES: dict[str, tuple[type[Any], Callable[[object], tuple[int, ...]]]] = {
    "mails": (MailCounts, _mail_values),
    "visits": (VisitCounts, _visit_values),
    "opens": (HitCounts, _hit_values),
    "clicks": (HitCounts, _hit_values),
    "views": (HitCounts, _hit_values),
}
