"""Event log of a campaign: filtered lists, streaming export, and the details of one event or one send.

Everything here shows what single people did, so it requires permission to see personal data.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, literal, select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.actor import Actor, Permission
from campaigns.content.models import Link, MessageVersion
from campaigns.db import UtcDateTime
from campaigns.delivery.models import Send
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.planning.models import Activity, Campaign
from tracking.bots import rules
from tracking.bots.gateways import gateway_of
from tracking.bots.rules import LabelReason
from tracking.endpoints import ip_networks
from tracking.models.events import NEWEST_FIRST, Event, HitKind, MinuteBucket, TrafficLabel, UserAgent

_MAX_EVENTS_PER_SEND = 500
_CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Filter criteria for the events of a campaign; None leaves a criterion out."""

    activity_id: int | None = None
    label: TrafficLabel | None = None
    reason: LabelReason | None = None
    kind: HitKind | None = None
    link: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield the SQL conditions, except the one for ``activity_id``.

        Instants are compared twice: exactly, and by minute bucket, which is what PostgreSQL's index of events holds.
        """
        for column, value in ((Event.label, self.label), (Event.kind, self.kind), (Event.link, self.link)):
            if value is not None:
                yield column == int(value)
        if self.reason is not None:
            yield Event.reasons.bitwise_and(int(self.reason)) != 0
        if self.since is not None:
            yield from (
                MinuteBucket(Event.at) >= MinuteBucket(literal(self.since, UtcDateTime)),
                Event.at >= self.since,
            )
        if self.until is not None:
            yield from (MinuteBucket(Event.at) <= MinuteBucket(literal(self.until, UtcDateTime)), Event.at < self.until)


def activity_titles(session: Session, campaign_id: int) -> Mapping[int, str]:
    """Return the titles of the campaign's activities by id, ordered by id."""
    query = select(Activity.id, Activity.title).where(Activity.campaign_id == campaign_id).order_by(Activity.id)
    return {row.id: row.title for row in session.execute(query)}


def events_query(actor: Actor, activity_ids: Sequence[int], criteria: EventFilter) -> Select[*tuple[Any, ...]]:
    """Select events as ``(Event, address, contact_id, link_label, program)``, without an order.

    ``address`` and ``contact_id`` are None for an event that belongs to no send. ``program`` is the user agent.
    """
    actor.require(Permission.PERSONAL)
    chosen_ids = [one for one in activity_ids if criteria.activity_id in (None, one)]
    return (
        select(Event, Send.address, Send.contact_id, Link.label.label("link_label"), UserAgent.text.label("program"))
        .outerjoin(Send, Send.id == Event.send_id)
        .outerjoin(Link, and_(Link.version_id == Send.version_id, Link.number == Event.link))
        .outerjoin(UserAgent, UserAgent.id == Event.user_agent_id)
        .where(Event.activity_id.in_(chosen_ids), *criteria.conditions())
    )


def stream_events(actor: Actor, activity_ids: Sequence[int], criteria: EventFilter) -> Iterator[Any]:
    """Yield all matching events as :func:`events_query` selects them, newest first.

    Rows are read in chunks of 2,000, each in its own session, so that a slow download holds no transaction open and
    the rows can be streamed after the request's session is closed.
    """
    actor.require(Permission.EXPORT)
    return _chunks(events_query(actor, activity_ids, criteria).order_by(*NEWEST_FIRST).limit(_CHUNK))


def _chunks(query: Select[*tuple[Any, ...]]) -> Iterator[Any]:
    after_last: list[ColumnElement[bool]] = []
    while True:
        with db.read_only_session() as session:
            rows = session.execute(query.where(*after_last)).all()
        yield from rows
        if len(rows) < _CHUNK:
            return
        last = rows[-1][0]
        after_last = [
            MinuteBucket(Event.at) <= MinuteBucket(literal(last.at, UtcDateTime)),  # Implied, but usable by the index.
            (Event.at < last.at) | ((Event.at == last.at) & (Event.id < last.id)),
        ]


@dataclass(frozen=True, slots=True)
class EventDetail:
    """One event with its link, its user agent and the reasons for its label."""

    event: Event
    link: str
    program: str
    delay: timedelta | None
    """Time since the relay accepted the mail; None when the event belongs to no accepted send."""

    @property
    def kind(self) -> HitKind:
        return HitKind(self.event.kind)

    @property
    def label(self) -> TrafficLabel:
        return TrafficLabel(self.event.label)

    @property
    def reasons(self) -> list[rules.ReasonDetail]:
        return rules.reason_details(self.event.reasons)

    @property
    def score(self) -> int | None:
        """The sum of the reasons' weights; None while the label is settling or when a single reason decided it."""
        is_sum = self.label is not TrafficLabel.SETTLING and not any(reason.is_decisive for reason in self.reasons)
        return rules.score(self.event.reasons) if is_sum else None

    @property
    def network(self) -> str:
        return ip_networks.format_network(self.event.network)

    @property
    def gateway(self) -> str:
        """The provider whose mail gateways are in the event's network; empty when none is known."""
        return gateway_of(self.event.network)

    @property
    def final_at(self) -> datetime:
        """The latest instant at which the label becomes final. A form sent after the hit may finalise it earlier."""
        known_at_once = rules.is_non_human(self.event.reasons)
        return self.event.at if known_at_once else self.event.at + clock.scaled(rules.SETTLE_SECONDS)


@dataclass(frozen=True, slots=True)
class SendDetail:
    """One send with its events, oldest first, at most 500."""

    send: Send
    activity: Activity
    campaign: Campaign
    subject: str
    events: Sequence[EventDetail]


def send_detail(session: Session, actor: Actor, send_id: int) -> SendDetail:
    """Return a send with its events, in two queries. Raises NotFound when there is no such send."""
    actor.require(Permission.PERSONAL)
    row = session.execute(
        select(Send, Activity, Campaign, MessageVersion.subject)
        .join(Activity, Activity.id == Send.activity_id)
        .join(Campaign, Campaign.id == Activity.campaign_id)
        .outerjoin(MessageVersion, MessageVersion.id == Send.version_id)
        .where(Send.id == send_id)
    ).one_or_none()
    if row is None:
        raise NotFound(N_("There is no such send."))
    query = _detail_query().where(Event.send_id == send_id).order_by(Event.at, Event.id).limit(_MAX_EVENTS_PER_SEND)
    return SendDetail(row[0], row[1], row[2], row[3] or "", [_build_detail(*one) for one in session.execute(query)])


def event_detail(session: Session, actor: Actor, event_id: int) -> tuple[EventDetail, Activity, Send | None]:
    """Return one event with its activity and its send, if any. Raises NotFound when there is no such event."""
    actor.require(Permission.PERSONAL)
    row = session.execute(_detail_query().where(Event.id == event_id)).one_or_none()
    if row is None:
        raise NotFound(N_("There is no such event."))
    return _build_detail(*row), session.get_one(Activity, row[0].activity_id), row[1]


def _detail_query() -> Select[*tuple[Any, ...]]:
    return (
        select(Event, Send, Link.label, UserAgent.text)
        .outerjoin(Send, Send.id == Event.send_id)
        .outerjoin(Link, and_(Link.version_id == Send.version_id, Link.number == Event.link))
        .outerjoin(UserAgent, UserAgent.id == Event.user_agent_id)
    )


def _build_detail(event: Event, send: Send | None, link: str | None, program: str | None) -> EventDetail:
    delay = event.at - send.sent_at if send is not None and send.sent_at is not None else None
    return EventDetail(event, link or "", program or "", delay)
