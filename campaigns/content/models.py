"""Tables of messages, their frozen versions, and the links of a version."""

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from campaigns.db import Address, Base, Id, Instant, Name


class Message(Base):
    """The draft of a mailing's content, as the coordinator edits it."""

    __tablename__ = "messages"

    id: Mapped[Id]
    name: Mapped[Name]
    subject: Mapped[str] = mapped_column(String(500), default="")
    preheader: Mapped[str] = mapped_column(String(500), default="")
    mjml: Mapped[str] = mapped_column(Text, default="")
    language: Mapped[str] = mapped_column(String(10), default="en")
    from_name: Mapped[str] = mapped_column(String(200), default="")
    """Empty: the organisation's sender."""
    from_email: Mapped[str] = mapped_column(String(254), default="")
    reply_to: Mapped[str] = mapped_column(String(254), default="")
    revision: Mapped[int] = mapped_column(default=1)
    """Incremented by every edit, so that concurrent edits are detected."""
    created_at: Mapped[Instant]
    updated_at: Mapped[Instant]


class MessageVersion(Base):
    """A compiled, immutable version of a message; sends refer to it.

    ``html`` and ``text`` are Jinja templates for merging: MJML is compiled, tracked links are replaced by
    ``{{ links[n] }}``, and pixel, preheader and unsubscribe footer are included.
    """

    __tablename__ = "message_versions"
    __table_args__ = (UniqueConstraint("message_id", "content_hash"),)

    id: Mapped[Id]
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    content_hash: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(500))
    preheader: Mapped[str] = mapped_column(String(500))
    mjml: Mapped[str] = mapped_column(Text)
    html: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    language: Mapped[str] = mapped_column(String(10))
    from_name: Mapped[Name]
    from_email: Mapped[Address]
    reply_to: Mapped[str] = mapped_column(String(254))
    created_at: Mapped[Instant]

    links: Mapped[list["Link"]] = relationship(order_by="Link.number", lazy="selectin")


class Link(Base):
    """A tracked link of a version. Numbers start at 1; 0 stands for the mail as a whole."""

    __tablename__ = "message_links"

    version_id: Mapped[int] = mapped_column(ForeignKey("message_versions.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    url: Mapped[str] = mapped_column(Text)
    """May contain merge fields in path and query, never in scheme and host."""
    label: Mapped[Name]
    """Link text or alt text of the linked image, for reports."""
