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
from campaigns.capture.models import DoubleOptIn, Form, PendingConsent, Submission
from campaigns.errors import BadToken
from campaigns.i18n import N_
from campaigns.tokens import Purpose, keyring

LIFE = timedelta(days=7)
MOST = ((timedelta(days=1), 2), (timedelta(days=30), 5))
"""(period, maximum) of unconfirmed mails to one address over all forms, so that nobody can be mail-bombed."""
_GONE = frozenset({SuppressionReason.UNSUBSCRIBED, SuppressionReason.COMPLAINED, SuppressionReason.ERASED})
_PURPOSES = (ConsentPurpose.EMAIL, ConsentPurpose.TRACKING)


def must_confirm(session: Session, form: Form, address: str) -> bool:
    """Return whether a consent in ``form`` for a normalised address needs confirmation by mail.

    Call it before the form's contact is written, because writing the contact ends its erasure.
    """
    if form.double_opt_in is not DoubleOptIn.RETURNING:
        return form.double_opt_in is DoubleOptIn.EVERYBODY
    if suppression.reason_for(session, address) in _GONE:
        return True
    contact_id = session.scalar(select(Contact.id).where(Contact.email == address))
    return contact_id is not None and any(consent.withdrawn(session, contact_id, purpose) for purpose in _PURPOSES)


def ask(
    session: Session, form: Form, submission: Submission, wordings: tuple[str, str], network: str
) -> PendingConsent:
    """Store the ticked consents and mail the confirmation link.

    ``wordings`` are the ticked sentences for e-mail and for tracking, '' where not ticked; ``network`` is the truncated
    IP address. No mail is sent to addresses that complained or have reached ``MAIL_LIMITS``.
    """
    contact = session.scalars(select(Contact).where(Contact.id == submission.contact_id).with_for_update()).one()
    asked = PendingConsent(
        submission_id=submission.id,
        contact_id=contact.id,
        wording=wordings[0],
        tracking_wording=wordings[1],
        network=network[:60],
        requested_at=clock.now(),
        mail_sent=_may_be_asked(session, contact),
    )
    session.add(asked)
    session.flush()
    if asked.mail_sent:
        context = {"link": link_of(asked), "title": form.title, "days": LIFE.days}
        outbox.post(session, "confirm", contact.email, context, form.language)
    return asked


def _may_be_asked(session: Session, contact: Contact) -> bool:
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
        for within, most in MOST
    )


def link_of(asked: PendingConsent) -> str:
    """Return the confirmation URL, valid for ``LINK_LIFETIME``."""
    token = keyring().mint_expiring(Purpose.CONFIRM, asked.id.to_bytes(8), asked.requested_at + LIFE)
    return f"{config.settings().base_url}/confirm/{token}"


def confirmation_of(session: Session, token: str) -> PendingConsent:
    """Return the pending consent of a token. Raises BadToken, also when the contact's address has changed since."""
    payload = keyring().open_expiring(Purpose.CONFIRM, token)
    asked = session.get(PendingConsent, int.from_bytes(payload)) if len(payload) == 8 else None
    if asked is None or address_of(session, asked) != session.get_one(Submission, asked.submission_id).answers["email"]:
        raise BadToken(N_("This link is incomplete or was changed."))
    return asked


def address_of(session: Session, asked: PendingConsent) -> str:
    """Return the contact's current address."""
    return session.get_one(Contact, asked.contact_id).email


def confirm(session: Session, asked: PendingConsent, network: str) -> None:
    """Grant the pending consents with their evidence. Idempotent, also after a later withdrawal."""
    session.refresh(asked, with_for_update=True)
    if asked.confirmed_at is not None:
        return
    asked.confirmed_at = clock.now()
    submission = session.get_one(Submission, asked.submission_id)
    form = session.get_one(Form, submission.form_id)
    for purpose, wording in zip(_PURPOSES, (asked.wording, asked.tracking_wording), strict=True):
        if wording:
            consent.grant(
                session,
                PUBLIC,
                asked.contact_id,
                purpose,
                ConsentLevel.FULL,
                source=f"form {form.slug}, confirmed by mail",
                wording=wording,
                evidence={
                    "form": form.id,
                    "submission": submission.external_id,
                    "asked_at": asked.requested_at.isoformat(),
                    "network": asked.network,
                    "confirmed_from": network,
                },
            )
