"""Delivery tables: sends, relays with health and reply counts, domain limits, DKIM keys, DNS checks."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, SmallInteger, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Address, Base, BigId, Document, Id, Instant, Name, string_enum
from campaigns.delivery.mime.dkim import Algorithm
from campaigns.delivery.smtp.address import TlsMode
from campaigns.delivery.smtp.replies import DeliveryStatus
from campaigns.i18n import N_
from campaigns.outbox import OutboxMail

ERASED_ADDRESS = "erased"
"""Replaces the address of an erased person; it is not a valid address."""


class SendState(StrEnum):
    """State of a send. The counts of all states add up to the audience."""

    QUEUED = "queued"
    SENDING = "sending"  # claimed by a worker; committed before the first byte is sent
    SENT = "sent"  # accepted by the relay with 250
    DEFERRED = "deferred"  # temporary failure of relay or network; due again at due_at
    BOUNCED = "bounced"  # permanent rejection of this recipient (5xx or DSN)
    FAILED = "failed"  # failure on our side: not composable, or expired
    HELD = "held"  # by an operator, the circuit breaker, or a rejection of us as the sender
    SKIPPED = "skipped"  # not mailed, for a SkipReason
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"  # the final dot was sent and no reply came; never resent automatically

    @property
    def label(self) -> str:
        return {
            self.QUEUED: N_("Queued"),
            self.SENDING: N_("Sending"),
            self.SENT: N_("Sent"),
            self.DEFERRED: N_("Deferred"),
            self.BOUNCED: N_("Bounced"),
            self.FAILED: N_("Failed"),
            self.HELD: N_("Held"),
            self.SKIPPED: N_("Skipped"),
            self.CANCELLED: N_("Cancelled"),
            self.UNKNOWN: N_("Unknown"),
        }[self]


NEVER_SENT_STATES = (SendState.SKIPPED, SendState.CANCELLED, SendState.FAILED)
"""States in which the recipient has not got the mail and will not get it."""


WAITING_STATES = (SendState.QUEUED, SendState.DEFERRED)
OPEN_STATES = (*WAITING_STATES, SendState.SENDING, SendState.HELD)
"""States with work left: an activity without sends in them is done."""


class SkipReason(StrEnum):
    """Reasons for which a recipient in the audience is not mailed."""

    SUPPRESSED = "suppressed"
    NO_CONSENT = "no_consent"
    CAPPED = "capped"
    MERGED = "merged"

    @property
    def label(self) -> str:
        return {
            self.SUPPRESSED: N_("Suppressed"),
            self.NO_CONSENT: N_("No consent to mail"),
            self.CAPPED: N_("Has had enough mails lately"),
            self.MERGED: N_("Gets it under another address"),
        }[self]


EXPIRED = "expired"
"""Reason of a failed send: the activity's ``stop_after`` had passed."""
GIVEN_UP = "given up"
"""Reason of a failed send that was *unknown* and that an operator gave up: it may have arrived, and is not resent."""
OUTSIDE_WINDOW = "window"
"""Reason of a waiting send whose ``due_at`` is the opening of its send window."""
REASON_LABELS = {
    **{reason.value: reason.label for reason in SkipReason},
    EXPIRED: N_("The time to send was over"),
    OUTSIDE_WINDOW: N_("Waits for its send window"),
}


_HAS_LEASE = text("lease_until IS NOT NULL")


