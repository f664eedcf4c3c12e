"""Form submissions: contact, consent, lead and Submission are written in one transaction.

A tracking job finds new Submissions and turns them into conversions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock, config, outbox
from campaigns.accounts.actor import PUBLIC
from campaigns.accounts.models import User
from campaigns.audience import addresses, consent, contacts
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact, ListMember
from campaigns.capture import double_opt_in
from campaigns.capture.form_editing import questions_of
from campaigns.capture.models import Form, Submission
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.leads.leads import open_lead
from campaigns.leads.models import Lead

MAX_ANSWER_LENGTHS = {"first_name": contacts.MAX_NAME_LENGTH, "last_name": contacts.MAX_NAME_LENGTH}


@dataclass(frozen=True, slots=True)
class LeadSource:
    """Data of the form's activity that a new lead and its notification use."""

    channel: str
    owner_id: int | None = None
    campaign: str = ""
    activity: str = ""


@dataclass(frozen=True, slots=True)
class SubmissionInput:
    """A visitor's input. ``answers`` is keyed by question name: ``first_name``, ``attributes.company``."""

    form_id: int
    external_id: str
    """8 to 64 characters, unique per submission: a repeated id means a repeated POST."""
    email: str
    origin: LeadSource
    answers: Mapping[str, str] = field(default_factory=dict)
    consents: bool = False
    """Whether the e-mail consent checkbox was ticked."""
    may_measure: bool = False
    """Whether the separate tracking consent checkbox was ticked."""
    send_id: int | None = None
    """The send whose link brought the visitor, from the visit token."""
    network: str = ""
    """Truncated IP address, stored as evidence with a consent."""


def accept_submission(session: Session, submitted: SubmissionInput) -> Submission:
    """Record a submission once: repeated or concurrent calls return the first call's Submission.

    Raises NotFound, Conflict for a closed form, and ValidationFailed with field names; then nothing is changed.
    """
    form = session.get(Form, submitted.form_id)
    if form is None:
        raise NotFound(N_("There is no such page."))
    existing = _find_submission(session, submitted.external_id)
    if existing is not None and existing.form_id == form.id:
        return existing
    if not form.open:
        raise Conflict(N_("This form is closed."))
    email, answers = validate_submission(form, submitted)
    try:
        with session.begin_nested():
            return _record_submission(session, form, submitted, email, answers)
    except IntegrityError:
        existing = _find_submission(session, submitted.external_id)
        if existing is None or existing.form_id != form.id:
            raise
        return existing  # a concurrent session inserted the same submission; the savepoint undid ours


def _find_submission(session: Session, external_id: str) -> Submission | None:
    return session.scalars(select(Submission).where(Submission.external_id == external_id)).one_or_none()


def validate_submission(form: Form, submitted: SubmissionInput) -> tuple[str, dict[str, str]]:
    """Return the normalised address and the answers to the form's questions. Raises ValidationFailed."""
    problems: list[ValidationProblem] = []
    email = ""
    try:
        email = addresses.normalise(submitted.email)
    except ValidationFailed as error:
        problems += error.problems
    if not 8 <= len(submitted.external_id) <= 64:
        problems.append(ValidationProblem(N_("The page was incomplete. Please send it once more.")))
    answers = {}
    for question in questions_of(form):
        # PostgreSQL cannot store NUL in text.
        answer = submitted.answers.get(question.name, "").replace("\x00", "").strip()
        most = MAX_ANSWER_LENGTHS.get(question.name, contacts.MAX_ATTRIBUTE_LENGTH)
        if len(answer) > most:
            problems.append(
                ValidationProblem(N_("At most %(most)s characters, please."), question.key, params={"most": most})
            )
        elif question.required and not answer:
            problems.append(ValidationProblem(N_("Please fill this in."), question.key))
        elif answer:
            answers[question.name] = answer
    if problems:
        raise ValidationFailed(problems)
    return email, answers


