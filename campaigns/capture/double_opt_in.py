"""Double opt-in: a consent given in a form takes effect once the owner of the address confirms it by mail.

Anybody can type somebody else's address into a public form. The contact and the lead are recorded anyway; the
consent waits for a click on a link that is mailed to the address.
"""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock, config, outbox
from campaigns.accounts.actor import PUBLIC
from campaigns.audience import consent, suppression
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact, SuppressionReason
from campaigns.capture.models import DoubleOptInMode, Form, PendingConsent, Submission
from campaigns.errors import InvalidTokenError
from campaigns.i18n import N_
from campaigns.tokens import Purpose, keyring

LINK_LIFETIME = timedelta(days=7)
MAIL_LIMITS = ((timedelta(days=1), 2), (timedelta(days=30), 5))
"""(period, maximum) of unconfirmed mails to one address over all forms, so that nobody can be mail-bombed."""
_OPTED_OUT = frozenset({SuppressionReason.UNSUBSCRIBED, SuppressionReason.COMPLAINED, SuppressionReason.ERASED})
_PURPOSES = (ConsentPurpose.EMAIL, ConsentPurpose.TRACKING)


def requires_confirmation(session: Session, form: Form, address: str) -> bool:
    """Return whether a consent in ``form`` for a normalised address needs confirmation by mail.

    Call it before the form's contact is written, because writing the contact ends its erasure.
    """
    if form.double_opt_in is not DoubleOptInMode.RETURNING:
        return form.double_opt_in is DoubleOptInMode.EVERYBODY
    if suppression.reason_for(session, address) in _OPTED_OUT:
        return True
    contact_id = session.scalar(select(Contact.id).where(Contact.email == address))
    return contact_id is not None and any(consent.is_withdrawn(session, contact_id, purpose) for purpose in _PURPOSES)


def request_confirmation(
    session: Session, form: Form, submission: Submission, wordings: tuple[str, str], network: str
) -> PendingConsent:
    """Store the ticked consents and mail the confirmation link.

    ``wordings`` are the ticked sentences for e-mail and for tracking, '' where not ticked; ``network`` is the truncated
    IP address. No mail is sent to addresses that complained or have reached ``MAIL_LIMITS``.
    """
    contact = session.scalars(select(Contact).where(Contact.id == submission.contact_id).with_for_update()).one()
    pending = PendingConsent(
        submission_id=submission.id,
        contact_id=contact.id,
        wording=wordings[0],
        tracking_wording=wordings[1],
        network=network[:60],
        requested_at=clock.now(),
        mail_sent=_may_be_mailed(session, contact),
    )
    session.add(pending)
    session.flush()
    if pending.mail_sent:
        context = {"link": confirmation_url(pending), "title": form.title, "days": LINK_LIFETIME.days}
        outbox.enqueue(session, "confirm", contact.email, context, form.language)
    return pending


def _may_be_mailed(session: Session, contact: Contact) -> bool:
    if suppression.reason_for(session, contact.email) is SuppressionReason.COMPLAINED:
        return False
    now = clock.now()
    unanswered = (
        PendingConsent.contact_id == contact.id,
        PendingConsent.mail_sent,
        PendingConsent.confirmed_at.is_(None),
    )
    return all(
        (session.scalar(select(func.count()).where(*unanswered, PendingConsent.requested_at > now - within)) or 0)
        < most
        for within, most in MAIL_LIMITS
    )


def confirmation_url(pending: PendingConsent) -> str:
    """Return the confirmation URL, valid for ``LINK_LIFETIME``."""
    token = keyring().mint_expiring(Purpose.CONFIRM, pending.id.to_bytes(8), pending.requested_at + LINK_LIFETIME)
    return f"{config.settings().base_url}/confirm/{token}"


def pending_consent_by_token(session: Session, token: str) -> PendingConsent:
    """Return the pending consent of a token.

    Raises InvalidTokenError, also when the contact's address has changed since.
    """
    payload = keyring().open_expiring(Purpose.CONFIRM, token)
    pending = session.get(PendingConsent, int.from_bytes(payload)) if len(payload) == 8 else None
    if (
        pending is None
        or current_address(session, pending) != session.get_one(Submission, pending.submission_id).answers["email"]
    ):
        raise InvalidTokenError(N_("This link is incomplete or was changed."))
    return pending


def current_address(session: Session, pending: PendingConsent) -> str:
    """Return the contact's current address."""
    return session.get_one(Contact, pending.contact_id).email


def confirm(session: Session, pending: PendingConsent, network: str) -> None:
    """Grant the pending consents with their evidence. Idempotent, also after a later withdrawal."""
    session.refresh(pending, with_for_update=True)
    if pending.confirmed_at is not None:
        return
    pending.confirmed_at = clock.now()
    submission = session.get_one(Submission, pending.submission_id)
    form = session.get_one(Form, submission.form_id)
    for purpose, wording in zip(_PURPOSES, (pending.wording, pending.tracking_wording), strict=True):
        if wording:
            consent.grant(
                session,
                PUBLIC,
                pending.contact_id,
                purpose,
                ConsentLevel.FULL,
                source=f"form {form.slug}, confirmed by mail",
                wording=wording,
                evidence={
                    "form": form.id,
                    "submission": submission.external_id,
                    "asked_at": pending.requested_at.isoformat(),
                    "network": pending.network,
                    "confirmed_from": network,
                },
            )
