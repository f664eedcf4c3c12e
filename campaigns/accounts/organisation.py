"""The one organisation of the database: creating, reading and changing it."""

from collections.abc import Sequence
from datetime import time

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit, passwords
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import Organisation, Role, User
from campaigns.accounts.validation import FieldValidator
from campaigns.errors import Conflict, NotFound
from campaigns.i18n import N_
from campaigns.optimistic_lock import bump_revision

COMMON_CURRENCIES = ("EUR", "USD", "GBP", "GEL", "IRR", "AZN", "RUB", "AMD", "TRY", "AED", "CHF", "KZT")
"""The currencies offered in forms, in this order."""
_ORGANISATION_ID = 1


def organisation(session: Session) -> Organisation:
    """The organisation of this database. Raises NotFound before the first run."""
    row = session.get(Organisation, _ORGANISATION_ID)
    if row is None:
        raise NotFound(N_("Nothing is set up here yet."))
    return row


def create_organisation(
    session: Session,
    *,
    name: str,
    sender_email: str,
    language: str,
    timezone: str,
    currency: str,
    owner_name: str,
    owner_email: str,
    owner_password: str,
) -> User:
    """First run: create the organisation and its owner. Raises Conflict when there is an organisation already.

    The organisation's fixed id decides a race: of two concurrent first runs one inserts the row.
    """
    validator = FieldValidator()
    new_organisation = Organisation(
        id=_ORGANISATION_ID,
        name=validator.name("name", name),
        sender_email=validator.email("sender_email", sender_email),
        language=validator.language("language", language),
        timezone=validator.timezone("timezone", timezone),
        currency=validator.currency("currency", currency),
        own_hosts=[],
    )
    new_organisation.sender_name = new_organisation.name
    owner = User(
        name=validator.name("owner_name", owner_name),
        email=validator.email("owner_email", owner_email),
        role=Role.OWNER,
        language=None,
        created_at=clock.now(),
    )
    validator.password("owner_password", owner_password)
    validator.raise_problems()
    owner.password_hash = passwords.hash_password(owner_password)
    if session.get(Organisation, _ORGANISATION_ID) is not None:
        raise Conflict(N_("This installation has been set up already. Please sign in."))
    try:
        with session.begin_nested():
            session.add(new_organisation)
    except IntegrityError as error:
        raise Conflict(N_("This installation has been set up already. Please sign in.")) from error
    session.add(owner)
    session.flush()
    audit.record(session, Actor.of_user(owner), "create", "organisation", _ORGANISATION_ID, name=new_organisation.name)
    return owner


def update_organisation(
    session: Session,
    actor: Actor,
    *,
    name: str,
    language: str,
    timezone: str,
    currency: str,
    sender_name: str,
    sender_email: str,
    postal_address: str,
    own_hosts: Sequence[str],
    quiet_from: time | None = None,
    quiet_until: time | None = None,
    cap_mails: int | None = 0,
    cap_days: int | None = 7,
    revision: int | None = None,
) -> Organisation:
    """Change the organisation's settings; the audit log keeps the names of the changed fields.

    Raises EditConflict when somebody changed them since ``revision`` was read.
    """
    actor.require(Permission.SETTINGS)
    current = organisation(session)
    validator = FieldValidator()
    new_values = {
        "name": validator.name("name", name),
        "language": validator.language("language", language),
        "timezone": validator.timezone("timezone", timezone),
        "currency": validator.currency("currency", currency),
        "sender_name": validator.name("sender_name", sender_name),
        "sender_email": validator.email("sender_email", sender_email),
        "postal_address": validator.text("postal_address", postal_address, max_length=500, required=False),
        "own_hosts": validator.hosts("own_hosts", list(own_hosts)),
        "quiet_from": quiet_from,
        "quiet_until": quiet_until,
        "cap_mails": validator.integer("cap_mails", cap_mails, 0, 1000),
        "cap_days": validator.integer("cap_days", cap_days, 1, 365),
    }
    validator.quiet_hours("quiet_from", quiet_from, "quiet_until", quiet_until)
    validator.raise_problems()
    changed = {field: value for field, value in new_values.items() if getattr(current, field) != value}
    for field, value in changed.items():
        setattr(current, field, value)
    if changed:
        bump_revision(session, current, revision)
        session.flush()
        audit.record(session, actor, "update", "organisation", current.id, changed=sorted(changed))
    return current
