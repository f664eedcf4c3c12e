"""The organisation, users, roles, API keys, login attempts and the audit log."""

from datetime import time
from enum import StrEnum

from sqlalchemy import JSON, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Address, Base, Document, Id, Instant, Name, string_enum
from campaigns.i18n import N_


class Role(StrEnum):
    """A user's role; its permissions are in :data:`campaigns.accounts.actor.PERMISSIONS`."""

    OWNER = "owner"
    COORDINATOR = "coordinator"
    VIEWER = "viewer"

    @property
    def label(self) -> str:
        return {self.OWNER: N_("Owner"), self.COORDINATOR: N_("Coordinator"), self.VIEWER: N_("Viewer")}[self]


class Organisation(Base):
    """The one organisation of this database (id 1), created by the first-run page."""

    __tablename__ = "organisations"

    id: Mapped[Id]
    name: Mapped[Name]
    language: Mapped[str] = mapped_column(String(10), default="en")
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    currency: Mapped[str] = mapped_column(String(3), default="EUR")
    sender_name: Mapped[Name]
    sender_email: Mapped[Address]
    postal_address: Mapped[str] = mapped_column(String(500), default="")
    own_hosts: Mapped[list[str]] = mapped_column(JSON, default=list)
    """The organisation's own hosts besides BASE_URL's: links to them carry a visit token."""
    quiet_from: Mapped[time | None]
    quiet_until: Mapped[time | None]
    """Quiet hours: no campaign mail is sent between these times of the recipient's time zone; None disables them."""
    cap_mails: Mapped[int] = mapped_column(default=0, server_default="0")
    cap_days: Mapped[int] = mapped_column(default=7, server_default="7")
    """At most ``cap_mails`` campaign mails to a contact in ``cap_days`` days; 0 disables the limit."""
    bounce_domain: Mapped[str | None] = mapped_column(String(253))
    """Domain of the envelope sender, where bounces arrive; None: the domain of each mail's sender."""
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    """Raised by every save through a form, so that two open forms can't overwrite each other unnoticed."""


class User(Base):
    """A person with an account."""

    __tablename__ = "users"

    id: Mapped[Id]
    email: Mapped[Address] = mapped_column(unique=True)
    name: Mapped[Name]
    password_hash: Mapped[str] = mapped_column(String(200))
    role: Mapped[Role] = mapped_column(string_enum(Role))
    language: Mapped[str | None] = mapped_column(String(10))
    timezone: Mapped[str | None] = mapped_column(String(64))
    session_epoch: Mapped[int] = mapped_column(default=0)
    """Raised by a new password or a lock: earlier sessions and reset links become invalid."""
    created_at: Mapped[Instant]
    locked_at: Mapped[Instant | None]


class Scope(StrEnum):
    """A scope of an API key; its permissions are in :data:`campaigns.accounts.actor.SCOPES`."""

    EVENTS = "events"
    MAIL = "mail"
    FIGURES = "figures"

    @property
    def label(self) -> str:
        return {
            self.EVENTS: N_("Report events and conversions"),
            self.MAIL: N_("Send single mails"),
            self.FIGURES: N_("Read figures"),
        }[self]


class ApiKey(Base):
    """The access of an API client. The key's text is shown once and never stored."""

    __tablename__ = "api_keys"

    id: Mapped[Id]
    name: Mapped[Name]
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    """The visible part of the key: it finds the row and lets people tell keys apart."""
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 of the whole key, which is random enough to need no slow hash."""
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    created_at: Mapped[Instant]
    created_by: Mapped[Name]
    expires_at: Mapped[Instant | None]
    last_used_at: Mapped[Instant | None]
    """With a resolution of ten minutes."""
    revoked_at: Mapped[Instant | None]


class LoginAttempt(Base):
    """Login attempts counted per address and per network within a window."""

    __tablename__ = "login_attempts"

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    window_start: Mapped[Instant]
    failures: Mapped[int] = mapped_column(default=0)


class IdempotencyKey(Base):
    """The result of a submitted form, so that submitting the same form twice creates one object."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    """``<user id>:<key of the form>``."""
    url: Mapped[str] = mapped_column(String(300))
    at: Mapped[Instant] = mapped_column(index=True)


class AuditLogEntry(Base):
    """One audited action; entries are only ever appended."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "subject_kind", "subject_id"),)

    id: Mapped[Id]
    at: Mapped[Instant] = mapped_column(index=True)
    actor_kind: Mapped[str] = mapped_column(String(20))
    actor_id: Mapped[int | None]
    actor_name: Mapped[Name]
    action: Mapped[str] = mapped_column(String(60))
    subject_kind: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[str] = mapped_column(String(40))
    detail: Mapped[Document]
