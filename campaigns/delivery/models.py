"""Sends: one row per recipient with an explicit state."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, SmallInteger, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Address, Base, BigId, Document, Id, Instant, Name, choice
from campaigns.delivery.mime.dkim import Algorithm
from campaigns.delivery.smtp.address import TlsMode
from campaigns.delivery.smtp.replies import DeliveryStatus
from campaigns.i18n import N_
from campaigns.outbox import OutboxMail

ERASED = "erased"
"""Stands for the address of a person who was erased: no address at all."""


class SendState(StrEnum):
    """Their counts always add up to the audience. DESIGN, *Send states*."""

    QUEUED = "queued"
    SENDING = "sending"  # claimed; committed before any byte leaves
    SENT = "sent"  # the relay said 250
    DEFERRED = "deferred"  # the relay or the network said later; due again at due_at
    BOUNCED = "bounced"  # the recipient's side said never
    FAILED = "failed"  # our side: cannot be composed, expired
    HELD = "held"  # by the operator or a breaker
    SKIPPED = "skipped"  # left out, with a reason
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"  # the last dot left and no answer came; never resent by itself

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


NEVER_SENT = (SendState.SKIPPED, SendState.CANCELLED, SendState.FAILED)
"""Whoever is in one of these has not got the mail, and won't."""


WAITING = (SendState.QUEUED, SendState.DEFERRED)
OPEN = (*WAITING, SendState.SENDING, SendState.HELD)
"""An activity that has none of these has nothing left to do."""


class SkipReason(StrEnum):
    """Why somebody of the audience is not mailed."""

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
"""Reason of a failed send: the time to send it was over."""
GIVEN_UP = "given up"
"""Reason of an unknown send that somebody counted as failed: it may have arrived, and is not sent again."""
WINDOW = "window"
"""Reason of a waiting send that is due when its send window opens."""
REASON_LABELS = {
    **{reason.value: reason.label for reason in SkipReason},
    EXPIRED: N_("The time to send was over"),
    WINDOW: N_("Waits for its send window"),
}


_LEASED = text("lease_until IS NOT NULL")


