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


def find_capped(session: Session, batch: str, ids: Collection[int]) -> set[int]:
    """The sends among ``ids``, just claimed by ``batch``, whose contact has reached the cap."""
    org = organisation(session)
    if not org.cap_mails or not ids:
        return set()
    contacts = select(Send.contact_id).where(db.in_ids(session, Send.id, ids))
    session.execute(
        select(Contact.id).where(Contact.id.in_(contacts)).order_by(Contact.id).with_for_update(key_share=True)
    )
    other_send = aliased(Send)
    # Two sends of one batch to one contact: only the later one counts the other.
    in_flight = and_(
        other_send.state == SendState.SENDING, or_(other_send.claimed_by != batch, other_send.id < Send.id)
    )
    mails_counted = (
        select(func.count(other_send.id))
        .join(Activity, Activity.id == other_send.activity_id)
        .where(
            other_send.contact_id == Send.contact_id,
            other_send.id != Send.id,
            _counts_against_cap(other_send, org, in_flight),
        )
        .correlate(Send)
        .scalar_subquery()
    )
    query = select(Send.id).join(Activity, Activity.id == Send.activity_id)
    return set(
        session.scalars(
            query.where(db.in_ids(session, Send.id, ids), Activity.built_in.is_(None), mails_counted >= org.cap_mails)
        )
    )


def capped_sql(organisation: Organisation) -> ColumnElement[bool] | None:
    """SQL: whether a Contact of the enclosing query has reached the cap now; None without a cap."""
    if not organisation.cap_mails:
        return None
    other_send = aliased(Send)
    mails_counted = (
        select(func.count(other_send.id))
        .join(Activity, Activity.id == other_send.activity_id)
        .where(
            other_send.contact_id == Contact.id,
            _counts_against_cap(other_send, organisation, other_send.state == SendState.SENDING),
        )
        .correlate(Contact)
        .scalar_subquery()
    )
    return mails_counted >= organisation.cap_mails


def _counts_against_cap(send: Any, organisation: Organisation, in_flight: ColumnElement[bool]) -> ColumnElement[bool]:
    """SQL: whether a campaign mail counts against the cap.

    An unknown send has no ``sent_at``. It counts until ``cap_days`` days after its activity's end.
    """
    since = clock.now() - timedelta(days=organisation.cap_days)
    ended_recently = or_(Activity.finished_at.is_(None), Activity.finished_at > since)
    unknown = and_(send.state == SendState.UNKNOWN, ended_recently)
    return and_(Activity.built_in.is_(None), or_(send.sent_at > since, in_flight, unknown))
