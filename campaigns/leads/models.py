"""Table of leads."""

from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String, text, true
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, Id, Instant, LongText, string_enum
from campaigns.i18n import N_


class LeadStage(StrEnum):
    NEW = "new"
    WORKING = "working"
    QUALIFIED = "qualified"
    CUSTOMER = "customer"
    LOST = "lost"

    @property
    def label(self) -> str:
        return {
            self.NEW: N_("New"),
            self.WORKING: N_("In work"),
            self.QUALIFIED: N_("Qualified"),
            self.CUSTOMER: N_("Customer"),
            self.LOST: N_("Not good"),
        }[self]

    @property
    def closed(self) -> bool:
        return self in (LeadStage.CUSTOMER, LeadStage.LOST)


class Lead(Base):
    """A contact's interest in a campaign. At most one lead per contact and campaign is open."""

    __tablename__ = "leads"
    __table_args__ = (
        Index(
            "uq_leads_open",
            "contact_id",
            "campaign_id",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index(None, "contact_id", "created_at"),
        Index(None, "campaign_id", "created_at"),
        Index(None, "campaign_id", "activity_id", "created_at"),
        Index(None, "created_at", "campaign_id", "activity_id"),
        Index(
            "ix_leads_stage_due",
            "id",
            sqlite_where=text("stage_processed = 0"),
            postgresql_where=text("NOT stage_processed"),
        ),
    )

    id: Mapped[Id]
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"))
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), index=True)
    stage: Mapped[LeadStage] = mapped_column(string_enum(LeadStage), default=LeadStage.NEW)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    source: Mapped[str] = mapped_column(String(20))
    """Channel of the activity that brought the lead."""
    notes: Mapped[LongText]
    created_at: Mapped[Instant]
    closed_at: Mapped[Instant | None]
    stage_at: Mapped[Instant | None]
    """Time of the last stage change."""
    stage_processed: Mapped[bool] = mapped_column(default=True, server_default=true())
    """False after a stage change until tracking has matched it against the goals."""
