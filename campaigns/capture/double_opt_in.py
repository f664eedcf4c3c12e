"""Double opt-in: consent by a form counts once the owner of the address has confirmed it.

Anybody may type anybody's address into a public form. The lead is recorded all the same; mail
to the address needs a link that only its owner can read.
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
"""Unanswered mails to one address, whatever forms they come from: nobody is bombed with them."""
_GONE = frozenset({SuppressionReason.UNSUBSCRIBED, SuppressionReason.COMPLAINED, SuppressionReason.ERASED})
_PURPOSES = (ConsentPurpose.EMAIL, ConsentPurpose.TRACKING)


def must_confirm(session: Session, form: Form, address: str) -> bool:
    """Whether a consent by ``form`` for a normalised address waits for its owner.

    Asked before the form's contact is written, which by itself ends an erasure.
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
    """Keep what was ticked (``wordings``: to be mailed, to be measured), and ask by mail for the rest."""
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
    """The address that confirms it, for a week."""
    token = keyring().mint_expiring(Purpose.CONFIRM, asked.id.to_bytes(8), asked.requested_at + LIFE)
    return f"{config.settings().base_url}/confirm/{token}"


def confirmation_of(session: Session, token: str) -> PendingConsent:
    """What ``token`` was made for. Raises BadToken, also when the address is somebody else's by now."""
    payload = keyring().open_expiring(Purpose.CONFIRM, token)
    asked = session.get(PendingConsent, int.from_bytes(payload)) if len(payload) == 8 else None
    if asked is None or address_of(session, asked) != session.get_one(Submission, asked.submission_id).answers["email"]:
        raise BadToken(N_("This link is incomplete or was changed."))
    return asked


def address_of(session: Session, asked: PendingConsent) -> str:
    """The contact's present address."""
    return session.get_one(Contact, asked.contact_id).email


def confirm(session: Session, asked: PendingConsent, network: str) -> None:
    """Write the consent into the ledger, and what proves it. Harmless when repeated, also after a later withdrawal."""
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
