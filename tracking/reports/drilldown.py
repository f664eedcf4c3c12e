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
from tracking.metrics.queries import WAITING, WHOLE_LIFE, ReportQuery, ids_of, within
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

    noun: str
    rows: Select[*tuple[Any, ...]]
    keys: Sequence[Any]
    sums: bool = False


def evidence(session: Session, actor: Actor, campaign_id: int, key: str, asked: ReportQuery = WHOLE_LIFE) -> Drilldown:
    """Return the rows behind the metric ``key``.

    Raises NotFound for a quotient: only its numerator and denominator have rows.
    """
    actor.require(Permission.PERSONAL)
    if key in _MAILS:
        return _sends(campaign_id, key, asked)
    if key in _HITS:
        return _events(campaign_id, *_HITS[key], asked)
    if key in _VISITS:
        return _visits(campaign_id, *_VISITS[key], asked)
    if key == COST:
        return _costs(session, campaign_id, asked)
    if key not in _OTHERS:
        raise NotFound(N_("No rows stand behind this figure; look at what it is made of."))
    return _OTHERS[key](campaign_id, asked)


def has_rows(key: str) -> bool:
    """Return whether the metric is counted from rows that can be listed."""
    return key in _MAILS or key in _HITS or key in _VISITS or key in _OTHERS or key == COST


def parts(key: str) -> list[str]:
    """Return the keys of the metrics with rows that a metric is computed from, without duplicates."""
    metric = METRICS[key]
    if has_rows(key):
        return [key]
    if key == "return":
        return ["revenue", COST]
    found: list[str] = []
    for part in (metric.numerator, metric.denominator, metric.otherwise):
        found += [one for one in (parts(part) if part else []) if one not in found]
    return found


def tally(session: Session, found: Drilldown) -> int | float | Decimal:
    """Count the rows or sum their amounts; the result must equal the metric's value."""
    if not found.sums:
        return session.scalar(select(func.count()).select_from(found.rows.subquery())) or 0
    amounts = [row.amount for row in session.execute(found.rows) if row.amount is not None]
    return sum(amounts, start=type(amounts[0])(0)) if amounts else 0


def all_rows(actor: Actor, found: Drilldown) -> Iterator[Any]:
    """Yield every row, read in chunks of 2,000 with a session for each."""
    actor.require(Permission.EXPORT)
    after: Any = None
    while True:
        # The last key is unique and never NULL in every drilldown, so it serves for keyset paging.
        key = found.keys[-1]
        query = found.rows.order_by(key).limit(_CHUNK)
        with db.reading() as session:
            chunk = session.execute(query if after is None else query.where(key > after)).all()
        yield from chunk
        if len(chunk) < _CHUNK:
            return
        after = chunk[-1].id


_ARRIVED = Send.state == SendState.SENT
_BOUNCED = Send.state == SendState.BOUNCED
_TRACKED = and_(_ARRIVED, Send.trackable)
_MAILS: dict[str, ColumnElement[bool]] = {
    "audience": Send.occasion == "",
    "waiting": Send.state.in_(WAITING),
    "sent": or_(_ARRIVED, and_(_BOUNCED, Send.sent_at.is_not(None))),
    "delivered": _ARRIVED,
    "bounced": _BOUNCED,
    "refused": and_(_BOUNCED, Send.sent_at.is_(None)),
    "hard_bounces": and_(_BOUNCED, Send.reason == "hard"),
    "blocked": and_(_BOUNCED, Send.reason == "policy"),
    "soft_bounces": and_(_BOUNCED, Send.reason.not_in(("hard", "policy"))),
    "complainers": and_(_ARRIVED, Send.complained_at.is_not(None)),
    "answered": or_(_ARRIVED, _BOUNCED),
    "unknown": Send.state == SendState.UNKNOWN,
    "skipped": Send.state == SendState.SKIPPED,
    "failed": Send.state.in_((SendState.FAILED, SendState.CANCELLED)),
    "trackable": _TRACKED,
    "openers": and_(_TRACKED, or_(Send.first_opened_at.is_not(None), Send.clicked_at.is_not(None))),
    "clickers": and_(_TRACKED, Send.clicked_at.is_not(None)),
    "unsubscribers": and_(_ARRIVED, Send.unsubscribed_at.is_not(None)),
}
_MACHINES = (TrafficLabel.MACHINE, TrafficLabel.SCANNER)
_HITS = {
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
_VISITS: dict[str, tuple[Any, Any]] = {
    "visits": (None, None),
    "visitors": (Visit.first_in_campaign, None),
    "engaged_visits": (Visit.engaged, None),
    "unengaged_visits": (Visit.engaged.is_(False), None),
    "active_seconds": (None, Visit.active_seconds),
    "pages_seen": (None, Visit.pages),
    "new_visitors": (Visit.new, None),
}


def _sends(campaign_id: int, key: str, asked: ReportQuery) -> Drilldown:
    if not asked.cohort and key in ("openers", "clickers"):
        return _first_seen(campaign_id, HitKind.OPEN if key == "openers" else HitKind.CLICK, asked)
    at = func.coalesce(Send.sent_at, Send.bounced_at)
    window = asked.window
    known = [] if window.whole else [at.is_not(None)]
    until = [at < window.until] if window.until is not None else []
    during = within(at, window) if asked.cohort else until
    rows = select(
        Send.id.label("id"),
        at.label("at"),
        Send.contact_id.label("contact_id"),
        Send.address.label("address"),
        Send.activity_id.label("activity_id"),
        cast(Send.state, String).label("what"),
        null().label("amount"),
    ).where(Send.activity_id.in_(ids_of([campaign_id])), Send.occasion == "", _MAILS[key], *known, *during)
    return Drilldown("send", rows, [Send.id])


def _first_seen(campaign_id: int, kind: HitKind, asked: ReportQuery) -> Drilldown:
    counting = (HitKind.OPEN, HitKind.CLICK) if kind is HitKind.OPEN else (kind,)  # A click implies an open.
    at = func.min(FirstSeen.at)
    first = (
        select(FirstSeen.send_id, FirstSeen.activity_id, at.label("at"))
        .where(FirstSeen.activity_id.in_(ids_of([campaign_id])), FirstSeen.kind.in_(counting))
        .group_by(FirstSeen.send_id, FirstSeen.activity_id)
        .having(true(), *within(at, asked.window))
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


def _events(campaign_id: int, kind: HitKind, labels: Sequence[TrafficLabel], asked: ReportQuery) -> Drilldown:
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
        .where(Event.activity_id.in_(ids_of([campaign_id])), Event.kind == kind, Event.label.in_(labels))
        .where(*within(Event.at, asked.window))
    )
    return Drilldown("event", rows, [Event.id])


def _visits(campaign_id: int, test: Any, amount: Any, asked: ReportQuery) -> Drilldown:
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
        .where(Visit.activity_id.in_(ids_of([campaign_id])), Visit.label == TrafficLabel.HUMAN)
        .where(*within(Visit.started_at, asked.window), *([] if test is None else [test]))
    )
    return Drilldown("visit", rows, [Visit.id], sums=amount is not None)


