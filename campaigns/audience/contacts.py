"""Service functions that add, change and find contacts."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience import suppression
from campaigns.audience.addresses import normalise
from campaigns.audience.models import Contact, ContactAlias, SuppressionReason
from campaigns.audience.self_service import is_self_service, require_audience_or_self_service
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

MAX_NAME_LENGTH = 100
MAX_ATTRIBUTE_LENGTH = 1000
MAX_ATTRIBUTES = 100
ATTRIBUTE_KEY = re.compile(r"[a-z][a-z0-9_]{0,49}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,6})?")
ADDRESS_ERASED = N_("This person was erased at their wish. Only they can come back, by signing up again.")
ADDRESS_TAKEN = N_("This address is among the contacts already.")


def add_contact(
    session: Session,
    actor: Actor,
    *,
    email: str,
    first_name: str = "",
    last_name: str = "",
    language: str | None = None,
    timezone: str | None = None,
    attributes: Mapping[str, str] | None = None,
    source: str = "",
) -> Contact:
    """Add a contact. Raises ValidationFailed, also when the address is taken or belongs to an erased person."""
    require_audience_or_self_service(actor)
    values = _clean_values(email, first_name, last_name, language, timezone, attributes)
    contact, is_new = _get_or_create(session, actor, values, source)
    if not is_new:
        raise ValidationFailed(ValidationProblem(ADDRESS_TAKEN, field="email"))
    return contact


def upsert_contact(
    session: Session,
    actor: Actor,
    *,
    email: str,
    first_name: str = "",
    last_name: str = "",
    language: str | None = None,
    timezone: str | None = None,
    attributes: Mapping[str, str] | None = None,
    source: str = "",
) -> tuple[Contact, bool]:
    """Return the contact with this address and whether it was created. Empty values overwrite nothing.

    Raises ValidationFailed, also for the address of an erased person unless they act themselves.
    """
    require_audience_or_self_service(actor)
    values = _clean_values(email, first_name, last_name, language, timezone, attributes)
    contact, is_new = _get_or_create(session, actor, values, source)
    if not is_new:
        given = {name: value for name, value in values.items() if value and name != "email"}
        given["attributes"] = {**contact.attributes, **values["attributes"]}
        _update_columns(session, contact, given)
    return contact, is_new


def update_contact(
    session: Session,
    actor: Actor,
    contact_id: int,
    *,
    email: str,
    first_name: str = "",
    last_name: str = "",
    language: str | None = None,
    timezone: str | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Contact:
    """Replace all values of a contact. An opt-out (unsubscribed, complained) also applies to a new address.

    Raises NotFound, and ValidationFailed when the new address is taken or belongs to an erased person.
    """
    actor.require(Permission.AUDIENCE)
    contact = contact_of(session, contact_id)
    values = _clean_values(email, first_name, last_name, language, timezone, attributes)
    old, new = contact.email, values["email"]
    if new != old:
        _check_erasure(session, actor, new)
        known = contact_by_address(session, new)
        if known is not None and known is not contact:
            raise ValidationFailed(ValidationProblem(ADDRESS_TAKEN, field="email"))
        session.execute(delete(ContactAlias).where(ContactAlias.address == new))
        reason = suppression.reason_for(session, old)
        if reason is not None and reason not in suppression.LIFTABLE:
            suppression.suppress(session, actor, new, reason)
    _update_columns(session, contact, values)
    audit.record(session, actor, "update", "contact", contact.id, address_changed=new != old)
    return contact


def contact_of(session: Session, contact_id: int) -> Contact:
    """Return the contact. Raises NotFound."""
    contact = session.get(Contact, contact_id)
    if contact is None:
        raise NotFound(N_("There is no such contact."))
    return contact


def contact_by_address(session: Session, address: str) -> Contact | None:
    """Return the contact with a normalised address or with that alias from a contact merge; None if there is none."""
    found = session.scalars(select(Contact).where(Contact.email == address)).one_or_none()
    return (
        found
        or session.scalars(select(Contact).join(ContactAlias).where(ContactAlias.address == address)).one_or_none()
    )


def aliases_of(session: Session, contact_id: int) -> Sequence[str]:
    """Return the addresses of contacts that were merged into this one."""
    return session.scalars(
        select(ContactAlias.address)
        .where(ContactAlias.contact_id == contact_id)
        .order_by(ContactAlias.merged_contact_id)
    ).all()


def merged_into(session: Session, contact_id: int) -> int | None:
    """Return the id of the contact that this one was merged into; None if it was not merged."""
    return session.scalar(select(ContactAlias.contact_id).where(ContactAlias.merged_contact_id == contact_id))


def _get_or_create(session: Session, actor: Actor, values: dict[str, Any], source: str) -> tuple[Contact, bool]:
    found = contact_by_address(session, values["email"])
    if found is not None:
        return found, False
    _check_erasure(session, actor, values["email"])
    at = clock.now()
    contact = Contact(**values, source=source[:100], created_at=at, updated_at=at)
    try:
        with session.begin_nested():
            session.add(contact)
    except IntegrityError:  # another session added it after our SELECT
        return session.scalars(select(Contact).where(Contact.email == values["email"])).one(), False
    audit.record(session, actor, "create", "contact", contact.id, source=contact.source)
    return contact, True


def _check_erasure(session: Session, actor: Actor, address: str) -> None:
    if is_self_service(actor):
        suppression.lift_own_erasure(session, actor, address)
    elif suppression.reason_for(session, address) is SuppressionReason.ERASED:
        raise ValidationFailed(ValidationProblem(ADDRESS_ERASED, field="email"))


def _update_columns(session: Session, contact: Contact, values: Mapping[str, Any]) -> None:
    changed = {name: value for name, value in values.items() if getattr(contact, name) != value}
    for name, value in changed.items():
        setattr(contact, name, value)
    if changed:
        contact.updated_at = clock.now()
        session.flush()


def _clean_values(
    email: str,
    first_name: str,
    last_name: str,
    language: str | None,
    timezone: str | None,
    attributes: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Return the values as the columns store them. Raises ValidationFailed with every problem found."""
    values: dict[str, Any] = {}
    problems: list[ValidationProblem] = []
    given: list[tuple[str, Any, Any]] = [
        ("email", normalise, email),
        ("first_name", clean_name, first_name),
        ("last_name", clean_name, last_name),
        ("language", clean_language, language or ""),
        ("timezone", clean_timezone, timezone or ""),
        ("attributes", clean_attributes, attributes or {}),
    ]
    for field, clean, value in given:
        try:
            values[field] = clean(value)
        except ValidationFailed as error:
            problems += [ValidationProblem(p.message, field=p.field or field, params=p.params) for p in error.problems]
    if problems:
        raise ValidationFailed(problems)
    return values


