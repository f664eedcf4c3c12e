"""Contact merge: combines two contacts that belong to one person.

One contact survives. Every row that refers to the duplicate is moved to the survivor, so nothing is lost or
counted twice. The duplicate's address becomes an alias, so no contact can be added under it. A refusal
(withdrawn consent, unsubscription, complaint) under either address stays in force.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, delete, func, select, update
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience import consent, suppression
from campaigns.audience.contacts import contact_of
from campaigns.audience.models import (
    ConsentLevel,
    ConsentPurpose,
    Contact,
    ContactAlias,
    ContactList,
    ListMember,
    SuppressionReason,
)
from campaigns.db import Base
from campaigns.errors import Conflict
from campaigns.i18n import N_

MergeStep = Callable[[Session, int, int], None]

_before: list[MergeStep] = []
_after: list[MergeStep] = []


def register_steps(before: Iterable[MergeStep] = (), after: Iterable[MergeStep] = ()) -> None:
    """Register merge steps of higher packages: functions of (session, survivor_id, duplicate_id), run in order.

    ``before`` steps run while both contacts still have their rows; they resolve conflicts in tables that allow one
    row per contact. ``after`` steps run once every row belongs to the survivor. A step that is already registered
    is ignored.
    """
    _before.extend(step for step in before if step not in _before)
    _after.extend(step for step in after if step not in _after)


@dataclass(frozen=True, slots=True)
class MergePreview:
    """The outcome of merging two contacts."""

    stays: Contact
    goes: Contact
    values: Mapping[str, Any]
    """Contact columns and attributes of the survivor after the merge."""
    lists: list[ContactList]
    """Lists that the survivor joins."""
    consent: Mapping[ConsentPurpose, tuple[ConsentLevel | None, ConsentLevel | None, ConsentLevel | None]]
    """Per purpose: level of the survivor, of the duplicate, and after the merge; None where there is no entry."""
    suppressed: SuppressionReason | None
    rows: Mapping[str, int]
    """Number of rows to move, by table name; tables without rows are left out."""


def foretell(session: Session, actor: Actor, stays_id: int, goes_id: int) -> MergePreview:
    """Return what :func:`merge_contacts` would do, without changing anything.

    Raises NotFound, and Conflict when both ids name the same contact.
    """
    actor.require(Permission.AUDIENCE)
    stays, goes = _both(session, stays_id, goes_id)
    levels = {}
    for purpose in ConsentPurpose:
        mine, theirs = (consent.last_level(session, one, purpose) for one in (stays_id, goes_id))
        levels[purpose] = mine, theirs, consent.stricter(mine, theirs)
    already = select(ListMember.list_id).where(ListMember.contact_id == stays_id)
    joins = (
        select(ContactList)
        .join(ListMember, ListMember.list_id == ContactList.id)
        .where(ListMember.contact_id == goes_id, ContactList.id.not_in(already))
        .order_by(ContactList.name)
    )
    rows = {table.name: _count(session, column, goes_id) for table, column in _references()}
    return MergePreview(
        stays,
        goes,
        _values(stays, goes),
        list(session.scalars(joins)),
        levels,
        _gravest(session, stays, goes),
        {name: number for name, number in rows.items() if number},
    )


def unite(session: Session, actor: Actor, stays_id: int, goes_id: int) -> Contact:
    """Merge the duplicate into the survivor and return the survivor.

    Raises NotFound, and Conflict when both ids name the same contact.
    """
    actor.require(Permission.AUDIENCE)
    session.execute(
        select(Contact.id).where(Contact.id.in_((stays_id, goes_id))).order_by(Contact.id).with_for_update()
    )
    told = foretell(session, actor, stays_id, goes_id)
    for step in _before:
        step(session, stays_id, goes_id)
    session.flush()
    _lists(session, stays_id, goes_id)
    for _table, column in _references():
        session.execute(
            update(column.table).where(column == goes_id).values({column.name: stays_id}),
            execution_options={"synchronize_session": False},
        )
    session.expire_all()
    consent.settle_union(session, actor, stays_id, goes_id, {of: levels[2] for of, levels in told.consent.items()})
    stays, goes = told.stays, told.goes
    address = goes.email
    if told.suppressed is not None:
        for each in (stays.email, address):
            suppression.suppress(session, actor, each, told.suppressed, "the same person")
    session.expunge(goes)
    session.execute(delete(Contact).where(Contact.id == goes_id).execution_options(synchronize_session=False))
    session.add(ContactAlias(merged_contact_id=goes_id, contact_id=stays_id, address=address, at=clock.now()))
    for name, value in told.values.items():
        setattr(stays, name, value)
    stays.updated_at = clock.now()
    session.flush()
    for step in _after:
        step(session, stays_id, goes_id)
    audit.record(session, actor, "merge", "contact", stays_id, other=goes_id, **told.rows)
    return stays


def _both(session: Session, stays_id: int, goes_id: int) -> tuple[Contact, Contact]:
    stays, goes = contact_of(session, stays_id), contact_of(session, goes_id)
    if stays is goes:
        raise Conflict(N_("That is the same contact already."))
    return stays, goes


def _values(stays: Contact, goes: Contact) -> dict[str, Any]:
    """The survivor's values win; the duplicate's fill gaps."""
    names = ("first_name", "last_name", "language", "timezone", "source")
    values: dict[str, Any] = {name: getattr(stays, name) or getattr(goes, name) for name in names}
    values["attributes"] = {**goes.attributes, **stays.attributes}
    values["created_at"] = min(stays.created_at, goes.created_at)
    return values


def _gravest(session: Session, stays: Contact, goes: Contact) -> SuppressionReason | None:
    """The most severe reason that applies to both addresses. A bounce concerns one address, so it is left out."""
    reasons = [suppression.reason_for(session, one.email) for one in (stays, goes)]
    said = [reason for reason in reasons if reason not in (None, SuppressionReason.BOUNCED)]
    return max((reason for reason in said if reason is not None), key=suppression.gravity, default=None)


def _references() -> Iterator[tuple[Table, Any]]:
    """Every foreign key column to contacts, in all packages, except list memberships (unique per list and contact)."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if table is not ListMember.__table__ and any(
                key.column is Contact.__table__.c.id for key in column.foreign_keys
            ):
                yield table, column


def _count(session: Session, column: Any, contact_id: int) -> int:
    return session.scalar(select(func.count()).select_from(column.table).where(column == contact_id)) or 0


def _lists(session: Session, stays_id: int, goes_id: int) -> None:
    already = select(ListMember.list_id).where(ListMember.contact_id == stays_id)
    theirs = ListMember.contact_id == goes_id
    session.execute(
        update(ListMember).where(theirs, ListMember.list_id.not_in(already)).values(contact_id=stays_id),
        execution_options={"synchronize_session": False},
    )
    session.execute(delete(ListMember).where(theirs).execution_options(synchronize_session=False))