class Send(Base):
    """One message to one recipient. ``id = activity_id << 32 | seq``, a string in JSON."""

    __tablename__ = "sends"
    __table_args__ = (
        UniqueConstraint("activity_id", "recipient_key", "occasion"),
        Index(None, "activity_id", "state", "due_at"),
        Index(None, "contact_id", "id"),  # The last mails of somebody, without looking at all of them.
        # Nearly all are under no lease: an index that held them too would be written with each row.
        Index("ix_sends_leased", "lease_until", sqlite_where=_LEASED, postgresql_where=_LEASED),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"))
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id", ondelete="SET NULL"))
    address: Mapped[Address]
    recipient_key: Mapped[str] = mapped_column(String(260))
    """``c:<contact id>`` or ``a:<address>``; of an erased address ``a:erased <send id>``; ``e:`` and its
    idempotency key for a mail that a program asked for."""
    occasion: Mapped[str] = mapped_column(String(80), default="")
    """'' for a launch; an idempotency key for a test mail or a system mail."""
    version_id: Mapped[int | None] = mapped_column(ForeignKey("message_versions.id"))
    outbox_id: Mapped[int | None] = mapped_column(ForeignKey(OutboxMail.id))
    """Set instead of ``version_id`` for system mail, beside it for the fields of a program's mail."""
    state: Mapped[SendState] = mapped_column(choice(SendState), default=SendState.QUEUED)
    reason: Mapped[str] = mapped_column(String(20), default="")
    """SkipReason of a skipped send, EXPIRED or GIVEN_UP of a failed one, WINDOW of one that waits for its hour; of a
    bounced one ``hard``, ``soft`` or ``policy``."""
    trackable: Mapped[bool] = mapped_column(default=False)
    """Whether tracking consent was full when composed, so that the mail carried personal links."""
    due_at: Mapped[Instant | None]
    attempts: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[Instant | None]
    reply: Mapped[str] = mapped_column(String(500), default="")
    """The relay's last answer, code first."""
    # Milestones; engagement ones are human only
    sent_at: Mapped[Instant | None]
    bounced_at: Mapped[Instant | None]
    first_opened_at: Mapped[Instant | None]
    last_opened_at: Mapped[Instant | None]
    clicked_at: Mapped[Instant | None]
    unsubscribed_at: Mapped[Instant | None]
    complained_at: Mapped[Instant | None]


class Relay(Base):
    """A relay that an owner entered. Without an active one, the settings' ``SMTP_URL`` is used."""

    __tablename__ = "relays"

    id: Mapped[Id]
    name: Mapped[Name]
    """For people."""
    host: Mapped[str] = mapped_column(String(253))
    port: Mapped[int]
    tls: Mapped[TlsMode] = mapped_column(choice(TlsMode))
    user: Mapped[str] = mapped_column(String(200), default="")
    secret: Mapped[str] = mapped_column(String(1000), default="")
    """The password, sealed."""
    connections: Mapped[int] = mapped_column(default=4)
    per_connection: Mapped[int] = mapped_column(default=0)
    per_second: Mapped[float] = mapped_column(default=0.0)
    priority: Mapped[int] = mapped_column(default=1)
    """Of those that work, the ones with the lowest are used, evenly."""
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[Instant]


class DomainLimit(Base):
    """How fast a provider's domains may be mailed, over all relays and workers."""

    __tablename__ = "domain_limits"

    id: Mapped[Id]
    name: Mapped[Name]
    domains: Mapped[list[str]] = mapped_column(JSON)
    """Of recipients, as A-labels; together they share the limit."""
    per_second: Mapped[float] = mapped_column(default=0.0)
    at_once: Mapped[int] = mapped_column(default=0)
    """Mails under way at the same time. 0 means no limit, here and above."""
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[Instant]


class RelayHealth(Base):
    """What we last heard from a mail relay that we could not use; a row is made by its first failure."""

    __tablename__ = "relay_health"

    name: Mapped[str] = mapped_column(String(300), primary_key=True)
    """``host:port``"""
    error: Mapped[str] = mapped_column(String(500), default="")
    """Empty when the relay works (again)."""
    failures: Mapped[int] = mapped_column(default=0)
    """In a row."""
    failed_at: Mapped[Instant | None]
    retry_at: Mapped[Instant | None]
    """Nobody asks the relay before."""


class RelayReplyCount(Base):
    """How often a relay answered alike to an activity's mails: answers, of which one mail may get several."""

    __tablename__ = "relay_reply_counts"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    relay: Mapped[str] = mapped_column(String(300), primary_key=True)
    """``host:port``; empty when the mail never came so far."""
    status: Mapped[DeliveryStatus] = mapped_column(choice(DeliveryStatus), primary_key=True)
    reply: Mapped[str] = mapped_column(String(200), primary_key=True)
    """The answer without what differs from mail to mail; empty when the mail was taken."""
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """Who counted: on PostgreSQL each connection has rows of its own, so that nobody waits for another's."""
    count: Mapped[int]
    sample_reply: Mapped[str] = mapped_column(String(500))
    first_at: Mapped[Instant]
    last_at: Mapped[Instant]


class DkimKey(Base):
    """A key that mail from a domain is signed with: made, then published, then active, then retired."""

    __tablename__ = "dkim_keys"
    __table_args__ = (UniqueConstraint("domain", "selector"),)

    id: Mapped[Id]
    domain: Mapped[Name]
    selector: Mapped[str] = mapped_column(String(63))
    algorithm: Mapped[Algorithm] = mapped_column(choice(Algorithm))
    private: Mapped[str] = mapped_column(Text)
    """Sealed."""
    public: Mapped[str] = mapped_column(Text)
    created_at: Mapped[Instant]
    published_at: Mapped[Instant | None]
    """When a check first found its record."""
    active_at: Mapped[Instant | None]
    retired_at: Mapped[Instant | None]


class DomainCheck(Base):
    """What the last look at a sending domain's DNS found."""

    __tablename__ = "domain_checks"

    domain: Mapped[Name] = mapped_column(primary_key=True)
    checked_at: Mapped[Instant]
    results: Mapped[Document]
    """By subject (``spf``, ``dkim``, ``dmarc``, ``mx``, ``tracking``): ``{"state", "message", "params"}``."""
