"""Service functions for leads: opening, stage, owner, notes."""

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import User
from campaigns.audience import addresses, contacts
from campaigns.audience.models import Contact
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.leads.models import Lead, LeadStage

MAX_NOTES_LENGTH = 20_000


def lead_of(session: Session, lead_id: int) -> Lead:
    """Return the lead. Raises NotFound."""
    lead = session.get(Lead, lead_id)
    if lead is None:
        raise NotFound(N_("There is no such lead."))
    return lead


def open_lead(
    session: Session, *, contact_id: int, campaign_id: int, activity_id: int, source: str, owner_id: int | None
) -> tuple[Lead, bool]:
    """Return the contact's open lead in the campaign and whether it was created.

    Of two simultaneous sessions one inserts it and the other gets the same lead: the partial unique index
    ``uq_leads_open`` decides.
    """
    existing = _find_open_lead(session, contact_id, campaign_id)
    if existing is not None:
        return existing, False
    lead = Lead(
        contact_id=contact_id,
        campaign_id=campaign_id,
        activity_id=activity_id,
        stage=LeadStage.NEW,
        owner_id=owner_id,
        source=source,
        notes="",
        created_at=clock.now(),
    )
    try:
        with session.begin_nested():
            session.add(lead)
    except IntegrityError:
        concurrent = _find_open_lead(session, contact_id, campaign_id)
        if concurrent is None:
            raise  # not the index: the contact or campaign was deleted
        return concurrent, False
    return lead, True


def _find_open_lead(session: Session, contact_id: int, campaign_id: int) -> Lead | None:
    return session.scalars(
        select(Lead).where(Lead.contact_id == contact_id, Lead.campaign_id == campaign_id, Lead.closed_at.is_(None))
    ).one_or_none()


def enter_lead(
    session: Session,
    actor: Actor,
    *,
    campaign_id: int,
    activity_id: int,
    source: str,
    email: str,
    first_name: str = "",
    last_name: str = "",
    owner_id: int | None = None,
    notes: str = "",
) -> tuple[Lead, bool]:
    """Create a lead by hand from a message, comment or call, credited to its activity; return it and whether it is new.

    An existing open lead of the contact in the campaign gets the notes instead. Raises ValidationFailed.
    """
    actor.require(Permission.LEADS)
    problems = _notes_problems(notes)
    try:
        contact = _upsert_contact(session, actor, email, first_name.strip(), last_name.strip())
    except ValidationFailed as error:
        raise ValidationFailed([*error.problems, *problems]) from error
    if problems:
        raise ValidationFailed(problems)
    _check_owner(session, owner_id)
    lead, is_new = open_lead(
        session,
        contact_id=contact.id,
        campaign_id=campaign_id,
        activity_id=activity_id,
        source=source,
        owner_id=owner_id,
    )
    if notes.strip():
        lead.notes = f"{lead.notes}\n\n{notes.strip()}".strip()
        session.flush()
    audit.record(session, actor, "create", "lead", lead.id, new=is_new, activity=activity_id)
    return lead, is_new


def _upsert_contact(session: Session, actor: Actor, email: str, first_name: str, last_name: str) -> Contact:
    known = contacts.contact_by_address(session, addresses.normalise(email))
    # The contact's own input wins; what a colleague enters only fills gaps.
    return contacts.upsert_contact(
        session,
        actor,
        email=email,
        first_name="" if known and known.first_name else first_name,
        last_name="" if known and known.last_name else last_name,
        source="by hand",
    )[0]


def change_stage(session: Session, actor: Actor, lead: Lead, stage: LeadStage) -> None:
    """Set the stage. CUSTOMER and LOST close the lead, every other stage reopens it.

    Raises Conflict when the contact would get a second open lead in the campaign.
    """
    actor.require(Permission.LEADS)
    if lead.stage is stage:
        return
    before = lead.stage
    try:
        with session.begin_nested():
            lead.stage = stage
            lead.closed_at = (lead.closed_at or clock.now()) if stage.closed else None
            lead.stage_at, lead.stage_processed = clock.now(), False
    except IntegrityError as error:
        session.refresh(lead)
        raise Conflict(N_("This person has another open lead in the campaign: work on that one.")) from error
    audit.record(session, actor, "change stage", "lead", lead.id, before=before.value, after=stage.value)


def assign_owner(session: Session, actor: Actor, lead: Lead, owner_id: int | None) -> None:
    """Set the owner; None for no owner. Raises ValidationFailed for an unknown user."""
    actor.require(Permission.LEADS)
    if lead.owner_id == owner_id:
        return
    _check_owner(session, owner_id)
    before, lead.owner_id = lead.owner_id, owner_id
    session.flush()
    audit.record(session, actor, "assign", "lead", lead.id, before=before, after=owner_id)


def set_notes(session: Session, actor: Actor, lead: Lead, text: str) -> None:
    """Replace the notes. Raises ValidationFailed when they are too long."""
    actor.require(Permission.LEADS)
    problems = _notes_problems(text)
    if problems:
        raise ValidationFailed(problems)
    if lead.notes == text.strip():
        return
    lead.notes = text.strip()
    session.flush()
    audit.record(session, actor, "edit notes", "lead", lead.id)


def _notes_problems(text: str) -> list[ValidationProblem]:
    if len(text) <= MAX_NOTES_LENGTH:
        return []
    return [ValidationProblem(N_("At most %(most)s characters, please."), "notes", params={"most": MAX_NOTES_LENGTH})]


def _check_owner(session: Session, owner_id: int | None) -> None:
    if owner_id is not None and session.get(User, owner_id) is None:
        raise ValidationFailed(ValidationProblem(N_("This choice does not exist any more."), "owner_id"))
