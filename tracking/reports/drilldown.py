"""Rows behind a metric: lists whose number, or whose sum of amounts, equals the metric's value."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, func, literal, null, or_, select, true
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.models import Contact
from campaigns.delivery.models import Send, SendState
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity
from tracking.metrics.costs import Cost
from tracking.metrics.queries import WAITING, WHOLE_LIFE, ReportQuery, activity_ids_query, within
from tracking.metrics.registry import METRICS
from tracking.models.conversions import AttributionCredit, AttributionModel, Conversion, ConversionTouchpoint
from tracking.models.events import Event, FirstSeen, HitKind, TrafficLabel
from tracking.models.visits import Visit

_CHUNK = 2_000
COST = "cost"


@dataclass(frozen=True, slots=True)
class Drilldown:
    """A SELECT of rows ``(id, at, contact_id, address, activity_id, what, amount)`` without an order.

    ``noun`` names the kind of row (send, event, visit, lead, conversion, credit, activity). ``keys`` are the columns
    that identify a row, the last of them unique. With ``sums`` the metric is the sum of the amounts, otherwise the
    number of rows.
    """

    row_kind: str
    rows: Select[*tuple[Any, ...]]
    keys: Sequence[Any]
    is_sum: bool = False


def build_drilldown(
    session: Session, actor: Actor, campaign_id: int, key: str, query: ReportQuery = WHOLE_LIFE
) -> Drilldown:
    """Return the rows behind the metric ``key``.

    Raises NotFound for a quotient: only its numerator and denominator have rows.
    """
    actor.require(Permission.PERSONAL)
    if key in _SEND_CONDITIONS:
        return _sends(campaign_id, key, query)
    if key in _HIT_FILTERS:
        return _events(campaign_id, *_HIT_FILTERS[key], query)
    if key in _VISIT_FILTERS:
        return _visits(campaign_id, *_VISIT_FILTERS[key], query)
    if key == COST:
        return _costs(session, campaign_id, query)
    if key not in _BUILDERS:
        raise NotFound(N_("No rows stand behind this figure; look at what it is made of."))
    return _BUILDERS[key](campaign_id, query)


def has_rows(key: str) -> bool:
    """Return whether the metric is counted from rows that can be listed."""
    return key in _SEND_CONDITIONS or key in _HIT_FILTERS or key in _VISIT_FILTERS or key in _BUILDERS or key == COST


def metrics_with_rows(key: str) -> list[str]:
    """Return the keys of the metrics with rows that a metric is computed from, without duplicates."""
    metric = METRICS[key]
    if has_rows(key):
        return [key]
    if key == "return":
        return ["revenue", COST]
    keys: list[str] = []
    for part in (metric.numerator, metric.denominator, metric.fallback_denominator):
        keys += [one for one in (metrics_with_rows(part) if part else []) if one not in keys]
    return keys


def recount(session: Session, drilldown: Drilldown) -> int | float | Decimal:
    """Count the rows or sum their amounts; the result must equal the metric's value."""
    if not drilldown.is_sum:
        return session.scalar(select(func.count()).select_from(drilldown.rows.subquery())) or 0
    amounts = [row.amount for row in session.execute(drilldown.rows) if row.amount is not None]
    return sum(amounts, start=type(amounts[0])(0)) if amounts else 0


def stream_rows(actor: Actor, drilldown: Drilldown) -> Iterator[Any]:
    """Yield every row, read in chunks of 2,000 with a session for each."""
    actor.require(Permission.EXPORT)
    after: Any = None
    while True:
        # The last key is unique and never NULL in every drilldown, so it serves for keyset paging.
        key = drilldown.keys[-1]
        query = drilldown.rows.order_by(key).limit(_CHUNK)
        with db.read_only_session() as session:
            chunk = session.execute(query if after is None else query.where(key > after)).all()
        yield from chunk
        if len(chunk) < _CHUNK:
            return
        after = chunk[-1].id


