"""Erasure step of delivery: anonymises a person's sends. The rows stay, so that all counts stay."""

from sqlalchemy import ColumnElement, String, and_, case, cast, literal, or_, select, update
from sqlalchemy.orm import Session

from campaigns.accounts.actor import SYSTEM
from campaigns.audience import suppression
from campaigns.audience.contacts import contact_by_address
from campaigns.audience.models import Suppression, SuppressionReason
from campaigns.delivery.models import ERASED_ADDRESS, Send, SendState, SkipReason
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity

_UNSENT = (SendState.QUEUED, SendState.DEFERRED, SendState.HELD)
_FETCH = {"synchronize_session": "fetch"}


def anonymise_sends(session: Session, contact_id: int, address: str) -> None:
    """Remove the address from the person's sends and reduce suppressions of earlier addresses to their hash.

    Unsent sends are skipped. This covers the contact's sends, also to earlier addresses, test mails and API mails to
    ``address``. System mail to a user with the same address is kept.
    """
    of_person = or_(Send.contact_id == contact_id, _test_mails_to(address), _api_mails_to(address))
    outbox_ids = select(Send.outbox_id).where(of_person, Send.version_id.is_not(None), Send.outbox_id.is_not(None))
    session.execute(update(OutboxMail).where(OutboxMail.id.in_(outbox_ids)).values(address=ERASED_ADDRESS, context={}))
    earlier_addresses = set(session.scalars(select(Send.address).where(of_person).distinct())) - {
        address,
        ERASED_ADDRESS,
    }
    skip_unsent = update(Send).where(of_person, Send.state.in_(_UNSENT))
    session.execute(
        skip_unsent.values(state=SendState.SKIPPED, reason=SkipReason.SUPPRESSED, due_at=None),
        execution_options=_FETCH,
    )
    # The send id keeps the keys unique. The reply is emptied because relays quote the address in it.
    key = case(
        (Send.recipient_key.startswith("a:"), literal(f"a:{ERASED_ADDRESS} ") + cast(Send.id, String)),
        else_=Send.recipient_key,
    )
    session.execute(
        update(Send).where(of_person).values(address=ERASED_ADDRESS, recipient_key=key, reply=""),
        execution_options=_FETCH,
    )
    for earlier_address in earlier_addresses:
        _hash_suppression(session, earlier_address)


def _test_mails_to(address: str) -> ColumnElement[bool]:
    """Test mails to ``address``, by the indexed key: only built-in activities have recipients without a contact."""
    built_in = select(Activity.id).where(Activity.built_in.is_not(None))
    return and_(Send.activity_id.in_(built_in), Send.recipient_key == f"a:{address}", Send.outbox_id.is_(None))


def _api_mails_to(address: str) -> ColumnElement[bool]:
    """Mails to ``address`` that were sent through the API."""
    return and_(Send.activity_id.in_(select(Activity.id).where(Activity.built_in == "api")), Send.address == address)


def _hash_suppression(session: Session, address: str) -> None:
    """Replace the suppression of an earlier address by its hash, unless another contact has the address now."""
    suppression_id = session.scalar(select(Suppression.id).where(Suppression.address == address))
    if suppression_id is not None and contact_by_address(session, address) is None:
        suppression.suppress(session, SYSTEM, address, SuppressionReason.ERASED)
