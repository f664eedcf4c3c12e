"""Forms on hosted landing pages, and what people submit through them."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, String, Text, text, true
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, BigId, Document, Id, Instant, Name, Words, choice
from campaigns.i18n import N_


class DoubleOptIn(StrEnum):
    """Whose consent by a form counts only after they followed a link in a mail to the address."""

    OFF = "off"
    RETURNING = "returning"  # who withdrew or unsubscribed before: anybody may type their address
    EVERYBODY = "everybody"

    @property
    def label(self) -> str:
        return {
            self.OFF: N_("No: the tick in the box is enough"),
            self.RETURNING: N_("Only those who unsubscribed or withdrew before"),
            self.EVERYBODY: N_("Everybody"),
        }[self]


class Form(Base):
    """The landing page of one activity, at ``/f/<slug>`` and embeddable."""

    __tablename__ = "forms"

    id: Mapped[Id]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), unique=True)
    slug: Mapped[str] = mapped_column(String(80), unique=True)
    language: Mapped[str] = mapped_column(String(10), default="en")
    title: Mapped[Name]
    intro: Mapped[Words]
    button: Mapped[str] = mapped_column(String(80))
    thanks: Mapped[Words]
    fields: Mapped[list[dict[str, object]]] = mapped_column(JSON, default=list)
    """Beside e-mail: ``{"name": "first_name"|"last_name"|"attributes.<key>", "label", "required"}``."""
    consent_wording: Mapped[str] = mapped_column(Text, default="")
    """The sentence beside the check box that allows mail; empty: no box."""
    tracking_wording: Mapped[str] = mapped_column(Text, default="")
    """The sentence beside a box of its own that allows measuring opens and clicks; empty: no box."""
    double_opt_in: Mapped[DoubleOptIn] = mapped_column(
        choice(DoubleOptIn), default=DoubleOptIn.RETURNING, server_default="returning"
    )
    list_id: Mapped[int | None] = mapped_column(ForeignKey("lists.id", ondelete="SET NULL"))
    notify_owner: Mapped[bool] = mapped_column(default=False)
    """Whether the activity's owner gets a mail for each new lead."""
    open: Mapped[bool] = mapped_column(default=True)
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    """Raised by every change through a form, so that two open forms cannot overwrite each other unnoticed."""
    created_at: Mapped[Instant]


class Submission(Base):
    """One form sent. Tracking's tick turns it into a conversion."""

    __tablename__ = "submissions"
    __table_args__ = (
        Index(None, "activity_id", "at"),
        Index("ix_submissions_due", "id", sqlite_where=text("processed = 0"), postgresql_where=text("NOT processed")),
    )

    id: Mapped[Id]
    external_id: Mapped[str] = mapped_column(String(64), unique=True)
    """Made with the page, so that a repeated POST is the same submission."""
    form_id: Mapped[int] = mapped_column(ForeignKey("forms.id"))
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"))
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"), index=True)
    lead_id: Mapped[int] = mapped_column(ForeignKey("leads.id", ondelete="CASCADE"), index=True)
    new_lead: Mapped[bool]
    at: Mapped[Instant]
    answers: Mapped[Document]
    send_id: Mapped[int | None] = mapped_column(BigId, index=True)
    """The send whose link brought the visitor here, from the visit token."""
    processed: Mapped[bool] = mapped_column(default=False, server_default=true())
    """Whether tracking has looked which goals it reaches, beside the lead."""


class PendingConsent(Base):
    """A consent that was asked for by a form, and counts once the owner of the address confirms it."""

    __tablename__ = "pending_consents"
    __table_args__ = (Index(None, "contact_id", "requested_at"),)

    id: Mapped[Id]
    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id", ondelete="CASCADE"), unique=True)
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"))
    wording: Mapped[str] = mapped_column(Text, default="")
    """The sentence that was ticked, as it stood then; empty when it was not."""
    tracking_wording: Mapped[str] = mapped_column(Text, default="")
    network: Mapped[str] = mapped_column(String(60), default="")
    requested_at: Mapped[Instant]
    mail_sent: Mapped[bool]
    """Whether a mail asked for it: not when the address had enough of them already."""
    confirmed_at: Mapped[Instant | None]
