"""Unsubscribing by the link of a mail (RFC 8058), and undoing it for 24 hours.

The send's token is the permission: anybody who has the mail may unsubscribe its recipient.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import PUBLIC
from campaigns.audience import consent, suppression
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact, SuppressionReason
from campaigns.content.models import MessageVersion
from campaigns.delivery.models import ERASED_ADDRESS, Send
from campaigns.errors import Conflict, InvalidTokenError
from campaigns.i18n import N_
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, open_send_token

_SOURCE = "unsubscribe link"
UNDO_WITHIN = timedelta(hours=24)
"""Time within which the link can undo an unsubscription. Limited because mails are forwarded and kept."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """The send that an unsubscribe link belongs to, and the language of its page."""

    send: Send
    language: str
    is_test: bool
    """Whether it is a mail of a built-in activity, such as a test mail: its page looks the same and changes nothing."""

    @property
    def may_undo(self) -> bool:
        """Whether the link can still undo this mail's unsubscription."""
        at = self.send.unsubscribed_at
        return at is not None and clock.now() < at + UNDO_WITHIN

    @property
    def is_erased(self) -> bool:
        """Whether the contact was erased since: there is nothing to change."""
        return self.send.address == ERASED_ADDRESS


def find_recipient(session: Session, token: str) -> Recipient:
    """The recipient of the send that ``token`` was made for.

    Raises InvalidTokenError, also when the send does not exist.
    """
    send = session.get(Send, open_send_token(Purpose.UNSUBSCRIBE, token))
    if send is None:
        raise InvalidTokenError(N_("This link is incomplete or was changed."))
    version = session.get(MessageVersion, send.version_id) if send.version_id is not None else None
    activity = session.get_one(Activity, send.activity_id)
    return Recipient(send, version.language if version else "en", activity.built_in is not None)


def unsubscribe(session: Session, recipient: Recipient) -> None:
    """Suppress the recipient's address and withdraw email consent. Idempotent.

    Suppresses the address of the mail and the contact's present one.
    """
    send = recipient.send
    if recipient.is_test or recipient.is_erased:
        return
    for address in {send.address, _current_address(session, send)}:
        suppression.suppress(session, PUBLIC, address, SuppressionReason.UNSUBSCRIBED, _detail(send))
    if send.unsubscribed_at is not None:
        return
    send.unsubscribed_at = clock.now()
    if send.contact_id is not None and _has_email_consent(session, send.contact_id):
        consent.withdraw(
            session, PUBLIC, send.contact_id, ConsentPurpose.EMAIL, source=_SOURCE, evidence=_evidence(send)
        )


def undo_unsubscribe(session: Session, recipient: Recipient) -> bool:
    """Undo the unsubscription made by this mail. Returns whether the recipient may be mailed again.

    Suppressions and consent entries from other mails, forms or users stay. Raises Conflict after UNDO_WITHIN.
    """
    send = recipient.send
    if recipient.is_test or recipient.is_erased or send.unsubscribed_at is None:
        return True
    if not recipient.may_undo:
        raise Conflict(N_("This link cannot take the unsubscription back any more: its time is over."))
    send.unsubscribed_at = None
    for address in {send.address, _current_address(session, send)}:
        suppression.lift_own_unsubscription(session, PUBLIC, address, detail=_detail(send))
    if send.contact_id is not None:
        consent.undo_withdrawal(
            session,
            PUBLIC,
            send.contact_id,
            ConsentPurpose.EMAIL,
            source=f"{_SOURCE}, taken back",
            evidence=_evidence(send),
        )
    session.flush()
    may_mail = send.contact_id is None or _has_email_consent(session, send.contact_id)
    return may_mail and not suppression.is_suppressed(session, _current_address(session, send))


def _detail(send: Send) -> str:
    return f"send {send.id}"


def _evidence(send: Send) -> dict[str, str]:
    return {"send": str(send.id)}


def _current_address(session: Session, send: Send) -> str:
    """The contact's present address; it may have changed since the mail was sent."""
    contact = session.get(Contact, send.contact_id) if send.contact_id is not None else None
    return contact.email if contact is not None else send.address


def _has_email_consent(session: Session, contact_id: int) -> bool:
    levels = consent.levels_as_of(session, [contact_id], ConsentPurpose.EMAIL, clock.now())
    return levels[contact_id] is not ConsentLevel.NONE