_DELIVERED = Send.state == SendState.SENT
_BOUNCED = Send.state == SendState.BOUNCED
_TRACKABLE = and_(_DELIVERED, Send.trackable)
_SEND_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "audience": Send.occasion == "",
    "waiting": Send.state.in_(WAITING),
    "sent": or_(_DELIVERED, and_(_BOUNCED, Send.sent_at.is_not(None))),
    "delivered": _DELIVERED,
    "bounced": _BOUNCED,
    "refused": and_(_BOUNCED, Send.sent_at.is_(None)),
    "hard_bounces": and_(_BOUNCED, Send.reason == "hard"),
    "blocked": and_(_BOUNCED, Send.reason == "policy"),
    "soft_bounces": and_(_BOUNCED, Send.reason.not_in(("hard", "policy"))),
    "complainers": and_(_DELIVERED, Send.complained_at.is_not(None)),
    "answered": or_(_DELIVERED, _BOUNCED),
    "unknown": Send.state == SendState.UNKNOWN,
    "skipped": Send.state == SendState.SKIPPED,
    "failed": Send.state.in_((SendState.FAILED, SendState.CANCELLED)),
    "trackable": _TRACKABLE,
    "openers": and_(_TRACKABLE, or_(Send.first_opened_at.is_not(None), Send.clicked_at.is_not(None))),
    "clickers": and_(_TRACKABLE, Send.clicked_at.is_not(None)),
    "unsubscribers": and_(_DELIVERED, Send.unsubscribed_at.is_not(None)),
}
_MACHINES = (TrafficLabel.MACHINE, TrafficLabel.SCANNER)
_HIT_FILTERS = {
    f"{name}{suffix}": (kind, labels)
    for name, kind in (("opens", HitKind.OPEN), ("clicks", HitKind.CLICK), ("views", HitKind.VIEW))
    for suffix, labels in (
        ("", (TrafficLabel.HUMAN,)),
        ("_settling", (TrafficLabel.SETTLING,)),
        ("_machine", _MACHINES),
        ("_unknown", (TrafficLabel.UNKNOWN,)),
    )
    if f"{name}{suffix}" in METRICS
}
_VISIT_FILTERS: dict[str, tuple[Any, Any]] = {
    "visits": (None, None),
    "visitors": (Visit.first_in_campaign, None),
    "engaged_visits": (Visit.engaged, None),
    "unengaged_visits": (Visit.engaged.is_(False), None),
    "active_seconds": (None, Visit.active_seconds),
    "pages_seen": (None, Visit.pages),
    "new_visitors": (Visit.new, None),
}


def _sends(campaign_id: int, key: str, query: ReportQuery) -> Drilldown:
    if not query.cohort and key in ("openers", "clickers"):
        return _first_seen(campaign_id, HitKind.OPEN if key == "openers" else HitKind.CLICK, query)
    at = func.coalesce(Send.sent_at, Send.bounced_at)
    window = query.window
    has_time = [] if window.is_all_time else [at.is_not(None)]
    until = [at < window.until] if window.until is not None else []
    during = within(at, window) if query.cohort else until
    rows = select(
        Send.id.label("id"),
        at.label("at"),
        Send.contact_id.label("contact_id"),
        Send.address.label("address"),
        Send.activity_id.label("activity_id"),
        cast(Send.state, String).label("what"),
        null().label("amount"),
    ).where(
        Send.activity_id.in_(activity_ids_query([campaign_id])),
        Send.occasion == "",
        _SEND_CONDITIONS[key],
        *has_time,
        *during,
    )
    return Drilldown("send", rows, [Send.id])


def _first_seen(campaign_id: int, kind: HitKind, query: ReportQuery) -> Drilldown:
    kinds = (HitKind.OPEN, HitKind.CLICK) if kind is HitKind.OPEN else (kind,)  # A click implies an open.
    at = func.min(FirstSeen.at)
    first = (
        select(FirstSeen.send_id, FirstSeen.activity_id, at.label("at"))
        .where(FirstSeen.activity_id.in_(activity_ids_query([campaign_id])), FirstSeen.kind.in_(kinds))
        .group_by(FirstSeen.send_id, FirstSeen.activity_id)
        .having(true(), *within(at, query.window))
        .subquery()
    )
    rows = select(
        first.c.send_id.label("id"),
        first.c.at.label("at"),
        Send.contact_id.label("contact_id"),
        Send.address.label("address"),
        first.c.activity_id.label("activity_id"),
        cast(Send.state, String).label("what"),
        null().label("amount"),
    ).outerjoin(Send, Send.id == first.c.send_id)
    return Drilldown("send", rows, [first.c.send_id])


def _events(campaign_id: int, kind: HitKind, labels: Sequence[TrafficLabel], query: ReportQuery) -> Drilldown:
    rows = (
        select(
            Event.id.label("id"),
            Event.at.label("at"),
            Send.contact_id.label("contact_id"),
            Send.address.label("address"),
            Event.activity_id.label("activity_id"),
            cast(Event.label, String).label("what"),
            null().label("amount"),
        )
        .outerjoin(Send, Send.id == Event.send_id)
        .where(Event.activity_id.in_(activity_ids_query([campaign_id])), Event.kind == kind, Event.label.in_(labels))
        .where(*within(Event.at, query.window))
    )
    return Drilldown("event", rows, [Event.id])


def _visits(campaign_id: int, condition: Any, amount: Any, query: ReportQuery) -> Drilldown:
    rows = (
        select(
            Visit.id.label("id"),
            Visit.started_at.label("at"),
            Visit.contact_id.label("contact_id"),
            Contact.email.label("address"),
            Visit.activity_id.label("activity_id"),
            cast(Visit.pages, String).label("what"),
            (null() if amount is None else amount).label("amount"),
        )
        .outerjoin(Contact, Contact.id == Visit.contact_id)
        .where(Visit.activity_id.in_(activity_ids_query([campaign_id])), Visit.label == TrafficLabel.HUMAN)
        .where(*within(Visit.started_at, query.window), *([] if condition is None else [condition]))
    )
    return Drilldown("visit", rows, [Visit.id], is_sum=amount is not None)


