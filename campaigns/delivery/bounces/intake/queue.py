"""Queue of inbound messages: stored as rows, processed by a tick, deleted after thirty days."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns import clock, db, retries
from campaigns.delivery.bounces.effects import circuit_breaker, record
from campaigns.delivery.bounces.models import FOR_A_LOOK, RECORDED, FeedbackSource, FeedbackType, InboundMessage
from campaigns.delivery.bounces.parsing import parser
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.bounces.webhooks import notices_of
from campaigns.retries import JobType

KEPT = timedelta(days=30)
_PORTION = 100
_AGAIN = timedelta(seconds=5)
_PATIENCE = timedelta(minutes=20)
"""Time to wait for the send's own result, which may be recorded after its bounce; longer than any relay timeout."""


def keep(session: Session, way: FeedbackSource, digest: str, raw: bytes, at: datetime) -> bool:
    """Insert a message and return True. A duplicate within thirty days is only counted, and False returned."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(InboundMessage).values(
        source=way, digest=digest, raw=raw, diagnostic="", recipient="", received_at=at, due_at=at, feedback_type=None
    )
    added = session.scalar(
        row.on_conflict_do_nothing(index_elements=[InboundMessage.digest]).returning(InboundMessage.id)
    )
    if added is None:
        record.count(session, way, FeedbackType.REPEATED, at)
    return added is not None


def settle_due() -> int:
    """Process one batch of due messages in one transaction; return their number."""
    with db.transaction() as session:
        late = [int(subject) for subject in retries.put_off(session, JobType.PROCESS_BOUNCE)]
        ids = session.scalars(
            select(InboundMessage.id)
            .where(
                InboundMessage.feedback_type.is_(None),
                InboundMessage.due_at <= clock.now(),
                InboundMessage.id.not_in(late),
            )
            .order_by(InboundMessage.due_at, InboundMessage.id)
            .limit(_PORTION)
            .with_for_update(skip_locked=True)
        ).all()
        touched = (
            retries.carry(session, JobType.PROCESS_BOUNCE, ids, lambda some: _settle(session, some)) if ids else []
        )
    for activity_id in sorted(set(touched)):
        with db.transaction() as session:
            circuit_breaker.pause_if_harmful(session, activity_id)
    return len(ids)


def _settle(session: Session, ids: Sequence[int]) -> list[int]:
    """Process messages; return the ids of the activities with new bounces or complaints."""
    touched: list[int] = []
    for arrival in session.scalars(
        select(InboundMessage)
        .where(InboundMessage.id.in_(ids))
        .order_by(InboundMessage.id)
        .execution_options(populate_existing=True)
    ):
        try:
            with session.begin_nested():
                touched += _settle_one(session, arrival)
        except record.SendNotRecorded:
            arrival.due_at = clock.now() + _AGAIN
            if clock.now() - arrival.received_at > _PATIENCE:
                arrival.feedback_type = FeedbackType.UNREADABLE
        session.flush()
    return touched


def _settle_one(session: Session, arrival: InboundMessage) -> list[int]:
    touched, last = [], ParsedBounce(FeedbackType.UNREADABLE)
    finding = FeedbackType.UNREADABLE
    for notice in _notices(arrival):
        last, finding = notice, record.record(session, notice, arrival.source, arrival.received_at)
        record.count(session, arrival.source, finding, arrival.received_at)
        if finding in RECORDED and notice.send_id is not None:
            touched.append(notice.send_id >> 32)
    arrival.feedback_type, arrival.diagnostic, arrival.recipient = finding, last.said[:500], last.recipient
    if finding not in FOR_A_LOOK:
        arrival.raw, arrival.recipient, arrival.diagnostic = None, "", ""
    return touched


def _notices(arrival: InboundMessage) -> Sequence[ParsedBounce]:
    raw = arrival.raw or b""
    if arrival.source in (FeedbackSource.MTA, FeedbackSource.COMMAND, FeedbackSource.MAILBOX):
        return [parser.read(raw)]
    return notices_of(arrival.source, raw) or [ParsedBounce(FeedbackType.DELIVERED)]


def forget_old() -> None:
    """Delete processed messages older than thirty days."""
    with db.transaction() as session:
        session.execute(
            delete(InboundMessage).where(
                InboundMessage.received_at < clock.now() - KEPT, InboundMessage.feedback_type.is_not(None)
            )
        )


def throw_away(session: Session, arrival_id: int) -> None:
    """Discard the content of a message that a user has inspected."""
    session.execute(
        update(InboundMessage).where(InboundMessage.id == arrival_id).values(raw=None, diagnostic="", recipient="")
    )
