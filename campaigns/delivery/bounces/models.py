"""Tables of bounce processing: feedback, inbound messages, counts, the IMAP mailbox and the providers' webhooks."""

from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Address, Base, Document, Id, Instant, Name, string_enum
from campaigns.delivery.smtp.address import TlsMode
from campaigns.i18n import N_


class FeedbackSource(StrEnum):
    """Channel by which a bounce or complaint arrived."""

    SMTP = "smtp"  # the relay's own reply during the SMTP session
    MTA = "mta"  # the SMTP/LMTP listener
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
    """Result of parsing one inbound message. The first four are recorded as feedback, the others only counted."""

    HARD = "hard"  # the address does not exist
    SOFT = "soft"  # temporary: mailbox full, absence, server unreachable
    POLICY = "policy"  # about the sender or the content (5.7.x), so the recipient's address is not suppressed
    COMPLAINT = "complaint"
    AUTO_REPLY = "auto_reply"
    DELIVERED = "delivered"  # Action: delivered, relayed, expanded
    DELAYED = "delayed"
    REPEATED = "repeated"
    FORGED = "forged"  # a token in our format whose signature is invalid
    FOREIGN = "foreign"  # no valid token, so it belongs to no send of ours
    UNREADABLE = "unreadable"
    REFUSED = "refused"  # the webhook call failed its signature or source check; not stored

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


RECORDED_TYPES = frozenset({FeedbackType.HARD, FeedbackType.SOFT, FeedbackType.POLICY, FeedbackType.COMPLAINT})
INSPECTABLE_TYPES = frozenset({FeedbackType.UNREADABLE, FeedbackType.FOREIGN, FeedbackType.FORGED})
"""Results whose raw message is kept for thirty days so that an operator can inspect it."""


class Feedback(Base):
    """One bounce or complaint about one send."""

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
    """The address the mail was sent to; ``erased`` after the contact is erased."""
    feedback_type: Mapped[FeedbackType] = mapped_column(string_enum(FeedbackType))
    status: Mapped[str] = mapped_column(String(20), default="")
    """Enhanced status code (RFC 3463); empty when the report has none."""
    diagnostic: Mapped[str] = mapped_column(String(500), default="")
    source: Mapped[FeedbackSource] = mapped_column(string_enum(FeedbackSource))
    key: Mapped[str] = mapped_column(String(120))
    """Provider's event id, or a digest of the report. UNIQUE with ``send_id``, so a repeated delivery counts once."""
    at: Mapped[Instant]
    led_to_suppression: Mapped[bool] = mapped_column(default=False)
    """True once this soft bounce has led to a suppression. Such rows no longer count if the suppression is lifted."""


class InboundMessage(Base):
    """A raw bounce mail or webhook call, stored before it is acknowledged; parsed by a tick, deleted after 30 days."""

    __tablename__ = "inbound_messages"
    __table_args__ = (Index(None, "feedback_type", "due_at"),)

    id: Mapped[Id]
    source: Mapped[FeedbackSource] = mapped_column(string_enum(FeedbackSource))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Cleared once the message is parsed; unparsed or unattributed messages keep it until they are deleted."""
    feedback_type: Mapped[FeedbackType | None] = mapped_column(string_enum(FeedbackType))
    """None until the message is parsed."""
    diagnostic: Mapped[str] = mapped_column(String(500), default="")
    recipient: Mapped[str] = mapped_column(String(254), default="")
    """The address the report names; informative only, it is not verified."""
    received_at: Mapped[Instant] = mapped_column(index=True)
    due_at: Mapped[Instant]


class FeedbackCount(Base):
    """Number of inbound messages of one source and type since the installation began."""

    __tablename__ = "feedback_counts"

    source: Mapped[FeedbackSource] = mapped_column(string_enum(FeedbackSource), primary_key=True)
    feedback_type: Mapped[FeedbackType] = mapped_column(string_enum(FeedbackType), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    last_at: Mapped[Instant]


class Mailbox(Base):
    """The IMAP mailbox that receives bounces. There is one, with id 1."""

    __tablename__ = "bounce_mailboxes"

    id: Mapped[Id]
    host: Mapped[str] = mapped_column(String(253))
    port: Mapped[int]
    tls: Mapped[TlsMode] = mapped_column(string_enum(TlsMode))
    user: Mapped[str] = mapped_column(String(200))
    secret: Mapped[str] = mapped_column(String(1000), default="")
    """The encrypted password."""
    folder: Mapped[Name] = mapped_column(default="INBOX")
    delete_messages: Mapped[bool] = mapped_column(default=False)
    """True: delete fetched messages. False: only mark them as read."""
    active: Mapped[bool] = mapped_column(default=True)
    uid_validity: Mapped[int] = mapped_column(BigInteger, default=0)
    last_uid: Mapped[int] = mapped_column(BigInteger, default=0)
    """UID of the last fetched message. UIDs are valid within one UIDVALIDITY only."""
    error: Mapped[str] = mapped_column(String(500), default="")
    polled_at: Mapped[Instant | None]


class Webhook(Base):
    """Secrets that authenticate a provider's webhook calls."""

    __tablename__ = "bounce_webhooks"

    source: Mapped[FeedbackSource] = mapped_column(string_enum(FeedbackSource), primary_key=True)
    secret: Mapped[str] = mapped_column(Text, default="")
    """Encrypted verification key, signing key, or ``user:password``, depending on the provider."""
    topics: Mapped[Document]
    """SES: allowed TopicArn → SubscribeURL that awaits a user's confirmation, or ''."""
    active: Mapped[bool] = mapped_column(default=True)
    changed_at: Mapped[Instant]
