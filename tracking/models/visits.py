"""Web visits: what the page script reports, joined to sessions, and counted."""

from datetime import date
from enum import IntEnum

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, SmallInteger, String, text
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, BigId, Id, Instant
from campaigns.i18n import N_


class AttributionEvidence(IntEnum):
    """How it is known which activity brought a visit; the number is stored and never reused."""

    NOT = 0
    SEND = 1  # by the token that our redirect appends
    UTM = 2
    PAGE = 3  # it began on the activity's own landing page, and nothing says what led there


class Device(IntEnum):
    """What kind of device, as the browser calls itself; the number is stored and never reused."""

    UNKNOWN = 0
    DESKTOP = 1
    PHONE = 2
    TABLET = 3

    @property
    def label(self) -> str:
        return {
            self.UNKNOWN: N_("Unknown device"),
            self.DESKTOP: N_("Computer"),
            self.PHONE: N_("Phone"),
            self.TABLET: N_("Tablet"),
        }[self]


class Visit(Base):
    """A web session. ``id`` is that of its first record (checkpoint's id << 40 | offset in its spool); a
    string in JSON."""

    __tablename__ = "visits"
    __table_args__ = (
        Index(None, "visitor", "last_at"),
        Index(None, "activity_id", "started_at"),
        Index(
            "ix_visits_contact",
            "contact_id",
            "started_at",
            sqlite_where=text("contact_id IS NOT NULL"),
            postgresql_where=text("contact_id IS NOT NULL"),
        ),
        Index(
            "ix_visits_send",
            "send_id",
            sqlite_where=text("send_id IS NOT NULL"),
            postgresql_where=text("send_id IS NOT NULL"),
        ),
    )

    # The wide ones first: PostgreSQL pads a narrow column in front of a wide one.
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    started_at: Mapped[Instant]
    last_at: Mapped[Instant]
    visitor: Mapped[int] = mapped_column(BigInteger)
    """A keyed hash: of an id that the visitor allowed, else of this day's salt, site, network and browser."""
    send_id: Mapped[int | None] = mapped_column(BigInteger)
    """The send whose link brought it; NULL where consent at that time allows no person."""
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id", ondelete="SET NULL"))
    activity_id: Mapped[int | None] = mapped_column(Integer)
    traffic_source_id: Mapped[int] = mapped_column(Integer)
    entry_id: Mapped[int] = mapped_column(Integer)
    """The first page (:class:`WebPage`)."""
    exit_id: Mapped[int] = mapped_column(Integer)
    """The last page."""
    pages: Mapped[int] = mapped_column(Integer)
    active_seconds: Mapped[int] = mapped_column(Integer)
    """While the tab was seen and in use."""
    scroll: Mapped[int] = mapped_column(SmallInteger)
    """How far down, in per cent, on the page where it was furthest."""
    attributed_by: Mapped[int] = mapped_column(SmallInteger)
    """:class:`Known`"""
    label: Mapped[int] = mapped_column(SmallInteger)
    device: Mapped[int] = mapped_column(SmallInteger)
    engaged: Mapped[bool]
    new: Mapped[bool]
    """Whether the visitor was never seen before: by an id that they allowed, else on this day."""
    first: Mapped[bool]
    """Whether it is the visitor's first of its activity."""
    first_in_campaign: Mapped[bool]
    browser: Mapped[str] = mapped_column(String(20))
    country: Mapped[str] = mapped_column(String(2))
    """A guess by time zone and language; '' for none."""


class WebPage(Base):
    """Dictionary of pages, so that a visit carries a number. Queries are left out: they may hold anything."""

    __tablename__ = "web_pages"

    id: Mapped[Id]
    digest: Mapped[bytes] = mapped_column(LargeBinary(16), unique=True)
    host: Mapped[str] = mapped_column(String(100))
    path: Mapped[str] = mapped_column(String(300))

    @property
    def address(self) -> str:
        return self.host + self.path


class TrafficSource(Base):
    """Dictionary of the ways by which visits come, with the channel group that the rules gave them."""

    __tablename__ = "traffic_sources"

    id: Mapped[Id]
    digest: Mapped[bytes] = mapped_column(LargeBinary(16), unique=True)
    source: Mapped[str] = mapped_column(String(100))
    medium: Mapped[str] = mapped_column(String(100))
    campaign: Mapped[str] = mapped_column(String(100))
    term: Mapped[str] = mapped_column(String(100))
    content: Mapped[str] = mapped_column(String(100))
    utm_id: Mapped[str] = mapped_column(String(100))
    referrer: Mapped[str] = mapped_column(String(100))
    """The referring page's host, when it isn't ours."""
    network: Mapped[str] = mapped_column(String(100))
    """The social or video network's plain name, '' for none."""
    channel_group: Mapped[int] = mapped_column(SmallInteger)
    """:class:`tracking.channels.channel_groups.Group`"""
    rules: Mapped[int] = mapped_column(SmallInteger)
    """Version of the rules that gave the group."""


