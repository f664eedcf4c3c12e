"""Queue of inbound messages: stored as rows, processed by a tick, deleted after thirty days."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns import clock, db, retries
from campaigns.delivery.bounces.effects import circuit_breaker, record
from campaigns.delivery.bounces.models import (
    INSPECTABLE_TYPES,
    RECORDED_TYPES,
    FeedbackSource,
    FeedbackType,
    InboundMessage,
)
from campaigns.delivery.bounces.parsing import parser
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.bounces.webhooks import read_notices
from campaigns.retries import JobType

RETENTION = timedelta(days=30)
_BATCH_SIZE = 100
_RETRY_DELAY = timedelta(seconds=5)
_MAX_WAIT = timedelta(minutes=20)
"""Time to wait for the send's own result, which may be recorded after its bounce; longer than any relay timeout."""


def enqueue(session: Session, source: FeedbackSource, digest: str, raw: bytes, at: datetime) -> bool:
    """Insert a message and return True. A duplicate within thirty days is only counted, and False returned."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(InboundMessage).values(
        source=source,
        digest=digest,
        raw=raw,
        diagnostic="",
        recipient="",
        received_at=at,
        due_at=at,
        feedback_type=None,
    )
    added = session.scalar(
        row.on_conflict_do_nothing(index_elements=[InboundMessage.digest]).returning(InboundMessage.id)
    )
    if added is None:
        record.add_count(session, source, FeedbackType.REPEATED, at)
    return added is not None


def process_due() -> int:
    """Process one batch of due messages in one transaction; return their number."""
    with db.transaction() as session:
        backed_off_ids = [int(subject) for subject in retries.backed_off_subjects(session, JobType.PROCESS_BOUNCE)]
        ids = session.scalars(
            select(InboundMessage.id)
            .where(
                InboundMessage.feedback_type.is_(None),
                InboundMessage.due_at <= clock.now(),
                InboundMessage.id.not_in(backed_off_ids),
            )
            .order_by(InboundMessage.due_at, InboundMessage.id)
            .limit(_BATCH_SIZE)
            .with_for_update(skip_locked=True)
        ).all()
        activity_ids = (
            retries.run_batch(session, JobType.PROCESS_BOUNCE, ids, lambda some: _process(session, some)) if ids else []
        )
    for activity_id in sorted(set(activity_ids)):
        with db.transaction() as session:
            circuit_breaker.pause_if_harmful(session, activity_id)
    return len(ids)


def _process(session: Session, ids: Sequence[int]) -> list[int]:
    """Process messages; return the ids of the activities with new bounces or complaints."""
    activity_ids: list[int] = []
    for message in session.scalars(
        select(InboundMessage)
        .where(InboundMessage.id.in_(ids))
        .order_by(InboundMessage.id)
        .execution_options(populate_existing=True)
    ):
        try:
            with session.begin_nested():
                activity_ids += _process_one(session, message)
        except record.ResultPendingError:
            message.due_at = clock.now() + _RETRY_DELAY
            if clock.now() - message.received_at > _MAX_WAIT:
                message.feedback_type = FeedbackType.UNREADABLE
        session.flush()
    return activity_ids


def _process_one(session: Session, message: InboundMessage) -> list[int]:
    activity_ids, last = [], ParsedBounce(FeedbackType.UNREADABLE)
    feedback_type = FeedbackType.UNREADABLE
    for notice in _notices(message):
        last, feedback_type = notice, record.record(session, notice, message.source, message.received_at)
        record.add_count(session, message.source, feedback_type, message.received_at)
        if feedback_type in RECORDED_TYPES and notice.send_id is not None:
            activity_ids.append(notice.send_id >> 32)
    message.feedback_type, message.diagnostic, message.recipient = feedback_type, last.diagnostic[:500], last.recipient
    if feedback_type not in INSPECTABLE_TYPES:
        message.raw, message.recipient, message.diagnostic = None, "", ""
    return activity_ids


def _notices(message: InboundMessage) -> Sequence[ParsedBounce]:
    raw = message.raw or b""
    if message.source in (FeedbackSource.MTA, FeedbackSource.COMMAND, FeedbackSource.MAILBOX):
        return [parser.parse(raw)]
    return read_notices(message.source, raw) or [ParsedBounce(FeedbackType.DELIVERED)]


def delete_old() -> None:
    """Delete processed messages older than thirty days."""
    with db.transaction() as session:
        session.execute(
            delete(InboundMessage).where(
                InboundMessage.received_at < clock.now() - RETENTION, InboundMessage.feedback_type.is_not(None)
            )
        )


def discard_content(session: Session, message_id: int) -> None:
    """Discard the content of a message that a user has inspected."""
    session.execute(
        update(InboundMessage).where(InboundMessage.id == message_id).values(raw=None, diagnostic="", recipient="")
    )
