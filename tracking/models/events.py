"""Tables of the event log, first-seen rows, hit rollups, spool checkpoints and shared reports."""

from datetime import datetime
from enum import IntEnum
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    text,
)
from sqlalchemy.event import listen
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from campaigns.db import Base, BigId, Document, Id, Instant, Name, UtcDateTime
from campaigns.i18n import N_
from tracking.models import conversions, maintenance, visits  # noqa: F401 (registers their tables, too)


class HitKind(IntEnum):
    """Kinds of requests that are recorded as hits."""

    OPEN = 1  # pixel loaded
    CLICK = 2  # tracked link followed
    VIEW = 3  # hosted landing page shown

    @property
    def label(self) -> str:
        return {self.OPEN: N_("Open"), self.CLICK: N_("Click"), self.VIEW: N_("Page view")}[self]


class TrafficLabel(IntEnum):
    """The cause of a hit: a human, a machine, a scanner. All hits are stored; only HUMAN counts in rates."""

    SETTLING = 0  # not final yet; final after the settle window
    HUMAN = 1
    MACHINE = 2  # prefetch by a mail client or proxy
    SCANNER = 3  # security gateway, link checker
    UNKNOWN = 4

    @property
    def label(self) -> str:
        return {
            self.SETTLING: N_("Settling"),
            self.HUMAN: N_("Human"),
            self.MACHINE: N_("Machine"),
            self.SCANNER: N_("Scanner"),
            self.UNKNOWN: N_("Unknown"),
        }[self]


class UserAgent(Base):
    """Dictionary of user agent strings: an event stores an id instead of the text."""

    __tablename__ = "user_agents"

    id: Mapped[Id]
    digest: Mapped[bytes] = mapped_column(LargeBinary(16), unique=True)
    text: Mapped[str] = mapped_column(String(500))


class MinuteBucket(FunctionElement[datetime]):
    """The UTC minute of an instant, as PostgreSQL indexes an activity's events.

    The index stores a value that many rows share only once, so a minute needs less space per row than an instant (bytes
    per event: tests/benchmarks/collector.py). SQLite's index does not deduplicate; there this expression is the instant
    itself. Ordering by it and then by the instant is the order of instants on both databases.
    """

    name = "minute"
    inherit_cache = True
    type = UtcDateTime()


@compiles(MinuteBucket)
def _compile_as_instant(element: MinuteBucket, compiler: Any, **more: Any) -> str:
    return str(compiler.process(element.clauses, **more))


@compiles(MinuteBucket, "postgresql")
def _compile_as_minute(element: MinuteBucket, compiler: Any, **more: Any) -> str:
    return MINUTE_SQL.format(at=compiler.process(element.clauses, **more))


MINUTE_SQL = "date_bin('1 minute', {at}, timestamptz 'epoch')"


class Event(Base):
    """One answered hit with its label. ``id = checkpoint's id << 40 | offset in its spool``; a string in JSON. Written
    with the move of its checkpoint, so it exists exactly once.

    PostgreSQL rewrites a row and all its index entries when its label changes. Settling events are therefore in a small
    partition of their own and move once to the large one, which has few indexes and no deletes. Its ids are indexed by
    BRIN, which needs no entry per row; a query for more than one id must also name the send or the instant.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index(None, "send_id"),
        Index(None, "activity_id", "at").ddl_if(dialect="sqlite"),
        Index("ix_events_settling", "at", sqlite_where=text("label = 0")).ddl_if(dialect="sqlite"),
        # PostgreSQL requires the partition key in the primary key.
        PrimaryKeyConstraint("id").ddl_if(dialect="sqlite"),
        {"postgresql_partition_by": "LIST (label)"},
    )

    # Wide columns first: PostgreSQL pads a narrow column in front of a wide one.
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    at: Mapped[Instant]
    send_id: Mapped[int | None] = mapped_column(BigInteger)
    """NULL when consent at the time of the hit does not allow a person to be stored."""
    network: Mapped[int] = mapped_column(BigInteger, default=0)
    """The /24 (IPv4) or /48 (IPv6) as a number; the full address is never stored."""
    activity_id: Mapped[int] = mapped_column(Integer)
    """The send's activity; for a VIEW the landing page's."""
    user_agent_id: Mapped[int] = mapped_column(Integer)
    reasons: Mapped[int] = mapped_column(Integer, default=0)
    """Bit set of :class:`tracking.bots.rules.LabelReason`."""
    kind: Mapped[int] = mapped_column(SmallInteger)
    label: Mapped[int] = mapped_column(SmallInteger)
    rules: Mapped[int] = mapped_column(SmallInteger)
    """Version of the bot rules that gave the label."""
    link: Mapped[int] = mapped_column(SmallInteger, default=0)


EVENT_PARTITIONS_DDL = (
    "CREATE TABLE events_settling PARTITION OF events FOR VALUES IN (0)"
    " WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000)",
    "CREATE TABLE events_settled PARTITION OF events DEFAULT",
    "CREATE UNIQUE INDEX ix_events_settling_id ON events_settling (id)",
    "CREATE INDEX ix_events_settling_at ON events_settling (at)",
    f"CREATE INDEX ix_events_settled_minute ON events_settled (activity_id, ({MINUTE_SQL.format(at='at')}))",
    "CREATE INDEX ix_events_settled_place ON events_settled USING brin (id int8_minmax_multi_ops, at)"
    " WITH (pages_per_range = 32, autosummarize = on)",
)
for statement in EVENT_PARTITIONS_DDL:
    listen(Event.__table__, "after_create", DDL(statement).execute_if(dialect="postgresql"))  # type: ignore[no-untyped-call]

NEWEST_FIRST = (MinuteBucket(Event.at).desc(), Event.at.desc(), Event.id.desc())
"""Matches the index of an activity's events."""


