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

_steps_before: list[MergeStep] = []
_steps_after: list[MergeStep] = []


def register_steps(before: Iterable[MergeStep] = (), after: Iterable[MergeStep] = ()) -> None:
    """Register merge steps of higher packages: functions of (session, survivor_id, duplicate_id), run in order.

    ``before`` steps run while both contacts still have their rows; they resolve conflicts in tables that allow one
    row per contact. ``after`` steps run once every row belongs to the survivor. A step that is already registered
    is ignored.
    """
    _steps_before.extend(step for step in before if step not in _steps_before)
    _steps_after.extend(step for step in after if step not in _steps_after)


@dataclass(frozen=True, slots=True)
class MergePreview:
    """The outcome of merging two contacts."""

    survivor: Contact
    duplicate: Contact
    values: Mapping[str, Any]
    """Contact columns and attributes of the survivor after the merge."""
    lists: list[ContactList]
    """Lists that the survivor joins."""
    consent: Mapping[ConsentPurpose, tuple[ConsentLevel | None, ConsentLevel | None, ConsentLevel | None]]
    """Per purpose: level of the survivor, of the duplicate, and after the merge; None where there is no entry."""
    suppressed: SuppressionReason | None
    rows: Mapping[str, int]
    """Number of rows to move, by table name; tables without rows are left out."""


def preview_merge(session: Session, actor: Actor, survivor_id: int, duplicate_id: int) -> MergePreview:
    """Return what :func:`merge_contacts` would do, without changing anything.

    Raises NotFound, and Conflict when both ids name the same contact.
    """
    actor.require(Permission.AUDIENCE)
    survivor, duplicate = _load_pair(session, survivor_id, duplicate_id)
    levels = {}
    for purpose in ConsentPurpose:
        survivor_level, duplicate_level = (
            consent.latest_level(session, one, purpose) for one in (survivor_id, duplicate_id)
        )
        levels[purpose] = survivor_level, duplicate_level, consent.stricter_level(survivor_level, duplicate_level)
    survivor_list_ids = select(ListMember.list_id).where(ListMember.contact_id == survivor_id)
    new_lists = (
        select(ContactList)
        .join(ListMember, ListMember.list_id == ContactList.id)
        .where(ListMember.contact_id == duplicate_id, ContactList.id.not_in(survivor_list_ids))
        .order_by(ContactList.name)
    )
    rows = {table.name: _count_rows(session, column, duplicate_id) for table, column in _contact_foreign_keys()}
    return MergePreview(
        survivor,
        duplicate,
        _merged_values(survivor, duplicate),
        list(session.scalars(new_lists)),
        levels,
        _merged_suppression(session, survivor, duplicate),
        {name: number for name, number in rows.items() if number},
    )


def merge_contacts(session: Session, actor: Actor, survivor_id: int, duplicate_id: int) -> Contact:
    """Merge the duplicate into the survivor and return the survivor.

    Raises NotFound, and Conflict when both ids name the same contact.
    """
    actor.require(Permission.AUDIENCE)
    session.execute(
        select(Contact.id).where(Contact.id.in_((survivor_id, duplicate_id))).order_by(Contact.id).with_for_update()
    )
    preview = preview_merge(session, actor, survivor_id, duplicate_id)
    for step in _steps_before:
        step(session, survivor_id, duplicate_id)
    session.flush()
    _merge_list_members(session, survivor_id, duplicate_id)
    for _table, column in _contact_foreign_keys():
        session.execute(
            update(column.table).where(column == duplicate_id).values({column.name: survivor_id}),
            execution_options={"synchronize_session": False},
        )
    session.expire_all()
    consent.record_merged_levels(
        session, actor, survivor_id, duplicate_id, {of: levels[2] for of, levels in preview.consent.items()}
    )
    survivor, duplicate = preview.survivor, preview.duplicate
    address = duplicate.email
    if preview.suppressed is not None:
        for each in (survivor.email, address):
            suppression.suppress(session, actor, each, preview.suppressed, "the same person")
    session.expunge(duplicate)
    session.execute(delete(Contact).where(Contact.id == duplicate_id).execution_options(synchronize_session=False))
    session.add(ContactAlias(merged_contact_id=duplicate_id, contact_id=survivor_id, address=address, at=clock.now()))
    for name, value in preview.values.items():
        setattr(survivor, name, value)
    survivor.updated_at = clock.now()
    session.flush()
    for step in _steps_after:
        step(session, survivor_id, duplicate_id)
    audit.record(session, actor, "merge", "contact", survivor_id, other=duplicate_id, **preview.rows)
    return survivor


def _load_pair(session: Session, survivor_id: int, duplicate_id: int) -> tuple[Contact, Contact]:
    survivor, duplicate = contact_of(session, survivor_id), contact_of(session, duplicate_id)
    if survivor is duplicate:
        raise Conflict(N_("That is the same contact already."))
    return survivor, duplicate


def _merged_values(survivor: Contact, duplicate: Contact) -> dict[str, Any]:
    """The survivor's values win; the duplicate's fill gaps."""
    names = ("first_name", "last_name", "language", "timezone", "source")
    values: dict[str, Any] = {name: getattr(survivor, name) or getattr(duplicate, name) for name in names}
    values["attributes"] = {**duplicate.attributes, **survivor.attributes}
    values["created_at"] = min(survivor.created_at, duplicate.created_at)
    return values


def _merged_suppression(session: Session, survivor: Contact, duplicate: Contact) -> SuppressionReason | None:
    """The most severe reason that applies to both addresses. A bounce concerns one address, so it is left out."""
    reasons = [suppression.reason_for(session, one.email) for one in (survivor, duplicate)]
    transferable = [reason for reason in reasons if reason not in (None, SuppressionReason.BOUNCED)]
    return max((reason for reason in transferable if reason is not None), key=suppression.severity, default=None)


def _contact_foreign_keys() -> Iterator[tuple[Table, Any]]:
    """Every foreign key column to contacts, in all packages, except list memberships (unique per list and contact)."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if table is not ListMember.__table__ and any(
                key.column is Contact.__table__.c.id for key in column.foreign_keys
            ):
                yield table, column


def _count_rows(session: Session, column: Any, contact_id: int) -> int:
    return session.scalar(select(func.count()).select_from(column.table).where(column == contact_id)) or 0


def _merge_list_members(session: Session, survivor_id: int, duplicate_id: int) -> None:
    survivor_list_ids = select(ListMember.list_id).where(ListMember.contact_id == survivor_id)
    of_duplicate = ListMember.contact_id == duplicate_id
    session.execute(
        update(ListMember)
        .where(of_duplicate, ListMember.list_id.not_in(survivor_list_ids))
        .values(contact_id=survivor_id),
        execution_options={"synchronize_session": False},
    )
    session.execute(delete(ListMember).where(of_duplicate).execution_options(synchronize_session=False))
