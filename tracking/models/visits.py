"""Tables of web visits, page views and their rollups."""

from datetime import date
from enum import IntEnum

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, SmallInteger, String, text
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, BigId, Id, Instant
from campaigns.i18n import N_


class AttributionEvidence(IntEnum):
    """Evidence for the activity that brought a visit. The number is stored and never reused."""

    NONE = 0
    SEND = 1  # by the visit token that our redirect appends
    UTM = 2
    LANDING_PAGE = 3  # it began on the activity's own landing page without a stated source


class Device(IntEnum):
    """Device type according to the user agent. The number is stored and never reused."""

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
    """A web session. ``id`` is that of its first record (checkpoint's id << 40 | offset in its spool); a string in
    JSON.
    """

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

    # Wide columns first: PostgreSQL pads a narrow column in front of a wide one.
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    started_at: Mapped[Instant]
    last_at: Mapped[Instant]
    visitor: Mapped[int] = mapped_column(BigInteger)
    """Keyed hash of a visitor id that the visitor consented to, else of site, network and user agent with the day's
    salt.
    """
    send_id: Mapped[int | None] = mapped_column(BigInteger)
    """The send whose link brought the visit; NULL when consent at that time does not allow a person to be stored."""
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id", ondelete="SET NULL"))
    activity_id: Mapped[int | None] = mapped_column(Integer)
    traffic_source_id: Mapped[int] = mapped_column(Integer)
    entry_id: Mapped[int] = mapped_column(Integer)
    """First page (:class:`WebPage`)."""
    exit_id: Mapped[int] = mapped_column(Integer)
    """Last page."""
    pages: Mapped[int] = mapped_column(Integer)
    active_seconds: Mapped[int] = mapped_column(Integer)
    """Seconds in which the tab was visible and in use."""
    scroll: Mapped[int] = mapped_column(SmallInteger)
    """Maximum scroll depth over all pages, in per cent."""
    attributed_by: Mapped[int] = mapped_column(SmallInteger)
    """:class:`AttributionEvidence`"""
    label: Mapped[int] = mapped_column(SmallInteger)
    device: Mapped[int] = mapped_column(SmallInteger)
    engaged: Mapped[bool]
    new: Mapped[bool]
    """Whether the visitor was not seen before: by visitor id, else on this day."""
    first: Mapped[bool]
    """Whether it is the visitor's first visit from its activity."""
    first_in_campaign: Mapped[bool]
    browser: Mapped[str] = mapped_column(String(20))
    country: Mapped[str] = mapped_column(String(2))
    """Guessed from time zone and language; '' for unknown."""


class WebPage(Base):
    """Dictionary of pages: a visit stores an id. Query strings are left out because they may contain personal data."""

    __tablename__ = "web_pages"

    id: Mapped[Id]
    digest: Mapped[bytes] = mapped_column(LargeBinary(16), unique=True)
    host: Mapped[str] = mapped_column(String(100))
    path: Mapped[str] = mapped_column(String(300))

    @property
    def address(self) -> str:
        return self.host + self.path


class TrafficSource(Base):
    """Dictionary of traffic sources, with the channel group that the rules assign."""

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
    """Host of the referring page; '' for an own host."""
    network: Mapped[str] = mapped_column(String(100))
    """Name of the social or video network; '' for none."""
    channel_group: Mapped[int] = mapped_column(SmallInteger)
    """:class:`tracking.channels.channel_groups.ChannelGroup`"""
    rules: Mapped[int] = mapped_column(SmallInteger)
    """Version of the rules that assigned the group."""


class PageView(Base):
    """One page seen in a visit. ``page`` is a random number generated by the script for each page view."""

    __tablename__ = "page_views"
    __table_args__ = {"sqlite_with_rowid": False}

    visit_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    page: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[Instant]
    page_id: Mapped[int] = mapped_column(Integer)
    """The page (:class:`WebPage`)."""
    active_seconds: Mapped[int] = mapped_column(Integer)
    scroll: Mapped[int] = mapped_column(SmallInteger)


