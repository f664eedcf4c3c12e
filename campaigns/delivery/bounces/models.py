"""What came back, what it meant, and the ways by which it comes."""

from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Address, Base, Document, Id, Instant, Name, choice
from campaigns.delivery.smtp.address import TlsMode
from campaigns.i18n import N_


class FeedbackSource(StrEnum):
    """By which way something came back."""

    SMTP = "smtp"  # the relay's own answer, while sending
    MTA = "mta"  # the listener
    COMMAND = "command"
    MAILBOX = "mailbox"
    SES = "ses"
    SENDGRID = "sendgrid"
    MAILGUN = "mailgun"
    POSTMARK = "postmark"
    BREVO = "brevo"

    @property
    def label(self) -> str:
        return {
            self.SMTP: N_("Relay's answer"),
            self.MTA: N_("Mail server"),
            self.COMMAND: N_("Command"),
            self.MAILBOX: N_("Mailbox"),
            self.SES: "Amazon SES",
            self.SENDGRID: "SendGrid",
            self.MAILGUN: "Mailgun",
            self.POSTMARK: "Postmark",
            self.BREVO: "Brevo",
        }[self]


class FeedbackType(StrEnum):
    """What something that came back turned out to be. The first four are recorded, the others only counted."""

    HARD = "hard"  # the address does not exist
    SOFT = "soft"  # not this time: full, away, unreachable
    POLICY = "policy"  # about us or the content (5.7.x): never the person's fault
    COMPLAINT = "complaint"
    AUTO_REPLY = "auto_reply"
    DELIVERED = "delivered"  # Action: delivered, relayed, expanded
    DELAYED = "delayed"
    REPEATED = "repeated"
    FORGED = "forged"  # a token in our form that we did not make
    FOREIGN = "foreign"  # about no mail of ours, as far as can be proved
    UNREADABLE = "unreadable"
    REFUSED = "refused"  # a webhook's signature or source did not hold; not kept

    @property
    def label(self) -> str:
        return {
            self.HARD: N_("Hard bounce"),
            self.SOFT: N_("Soft bounce"),
            self.POLICY: N_("Blocked by policy"),
            self.COMPLAINT: N_("Complaint"),
            self.AUTO_REPLY: N_("Automatic reply"),
            self.DELIVERED: N_("Note of delivery"),
            self.DELAYED: N_("Note of delay"),
            self.REPEATED: N_("Came before"),
            self.FORGED: N_("Forged token"),
            self.FOREIGN: N_("No token of ours"),
            self.UNREADABLE: N_("Not understood"),
            self.REFUSED: N_("Refused at the door"),
        }[self]


RECORDED = frozenset({FeedbackType.HARD, FeedbackType.SOFT, FeedbackType.POLICY, FeedbackType.COMPLAINT})
FOR_A_LOOK = frozenset({FeedbackType.UNREADABLE, FeedbackType.FOREIGN, FeedbackType.FORGED})
"""Kept with their words for thirty days, for somebody to look at."""


class Feedback(Base):
    """One bounce or complaint about one send, as somebody told us."""

    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("send_id", "key"),
        Index(None, "activity_id", "feedback_type"),
        Index(None, "address", "feedback_type", "at"),
    )

    id: Mapped[Id]
    send_id: Mapped[int] = mapped_column(ForeignKey("sends.id", ondelete="CASCADE"))
    activity_id: Mapped[int]
    address: Mapped[Address]
    """Whom we mailed; ``erased`` once the person is."""
    feedback_type: Mapped[FeedbackType] = mapped_column(choice(FeedbackType))
    status: Mapped[str] = mapped_column(String(20), default="")
    """Enhanced status code (RFC 3463), empty when nobody said one."""
    diagnostic: Mapped[str] = mapped_column(String(500), default="")
    source: Mapped[FeedbackSource] = mapped_column(choice(FeedbackSource))
    key: Mapped[str] = mapped_column(String(120))
    """The provider's number of the event, or a digest of the notice: what comes twice counts once."""
    at: Mapped[Instant]
    led_to_suppression: Mapped[bool] = mapped_column(default=False)
    """A soft bounce that led to a suppression already; after somebody lifted it, counting begins anew."""


class InboundMessage(Base):
    """What came back, kept before it is answered; read by the clock. Forgotten after thirty days."""

    __tablename__ = "inbound_messages"
    __table_args__ = (Index(None, "feedback_type", "due_at"),)

    id: Mapped[Id]
    source: Mapped[FeedbackSource] = mapped_column(choice(FeedbackSource))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Until it was understood; of what was not, until it is forgotten."""
    feedback_type: Mapped[FeedbackType | None] = mapped_column(choice(FeedbackType))
    """None: not read yet."""
    diagnostic: Mapped[str] = mapped_column(String(500), default="")
    recipient: Mapped[str] = mapped_column(String(254), default="")
    """The address that it speaks of, as far as it can be seen."""
    received_at: Mapped[Instant] = mapped_column(index=True)
    due_at: Mapped[Instant]


class FeedbackCount(Base):
    """How much of what came by which way, since the beginning."""

    __tablename__ = "feedback_counts"

    source: Mapped[FeedbackSource] = mapped_column(choice(FeedbackSource), primary_key=True)
    feedback_type: Mapped[FeedbackType] = mapped_column(choice(FeedbackType), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    last_at: Mapped[Instant]


class Mailbox(Base):
    """An IMAP mailbox that bounces come to; its number is 1, there is one."""

    __tablename__ = "bounce_mailboxes"

    id: Mapped[Id]
    host: Mapped[str] = mapped_column(String(253))
    port: Mapped[int]
    tls: Mapped[TlsMode] = mapped_column(choice(TlsMode))
    user: Mapped[str] = mapped_column(String(200))
    secret: Mapped[str] = mapped_column(String(1000), default="")
    """The password, sealed."""
    folder: Mapped[Name] = mapped_column(default="INBOX")
    delete_messages: Mapped[bool] = mapped_column(default=False)
    """Delete what was taken over; otherwise it is only marked as read."""
    active: Mapped[bool] = mapped_column(default=True)
    uid_validity: Mapped[int] = mapped_column(BigInteger, default=0)
    last_uid: Mapped[int] = mapped_column(BigInteger, default=0)
    """Taken over up to here; UIDs mean something for one UIDVALIDITY only."""
    error: Mapped[str] = mapped_column(String(500), default="")
    polled_at: Mapped[Instant | None]


class Webhook(Base):
    """What a provider's calls are checked with."""

    __tablename__ = "bounce_webhooks"

    source: Mapped[FeedbackSource] = mapped_column(choice(FeedbackSource), primary_key=True)
    secret: Mapped[str] = mapped_column(Text, default="")
    """Verification key, signing key, or ``user:password``; sealed."""
    topics: Mapped[Document]
    """SES: the allowed TopicArns → the SubscribeURL that waits for a person's yes, or ''."""
    active: Mapped[bool] = mapped_column(default=True)
    changed_at: Mapped[Instant]
