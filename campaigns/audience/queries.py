"""SELECT statements of the audience pages, without ORDER BY: the pages add keyset paging."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from campaigns.audience.addresses import is_address, normalise
from campaigns.audience.consent import current_level_sql
from campaigns.audience.models import ConsentPurpose, Contact, ListMember, Suppression
from campaigns.audience.suppression import address_hash


def contacts_with_badges(search: str = "", list_id: int | None = None) -> Select[Any]:
    """Select contacts with ``email_level``, ``tracking_level`` and the suppression reason as ``suppressed``."""
    reason = select(Suppression.reason).where(Suppression.address == Contact.email).correlate(Contact)
    stmt = select(
        Contact,
        current_level_sql(ConsentPurpose.EMAIL).label("email_level"),
        current_level_sql(ConsentPurpose.TRACKING).label("tracking_level"),
        reason.scalar_subquery().label("suppressed"),
    )
    for word in search.replace("\x00", "").split()[:5]:
        found_in = (Contact.email, Contact.first_name, Contact.last_name)
        stmt = stmt.where(or_(*(column.icontains(word, autoescape=True) for column in found_in)))
    if list_id is not None:
        stmt = stmt.join(ListMember, ListMember.contact_id == Contact.id).where(ListMember.list_id == list_id)
    return stmt


def suppressions(search: str = "") -> Select[Any]:
    """Select suppressions whose address contains the text; a complete address also matches erased people by hash."""
    search = search.replace("\x00", "").strip()
    stmt = select(Suppression)
    if not search:
        return stmt
    contains_text = Suppression.address.icontains(search, autoescape=True)
    if is_address(search):
        return stmt.where(or_(contains_text, Suppression.address_hash == address_hash(normalise(search))))
    return stmt.where(contains_text)


def contact_ids_by_address(session: Session, addresses: Sequence[str]) -> list[int]:
    """Return the ids of contacts with these normalised addresses."""
    return list(session.scalars(select(Contact.id).where(Contact.email.in_(addresses))))