def _leads(campaign_id: int, asked: ReportQuery) -> Drilldown:
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
        .where(Lead.campaign_id == campaign_id, *within(Lead.created_at, asked.window))
    )
    return Drilldown("lead", rows, [Lead.id])


def _conversions(campaign_id: int, asked: ReportQuery) -> Drilldown:
    return Drilldown("conversion", _converted(asked).where(Conversion.campaign_id == campaign_id), [Conversion.id])


def _revenue(campaign_id: int, asked: ReportQuery) -> Drilldown:
    rows = _converted(asked).where(Conversion.campaign_id == campaign_id, Conversion.value.is_not(None))
    return Drilldown("conversion", rows, [Conversion.id], sums=True)


def _influenced(campaign_id: int, asked: ReportQuery) -> Drilldown:
    touched = select(ConversionTouchpoint.conversion_id).where(
        ConversionTouchpoint.activity_id.in_(ids_of([campaign_id])), ConversionTouchpoint.settling.is_(False)
    )
    return Drilldown("conversion", _converted(asked).where(Conversion.id.in_(touched)), [Conversion.id])


def _converted(asked: ReportQuery, amount: ColumnElement[Any] | None = None) -> Select[*tuple[Any, ...]]:
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
        .where(*within(Conversion.at, asked.window))
    )


def _credit(model: AttributionModel, *, value: bool) -> Callable[[int, ReportQuery], Drilldown]:
    def find(campaign_id: int, asked: ReportQuery) -> Drilldown:
        # One row per conversion, with the sum of the shares of this campaign's activities.
        share = func.sum(AttributionCredit.share)
        mine = (
            select(AttributionCredit.conversion_id, share.label("share"))
            .where(AttributionCredit.activity_id.in_(ids_of([campaign_id])), AttributionCredit.model == model)
            .group_by(AttributionCredit.conversion_id)
            .subquery()
        )
        rows = _converted(asked, None if value else mine.c.share).join(mine, mine.c.conversion_id == Conversion.id)
        if value:
            rows = rows.where(Conversion.value.is_not(None))
        return Drilldown("credit", rows, [Conversion.id], sums=True)

    return find


def _costs(session: Session, campaign_id: int, asked: ReportQuery) -> Drilldown:
    """Return the activities with the part of their cost that falls into the window."""
    query = select(Activity.id, Activity.cost, Activity.starts_on, Activity.ends_on, Activity.launched_at)
    parts = {
        id: Cost(cost, starts_on, ends_on, launched_at).within(asked.window)
        for id, cost, starts_on, ends_on, launched_at in session.execute(
            query.where(Activity.campaign_id == campaign_id)
        )
    }
    known = {id: literal(part, Activity.cost.type) for id, part in parts.items() if part}
    amount = case(known, value=Activity.id) if known else Activity.cost
    rows = select(
        Activity.id.label("id"),
        Activity.launched_at.label("at"),
        null().label("contact_id"),
        literal("").label("address"),
        Activity.id.label("activity_id"),
        cast(Activity.status, String).label("what"),
        amount.label("amount"),
    ).where(Activity.id.in_(known))
    return Drilldown("activity", rows, [Activity.id], sums=True)


_OTHERS: dict[str, Callable[[int, ReportQuery], Drilldown]] = {
    "leads": _leads,
    "conversions": _conversions,
    "revenue": _revenue,
    "influenced": _influenced,
    "leads_first_touch": _credit(AttributionModel.FIRST_TOUCH, value=False),
    "leads_last_touch": _credit(AttributionModel.LAST_TOUCH, value=False),
    "revenue_first_touch": _credit(AttributionModel.FIRST_TOUCH, value=True),
    "revenue_last_touch": _credit(AttributionModel.LAST_TOUCH, value=True),
}