class VisitTotals:
    """Columns of visit counts."""

    visits: Mapped[int] = mapped_column(default=0)
    visitors: Mapped[int] = mapped_column(default=0)
    """Visits that were the visitor's first of this activity."""
    campaign_visitors: Mapped[int] = mapped_column(default=0)
    """Visits that were the visitor's first of the activity's campaign."""
    engaged: Mapped[int] = mapped_column(default=0)
    active_seconds: Mapped[int] = mapped_column(default=0)
    pages: Mapped[int] = mapped_column(default=0)
    new: Mapped[int] = mapped_column(default=0)
    aggregate: Mapped[int] = mapped_column(default=0)
    """Visits that left no row, because the browser opts out of tracking; included in ``visits``."""


class VisitRollup(VisitTotals, Base):
    """Visit counts per 15 minutes (UTC), by the start of the visit."""

    __tablename__ = "visit_rollups"
    __table_args__ = (Index(None, "bucket"), {"sqlite_with_rowid": False})

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    """0: no activity is known."""
    bucket: Mapped[Instant] = mapped_column(primary_key=True)
    channel_group: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class DailyVisitRollup(VisitTotals, Base):
    """Visit counts per local day in the zone of ``RollupTimeZone``, over all channel groups."""

    __tablename__ = "visit_rollups_daily"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    day: Mapped[Instant] = mapped_column(primary_key=True)
    """Start of the day."""
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class DailyChannelRollup(VisitTotals, Base):
    """Visit counts per local day and channel group, over all activities and visits without one."""

    __tablename__ = "channel_rollups_daily"
    __table_args__ = {"sqlite_with_rowid": False}

    day: Mapped[Instant] = mapped_column(primary_key=True)
    channel_group: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class TotalVisitRollup(VisitTotals, Base):
    """Visit counts over all time and all channel groups."""

    __tablename__ = "visit_rollups_total"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class BreakdownSums:
    """Columns of breakdown counts: human visits of an activity over all time. Visits of browsers that opt out of
    tracking are not included.
    """

    visits: Mapped[int] = mapped_column(default=0)
    engaged: Mapped[int] = mapped_column(default=0)
    active_seconds: Mapped[int] = mapped_column(default=0)


class LandingPageCounts(BreakdownSums, Base):
    """Breakdown by landing page and traffic source."""

    __tablename__ = "entry_page_counts"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    entry_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    traffic_source_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)


class DeviceCountryCounts(BreakdownSums, Base):
    """Breakdown by device and country."""

    __tablename__ = "device_country_counts"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    device: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    country: Mapped[str] = mapped_column(String(2), primary_key=True)


class DaySalt(Base):
    """Salt of one day's visitor hashes. Once it is deleted, the hashes cannot be recomputed."""

    __tablename__ = "daily_salts"

    day: Mapped[date] = mapped_column(primary_key=True)
    salt: Mapped[bytes] = mapped_column(LargeBinary(32))


class PendingFormView(Base):
    """The visit in which a form was shown; kept until the form is submitted, at most one day."""

    __tablename__ = "pending_form_views"

    page: Mapped[str] = mapped_column(String(32), primary_key=True)
    """The form's random key, which is the beginning of its submission's external id."""
    visit_id: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[Instant] = mapped_column(index=True)


class PendingPageGoal(Base):
    """A page of a page goal was viewed in a visit. The scheduler turns the row into a conversion and deletes it."""

    __tablename__ = "pending_page_goals"

    visit_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    goal_id: Mapped[int] = mapped_column(ForeignKey("goals.id", ondelete="CASCADE"), primary_key=True)
    page_id: Mapped[int] = mapped_column(Integer)
    at: Mapped[Instant]


class SiteLastSeen(Base):
    """Time of the last report from each site."""

    __tablename__ = "site_heartbeats"

    host: Mapped[str] = mapped_column(String(100), primary_key=True)
    last_at: Mapped[Instant]
    records: Mapped[int] = mapped_column(BigInteger, default=0)