def clean_name(text: str) -> str:
    """Return a first or last name without surrounding blanks. Raises ValidationFailed."""
    return _clean_text(text, MAX_NAME_LENGTH)


def clean_language(text: str) -> str | None:
    """Return a language code in canonical form (``pt_BR`` → ``pt-BR``), None for ''. Raises ValidationFailed."""
    language, _, region = text.strip().replace("_", "-").partition("-")
    code = language.lower() + (f"-{region}" if region else "")
    if not code:
        return None
    if not _LANGUAGE.fullmatch(code):
        raise ValidationFailed(
            ValidationProblem(N_("“%(value)s” is not a language code such as en or fa."), params={"value": text[:40]})
        )
    return code


def clean_timezone(text: str) -> str | None:
    """Return an IANA time zone name, None for ''. Raises ValidationFailed for unknown names."""
    zone = text.strip()
    if not zone:
        return None
    if zone not in _timezone_names():
        message = N_("“%(value)s” is not a time zone such as Europe/Paris.")
        raise ValidationFailed(ValidationProblem(message, params={"value": text[:40]}))
    return zone


@cache
def _timezone_names() -> frozenset[str]:
    return frozenset(available_timezones())


def clean_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the non-empty attributes as flat strings. Raises ValidationFailed unless merge fields can use the keys."""
    if len(attributes) > MAX_ATTRIBUTES:
        message = N_("A contact has at most %(most)s further fields.")
        raise ValidationFailed(ValidationProblem(message, field="attributes", params={"most": MAX_ATTRIBUTES}))
    for key in attributes:
        if not ATTRIBUTE_KEY.fullmatch(key):
            message = N_("“%(key)s” cannot name a field: small letters a–z, digits and _ only, a letter first.")
            raise ValidationFailed(ValidationProblem(message, field="attributes", params={"key": key[:60]}))
    cleaned = {key: clean_attribute(value) for key, value in attributes.items()}
    return {key: value for key, value in cleaned.items() if value}


def clean_attribute(text: str) -> str:
    """Return one attribute's value without surrounding blanks. Raises ValidationFailed."""
    return _clean_text(text, MAX_ATTRIBUTE_LENGTH)


def _clean_text(text: str, longest: int) -> str:
    text = text.strip()
    if len(text) > longest:
        raise ValidationFailed(
            ValidationProblem(N_("Longer than %(longest)s characters."), params={"longest": longest})
        )
    if "\x00" in text:  # PostgreSQL cannot store NUL in text
        raise ValidationFailed(ValidationProblem(N_("Contains a NUL byte.")))
    return text
