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
from campaigns.optimistic_lock import count_change

USUAL_CURRENCIES = ("EUR", "USD", "GBP", "GEL", "IRR", "AZN", "RUB", "AMD", "TRY", "AED", "CHF", "KZT")
"""The currencies offered in forms, in this order."""
_THE_ONE = 1


def organisation(session: Session) -> Organisation:
    """The organisation of this database. Raises NotFound before the first run."""
    found = session.get(Organisation, _THE_ONE)
    if found is None:
        raise NotFound(N_("Nothing is set up here yet."))
    return found


def found(
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
    checks = FieldValidator()
    first = Organisation(
        id=_THE_ONE,
        name=checks.name("name", name),
        sender_email=checks.email("sender_email", sender_email),
        language=checks.language("language", language),
        timezone=checks.timezone("timezone", timezone),
        currency=checks.currency("currency", currency),
        own_hosts=[],
    )
    first.sender_name = first.name
    owner = User(
        name=checks.name("owner_name", owner_name),
        email=checks.email("owner_email", owner_email),
        role=Role.OWNER,
        language=None,
        created_at=clock.now(),
    )
    checks.password("owner_password", owner_password)
    checks.settle()
    owner.password_hash = passwords.hashed(owner_password)
    if session.get(Organisation, _THE_ONE) is not None:
        raise Conflict(N_("This installation has been set up already. Please sign in."))
    try:
        with session.begin_nested():
            session.add(first)
    except IntegrityError as error:
        raise Conflict(N_("This installation has been set up already. Please sign in.")) from error
    session.add(owner)
    session.flush()
    audit.record(session, Actor.of(owner), "create", "organisation", _THE_ONE, name=first.name)
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
    ours = organisation(session)
    checks = FieldValidator()
    wanted = {
        "name": checks.name("name", name),
        "language": checks.language("language", language),
        "timezone": checks.timezone("timezone", timezone),
        "currency": checks.currency("currency", currency),
        "sender_name": checks.name("sender_name", sender_name),
        "sender_email": checks.email("sender_email", sender_email),
        "postal_address": checks.text("postal_address", postal_address, longest=500, needed=False),
        "own_hosts": checks.hosts("own_hosts", list(own_hosts)),
        "quiet_from": quiet_from,
        "quiet_until": quiet_until,
        "cap_mails": checks.whole("cap_mails", cap_mails, 0, 1000),
        "cap_days": checks.whole("cap_days", cap_days, 1, 365),
    }
    checks.hours("quiet_from", quiet_from, "quiet_until", quiet_until)
    checks.settle()
    changed = {field: value for field, value in wanted.items() if getattr(ours, field) != value}
    for field, value in changed.items():
        setattr(ours, field, value)
    if changed:
        count_change(session, ours, revision)
        session.flush()
        audit.record(session, actor, "update", "organisation", ours.id, changed=sorted(changed))
    return ours
