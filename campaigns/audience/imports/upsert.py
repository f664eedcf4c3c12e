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
from campaigns.audience.contacts import ADDRESS_ERASED
from campaigns.audience.imports.sql import fill_staged, insert_ignoring, json_inequality, json_merge, staged
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
    def stated_consents(self) -> list[tuple[ConsentPurpose, ConsentLevel]]:
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


ADDRESS_MERGED = N_("This address belongs to a contact with another address, since the two were merged.")

PreparedChunk = tuple[list[tuple[Any, ...]], list[RejectedRow]]


def prepare_chunk(import_id: int, rows: Sequence[StagedRow]) -> PreparedChunk:
    """Return rows as tuples in the column order of ``staged``, and rows rejected so far. Needs no database."""
    accepted: list[tuple[Any, ...]] = []
    rejected: list[RejectedRow] = []
    for row in rows:
        if row.email is None:
            rejected.append(RejectedRow(row.row, row.message, json.loads(row.params), row.field))
        elif row.first_row != row.row:
            message = N_("The same address stands in row %(row)s already.")
            rejected.append(RejectedRow(row.row, message, {"row": row.first_row}, "email"))
        else:
            evidence = f'{{"import":{import_id},"row":{row.row}}}'
            accepted.append((row.row, row.email, address_hash(row.email), *row[2:7], evidence))
    return accepted, rejected


def preview_chunk(
    connection: Connection, options: ImportOptions, prepared: PreparedChunk
) -> tuple[ImportCounts, list[RejectedRow]]:
    """Return the counts and rejections of :func:`merge_chunk` without changing anything but the staged rows."""
    rejected, suppressed = _stage_rows(connection, prepared)
    existing = _count_staged(connection, Contact.email == staged.c.email)
    updated = _count_staged(connection, _differs_from_contact())
    valid = len(prepared[0]) - (len(rejected) - len(prepared[1]))
    kept = _count_consent_kept(connection, options)
    return ImportCounts(valid - existing, updated, existing - updated, len(rejected), suppressed, kept), rejected


