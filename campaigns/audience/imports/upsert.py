"""Upsert of one chunk of an import into contacts, and its preview for the dry run.

Rules: the first of several rows with one address wins; an empty cell overwrites nothing; an erased contact is
rejected; a suppressed contact stays suppressed; the file's consent statement applies only to contacts without an
answer of their own. No existing answer is changed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from campaigns.audience.consent import current_level_sql
from campaigns.audience.contacts import ERASED
from campaigns.audience.imports.sql import fill, insert_ignoring, json_differs, json_merge, staged
from campaigns.audience.imports.staging import StagedRow
from campaigns.audience.models import (
    ConsentEntry,
    ConsentLevel,
    ConsentPurpose,
    Contact,
    ContactAlias,
    ImportRejection,
    ListMember,
    Suppression,
    SuppressionReason,
)
from campaigns.audience.suppression import address_hash
from campaigns.i18n import N_


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Import settings that apply to every row."""

    import_id: int
    list_id: int | None
    email_consent: ConsentLevel
    tracking_consent: ConsentLevel
    wording: str
    source: str
    recorded_by: str
    at: datetime

    @property
    def stated(self) -> list[tuple[ConsentPurpose, ConsentLevel]]:
        """The stated consents as (purpose, level), without NONE."""
        both = ((ConsentPurpose.EMAIL, self.email_consent), (ConsentPurpose.TRACKING, self.tracking_consent))
        return [(purpose, level) for purpose, level in both if level is not ConsentLevel.NONE]


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """Outcomes of a chunk: created + updated + unchanged + rejected is the number of its rows."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    suppressed: int = 0
    consent_kept: int = 0

    def __add__(self, other: "ImportCounts") -> "ImportCounts":
        return ImportCounts(**{name: count + getattr(other, name) for name, count in self.counts().items()})

    def counts(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class RejectedRow:
    row: int
    message: str
    params: dict[str, Any]
    field: str = ""


MERGED = N_("This address belongs to a contact with another address, since the two were merged.")

Prepared = tuple[list[tuple[Any, ...]], list[RejectedRow]]


def prepare(import_id: int, rows: Sequence[StagedRow]) -> Prepared:
    """Return rows as tuples in the column order of ``staged``, and rows rejected so far. Needs no database."""
    good: list[tuple[Any, ...]] = []
    rejected: list[RejectedRow] = []
    for row in rows:
        if row.email is None:
            rejected.append(RejectedRow(row.row, row.message, json.loads(row.params), row.field))
        elif row.first_row != row.row:
            message = N_("The same address stands in row %(row)s already.")
            rejected.append(RejectedRow(row.row, message, {"row": row.first_row}, "email"))
        else:
            evidence = f'{{"import":{import_id},"row":{row.row}}}'
            good.append((row.row, row.email, address_hash(row.email), *row[2:7], evidence))
    return good, rejected


def foretell(
    connection: Connection, terms: ImportOptions, prepared: Prepared
) -> tuple[ImportCounts, list[RejectedRow]]:
    """Return the counts and rejections of :func:`merge_chunk` without changing anything but the staged rows."""
    rejected, suppressed = _stage(connection, prepared)
    known = _count(connection, Contact.email == staged.c.email)
    updated = _count(connection, _changes())
    valid = len(prepared[0]) - (len(rejected) - len(prepared[1]))
    kept = _consent_kept(connection, terms)
    return ImportCounts(valid - known, updated, known - updated, len(rejected), suppressed, kept), rejected


def merge(connection: Connection, terms: ImportOptions, prepared: Prepared) -> ImportCounts:
    """Merge a chunk into contacts, consent and list members, within the caller's transaction."""
    rejected, suppressed = _stage(connection, prepared)
    kept = _consent_kept(connection, terms)
    updated = connection.execute(_updating(terms)).rowcount
    created = connection.execute(_creating(connection, terms)).rowcount
    for purpose, level in terms.stated:
        connection.execute(_granting(terms, purpose, level))
    if terms.list_id is not None:
        connection.execute(_listing(connection, terms, terms.list_id))
    if rejected:
        connection.execute(
            insert(ImportRejection),
            [
                {
                    "import_id": terms.import_id,
                    "row_number": one.row,
                    "message": one.message,
                    "params": one.params,
                    "field": one.field,
                }
                for one in rejected
            ],
        )
    unchanged = len(prepared[0]) + len(prepared[1]) - len(rejected) - updated - created
    return ImportCounts(created, updated, unchanged, len(rejected), suppressed, kept)


