"""Recording of parsed bounces and complaints: the send's state, suppressions, consent and counts."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import consent
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact, SuppressionReason
from campaigns.audience.suppression import suppress
from campaigns.delivery.bounces.effects import soft_bounces
from campaigns.delivery.bounces.models import RECORDED_TYPES, Feedback, FeedbackCount, FeedbackSource, FeedbackType
from campaigns.delivery.bounces.parsing.classification import NONEXISTENT_CODES
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.models import ERASED_ADDRESS, Send, SendState
from campaigns.errors import TemporaryError, ValidationFailed
from campaigns.i18n import N_

_MAYBE_DELIVERED = (SendState.SENT, SendState.UNKNOWN, SendState.DEFERRED)
"""States of a send whose mail may have reached the recipient's server."""
_SEVERITY = {"": 0, FeedbackType.SOFT.value: 1, FeedbackType.POLICY.value: 2, FeedbackType.HARD.value: 3}


class ResultPendingError(TemporaryError):
    """The send is still ``sending``; its own result must be recorded first."""


def record(session: Session, notice: ParsedBounce, source: FeedbackSource, at: datetime) -> FeedbackType:
    """Record ``notice`` once and return its final type.

    Returns REPEATED when it was recorded before and FOREIGN when its send does not exist.
    Raises ResultPendingError while the send is still being sent.
    """
    if notice.feedback_type not in RECORDED_TYPES or notice.send_id is None:
        return notice.feedback_type
    send = session.get(Send, notice.send_id, with_for_update=True, populate_existing=True)
    if send is None:
        return FeedbackType.FOREIGN
    if send.state is SendState.SENDING:
        raise ResultPendingError(N_("The mail is being sent at this moment."))
    feedback_type = _type_for_address(notice, send.address)
    feedback = Feedback(
        send_id=send.id,
        activity_id=send.activity_id,
        address=send.address,
        feedback_type=feedback_type,
        status=notice.status,
        diagnostic="" if send.address == ERASED_ADDRESS else notice.diagnostic[:500],
        source=source,
        key=notice.key[:120],
        at=at,
        led_to_suppression=False,
    )
    if not insert_new(session, [feedback]):
        return FeedbackType.REPEATED
    if feedback_type is FeedbackType.COMPLAINT:
        _apply_complaint(session, send, at)
    else:
        _apply_bounce(session, send, feedback)
    return feedback_type


def _type_for_address(notice: ParsedBounce, address: str) -> FeedbackType:
    """Downgrade a hard bounce to soft when it names another address: a forwarding target, not the one we mailed."""
    bounced_address = notice.bounced_address
    if (
        notice.feedback_type is FeedbackType.HARD
        and "@" in bounced_address
        and address != ERASED_ADDRESS
        and bounced_address != address.lower()
    ):
        return FeedbackType.SOFT
    return notice.feedback_type


def insert_new(session: Session, feedback: Iterable[Feedback]) -> int:
    """Insert the feedback rows that do not exist yet and return how many were inserted."""
    columns = [column.name for column in Feedback.__table__.columns if column.name != "id"]
    rows = [{name: getattr(each, name) for name in columns} for each in feedback]
    if not rows:
        return 0
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    added = insert(Feedback).on_conflict_do_nothing(index_elements=[Feedback.send_id, Feedback.key])
    return len(session.scalars(added.returning(Feedback.id), rows).all())


def _apply_bounce(session: Session, send: Send, feedback: Feedback) -> None:
    if send.state in _MAYBE_DELIVERED:
        send.state, send.due_at = SendState.BOUNCED, None
        send.sent_at = send.sent_at or feedback.at  # A bounce proves that the relay accepted the mail.
        send.bounced_at = feedback.at
        send.reply = feedback.diagnostic or send.reply
    if send.state is SendState.BOUNCED and _SEVERITY[feedback.feedback_type.value] > _SEVERITY.get(send.reason, 0):
        send.reason = feedback.feedback_type.value
    if send.address == ERASED_ADDRESS:
        return
    if feedback.feedback_type is FeedbackType.HARD and (
        not feedback.status or feedback.status in NONEXISTENT_CODES or feedback.status.endswith(".0")
    ):
        _suppress(session, send.address, SuppressionReason.BOUNCED, feedback.diagnostic)
    elif feedback.feedback_type is FeedbackType.SOFT:
        suppress_if_repeated(session, send.address, feedback.at)


def suppress_if_repeated(session: Session, address: str, at: datetime) -> None:
    """Suppress the address if its soft bounces have reached the threshold."""
    soft_count = soft_bounces.count_soft_bounces(session, address, at)
    if soft_count.reaches_threshold:
        _suppress(session, address, SuppressionReason.BOUNCED, f"{soft_count.mails} soft bounces")
        soft_bounces.mark_spent(session, address, at)


def _apply_complaint(session: Session, send: Send, at: datetime) -> None:
    send.complained_at = send.complained_at or at
    audit.record(session, SYSTEM, "complain", "send", send.id)
    contact = session.get(Contact, send.contact_id) if send.contact_id is not None else None
    for address in {send.address, contact.email if contact is not None else send.address} - {ERASED_ADDRESS}:
        _suppress(session, address, SuppressionReason.COMPLAINED, f"send {send.id}")
    if contact is None:
        return
    levels = consent.levels_as_of(session, [contact.id], ConsentPurpose.EMAIL, clock.now())
    if levels[contact.id] is not ConsentLevel.NONE:
        consent.withdraw(
            session, SYSTEM, contact.id, ConsentPurpose.EMAIL, source="complaint", evidence={"send": str(send.id)}
        )


def _suppress(session: Session, address: str, reason: SuppressionReason, detail: str) -> None:
    try:
        suppress(session, SYSTEM, address, reason, detail)
    except ValidationFailed:  # An address that today's validation rejects is never mailed, so it needs no suppression.
        pass


def add_count(
    session: Session, source: FeedbackSource, feedback_type: FeedbackType, at: datetime, number: int = 1
) -> None:
    """Add ``number`` to the count of messages of this source and type."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(FeedbackCount).values(source=source, feedback_type=feedback_type, count=number, last_at=at)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[FeedbackCount.source, FeedbackCount.feedback_type],
            set_={"count": FeedbackCount.count + row.excluded.count, "last_at": row.excluded.last_at},
        )
    )


def record_smtp_refusals(session: Session, refusals: Iterable[Feedback]) -> None:
    """Record the relay's refusals of a batch; soft ones count towards a suppression."""
    feedback = list(refusals)
    insert_new(session, feedback)
    for each in feedback:
        if each.feedback_type is FeedbackType.SOFT:
            suppress_if_repeated(session, each.address, each.at)


def count_complaints(session: Session, activity_id: int) -> int:
    """Return the number of recipients who complained about the activity."""
    query = select(Feedback.send_id).where(
        Feedback.activity_id == activity_id, Feedback.feedback_type == FeedbackType.COMPLAINT
    )
    return len(set(session.scalars(query)))