def merge_chunk(connection: Connection, options: ImportOptions, prepared: PreparedChunk) -> ImportCounts:
    """Merge a chunk into contacts, consent and list members, within the caller's transaction."""
    rejected, suppressed = _stage_rows(connection, prepared)
    kept = _count_consent_kept(connection, options)
    updated = connection.execute(_contact_update(options)).rowcount
    created = connection.execute(_contact_insert(connection, options)).rowcount
    for purpose, level in options.stated_consents:
        connection.execute(_consent_insert(options, purpose, level))
    if options.list_id is not None:
        connection.execute(_list_member_insert(connection, options, options.list_id))
    if rejected:
        connection.execute(
            insert(ImportRejection),
            [
                {
                    "import_id": options.import_id,
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


def _stage_rows(connection: Connection, prepared: PreparedChunk) -> tuple[list[RejectedRow], int]:
    """Fill the temporary table without erased and merged addresses; return rejections, number of suppressed rows."""
    accepted, rejected = prepared
    fill_staged(connection, accepted)
    suppressed_rows = connection.execute(
        select(staged.c.row_number, Suppression.reason).join_from(
            staged, Suppression, Suppression.address_hash == staged.c.address_hash
        )
    ).all()
    erased = [row for row, reason in suppressed_rows if reason is SuppressionReason.ERASED]
    merged_away = connection.scalars(
        select(staged.c.row_number).join_from(staged, ContactAlias, ContactAlias.address == staged.c.email)
    ).all()
    refused = {**dict.fromkeys(merged_away, ADDRESS_MERGED), **dict.fromkeys(erased, ADDRESS_ERASED)}
    for row in refused:
        connection.execute(delete(staged).where(staged.c.row_number == row))
    suppressed = sum(row not in refused for row, _reason in suppressed_rows)
    return [*rejected, *(RejectedRow(row, message, {}, "email") for row, message in refused.items())], suppressed


def _count_staged(connection: Connection, condition: ColumnElement[bool]) -> int:
    stmt = select(func.count()).select_from(staged).join(Contact, Contact.email == staged.c.email).where(condition)
    return connection.scalar(stmt) or 0


_TEXT_COLUMNS = ("first_name", "last_name")
_NULLABLE_COLUMNS = ("language", "timezone")


def _differs_from_contact() -> ColumnElement[bool]:
    """True where the staged row would change its contact."""
    return or_(
        *(and_(staged.c[name] != "", staged.c[name] != getattr(Contact, name)) for name in _TEXT_COLUMNS),
        *(
            and_(staged.c[name].is_not(None), staged.c[name].is_distinct_from(getattr(Contact, name)))
            for name in _NULLABLE_COLUMNS
        ),
        json_inequality(json_merge(Contact.attributes, staged.c.attributes), Contact.attributes),
    )


def _contact_update(options: ImportOptions) -> Any:
    values: dict[str, Any] = {
        name: case((staged.c[name] == "", getattr(Contact, name)), else_=staged.c[name]) for name in _TEXT_COLUMNS
    }
    values |= {name: func.coalesce(staged.c[name], getattr(Contact, name)) for name in _NULLABLE_COLUMNS}
    values["attributes"] = json_merge(Contact.attributes, staged.c.attributes)
    values["updated_at"] = options.at
    return (
        update(Contact)
        .where(Contact.email == staged.c.email, _differs_from_contact())
        .values(values)
        .execution_options(synchronize_session=False)
    )


def _contact_insert(connection: Connection, options: ImportOptions) -> Any:
    copied = ["email", *_TEXT_COLUMNS, *_NULLABLE_COLUMNS, "attributes"]
    new = (
        select(
            *(staged.c[name] for name in copied),
            literal(options.source[:100]),
            literal(options.at, Contact.created_at.type),
            literal(options.at, Contact.created_at.type),
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


def _is_suppressed() -> ColumnElement[bool]:
    return exists().where(Suppression.address_hash == staged.c.address_hash)


def _consent_insert(options: ImportOptions, purpose: ConsentPurpose, level: ConsentLevel) -> Any:
    answered = exists().where(ConsentEntry.contact_id == Contact.id, ConsentEntry.purpose == purpose)
    entries = (
        select(
            Contact.id,
            literal(purpose, ConsentEntry.purpose.type),
            literal(level, ConsentEntry.level.type),
            literal(options.at, ConsentEntry.at.type),
            literal(options.source[:200]),
            literal(options.wording),
            staged.c.evidence,
            literal(options.recorded_by[:200]),
        )
        .join_from(staged, Contact, Contact.email == staged.c.email)
        .where(~answered.correlate(Contact), ~_is_suppressed().correlate(staged))
        .order_by(Contact.id)
    )
    names = ["contact_id", "purpose", "level", "at", "source", "wording", "evidence", "recorded_by"]
    return insert(ConsentEntry).from_select(names, entries)


def _count_consent_kept(connection: Connection, options: ImportOptions) -> int:
    """Number of contacts whose own answer or suppression overrides the file's consent statement."""
    conflicts = [
        or_(_is_suppressed().correlate(staged), func.coalesce(current_level_sql(purpose), level) != level)
        for purpose, level in options.stated_consents
    ]
    return _count_staged(connection, or_(*conflicts)) if conflicts else 0


def _list_member_insert(connection: Connection, options: ImportOptions, list_id: int) -> Any:
    members = (
        select(literal(list_id), Contact.id, literal(options.at, ListMember.added_at.type))
        .join_from(staged, Contact, Contact.email == staged.c.email)
        .where(staged.c.email.is_not(None))
        .order_by(Contact.id)
    )
    return (
        insert_ignoring(connection, ListMember)
        .from_select(["list_id", "contact_id", "added_at"], members)
        .on_conflict_do_nothing()
    )