class PageView(Base):
    """One page seen in a visit; ``page`` is the number that the script drew for it."""

    __tablename__ = "page_views"
    __table_args__ = {"sqlite_with_rowid": False}

    visit_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    page: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[Instant]
    page_id: Mapped[int] = mapped_column(Integer)
    """Which one (:class:`WebPage`)."""
    active_seconds: Mapped[int] = mapped_column(Integer)
    scroll: Mapped[int] = mapped_column(SmallInteger)


class VisitTotals:
    """What is counted of visits that have something in common."""

    visits: Mapped[int] = mapped_column(default=0)
    visitors: Mapped[int] = mapped_column(default=0)
    """Whose first visit of this activity it was."""
    campaign_visitors: Mapped[int] = mapped_column(default=0)
    """Whose first visit of the activity's campaign it was."""
    engaged: Mapped[int] = mapped_column(default=0)
    active_seconds: Mapped[int] = mapped_column(default=0)
    pages: Mapped[int] = mapped_column(default=0)
    new: Mapped[int] = mapped_column(default=0)
    aggregate: Mapped[int] = mapped_column(default=0)
    """How many of the visits left nothing but this count: their browser asks not to be tracked."""


class VisitRollup(VisitTotals, Base):
    """Counted visits of the 15 minutes (UTC) in which they began."""

    __tablename__ = "visit_rollups"
    __table_args__ = (Index(None, "bucket"), {"sqlite_with_rowid": False})

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    """0: no activity is known to have brought them."""
    bucket: Mapped[Instant] = mapped_column(primary_key=True)
    channel_group: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class DailyVisitRollup(VisitTotals, Base):
    """The same summed over all groups by the days of the time zone that ``DayZone`` names."""

    __tablename__ = "visit_rollups_daily"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    day: Mapped[Instant] = mapped_column(primary_key=True)
    """When it began."""
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class DailyChannelRollup(VisitTotals, Base):
    """The same by day and group, over all activities and those visits that none is known to have brought."""

    __tablename__ = "channel_rollups_daily"
    __table_args__ = {"sqlite_with_rowid": False}

    day: Mapped[Instant] = mapped_column(primary_key=True)
    channel_group: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class TotalVisitRollup(VisitTotals, Base):
    """The same summed over all days and groups."""

    __tablename__ = "visit_rollups_total"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class BreakdownSums:
    """What is counted of people's visits that have something in common over the whole life of an activity. Visits that
    left nothing but a count are in none of these."""

    visits: Mapped[int] = mapped_column(default=0)
    engaged: Mapped[int] = mapped_column(default=0)
    active_seconds: Mapped[int] = mapped_column(default=0)


class LandingPageCounts(BreakdownSums, Base):
    """By the page that they began on, and by how they came."""

    __tablename__ = "entry_page_counts"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    entry_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    traffic_source_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)


class DeviceCountryCounts(BreakdownSums, Base):
    """By device and country."""

    __tablename__ = "device_country_counts"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    device: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    country: Mapped[str] = mapped_column(String(2), primary_key=True)


class DaySalt(Base):
    """What a day's visitors are hashed with. Without it nobody can say any more who they were."""

    __tablename__ = "daily_salts"

    day: Mapped[date] = mapped_column(primary_key=True)
    salt: Mapped[bytes] = mapped_column(LargeBinary(32))


class PendingFormView(Base):
    """Which visit a form was shown in, until it is sent or a day is over."""

    __tablename__ = "pending_form_views"

    page: Mapped[str] = mapped_column(String(32), primary_key=True)
    """The number that the form was made with, at the beginning of its submission's external id."""
    visit_id: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[Instant] = mapped_column(index=True)


class PendingPageGoal(Base):
    """A page that a goal waits for was seen in a visit; the tick makes a conversion of it, and takes it away."""

    __tablename__ = "pending_page_goals"

    visit_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    goal_id: Mapped[int] = mapped_column(ForeignKey("goals.id", ondelete="CASCADE"), primary_key=True)
    page_id: Mapped[int] = mapped_column(Integer)
    at: Mapped[Instant]


class SiteLastSeen(Base):
    """When a site's pages were last heard of."""

    __tablename__ = "site_heartbeats"

    host: Mapped[str] = mapped_column(String(100), primary_key=True)
    last_at: Mapped[Instant]
    records: Mapped[int] = mapped_column(BigInteger, default=0)