def _leads(campaign_id: int, query: ReportQuery) -> Drilldown:
    rows = (
        select(
            Lead.id.label("id"),
            Lead.created_at.label("at"),
            Lead.contact_id.label("contact_id"),
            Contact.email.label("address"),
            Lead.activity_id.label("activity_id"),
            cast(Lead.stage, String).label("what"),
            null().label("amount"),
        )
        .outerjoin(Contact, Contact.id == Lead.contact_id)
        .where(Lead.campaign_id == campaign_id, *within(Lead.created_at, query.window))
    )
    return Drilldown("lead", rows, [Lead.id])


def _conversions(campaign_id: int, query: ReportQuery) -> Drilldown:
    return Drilldown(
        "conversion", _conversion_rows(query).where(Conversion.campaign_id == campaign_id), [Conversion.id]
    )


def _revenue(campaign_id: int, query: ReportQuery) -> Drilldown:
    rows = _conversion_rows(query).where(Conversion.campaign_id == campaign_id, Conversion.value.is_not(None))
    return Drilldown("conversion", rows, [Conversion.id], is_sum=True)


def _influenced(campaign_id: int, query: ReportQuery) -> Drilldown:
    touched = select(ConversionTouchpoint.conversion_id).where(
        ConversionTouchpoint.activity_id.in_(activity_ids_query([campaign_id])),
        ConversionTouchpoint.settling.is_(False),
    )
    return Drilldown("conversion", _conversion_rows(query).where(Conversion.id.in_(touched)), [Conversion.id])


def _conversion_rows(query: ReportQuery, amount: ColumnElement[Any] | None = None) -> Select[*tuple[Any, ...]]:
    return (
        select(
            Conversion.id.label("id"),
            Conversion.at.label("at"),
            Conversion.contact_id.label("contact_id"),
            Contact.email.label("address"),
            Conversion.activity_id.label("activity_id"),
            Conversion.goal.label("what"),
            (Conversion.value if amount is None else amount).label("amount"),
        )
        .outerjoin(Contact, Contact.id == Conversion.contact_id)
        .where(*within(Conversion.at, query.window))
    )


def _credit(model: AttributionModel, *, value: bool) -> Callable[[int, ReportQuery], Drilldown]:
    def build(campaign_id: int, query: ReportQuery) -> Drilldown:
        # One row per conversion, with the sum of the shares of this campaign's activities.
        share = func.sum(AttributionCredit.share)
        campaign_shares = (
            select(AttributionCredit.conversion_id, share.label("share"))
            .where(
                AttributionCredit.activity_id.in_(activity_ids_query([campaign_id])), AttributionCredit.model == model
            )
            .group_by(AttributionCredit.conversion_id)
            .subquery()
        )
        rows = _conversion_rows(query, None if value else campaign_shares.c.share).join(
            campaign_shares, campaign_shares.c.conversion_id == Conversion.id
        )
        if value:
            rows = rows.where(Conversion.value.is_not(None))
        return Drilldown("credit", rows, [Conversion.id], is_sum=True)

    return build


def _costs(session: Session, campaign_id: int, report_query: ReportQuery) -> Drilldown:
    """Return the activities with the part of their cost that falls into the window."""
    query = select(Activity.id, Activity.cost, Activity.starts_on, Activity.ends_on, Activity.launched_at)
    amounts = {
        id: Cost(cost, starts_on, ends_on, launched_at).amount_within(report_query.window)
        for id, cost, starts_on, ends_on, launched_at in session.execute(
            query.where(Activity.campaign_id == campaign_id)
        )
    }
    known_amounts = {id: literal(part, Activity.cost.type) for id, part in amounts.items() if part}
    amount = case(known_amounts, value=Activity.id) if known_amounts else Activity.cost
    rows = select(
        Activity.id.label("id"),
        Activity.launched_at.label("at"),
        null().label("contact_id"),
        literal("").label("address"),
        Activity.id.label("activity_id"),
        cast(Activity.status, String).label("what"),
        amount.label("amount"),
    ).where(Activity.id.in_(known_amounts))
    return Drilldown("activity", rows, [Activity.id], is_sum=True)


_BUILDERS: dict[str, Callable[[int, ReportQuery], Drilldown]] = {
    "leads": _leads,
    "conversions": _conversions,
    "revenue": _revenue,
    "influenced": _influenced,
    "leads_first_touch": _credit(AttributionModel.FIRST_TOUCH, value=False),
    "leads_last_touch": _credit(AttributionModel.LAST_TOUCH, value=False),
    "revenue_first_touch": _credit(AttributionModel.FIRST_TOUCH, value=True),
    "revenue_last_touch": _credit(AttributionModel.LAST_TOUCH, value=True),
}