def _stage(connection: Connection, prepared: Prepared) -> tuple[list[RejectedRow], int]:
    """Fill the temporary table without erased and merged addresses; return rejections, number of suppressed rows."""
    good, rejected = prepared
    fill(connection, good)
    found = connection.execute(
        select(staged.c.row_number, Suppression.reason).join_from(
            staged, Suppression, Suppression.address_hash == staged.c.address_hash
        )
    ).all()
    erased = [row for row, reason in found if reason is SuppressionReason.ERASED]
    merged_away = connection.scalars(
        select(staged.c.row_number).join_from(staged, ContactAlias, ContactAlias.address == staged.c.email)
    ).all()
    refused = {**dict.fromkeys(merged_away, MERGED), **dict.fromkeys(erased, ERASED)}
    for row in refused:
        connection.execute(delete(staged).where(staged.c.row_number == row))
    suppressed = sum(row not in refused for row, _reason in found)
    return [*rejected, *(RejectedRow(row, message, {}, "email") for row, message in refused.items())], suppressed


def _count(connection: Connection, condition: ColumnElement[bool]) -> int:
    stmt = select(func.count()).select_from(staged).join(Contact, Contact.email == staged.c.email).where(condition)
    return connection.scalar(stmt) or 0


_TEXTS = ("first_name", "last_name")
_CODES = ("language", "timezone")


def _changes() -> ColumnElement[bool]:
    """True where the staged row would change its contact."""
    return or_(
        *(and_(staged.c[name] != "", staged.c[name] != getattr(Contact, name)) for name in _TEXTS),
        *(
            and_(staged.c[name].is_not(None), staged.c[name].is_distinct_from(getattr(Contact, name)))
            for name in _CODES
        ),
        json_differs(json_merge(Contact.attributes, staged.c.attributes), Contact.attributes),
    )


def _updating(terms: ImportOptions) -> Any:
    values: dict[str, Any] = {
        name: case((staged.c[name] == "", getattr(Contact, name)), else_=staged.c[name]) for name in _TEXTS
    }
    values |= {name: func.coalesce(staged.c[name], getattr(Contact, name)) for name in _CODES}
    values["attributes"] = json_merge(Contact.attributes, staged.c.attributes)
    values["updated_at"] = terms.at
    return (
        update(Contact)
        .where(Contact.email == staged.c.email, _changes())
        .values(values)
        .execution_options(synchronize_session=False)
    )


def _creating(connection: Connection, terms: ImportOptions) -> Any:
    copied = ["email", *_TEXTS, *_CODES, "attributes"]
    new = (
        select(
            *(staged.c[name] for name in copied),
            literal(terms.source[:100]),
            literal(terms.at, Contact.created_at.type),
            literal(terms.at, Contact.created_at.type),
        )
        .where(~exists().where(Contact.email == staged.c.email))
        .order_by(staged.c.email)
    )
    return (
        insert_ignoring(connection, Contact)
        .from_select([*copied, "source", "created_at", "updated_at"], new)
        .on_conflict_do_nothing(index_elements=[Contact.email])
        .execution_options(preserve_rowcount=True)
    )


def _suppressed() -> ColumnElement[bool]:
    return exists().where(Suppression.address_hash == staged.c.address_hash)


def _granting(terms: ImportOptions, purpose: ConsentPurpose, level: ConsentLevel) -> Any:
    answered = exists().where(ConsentEntry.contact_id == Contact.id, ConsentEntry.purpose == purpose)
    said = (
        select(
            Contact.id,
            literal(purpose, ConsentEntry.purpose.type),
            literal(level, ConsentEntry.level.type),
            literal(terms.at, ConsentEntry.at.type),
            literal(terms.source[:200]),
            literal(terms.wording),
            staged.c.evidence,
            literal(terms.recorded_by[:200]),
        )
        .join_from(staged, Contact, Contact.email == staged.c.email)
        .where(~answered.correlate(Contact), ~_suppressed().correlate(staged))
        .order_by(Contact.id)
    )
    names = ["contact_id", "purpose", "level", "at", "source", "wording", "evidence", "recorded_by"]
    return insert(ConsentEntry).from_select(names, said)


def _consent_kept(connection: Connection, terms: ImportOptions) -> int:
    """Number of contacts whose own answer or suppression overrides the file's consent statement."""
    ways = [
        or_(_suppressed().correlate(staged), func.coalesce(current_level_sql(purpose), level) != level)
        for purpose, level in terms.stated
    ]
    return _count(connection, or_(*ways)) if ways else 0


def _listing(connection: Connection, terms: ImportOptions, list_id: int) -> Any:
    members = (
        select(literal(list_id), Contact.id, literal(terms.at, ListMember.added_at.type))
        .join_from(staged, Contact, Contact.email == staged.c.email)
        .where(staged.c.email.is_not(None))
        .order_by(Contact.id)
    )
    return (
        insert_ignoring(connection, ListMember)
        .from_select(["list_id", "contact_id", "added_at"], members)
        .on_conflict_do_nothing()
    )