class FirstSeen(Base):
    """First human event of a send by activity, kind and link; the basis of unique counts.

    Derived uniques are not stored: a click on one link is a click on any link, and a click is an open
    (:func:`tracking.counters.aggregation.unique_instants`). A rollup's uniques of human opens are therefore the openers
    of the open rate.
    """

    __tablename__ = "first_seen"
    __table_args__ = (PrimaryKeyConstraint("send_id", "activity_id", "kind", "link"), {"sqlite_with_rowid": False})

    # Key columns first: SQLite before 3.41 otherwise reports damage in a sound WITHOUT ROWID table (integrity_check).
    send_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    activity_id: Mapped[int] = mapped_column(Integer, autoincrement=False)
    kind: Mapped[int] = mapped_column(SmallInteger, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, autoincrement=False)
    at: Mapped[Instant]


class HitRollup(Base):
    """Event counts per 15 minutes (UTC). ``link`` 0 counts all links of the kind together."""

    __tablename__ = "event_rollups"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    bucket: Mapped[Instant] = mapped_column(primary_key=True)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    events: Mapped[int] = mapped_column(default=0)
    uniques: Mapped[int] = mapped_column(default=0)
    """Sends whose first human event of this activity, kind and link falls into this bucket (:class:`FirstSeen`); 0 for
    other labels.
    """


class DailyHitRollup(Base):
    """Event counts per local day in the zone of :class:`RollupTimeZone`. Keyed by link before day, because most queries
    ask for all links together.
    """

    __tablename__ = "event_rollups_daily"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    day: Mapped[Instant] = mapped_column(primary_key=True)
    """Start of the day."""
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    events: Mapped[int] = mapped_column(default=0)
    uniques: Mapped[int] = mapped_column(default=0)


class TotalHitRollup(Base):
    """Event counts over all time, independent of the time zone."""

    __tablename__ = "event_rollups_total"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    events: Mapped[int] = mapped_column(default=0)
    uniques: Mapped[int] = mapped_column(default=0)


class RollupTimeZone(Base):
    """Time zone of the daily rollups: one row, none before the first count. Without it there are no totals, either."""

    __tablename__ = "rollup_time_zone"

    id: Mapped[Id]
    time_zone: Mapped[str] = mapped_column(String(64))


class SpoolCheckpoint(Base):
    """The position up to which a spool has been counted. Moved in the transaction that counts."""

    __tablename__ = "spool_checkpoints"

    id: Mapped[Id]
    spool: Mapped[str] = mapped_column(String(32), unique=True)
    """The spool's random id."""
    host: Mapped[Name]
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    lost: Mapped[int] = mapped_column(default=0)
    """Bytes skipped because they could not be read."""
    lost_hits: Mapped[int] = mapped_column(default=0)
    """Hits answered but not stored because the disk refused writes, as reported by the writer."""
    updated_at: Mapped[Instant]


class DeadLetter(Base):
    """A spool record that could not be counted. It is stored unchanged, so that no hit is lost."""

    __tablename__ = "dead_letters"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    """The id that the event would have."""
    record: Mapped[bytes] = mapped_column(LargeBinary)
    error: Mapped[str] = mapped_column(String(500))
    at: Mapped[Instant]


class SharedReport(Base):
    """A snapshot of a campaign's figures behind a public link. It contains no personal data."""

    __tablename__ = "shared_reports"

    id: Mapped[Id]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    snapshot: Mapped[Document]
    """See :mod:`tracking.reports.shared_reports`; never changes."""
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    expires_at: Mapped[Instant]
    revoked_at: Mapped[Instant | None]
    views: Mapped[int] = mapped_column(default=0)
    viewed_at: Mapped[Instant | None]
    """Time of the last view."""
