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
from campaigns.delivery.bounces.models import RECORDED, Feedback, FeedbackCount, FeedbackSource, FeedbackType
from campaigns.delivery.bounces.parsing.classification import DEAD
from campaigns.delivery.bounces.parsing.parser import ParsedBounce
from campaigns.delivery.models import ERASED, Send, SendState
from campaigns.errors import TemporaryError, ValidationFailed
from campaigns.i18n import N_

_WENT_OUT = (SendState.SENT, SendState.UNKNOWN, SendState.DEFERRED)
"""States of a send whose mail may have reached the recipient's server."""
_GRAVITY = {"": 0, FeedbackType.SOFT.value: 1, FeedbackType.POLICY.value: 2, FeedbackType.HARD.value: 3}


class SendNotRecorded(TemporaryError):
    """The send is still ``sending``; its own result must be recorded first."""


def record(session: Session, notice: ParsedBounce, way: FeedbackSource, at: datetime) -> FeedbackType:
    """Record ``notice`` once and return its final type.

    Returns REPEATED when it was recorded before and FOREIGN when its send does not exist.
    Raises SendNotRecorded while the send is still being sent.
    """
    if notice.finding not in RECORDED or notice.send_id is None:
        return notice.finding
    send = session.get(Send, notice.send_id, with_for_update=True, populate_existing=True)
    if send is None:
        return FeedbackType.FOREIGN
    if send.state is SendState.SENDING:
        raise SendNotRecorded(N_("The mail is being sent at this moment."))
    finding = _about_this_address(notice, send.address)
    known = Feedback(
        send_id=send.id,
        activity_id=send.activity_id,
        address=send.address,
        feedback_type=finding,
        status=notice.status,
        diagnostic="" if send.address == ERASED else notice.said[:500],
        source=way,
        key=notice.key[:120],
        at=at,
        led_to_suppression=False,
    )
    if not keep(session, [known]):
        return FeedbackType.REPEATED
    if finding is FeedbackType.COMPLAINT:
        _complained(session, send, at)
    else:
        _bounced(session, send, known)
    return finding


def _about_this_address(notice: ParsedBounce, address: str) -> FeedbackType:
    """Downgrade a hard bounce to soft when it names another address: a forwarding target, not the one we mailed."""
    named = notice.forwarded_if_not
    if notice.finding is FeedbackType.HARD and "@" in named and address != ERASED and named != address.lower():
        return FeedbackType.SOFT
    return notice.finding


def keep(session: Session, found: Iterable[Feedback]) -> int:
    """Insert the feedback rows that do not exist yet and return how many were inserted."""
    columns = [column.name for column in Feedback.__table__.columns if column.name != "id"]
    rows = [{name: getattr(each, name) for name in columns} for each in found]
    if not rows:
        return 0
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    added = insert(Feedback).on_conflict_do_nothing(index_elements=[Feedback.send_id, Feedback.key])
    return len(session.scalars(added.returning(Feedback.id), rows).all())


def _bounced(session: Session, send: Send, known: Feedback) -> None:
    if send.state in _WENT_OUT:
        send.state, send.due_at = SendState.BOUNCED, None
        send.sent_at = send.sent_at or known.at  # A bounce proves that the relay accepted the mail.
        send.bounced_at = known.at
        send.reply = known.diagnostic or send.reply
    if send.state is SendState.BOUNCED and _GRAVITY[known.feedback_type.value] > _GRAVITY.get(send.reason, 0):
        send.reason = known.feedback_type.value
    if send.address == ERASED:
        return
    if known.feedback_type is FeedbackType.HARD and (
        not known.status or known.status in DEAD or known.status.endswith(".0")
    ):
        _suppress(session, send.address, SuppressionReason.BOUNCED, known.diagnostic)
    elif known.feedback_type is FeedbackType.SOFT:
        weigh(session, send.address, known.at)


def weigh(session: Session, address: str, at: datetime) -> None:
    """Suppress the address if its soft bounces have reached the threshold."""
    found = soft_bounces.row(session, address, at)
    if found.suffices:
        _suppress(session, address, SuppressionReason.BOUNCED, f"{found.mails} soft bounces")
        soft_bounces.spend(session, address, at)


def _complained(session: Session, send: Send, at: datetime) -> None:
    send.complained_at = send.complained_at or at
    audit.record(session, SYSTEM, "complain", "send", send.id)
    contact = session.get(Contact, send.contact_id) if send.contact_id is not None else None
    for address in {send.address, contact.email if contact is not None else send.address} - {ERASED}:
        _suppress(session, address, SuppressionReason.COMPLAINED, f"send {send.id}")
    if contact is None:
        return
    levels = consent.as_of(session, [contact.id], ConsentPurpose.EMAIL, clock.now())
    if levels[contact.id] is not ConsentLevel.NONE:
        consent.withdraw(
            session, SYSTEM, contact.id, ConsentPurpose.EMAIL, source="complaint", evidence={"send": str(send.id)}
        )


def _suppress(session: Session, address: str, reason: SuppressionReason, detail: str) -> None:
    try:
        suppress(session, SYSTEM, address, reason, detail)
    except ValidationFailed:  # An address that today's validation rejects is never mailed, so it needs no suppression.
        pass


def count(session: Session, way: FeedbackSource, finding: FeedbackType, at: datetime, number: int = 1) -> None:
    """Add ``number`` to the count of messages of this source and type."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(FeedbackCount).values(source=way, feedback_type=finding, count=number, last_at=at)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[FeedbackCount.source, FeedbackCount.feedback_type],
            set_={"count": FeedbackCount.count + row.excluded.count, "last_at": row.excluded.last_at},
        )
    )


def refused_at_once(session: Session, refusals: Iterable[Feedback]) -> None:
    """Record the relay's refusals of a batch; soft ones count towards a suppression."""
    found = list(refusals)
    keep(session, found)
    for each in found:
        if each.feedback_type is FeedbackType.SOFT:
            weigh(session, each.address, each.at)


def complaints_of(session: Session, activity_id: int) -> int:
    """Return the number of recipients who complained about the activity."""
    asked = select(Feedback.send_id).where(
        Feedback.activity_id == activity_id, Feedback.feedback_type == FeedbackType.COMPLAINT
    )
    return len(set(session.scalars(asked)))
