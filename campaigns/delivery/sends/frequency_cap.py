"""At most so many campaign mails to a contact in so many days.

A mail counts from the moment it is claimed, so that two launches at once can't both take the last one: on
SQLite a claim has the database alone, on PostgreSQL it locks the contacts it asks about first.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from campaigns import clock, db
from campaigns.accounts.models import Organisation
from campaigns.accounts.organisation import organisation
from campaigns.audience.models import Contact
from campaigns.delivery.models import Send, SendState
from campaigns.planning.models import Activity


def over(session: Session, batch: str, ids: Collection[int]) -> set[int]:
    """Those of the sends ``ids``, just claimed by ``batch``, whose contact has had enough already."""
    house = organisation(session)
    if not house.cap_mails or not ids:
        return set()
    contacts = select(Send.contact_id).where(db.among(session, Send.id, ids))
    session.execute(
        select(Contact.id).where(Contact.id.in_(contacts)).order_by(Contact.id).with_for_update(key_share=True)
    )
    other = aliased(Send)
    # Two of one batch to one contact: the later counts the earlier, not the other way round.
    under_way = and_(other.state == SendState.SENDING, or_(other.claimed_by != batch, other.id < Send.id))
    had = (
        select(func.count(other.id))
        .join(Activity, Activity.id == other.activity_id)
        .where(other.contact_id == Send.contact_id, other.id != Send.id, _counts(other, house, under_way))
        .correlate(Send)
        .scalar_subquery()
    )
    asked = select(Send.id).join(Activity, Activity.id == Send.activity_id)
    return set(
        session.scalars(
            asked.where(db.among(session, Send.id, ids), Activity.built_in.is_(None), had >= house.cap_mails)
        )
    )


def capped_sql(house: Organisation) -> ColumnElement[bool] | None:
    """Whether a Contact of the enclosing query has had enough as of now; None without a cap."""
    if not house.cap_mails:
        return None
    other = aliased(Send)
    had = (
        select(func.count(other.id))
        .join(Activity, Activity.id == other.activity_id)
        .where(other.contact_id == Contact.id, _counts(other, house, other.state == SendState.SENDING))
        .correlate(Contact)
        .scalar_subquery()
    )
    return had >= house.cap_mails


def _counts(other: Any, house: Organisation, under_way: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a campaign's mail stands against the cap. Of an unknown one nobody knows the hour: it was
    before its activity ended."""
    since = clock.now() - timedelta(days=house.cap_days)
    lately = or_(Activity.finished_at.is_(None), Activity.finished_at > since)
    unknown = and_(other.state == SendState.UNKNOWN, lately)
    return and_(Activity.built_in.is_(None), or_(other.sent_at > since, under_way, unknown))
