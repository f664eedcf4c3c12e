"""Erasure step of delivery: anonymises a person's sends. The rows stay, so that all counts stay."""

from sqlalchemy import ColumnElement, String, and_, case, cast, literal, or_, select, update
from sqlalchemy.orm import Session

from campaigns.accounts.actor import SYSTEM
from campaigns.audience import suppression
from campaigns.audience.contacts import by_address
from campaigns.audience.models import Suppression, SuppressionReason
from campaigns.delivery.models import ERASED, Send, SendState, SkipReason
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity

_NOT_SENT_YET = (SendState.QUEUED, SendState.DEFERRED, SendState.HELD)
_FETCH = {"synchronize_session": "fetch"}


def forget_recipient(session: Session, contact_id: int, address: str) -> None:
    """Remove the address from the person's sends and reduce suppressions of earlier addresses to their hash.

    Unsent sends are skipped. This covers the contact's sends, also to earlier addresses, test mails and API mails to
    ``address``. System mail to a user with the same address is kept.
    """
    theirs = or_(Send.contact_id == contact_id, _test_mails_to(address), _asked_for(address))
    fields = select(Send.outbox_id).where(theirs, Send.version_id.is_not(None), Send.outbox_id.is_not(None))
    session.execute(update(OutboxMail).where(OutboxMail.id.in_(fields)).values(address=ERASED, context={}))
    earlier = set(session.scalars(select(Send.address).where(theirs).distinct())) - {address, ERASED}
    not_sent_yet = update(Send).where(theirs, Send.state.in_(_NOT_SENT_YET))
    session.execute(
        not_sent_yet.values(state=SendState.SKIPPED, reason=SkipReason.SUPPRESSED, due_at=None),
        execution_options=_FETCH,
    )
    # The send id keeps the keys unique. The reply is emptied because relays quote the address in it.
    key = case(
        (Send.recipient_key.startswith("a:"), literal(f"a:{ERASED} ") + cast(Send.id, String)), else_=Send.recipient_key
    )
    session.execute(
        update(Send).where(theirs).values(address=ERASED, recipient_key=key, reply=""), execution_options=_FETCH
    )
    for each in earlier:
        _forget_suppressed(session, each)


def _test_mails_to(address: str) -> ColumnElement[bool]:
    """Test mails to ``address``, by the indexed key: only built-in activities have recipients without a contact."""
    built_in = select(Activity.id).where(Activity.built_in.is_not(None))
    return and_(Send.activity_id.in_(built_in), Send.recipient_key == f"a:{address}", Send.outbox_id.is_(None))


def _asked_for(address: str) -> ColumnElement[bool]:
    """Mails to ``address`` that were sent through the API."""
    return and_(Send.activity_id.in_(select(Activity.id).where(Activity.built_in == "api")), Send.address == address)


def _forget_suppressed(session: Session, address: str) -> None:
    """Replace the suppression of an earlier address by its hash, unless another contact has the address now."""
    known = session.scalar(select(Suppression.id).where(Suppression.address == address))
    if known is not None and by_address(session, address) is None:
        suppression.suppress(session, SYSTEM, address, SuppressionReason.ERASED)