class Send(Base):
    """One message to one recipient.

    ``id = activity_id << 32 | seq``. In JSON ids are strings, because they exceed 2⁵³, the limit of exact numbers in
    JavaScript.
    """

    __tablename__ = "sends"
    __table_args__ = (
        UniqueConstraint("activity_id", "recipient_key", "occasion"),
        Index(None, "activity_id", "state", "due_at"),
        Index(None, "contact_id", "id"),  # Latest sends of a contact.
        # Partial, because few sends are under a lease at a time: a full index would be written with every row.
        Index("ix_sends_leased", "lease_until", sqlite_where=_HAS_LEASE, postgresql_where=_HAS_LEASE),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"))
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id", ondelete="SET NULL"))
    address: Mapped[Address]
    recipient_key: Mapped[str] = mapped_column(String(260))
    """``c:<contact id>`` or ``a:<address>``; ``a:erased <send id>`` after erasure of an address; ``e:<idempotency
    key>`` for API mail."""
    occasion: Mapped[str] = mapped_column(String(80), default="")
    """'' for a launch; an idempotency key for test, system and API mail."""
    version_id: Mapped[int | None] = mapped_column(ForeignKey("message_versions.id"))
    outbox_id: Mapped[int | None] = mapped_column(ForeignKey(OutboxMail.id))
    """System mail: set instead of ``version_id``. API mail: set beside it, and holds the request's fields."""
    state: Mapped[SendState] = mapped_column(string_enum(SendState), default=SendState.QUEUED)
    reason: Mapped[str] = mapped_column(String(20), default="")
    """Depends on the state. Skipped: a SkipReason; failed: EXPIRED or GIVEN_UP; waiting: WINDOW while the send window
    is closed; bounced: ``hard``, ``soft`` or ``policy``."""
    trackable: Mapped[bool] = mapped_column(default=False)
    """Whether tracking consent was *full* when the mail was composed, so that it carries personal links and a pixel."""
    due_at: Mapped[Instant | None]
    attempts: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[Instant | None]
    reply: Mapped[str] = mapped_column(String(500), default="")
    """The relay's last reply on one line, code first."""
    # Milestones; opens and clicks labelled as bots do not count.
    sent_at: Mapped[Instant | None]
    bounced_at: Mapped[Instant | None]
    first_opened_at: Mapped[Instant | None]
    last_opened_at: Mapped[Instant | None]
    clicked_at: Mapped[Instant | None]
    unsubscribed_at: Mapped[Instant | None]
    complained_at: Mapped[Instant | None]


class Relay(Base):
    """An SMTP relay configured by an owner. Without an active one, the relay of the setting ``SMTP_URL`` is used."""

    __tablename__ = "relays"

    id: Mapped[Id]
    name: Mapped[Name]
    """Display name."""
    host: Mapped[str] = mapped_column(String(253))
    port: Mapped[int]
    tls: Mapped[TlsMode] = mapped_column(string_enum(TlsMode))
    user: Mapped[str] = mapped_column(String(200), default="")
    secret: Mapped[str] = mapped_column(String(1000), default="")
    """The password, encrypted by :mod:`campaigns.encryption`."""
    connections: Mapped[int] = mapped_column(default=4)
    per_connection: Mapped[int] = mapped_column(default=0)
    per_second: Mapped[float] = mapped_column(default=0.0)
    priority: Mapped[int] = mapped_column(default=1)
    """The available relays with the lowest number are used, sharing the load evenly."""
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[Instant]


class DomainLimit(Base):
    """Rate and concurrency limit for a mailbox provider's domains, across all relays and workers."""

    __tablename__ = "domain_limits"

    id: Mapped[Id]
    name: Mapped[Name]
    domains: Mapped[list[str]] = mapped_column(JSON)
    """Recipient domains as A-labels; they share the limit."""
    per_second: Mapped[float] = mapped_column(default=0.0)
    at_once: Mapped[int] = mapped_column(default=0)
    """Maximum number of mails in transit at the same time. 0 means no limit, here and in ``per_second``."""
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[Instant]


class RelayHealth(Base):
    """Health of a relay. The row is created by the first failure."""

    __tablename__ = "relay_health"

    name: Mapped[str] = mapped_column(String(300), primary_key=True)
    """``host:port``"""
    error: Mapped[str] = mapped_column(String(500), default="")
    """The last error; '' when the relay works again."""
    failures: Mapped[int] = mapped_column(default=0)
    """Number of consecutive failures."""
    failed_at: Mapped[Instant | None]
    retry_at: Mapped[Instant | None]
    """The relay is not tried before this instant."""


class RelayReplyCount(Base):
    """Number of similar relay replies to an activity's mails. A mail that is retried gets several replies."""

    __tablename__ = "relay_reply_counts"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    relay: Mapped[str] = mapped_column(String(300), primary_key=True)
    """``host:port``; '' when no relay was contacted."""
    status: Mapped[DeliveryStatus] = mapped_column(string_enum(DeliveryStatus), primary_key=True)
    reply: Mapped[str] = mapped_column(String(200), primary_key=True)
    """The reply with its varying parts (addresses, ids) replaced by "…"; '' when the mail was accepted."""
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """Shard of the counter. On PostgreSQL it is derived from the backend's process id, so that concurrent
    transactions rarely wait for each other's row lock; on SQLite it is 0."""
    count: Mapped[int]
    sample_reply: Mapped[str] = mapped_column(String(500))
    first_at: Mapped[Instant]
    last_at: Mapped[Instant]


class DkimKey(Base):
    """A DKIM key of a domain. Lifecycle: created, published in the DNS, active (signs mail), retired."""

    __tablename__ = "dkim_keys"
    __table_args__ = (UniqueConstraint("domain", "selector"),)

    id: Mapped[Id]
    domain: Mapped[Name]
    selector: Mapped[str] = mapped_column(String(63))
    algorithm: Mapped[Algorithm] = mapped_column(string_enum(Algorithm))
    private: Mapped[str] = mapped_column(Text)
    """The private key, encrypted."""
    public: Mapped[str] = mapped_column(Text)
    created_at: Mapped[Instant]
    published_at: Mapped[Instant | None]
    """When a DNS check first found the key's record."""
    active_at: Mapped[Instant | None]
    retired_at: Mapped[Instant | None]


class DomainCheck(Base):
    """Result of the last DNS check of a sending domain."""

    __tablename__ = "domain_checks"

    domain: Mapped[Name] = mapped_column(primary_key=True)
    checked_at: Mapped[Instant]
    results: Mapped[Document]
    """By check (``spf``, ``dkim``, ``dmarc``, ``mx``, ``ptr``, ``tracking``): ``{"state", "message", "params"}``."""
