"""Users: adding, changing and locking them; their own profile and password."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit, passwords
from campaigns.accounts.actor import Actor, ActorKind, Permission
from campaigns.accounts.models import Organisation, Role, User
from campaigns.accounts.validation import FieldValidator, normalise_email
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_


def user_by_id(session: Session, person_id: int) -> User:
    """The user with this id, also a locked one. Raises NotFound."""
    person = session.get(User, person_id) if 0 < person_id < 2**63 else None
    if person is None:
        raise NotFound(N_("This person does not exist."))
    return person


def user_by_email(session: Session, email: str) -> User | None:
    """The user with this address in any spelling, also a locked one."""
    clean = normalise_email(email)
    return session.scalar(select(User).where(User.email == clean)) if clean else None


def add_user(session: Session, actor: Actor, *, email: str, name: str, role: Role, password: str) -> User:
    """Add a user. Raises ValidationFailed for an invalid or taken address, or a weak password."""
    actor.require(Permission.PEOPLE)
    validator = FieldValidator()
    person = User(
        email=validator.email("email", email),
        name=validator.name("name", name),
        role=Role(role),
        created_at=clock.now(),
    )
    validator.password("password", password)
    validator.raise_problems()
    person.password_hash = passwords.hash_password(password)
    try:
        with session.begin_nested():
            session.add(person)
    except IntegrityError as error:
        raise ValidationFailed(
            ValidationProblem(N_("Somebody with this address is here already."), field="email")
        ) from error
    audit.record(session, actor, "create", "user", person.id, email=person.email, role=person.role.value)
    return person


def change_role(session: Session, actor: Actor, person_id: int, role: Role) -> User:
    """Change a user's role. Raises Conflict for the last owner."""
    actor.require(Permission.PEOPLE)
    person = _get_for_update(session, person_id)
    if person.role is role:
        return person
    if person.role is Role.OWNER:
        _require_another_owner(session, person)
    before, person.role = person.role, role
    audit.record(session, actor, "change role", "user", person.id, before=before.value, after=role.value)
    return person


def lock(session: Session, actor: Actor, person_id: int) -> User:
    """Lock a user: no sign-in, and open sessions end with their next request. Raises Conflict for the last owner."""
    actor.require(Permission.PEOPLE)
    person = _get_for_update(session, person_id)
    if person.locked_at is not None:
        return person
    if person.role is Role.OWNER:
        _require_another_owner(session, person)
    person.locked_at = clock.now()
    person.session_epoch += 1
    audit.record(session, actor, "lock", "user", person.id)
    return person


def unlock(session: Session, actor: Actor, person_id: int) -> User:
    """Unlock a user, whose password stays the same."""
    actor.require(Permission.PEOPLE)
    person = _get_for_update(session, person_id)
    if person.locked_at is not None:
        person.locked_at = None
        audit.record(session, actor, "unlock", "user", person.id)
    return person


def _get_for_update(session: Session, person_id: int) -> User:
    """The user, with the organisation's row locked, so that two owners can't demote each other concurrently."""
    session.execute(select(Organisation.id).with_for_update())
    person = session.get(User, person_id, populate_existing=True) if 0 < person_id < 2**63 else None
    if person is None:
        raise NotFound(N_("This person does not exist."))
    return person


def _require_another_owner(session: Session, person: User) -> None:
    others = select(func.count()).where(User.role == Role.OWNER, User.locked_at.is_(None), User.id != person.id)
    if not session.scalar(others):
        raise Conflict(N_("This is the only owner. Make somebody else an owner first."))


def _own_user(session: Session, actor: Actor) -> User:
    if actor.kind is not ActorKind.USER or actor.id is None:
        raise Forbidden(N_("Your role does not allow this."))
    return user_by_id(session, actor.id)


def update_profile(session: Session, actor: Actor, *, name: str, language: str | None, timezone: str | None) -> User:
    """Change the actor's own name, language and time zone; None means the organisation's."""
    person = _own_user(session, actor)
    validator = FieldValidator()
    clean = validator.name("name", name)
    if language:
        validator.language("language", language)
    if timezone:
        validator.timezone("timezone", timezone)
    validator.raise_problems()
    person.name, person.language, person.timezone = clean, language or None, timezone or None
    return person


def set_language(session: Session, actor: Actor, language: str) -> User:
    """Change the actor's own language only."""
    person = _own_user(session, actor)
    return update_profile(session, actor, name=person.name, language=language, timezone=person.timezone)


def change_password(session: Session, actor: Actor, *, current: str, password: str) -> User:
    """Set the actor's new password, given the current one; all other sessions end.

    Raises ValidationFailed for a wrong current password or a weak new one.
    """
    person = _own_user(session, actor)
    if not passwords.verify_password(person.password_hash, current):
        raise ValidationFailed(ValidationProblem(N_("This is not your present password."), field="current"))
    set_password(session, actor, person, password)
    return person


def set_password(session: Session, actor: Actor, person: User, password: str) -> None:
    """Set a password; earlier sessions and reset links become invalid. Raises ValidationFailed for a weak password."""
    validator = FieldValidator()
    validator.password("password", password)
    validator.raise_problems()
    person.password_hash = passwords.hash_password(password)
    person.session_epoch += 1
    audit.record(session, actor, "set password", "user", person.id)
