"""Frequency cap: at most ``cap_mails`` campaign mails per contact in ``cap_days`` days.

A mail counts from its claim on, so that two concurrent launches cannot both use the last one: on SQLite a claim has the
database alone, on PostgreSQL it locks the contacts before it counts.
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
    """The sends among ``ids``, just claimed by ``batch``, whose contact has reached the cap."""
    house = organisation(session)
    if not house.cap_mails or not ids:
        return set()
    contacts = select(Send.contact_id).where(db.among(session, Send.id, ids))
    session.execute(
        select(Contact.id).where(Contact.id.in_(contacts)).order_by(Contact.id).with_for_update(key_share=True)
    )
    other = aliased(Send)
    # Two sends of one batch to one contact: only the later one counts the other.
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
    """SQL: whether a Contact of the enclosing query has reached the cap now; None without a cap."""
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
    """SQL: whether a campaign mail counts against the cap.

    An unknown send has no ``sent_at``. It counts until ``cap_days`` days after its activity's end.
    """
    since = clock.now() - timedelta(days=house.cap_days)
    lately = or_(Activity.finished_at.is_(None), Activity.finished_at > since)
    unknown = and_(other.state == SendState.UNKNOWN, lately)
    return and_(Activity.built_in.is_(None), or_(other.sent_at > since, under_way, unknown))