def _record_submission(
    session: Session, form: Form, submitted: SubmissionInput, email: str, answers: dict[str, str]
) -> Submission:
    wordings = (
        form.consent_wording if submitted.consents else "",
        form.tracking_wording if submitted.may_measure else "",
    )
    needs_confirmation = any(wordings) and double_opt_in.requires_confirmation(session, form, email)
    contact = _upsert_contact(session, form, email, answers)
    if not needs_confirmation:
        _grant_consents(session, form, submitted, contact, wordings)
    if form.list_id is not None:
        _add_to_list(session, form.list_id, contact.id)
    lead, is_new = open_lead(
        session,
        contact_id=contact.id,
        campaign_id=form.campaign_id,
        activity_id=form.activity_id,
        source=submitted.origin.channel,
        owner_id=submitted.origin.owner_id,
    )
    submission = Submission(
        external_id=submitted.external_id,
        form_id=form.id,
        campaign_id=form.campaign_id,
        activity_id=form.activity_id,
        contact_id=contact.id,
        lead_id=lead.id,
        new_lead=is_new,
        at=clock.now(),
        answers={"email": email, **answers},
        send_id=submitted.send_id,
    )
    session.add(submission)
    session.flush()
    if needs_confirmation:
        double_opt_in.request_confirmation(session, form, submission, wordings, submitted.network)
    if is_new and form.notify_owner:
        _notify_owner(session, submitted.origin, lead, contact)
    return submission


def _upsert_contact(session: Session, form: Form, email: str, answers: Mapping[str, str]) -> Contact:
    """Create or update the contact. Only empty fields of a known contact are filled: anybody can type its address."""
    known = contacts.contact_by_address(session, email)
    attributes = {
        name.removeprefix("attributes."): answer for name, answer in answers.items() if name.startswith("attributes.")
    }
    if known is not None:
        attributes = {key: answer for key, answer in attributes.items() if not known.attributes.get(key)}
    return contacts.upsert_contact(
        session,
        PUBLIC,
        email=email,
        first_name="" if known and known.first_name else answers.get("first_name", ""),
        last_name="" if known and known.last_name else answers.get("last_name", ""),
        language=None if known and known.language else form.language,
        attributes=attributes,
        source=f"form {form.slug}",
    )[0]


def _grant_consents(
    session: Session, form: Form, submitted: SubmissionInput, contact: Contact, wordings: tuple[str, str]
) -> None:
    """Grant the ticked consents as PUBLIC, so that consent to e-mail also ends the contact's own unsubscription."""
    for purpose, wording in zip((ConsentPurpose.EMAIL, ConsentPurpose.TRACKING), wordings, strict=True):
        if wording:
            consent.grant(
                session,
                PUBLIC,
                contact.id,
                purpose,
                ConsentLevel.FULL,
                source=f"form {form.slug}",
                wording=wording,
                evidence={"form": form.id, "submission": submitted.external_id, "network": submitted.network},
            )


def _add_to_list(session: Session, list_id: int, contact_id: int) -> None:
    if session.get(ListMember, (list_id, contact_id)) is not None:
        return
    try:
        with session.begin_nested():
            session.add(ListMember(list_id=list_id, contact_id=contact_id, added_at=clock.now()))
    except IntegrityError:
        if session.get(ListMember, (list_id, contact_id)) is None:
            raise


def _notify_owner(session: Session, origin: LeadSource, lead: Lead, contact: Contact) -> None:
    owner = session.get(User, origin.owner_id) if origin.owner_id is not None else None
    if owner is None or owner.locked_at is not None:
        return
    # The mail leaves the installation, so it has no answers; the linked page shows them to authorised users.
    outbox.enqueue(
        session,
        "new_lead",
        owner.email,
        {
            "person": owner.name,
            "name": f"{contact.first_name} {contact.last_name}".strip() or contact.email,
            "email": contact.email,
            "campaign": origin.campaign,
            "activity": origin.activity,
            "url": f"{config.settings().base_url}/leads/{lead.id}",
        },
        owner.language or "en",
    )
