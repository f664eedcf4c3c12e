"""Planning tables: campaigns, activities, short links, link overrides and preflights."""

from datetime import date, time
from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from campaigns.db import Base, BigId, Document, Id, Instant, LongText, Money, Name, string_enum
from campaigns.i18n import N_


class Objective(StrEnum):
    """The business goal of a campaign."""

    AWARENESS = "awareness"
    LEADS = "leads"
    SALES = "sales"
    LAUNCH = "launch"
    LOYALTY = "loyalty"

    @property
    def label(self) -> str:
        return {
            self.AWARENESS: N_("Brand awareness"),
            self.LEADS: N_("Lead generation"),
            self.SALES: N_("Sales"),
            self.LAUNCH: N_("Product launch"),
            self.LOYALTY: N_("Customer loyalty"),
        }[self]


class CampaignStatus(StrEnum):
    """Lifecycle of a campaign; the allowed transitions are in :mod:`campaigns.planning.state_machine`."""

    PLANNED = "planned"
    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"

    @property
    def label(self) -> str:
        return {
            self.PLANNED: N_("Planned"),
            self.ACTIVE: N_("Active"),
            self.PAUSED: N_("Paused"),
            self.FINISHED: N_("Finished"),
            self.CANCELLED: N_("Cancelled"),
        }[self]


class ActivityStatus(StrEnum):
    """Lifecycle of an activity; the allowed transitions are in :mod:`campaigns.planning.state_machine`."""

    DRAFT = "draft"
    REVIEW = "review"
    APPROVED = "approved"
    SCHEDULED = "scheduled"
    LIVE = "live"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"

    @property
    def label(self) -> str:
        return {
            self.DRAFT: N_("Draft"),
            self.REVIEW: N_("In review"),
            self.APPROVED: N_("Approved"),
            self.SCHEDULED: N_("Scheduled"),
            self.LIVE: N_("Live"),
            self.PAUSED: N_("Paused"),
            self.FINISHED: N_("Finished"),
            self.CANCELLED: N_("Cancelled"),
        }[self]


class Channel(StrEnum):
    """The marketing channel of an activity. Only e-mail is sent by this application."""

    EMAIL = "email"
    SOCIAL = "social"
    SEARCH = "search"
    ADS = "ads"
    CONTENT = "content"
    VIDEO = "video"
    WEB = "web"
    EVENT = "event"
    SMS = "sms"
    PUSH = "push"
    OTHER = "other"

    @property
    def label(self) -> str:
        return {
            self.EMAIL: N_("E-mail"),
            self.SOCIAL: N_("Social media"),
            self.SEARCH: N_("Search"),
            self.ADS: N_("Ads"),
            self.CONTENT: N_("Content"),
            self.VIDEO: N_("Video"),
            self.WEB: N_("Website"),
            self.EVENT: N_("Event"),
            self.SMS: N_("SMS"),
            self.PUSH: N_("Push"),
            self.OTHER: N_("Other"),
        }[self]


class Campaign(Base):
    """Goal, budget and period shared by many activities. A campaign is not one mailing."""

    __tablename__ = "campaigns"

    id: Mapped[Id]
    name: Mapped[Name]
    objective: Mapped[Objective] = mapped_column(string_enum(Objective))
    status: Mapped[CampaignStatus] = mapped_column(string_enum(CampaignStatus), default=CampaignStatus.PLANNED)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    starts_on: Mapped[date | None]
    ends_on: Mapped[date | None]
    budget: Mapped[Money | None]
    colour: Mapped[str] = mapped_column(String(7), default="#206bc4")
    description: Mapped[LongText]
    built_in: Mapped[bool] = mapped_column(default=False)
    """True for the installation's own campaign for system and test mail. Reports and lists leave it out."""
    archived_at: Mapped[Instant | None]
    """When the campaign was archived. Lists hide archived campaigns by default; nothing else changes."""
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    """Optimistic lock: every change through a form increments it, so that two open forms cannot silently
    overwrite each other."""
    created_at: Mapped[Instant]

    activities: Mapped[list["Activity"]] = relationship(back_populates="campaign", order_by="Activity.id")


