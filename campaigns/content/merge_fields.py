"""Available merge fields, and sample values for previews."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact, ContactImport
from campaigns.content.rendering.renderer import recipient_fields

BUILT_IN_FIELDS = (
    "contact.first_name",
    "contact.last_name",
    "contact.email",
    "contact.language",
    "campaign.name",
    "organisation.name",
    "organisation.postal_address",
    "organisation.sender_name",
    "organisation.sender_email",
)
_SAMPLED_CONTACTS = 500
_MIN_SHARED_BY = 5


def known_fields(session: Session, requested: Iterable[str] = ()) -> list[str]:
    """Return all merge fields: the built-in ones, then contact attributes, sorted.

    Attributes are collected from import mappings and the newest contacts. ``requested`` fields that are not found
    there are looked up among all contacts.
    """
    keys: set[str] = set()
    for mapping in session.scalars(select(ContactImport.mapping).order_by(ContactImport.id.desc()).limit(50)):
        keys.update(target.removeprefix("attributes.") for target in mapping if target.startswith("attributes."))
    newest = select(Contact.attributes).order_by(Contact.id.desc()).limit(_SAMPLED_CONTACTS)
    for attributes in session.scalars(newest):
        keys.update(attributes)
    for name in requested:
        key = name.removeprefix("contact.")
        if key != name and name not in BUILT_IN_FIELDS and key not in keys and _any_contact_has(session, key):
            keys.add(key)
    return [*BUILT_IN_FIELDS, *sorted(f"contact.{key}" for key in keys if f"contact.{key}" not in BUILT_IN_FIELDS)]


def _any_contact_has(session: Session, key: str) -> bool:
    has_attribute = select(exists().where(Contact.attributes[key].as_string().is_not(None)))
    return bool(session.scalar(has_attribute))


def sample_contacts(session: Session, limit: int = 6) -> list[Contact]:
    """Return the newest contacts, for previews of a message."""
    return list(session.scalars(select(Contact).order_by(Contact.id.desc()).limit(limit)))


_SAMPLE_NAMES = {
    "fa": ("سارا", "احمدی"),
    "fr": ("Camille", "Moreau"),
    "ru": ("Анна", "Соколова"),
    "az": ("Aysel", "Məmmədova"),
    "ka": ("ნინო", "ბერიძე"),
}


def sample_attributes(session: Session) -> dict[str, str]:
    """Return a sample value per contact attribute, so that every merge field of a preview shows something.

    It is a value that several of the newest contacts share, so it identifies nobody; else the attribute's name.
    """
    value_counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for attributes in session.scalars(select(Contact.attributes).order_by(Contact.id.desc()).limit(_SAMPLED_CONTACTS)):
        for key, value in attributes.items():
            value_counts[key][str(value)] += bool(value)
    keys = (name.removeprefix("contact.") for name in known_fields(session) if name not in BUILT_IN_FIELDS)
    return {key: _most_shared_value(value_counts[key]) or key.replace("_", " ") for key in keys}


def _most_shared_value(values: Counter[str]) -> str:
    value, times = next(iter(values.most_common(1)), ("", 0))
    return value if times >= _MIN_SHARED_BY else ""


def sample_fields(
    language: str,
    organisation: Organisation,
    contact: Contact | None = None,
    attributes: Mapping[str, str] | None = None,
) -> dict[str, dict[str, str]]:
    """Return the merge fields of ``contact``, or of a fictitious contact with this language and these attributes."""
    first, last = _SAMPLE_NAMES.get(language, ("Sam", "Rivers"))
    sample = contact or Contact(
        email="sam.rivers@example.com",
        first_name=first,
        last_name=last,
        language=language,
        attributes=dict(attributes or {}),
    )
    return recipient_fields(sample, "Spring 2026", organisation)
