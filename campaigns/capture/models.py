"""Tables of landing page forms, submissions and pending consents."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, String, Text, text, true
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, BigId, Document, Id, Instant, LongText, Name, string_enum
from campaigns.i18n import N_


class DoubleOptInMode(StrEnum):
    """Contacts who must confirm a form's consent through a link mailed to the address."""

    OFF = "off"
    RETURNING = "returning"  # contacts who withdrew or unsubscribed before, since anybody can type their address
    EVERYBODY = "everybody"

    @property
    def label(self) -> str:
        return {
            self.OFF: N_("No: the tick in the box is enough"),
            self.RETURNING: N_("Only those who unsubscribed or withdrew before"),
            self.EVERYBODY: N_("Everybody"),
        }[self]


class Form(Base):
    """The landing page form of one activity, at ``/f/<slug>``; own websites can embed it."""

    __tablename__ = "forms"

    id: Mapped[Id]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), unique=True)
    slug: Mapped[str] = mapped_column(String(80), unique=True)
    language: Mapped[str] = mapped_column(String(10), default="en")
    title: Mapped[Name]
    intro: Mapped[LongText]
    button: Mapped[str] = mapped_column(String(80))
    thanks: Mapped[LongText]
    fields: Mapped[list[dict[str, object]]] = mapped_column(JSON, default=list)
    """Questions besides e-mail: ``{"name": "first_name"|"last_name"|"attributes.<key>", "label", "required"}``."""
    consent_wording: Mapped[str] = mapped_column(Text, default="")
    """Text beside the checkbox for consent to e-mail; empty: no checkbox."""
    tracking_wording: Mapped[str] = mapped_column(Text, default="")
    """Text beside the separate checkbox for consent to tracking; empty: no checkbox."""
    double_opt_in: Mapped[DoubleOptInMode] = mapped_column(
        string_enum(DoubleOptInMode), default=DoubleOptInMode.RETURNING, server_default="returning"
    )
    list_id: Mapped[int | None] = mapped_column(ForeignKey("lists.id", ondelete="SET NULL"))
    notify_owner: Mapped[bool] = mapped_column(default=False)
    """Whether the activity's owner is mailed about each new lead."""
    open: Mapped[bool] = mapped_column(default=True)
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    """Incremented by every edit, so that concurrent edits are detected."""
    created_at: Mapped[Instant]


class Submission(Base):
    """One submitted form. A tracking job turns it into a conversion."""

    __tablename__ = "submissions"
    __table_args__ = (
        Index(None, "activity_id", "at"),
        Index("ix_submissions_due", "id", sqlite_where=text("processed = 0"), postgresql_where=text("NOT processed")),
    )

    id: Mapped[Id]
    external_id: Mapped[str] = mapped_column(String(64), unique=True)
    """Generated with the page, so that a repeated POST is recognised as the same submission."""
    form_id: Mapped[int] = mapped_column(ForeignKey("forms.id"))
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"))
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"), index=True)
    lead_id: Mapped[int] = mapped_column(ForeignKey("leads.id", ondelete="CASCADE"), index=True)
    new_lead: Mapped[bool]
    at: Mapped[Instant]
    answers: Mapped[Document]
    send_id: Mapped[int | None] = mapped_column(BigId, index=True)
    """The send whose link brought the visitor, from the visit token."""
    processed: Mapped[bool] = mapped_column(default=False, server_default=true())
    """Whether tracking has matched it against the goals."""


class PendingConsent(Base):
    """A consent ticked in a form that takes effect once the owner of the address confirms it."""

    __tablename__ = "pending_consents"
    __table_args__ = (Index(None, "contact_id", "requested_at"),)

    id: Mapped[Id]
    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id", ondelete="CASCADE"), unique=True)
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"))
    wording: Mapped[str] = mapped_column(Text, default="")
    """The ticked sentence as shown at that time; empty when not ticked."""
    tracking_wording: Mapped[str] = mapped_column(Text, default="")
    network: Mapped[str] = mapped_column(String(60), default="")
    requested_at: Mapped[Instant]
    mail_sent: Mapped[bool]
    """Whether a confirmation mail was sent; false when the address had reached its limit."""
    confirmed_at: Mapped[Instant | None]
