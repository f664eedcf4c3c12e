"""Service functions for hand-picked contact lists."""

from collections.abc import Collection, Sequence

from sqlalchemy import Row, delete, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.models import Contact, ContactList, ListMember
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_MAX_NAME_LENGTH = 200
_BATCH_SIZE = 500


def create_list(session: Session, actor: Actor, name: str) -> ContactList:
    """Create an empty list. Raises ValidationFailed when the name is empty, too long or taken."""
    actor.require(Permission.AUDIENCE)
    contact_list = ContactList(name=_validated_name(session, name), created_at=clock.now())
    session.add(contact_list)
    session.flush()
    audit.record(session, actor, "create", "list", contact_list.id, name=contact_list.name)
    return contact_list


def rename_list(session: Session, actor: Actor, list_id: int, name: str) -> ContactList:
    """Rename a list. Raises NotFound, ValidationFailed as in :func:`create_list`."""
    actor.require(Permission.AUDIENCE)
    found = list_of(session, list_id)
    found.name = _validated_name(session, name, exclude_id=list_id)
    session.flush()
    return found


def delete_list(session: Session, actor: Actor, list_id: int) -> None:
    """Delete a list; its contacts are kept. Raises NotFound, and Conflict while an activity uses the list."""
    actor.require(Permission.AUDIENCE)
    found = list_of(session, list_id)
    try:
        with session.begin_nested():
            session.delete(found)
    except IntegrityError as error:
        raise Conflict(N_("An activity is meant for this list: choose another audience there first.")) from error
    audit.record(session, actor, "delete", "list", list_id, name=found.name)


def add_members(session: Session, actor: Actor, list_id: int, contact_ids: Collection[int]) -> int:
    """Add contacts to a list and return how many were new on it. Unknown contact ids are ignored."""
    actor.require(Permission.AUDIENCE)
    list_of(session, list_id)
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    at, added = clock.now(), 0
    for chunk in _chunks(contact_ids):
        members = select(literal(list_id), Contact.id, literal(at, ListMember.added_at.type)).where(
            Contact.id.in_(chunk)
        )
        statement = (
            insert(ListMember).from_select(["list_id", "contact_id", "added_at"], members).on_conflict_do_nothing()
        )
        added += session.execute(statement.execution_options(preserve_rowcount=True)).rowcount  # type: ignore[attr-defined]
    return added


def remove_members(session: Session, actor: Actor, list_id: int, contact_ids: Collection[int]) -> None:
    actor.require(Permission.AUDIENCE)
    list_of(session, list_id)
    for chunk in _chunks(contact_ids):
        session.execute(delete(ListMember).where(ListMember.list_id == list_id, ListMember.contact_id.in_(chunk)))


def _chunks(contact_ids: Collection[int]) -> list[list[int]]:
    ids = sorted(set(contact_ids))
    return [ids[start : start + _BATCH_SIZE] for start in range(0, len(ids), _BATCH_SIZE)]


def list_of(session: Session, list_id: int) -> ContactList:
    """Return the list. Raises NotFound."""
    found = session.get(ContactList, list_id)
    if found is None:
        raise NotFound(N_("There is no such list."))
    return found


def all_lists(session: Session) -> list[ContactList]:
    """Return every list, ordered by name."""
    return list(session.scalars(select(ContactList).order_by(ContactList.name)))


def lists_with_sizes(session: Session) -> Sequence[Row[ContactList, int]]:
    """Return (list, number of members) for every list, ordered by name."""
    size = select(func.count()).where(ListMember.list_id == ContactList.id).scalar_subquery()
    return session.execute(select(ContactList, size).order_by(ContactList.name)).all()


def lists_of_contact(session: Session, contact_id: int) -> list[ContactList]:
    """Return the lists a contact is on, ordered by name."""
    return list(
        session.scalars(
            select(ContactList)
            .join(ListMember, ListMember.list_id == ContactList.id)
            .where(ListMember.contact_id == contact_id)
            .order_by(ContactList.name)
        )
    )


def _validated_name(session: Session, name: str, exclude_id: int | None = None) -> str:
    name = name.strip()
    if not name or "\x00" in name:
        raise ValidationFailed(ValidationProblem(N_("Give the list a name."), field="name"))
    if len(name) > _MAX_NAME_LENGTH:
        message = N_("Longer than %(longest)s characters.")
        raise ValidationFailed(ValidationProblem(message, field="name", params={"longest": _MAX_NAME_LENGTH}))
    taken = session.scalar(select(ContactList.id).where(ContactList.name == name))
    if taken is not None and taken != exclude_id:
        raise ValidationFailed(ValidationProblem(N_("There is a list of this name already."), field="name"))
    return name
