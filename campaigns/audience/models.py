"""Tables of contacts, lists, the consent log, suppressions and imports."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Address, Base, BigId, Document, Id, Instant, Name, string_enum
from campaigns.i18n import N_


class Contact(Base):
    """A person we may address. ``email`` is normalised and unique."""

    __tablename__ = "contacts"
    __table_args__ = {"sqlite_autoincrement": True}
    # AUTOINCREMENT keeps SQLite from reusing the id of an erased contact: sends keep it as their recipient.

    id: Mapped[Id]
    email: Mapped[Address] = mapped_column(unique=True)
    first_name: Mapped[str] = mapped_column(String(100), default="")
    last_name: Mapped[str] = mapped_column(String(100), default="")
    language: Mapped[str | None] = mapped_column(String(10))
    timezone: Mapped[str | None] = mapped_column(String(64))
    attributes: Mapped[Document]
    """Further merge fields: flat, string values, keys ``[a-z][a-z0-9_]*``."""
    source: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[Instant]
    updated_at: Mapped[Instant]


class ContactAlias(Base):
    """Former id and address of a contact that was merged into another: both resolve to the surviving contact."""

    __tablename__ = "contact_aliases"

    merged_contact_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"), index=True)
    address: Mapped[Address] = mapped_column(unique=True)
    at: Mapped[Instant]


class ContactList(Base):
    """A hand-picked list."""

    __tablename__ = "lists"

    id: Mapped[Id]
    name: Mapped[Name] = mapped_column(unique=True)
    created_at: Mapped[Instant]


class ListMember(Base):
    """A contact on a list."""

    __tablename__ = "list_members"
    __table_args__ = (Index(None, "contact_id"),)

    list_id: Mapped[int] = mapped_column(ForeignKey("lists.id", ondelete="CASCADE"), primary_key=True)
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"), primary_key=True)
    added_at: Mapped[Instant]


class ConsentPurpose(StrEnum):
    EMAIL = "email"  # to be mailed
    TRACKING = "tracking"  # to have opens and clicks measured


class ConsentLevel(StrEnum):
    """EMAIL uses NONE and FULL. TRACKING also has DELIVERABILITY: only the date of the last open is kept."""

    NONE = "none"
    DELIVERABILITY = "deliverability"
    FULL = "full"

    @property
    def label(self) -> str:
        return {self.NONE: N_("No"), self.DELIVERABILITY: N_("Deliverability only"), self.FULL: N_("Yes")}[self]


class ConsentEntry(Base):
    """One append-only entry of the consent log: the level from ``at`` on, its source and its evidence."""

    __tablename__ = "consent_log"
    # Covering index (includes ``level``): the latest level of a contact is read from the index alone.
    __table_args__ = (Index(None, "contact_id", "purpose", "at", "id", "level"),)

    id: Mapped[Id]
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"))
    purpose: Mapped[ConsentPurpose] = mapped_column(string_enum(ConsentPurpose))
    level: Mapped[ConsentLevel] = mapped_column(string_enum(ConsentLevel))
    at: Mapped[Instant]
    source: Mapped[str] = mapped_column(String(200))
    wording: Mapped[str] = mapped_column(Text, default="")
    evidence: Mapped[Document]
    recorded_by: Mapped[Name]


class SuppressionReason(StrEnum):
    UNSUBSCRIBED = "unsubscribed"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    MANUAL = "manual"
    ERASED = "erased"

    @property
    def label(self) -> str:
        return {
            self.UNSUBSCRIBED: N_("Unsubscribed"),
            self.BOUNCED: N_("Address bounced"),
            self.COMPLAINED: N_("Complained"),
            self.MANUAL: N_("Put here by hand"),
            self.ERASED: N_("Erased"),
        }[self]


class Suppression(Base):
    """An address that is never mailed, and the reason. For an erased person only the keyed hash is stored."""

    __tablename__ = "suppressions"

    id: Mapped[Id]
    address: Mapped[Address | None] = mapped_column(unique=True)
    address_hash: Mapped[str] = mapped_column(String(32), unique=True)
    reason: Mapped[SuppressionReason] = mapped_column(string_enum(SuppressionReason))
    detail: Mapped[str] = mapped_column(String(500), default="")
    at: Mapped[Instant]
    previous_reason: Mapped[SuppressionReason | None] = mapped_column(string_enum(SuppressionReason))
    """The weaker reason that this one replaced; restored when the person takes back their opt-out."""


class ImportState(StrEnum):
    UPLOADED = "uploaded"  # waits for its column mapping
    CHECKING = "checking"  # dry run requested or running
    CHECKED = "checked"
    RUNNING = "running"  # import requested or running
    DONE = "done"
    FAILED = "failed"

    @property
    def label(self) -> str:
        return {
            self.UPLOADED: N_("Uploaded"),
            self.CHECKING: N_("Checking"),
            self.CHECKED: N_("Checked"),
            self.RUNNING: N_("Running"),
            self.DONE: N_("Done"),
            self.FAILED: N_("Failed"),
        }[self]


class ContactImport(Base):
    """One uploaded CSV file being imported. The scheduler's tick finds rows in state CHECKING and RUNNING."""

    __tablename__ = "contact_imports"

    id: Mapped[Id]
    filename: Mapped[Name]
    content_key: Mapped[str] = mapped_column(String(64))
    """Name of the uploaded file under ``var/imports/``."""
    state: Mapped[ImportState] = mapped_column(string_enum(ImportState), default=ImportState.UPLOADED)
    encoding: Mapped[str] = mapped_column(String(20), default="")
    delimiter: Mapped[str] = mapped_column(String(1), default=",")
    has_header: Mapped[bool] = mapped_column(default=True)
    mapping: Mapped[list[str]] = mapped_column(JSON, default=list)
    """One target per column: '' (skip), a contact column, or ``attributes.<key>``."""
    list_id: Mapped[int | None] = mapped_column(ForeignKey("lists.id", ondelete="SET NULL"))
    email_consent: Mapped[ConsentLevel] = mapped_column(string_enum(ConsentLevel), default=ConsentLevel.NONE)
    tracking_consent: Mapped[ConsentLevel] = mapped_column(string_enum(ConsentLevel), default=ConsentLevel.NONE)
    consent_wording: Mapped[str] = mapped_column(Text, default="")
    consent_source: Mapped[str] = mapped_column(String(200), default="")
    columns: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Header cells of the file; empty strings without a header."""
    rows_total: Mapped[int] = mapped_column(default=0)
    rows_read: Mapped[int] = mapped_column(default=0)
    """Number of staged rows processed, in their order; written in the transaction of each chunk."""
    created: Mapped[int] = mapped_column(default=0)
    updated: Mapped[int] = mapped_column(default=0)
    unchanged: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    suppressed: Mapped[int] = mapped_column(default=0)
    """Accepted rows whose contacts stay suppressed."""
    consent_kept: Mapped[int] = mapped_column(default=0)
    """Accepted rows whose contact's own answer overrides the file's consent statement."""
    problems: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """The first rejected rows of the dry run."""
    error: Mapped[str] = mapped_column(Text, default="")
    claimed_at: Mapped[Instant | None]
    created_by: Mapped[int | None] = mapped_column(BigId, ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    finished_at: Mapped[Instant | None]


class ImportRejection(Base):
    """A rejected row of the file and the reason. Its cells stay in the uploaded file."""

    __tablename__ = "import_rejections"

    import_id: Mapped[int] = mapped_column(ForeignKey("contact_imports.id", ondelete="CASCADE"), primary_key=True)
    row_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Row number as spreadsheets count: the header is row 1."""
    message: Mapped[str] = mapped_column(String(300))
    params: Mapped[Document]
    field: Mapped[str] = mapped_column(String(80), default="")