class Activity(Base):
    """One planned action in one channel inside a campaign."""

    __tablename__ = "activities"
    __table_args__ = (Index(None, "status", "due_at"),)

    id: Mapped[Id]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    channel: Mapped[Channel] = mapped_column(string_enum(Channel))
    title: Mapped[Name]
    status: Mapped[ActivityStatus] = mapped_column(string_enum(ActivityStatus), default=ActivityStatus.DRAFT)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    starts_on: Mapped[date | None]
    ends_on: Mapped[date | None]
    cost: Mapped[Money | None]
    url: Mapped[str] = mapped_column(String(2000), default="")
    """Address of the post, ad, article or video."""
    notes: Mapped[LongText]
    built_in: Mapped[str | None] = mapped_column(String(20), unique=True)
    """'test', 'system' or 'api' for the installation's own activities; None for all others."""
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    """Optimistic lock, as in :attr:`Campaign.revision`."""
    created_at: Mapped[Instant]

    due_at: Mapped[Instant | None]
    """When a scheduled launch begins; the scheduler's tick finds it."""
    paused_with_campaign: Mapped[bool] = mapped_column(default=False)
    """Whether the campaign's pause paused it, so that the campaign's resume brings it back."""
    launched_at: Mapped[Instant | None]
    finished_at: Mapped[Instant | None]
    campaign: Mapped[Campaign] = relationship(back_populates="activities", lazy="joined")
    email_details: Mapped["EmailDetails | None"] = relationship(lazy="joined", cascade="all, delete-orphan")

    @property
    def email(self) -> "EmailDetails":
        """The details of an e-mail activity. Raises LookupError for another channel."""
        if self.email_details is None:
            raise LookupError(f"activity {self.id} is no e-mail activity")
        return self.email_details


class EmailDetails(Base):
    """The fields of an e-mail activity beside those of every channel: one row for each, the built-in ones too.

    Changed under the lock of the activity's row only.
    """

    __tablename__ = "email_details"

    activity_id: Mapped[int] = mapped_column(
        ForeignKey("activities.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    message_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id"))
    version_id: Mapped[int | None] = mapped_column(ForeignKey("message_versions.id"))
    """The message version frozen by the launch."""
    list_id: Mapped[int | None] = mapped_column(ForeignKey("lists.id"))
    everybody: Mapped[bool] = mapped_column(default=False)
    """Whether the audience is every contact instead of one list."""
    stop_after: Mapped[Instant | None]
    """Nothing is sent from this instant on; sends that still wait fail with reason *expired*."""
    window_days: Mapped[str] = mapped_column(String(7), default="", server_default=text("''"))
    """Weekdays of the send window as sorted digits, 1 (Monday) to 7, in the recipient's time zone; '' means all."""
    window_from: Mapped[time | None]
    window_until: Mapped[time | None]
    """Hours of the send window in the recipient's time zone. None means all day; midnight as the end means the end
    of the day."""
    expanded_to: Mapped[int] = mapped_column(BigId, default=0)
    """The highest contact id that expansion into sends has processed."""
    expanded_at: Mapped[Instant | None]
    """When expansion finished; the audience is frozen from then on."""


class ShortLink(Base):
    """A tracked short link, ``/l/<code>``, for channels whose posts this application does not send."""

    __tablename__ = "short_links"
    __table_args__ = (UniqueConstraint("activity_id", "number"),)

    id: Mapped[Id]
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"))
    number: Mapped[int]
    """Number within the activity, from 1; click events refer to the link by it."""
    code: Mapped[str] = mapped_column(String(16), unique=True)
    label: Mapped[Name]
    url: Mapped[str] = mapped_column(String(2000))
    """The link target as typed, without UTM parameters."""
    utm: Mapped[str] = mapped_column(String(500))
    """The UTM query string computed when the link was created. It is stored because renaming the campaign later
    must not split its visits over two names."""
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[Instant]
    changed_at: Mapped[Instant]


class LinkOverride(Base):
    """A changed target of a link in a launched mail. Without a row the link leads where the mail says."""

    __tablename__ = "link_overrides"

    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    url: Mapped[str] = mapped_column(String(2000))
    """The new target; '' means the link is switched off."""
    changed_at: Mapped[Instant]


class Preflight(Base):
    """Result of the checks before a launch, bound to a hash of the content and audience that were checked."""

    __tablename__ = "preflights"

    id: Mapped[Id]
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), index=True)
    subject_hash: Mapped[str] = mapped_column(String(64))
    passed: Mapped[bool]
    findings: Mapped[list[dict[str, object]]] = mapped_column(JSON)
    """A list of ``{"level": "error"|"warning", "message", "params", "field", "line"}``; messages are gettext msgids."""
    audience: Mapped[dict[str, int]] = mapped_column(JSON)
    """``{"total", "mailable", "<skip reason>": n, …}``; mailable and the reasons add up to total."""
    facts: Mapped[Document]
    """``parts``: the hash of each input by name; beside it the facts that the preflight page shows."""
    created_at: Mapped[Instant]
