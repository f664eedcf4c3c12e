"""The organisation, its people, their roles, and the audit trail."""

from datetime import time
from enum import StrEnum

from sqlalchemy import JSON, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Address, Base, Document, Id, Instant, Name, choice
from campaigns.i18n import N_


class Role(StrEnum):
    """What a person may do; see :data:`campaigns.accounts.actor.PERMISSIONS`."""

    OWNER = "owner"
    COORDINATOR = "coordinator"
    VIEWER = "viewer"

    @property
    def label(self) -> str:
        return {self.OWNER: N_("Owner"), self.COORDINATOR: N_("Coordinator"), self.VIEWER: N_("Viewer")}[self]


class Organisation(Base):
    """The one organisation of this database (id 1), written by the first-run page."""

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
    """Hosts that are ours beside BASE_URL's: clicks to them carry a visit token."""
    quiet_from: Mapped[time | None]
    quiet_until: Mapped[time | None]
    """No campaign mail is sent between these hours of the recipient's time zone; None for none."""
    cap_mails: Mapped[int] = mapped_column(default=0, server_default="0")
    cap_days: Mapped[int] = mapped_column(default=7, server_default="7")
    """At most ``cap_mails`` campaign mails to a contact in ``cap_days`` days; 0 for no limit."""
    bounce_domain: Mapped[str | None] = mapped_column(String(253))
    """Where bounces come back to; None: the domain of each mail's sender."""
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    """Raised by every change through a form, so that two open forms cannot overwrite each other unnoticed."""


class User(Base):
    """Somebody who signs in."""

    __tablename__ = "users"

    id: Mapped[Id]
    email: Mapped[Address] = mapped_column(unique=True)
    name: Mapped[Name]
    password_hash: Mapped[str] = mapped_column(String(200))
    role: Mapped[Role] = mapped_column(choice(Role))
    language: Mapped[str | None] = mapped_column(String(10))
    timezone: Mapped[str | None] = mapped_column(String(64))
    session_epoch: Mapped[int] = mapped_column(default=0)
    """Raised by a new password or a lock: sessions and reset links of before stop working."""
    created_at: Mapped[Instant]
    locked_at: Mapped[Instant | None]


class Scope(StrEnum):
    """What a program with an API key may do; see :data:`campaigns.accounts.actor.SCOPES`."""

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
    """A program's permission. The secret itself is shown once and never stored."""

    __tablename__ = "api_keys"

    id: Mapped[Id]
    name: Mapped[Name]
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    """The part that may be seen: finds the row, and lets people tell keys apart."""
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 of the whole key, which is random enough to need no slow hash."""
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    created_at: Mapped[Instant]
    created_by: Mapped[Name]
    expires_at: Mapped[Instant | None]
    last_used_at: Mapped[Instant | None]
    """Within ten minutes."""
    revoked_at: Mapped[Instant | None]


class LoginAttempt(Base):
    """Failed sign-ins counted per address and per network within a window."""

    __tablename__ = "login_attempts"

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    window_start: Mapped[Instant]
    failures: Mapped[int] = mapped_column(default=0)


class IdempotencyKey(Base):
    """What a form has made, so that sending the same form twice makes one."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    """The person and the key of the form that was shown to them."""
    url: Mapped[str] = mapped_column(String(300))
    at: Mapped[Instant] = mapped_column(index=True)


class AuditLogEntry(Base):
    """Who did what that matters, append-only."""

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
