"""Merge step for leads: two open leads of one person in one campaign become one."""

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, aliased

from campaigns.db import Base
from campaigns.leads.models import Lead, LeadStage

_STAGE_ORDER = tuple(LeadStage)


def merge_open_leads(session: Session, survivor_id: int, duplicate_id: int) -> None:
    """Merge the younger open lead into the older one, in each campaign where both contacts have one.

    A contact has one open lead per campaign. The older lead takes over the younger's submissions, notes, owner (if it
    has none) and stage (if further).
    """
    duplicate_lead = aliased(Lead)
    pairs = (
        select(Lead, duplicate_lead)
        .join(duplicate_lead, duplicate_lead.campaign_id == Lead.campaign_id)
        .where(Lead.contact_id == survivor_id, duplicate_lead.contact_id == duplicate_id)
        .where(Lead.closed_at.is_(None), duplicate_lead.closed_at.is_(None))
    )
    for pair in session.execute(pairs).all():
        older, younger = sorted(pair, key=lambda lead: (lead.created_at, lead.id))
        _merge_into_older(session, older, younger)


def _merge_into_older(session: Session, older: Lead, younger: Lead) -> None:
    older.notes = "\n\n".join(filter(None, (older.notes, younger.notes)))
    older.owner_id = older.owner_id or younger.owner_id
    if _STAGE_ORDER.index(younger.stage) > _STAGE_ORDER.index(older.stage):
        older.stage, older.stage_at, older.stage_processed = younger.stage, younger.stage_at, younger.stage_processed
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if any(key.column is Lead.__table__.c.id for key in column.foreign_keys):
                session.execute(update(table).where(column == younger.id).values({column.name: older.id}))
    session.expunge(younger)
    session.execute(delete(Lead).where(Lead.id == younger.id).execution_options(synchronize_session=False))
    session.flush()
