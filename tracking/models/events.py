"""The event log, first-seen marks, rollups, checkpoints, conversions and their credit."""

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
from tracking.models import conversions, maintenance, visits  # noqa: F401  (their tables belong to this room, too)


class HitKind(IntEnum):
    """What a hit asked for."""

    OPEN = 1  # pixel loaded
    CLICK = 2  # tracked link followed
    VIEW = 3  # hosted landing page shown

    @property
    def label(self) -> str:
        return {self.OPEN: N_("Open"), self.CLICK: N_("Click"), self.VIEW: N_("Page view")}[self]


class TrafficLabel(IntEnum):
    """Who it was. Everything is kept; only HUMAN counts in rates."""

    SETTLING = 0  # not known yet; final after the settle window
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
    """Dictionary of user-agent strings, so that an event carries a number."""

    __tablename__ = "user_agents"

    id: Mapped[Id]
    digest: Mapped[bytes] = mapped_column(LargeBinary(16), unique=True)
    text: Mapped[str] = mapped_column(String(500))


class MinuteBucket(FunctionElement[datetime]):
    """The minute of an instant, UTC, by which PostgreSQL's index of an activity's events is kept: a number that many
    rows share stands in it once, so that a row takes a quarter of what its very instant would. SQLite's index
    gains nothing by it and holds the instant, which is what this is there: in order by it, and then by the
    instant, events are in order of their instants on both."""

    name = "minute"
    inherit_cache = True
    type = UtcDateTime()


@compiles(MinuteBucket)
def _its_instant(element: MinuteBucket, compiler: Any, **more: Any) -> str:
    return str(compiler.process(element.clauses, **more))


@compiles(MinuteBucket, "postgresql")
def _its_minute(element: MinuteBucket, compiler: Any, **more: Any) -> str:
    return MINUTE.format(at=compiler.process(element.clauses, **more))


MINUTE = "date_bin('1 minute', {at}, timestamptz 'epoch')"


class Event(Base):
    """A labelled, logged fact: one answered hit. ``id = checkpoint's id << 40 | offset in its spool``; a string in
    JSON. Counted with the move of its checkpoint, it is there exactly once.

    PostgreSQL writes a row anew, and all of its index entries, when its label changes. So what settles lies in a
    small part of its own, and moves once to the large one, which nothing is ever taken from. The large part's
    indexes are the least that its questions need; its ids are looked for by BRIN, which takes nothing per row,
    so whoever asks for more than one says its send or its instant, too."""

    __tablename__ = "events"
    __table_args__ = (
        Index(None, "send_id"),
        Index(None, "activity_id", "at").ddl_if(dialect="sqlite"),
        Index("ix_events_settling", "at", sqlite_where=text("label = 0")).ddl_if(dialect="sqlite"),
        PrimaryKeyConstraint("id").ddl_if(dialect="sqlite"),  # PostgreSQL wants the label in it.
        {"postgresql_partition_by": "LIST (label)"},
    )

    # The wide ones first: PostgreSQL pads a narrow column in front of a wide one.
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    at: Mapped[Instant]
    send_id: Mapped[int | None] = mapped_column(BigInteger)
    """NULL where consent at the time of the hit allows no person beside it."""
    network: Mapped[int] = mapped_column(BigInteger, default=0)
    """The /24 (IPv4) or /48 (IPv6) as a number; the address itself is never stored."""
    activity_id: Mapped[int] = mapped_column(Integer)
    """The send's, or the landing page's for a VIEW."""
    user_agent_id: Mapped[int] = mapped_column(Integer)
    reasons: Mapped[int] = mapped_column(Integer, default=0)
    """Bit set of :class:`tracking.bots.rules.Reason`."""
    kind: Mapped[int] = mapped_column(SmallInteger)
    label: Mapped[int] = mapped_column(SmallInteger)
    rules: Mapped[int] = mapped_column(SmallInteger)
    """Version of the screening rules that gave the label."""
    link: Mapped[int] = mapped_column(SmallInteger, default=0)


PARTS_OF_EVENTS = (
    "CREATE TABLE events_settling PARTITION OF events FOR VALUES IN (0)"
    " WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000)",
    "CREATE TABLE events_settled PARTITION OF events DEFAULT",
    "CREATE UNIQUE INDEX ix_events_settling_id ON events_settling (id)",
    "CREATE INDEX ix_events_settling_at ON events_settling (at)",
    f"CREATE INDEX ix_events_settled_minute ON events_settled (activity_id, ({MINUTE.format(at='at')}))",
    "CREATE INDEX ix_events_settled_place ON events_settled USING brin (id int8_minmax_multi_ops, at)"
    " WITH (pages_per_range = 32, autosummarize = on)",
)
for statement in PARTS_OF_EVENTS:
    listen(Event.__table__, "after_create", DDL(statement).execute_if(dialect="postgresql"))  # type: ignore[no-untyped-call]

NEWEST_FIRST = (MinuteBucket(Event.at).desc(), Event.at.desc(), Event.id.desc())
"""By the index of an activity's events."""


class FirstSeen(Base):
    """First human event of a send by activity, kind and link: what makes uniques cheap and exact.

    What follows from these is not kept: whoever followed a link, followed any, and a click is an open, too
    (:func:`tracking.counters.aggregation.uniques`). So a rollup's uniques of human opens are openers as the open
    rate counts them.
    """

    __tablename__ = "first_seen"
    __table_args__ = (PrimaryKeyConstraint("send_id", "activity_id", "kind", "link"), {"sqlite_with_rowid": False})

    send_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    at: Mapped[Instant]
    activity_id: Mapped[int] = mapped_column(Integer, autoincrement=False)
    kind: Mapped[int] = mapped_column(SmallInteger, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, autoincrement=False)


class HitRollup(Base):
    """Counted events of 15 minutes UTC. ``link`` 0 counts all links of the kind together."""

    __tablename__ = "event_rollups"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    bucket: Mapped[Instant] = mapped_column(primary_key=True)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    events: Mapped[int] = mapped_column(default=0)
    uniques: Mapped[int] = mapped_column(default=0)
    """Sends whose first human event of this activity, kind and link lies in this bucket (:class:`FirstSeen`); 0 of
    other labels, by which nobody is counted."""


class DailyHitRollup(Base):
    """The same summed by the days of the time zone that :class:`DayZone` names. By link first: most questions are
    about all links together."""

    __tablename__ = "event_rollups_daily"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    day: Mapped[Instant] = mapped_column(primary_key=True)
    """When it began."""
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    events: Mapped[int] = mapped_column(default=0)
    uniques: Mapped[int] = mapped_column(default=0)


class TotalHitRollup(Base):
    """The same summed over all days, whatever the time zone: most pages ask for a whole life."""

    __tablename__ = "event_rollups_total"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    events: Mapped[int] = mapped_column(default=0)
    uniques: Mapped[int] = mapped_column(default=0)


class RollupTimeZone(Base):
    """In whose days the counters of days are summed: one row, and none before anything was counted. Without it there
    are no totals of lives, either."""

    __tablename__ = "rollup_time_zone"

    id: Mapped[Id]
    time_zone: Mapped[str] = mapped_column(String(64))


class SpoolCheckpoint(Base):
    """How far a spool has been counted, moved in the transaction that counts."""

    __tablename__ = "spool_checkpoints"

    id: Mapped[Id]
    spool: Mapped[str] = mapped_column(String(32), unique=True)
    """The spool's random name."""
    host: Mapped[Name]
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    lost: Mapped[int] = mapped_column(default=0)
    """Bytes skipped because they could not be read."""
    lost_hits: Mapped[int] = mapped_column(default=0)
    """Hits answered while the disk refused to keep them, as the writer counted."""
    updated_at: Mapped[Instant]


class DeadLetter(Base):
    """A record of a spool that could not be counted: kept as it was, so that nothing is lost, and passed over."""

    __tablename__ = "dead_letters"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    """What would be the event's."""
    record: Mapped[bytes] = mapped_column(LargeBinary)
    error: Mapped[str] = mapped_column(String(500))
    at: Mapped[Instant]


class SharedReport(Base):
    """A snapshot of a campaign's figures behind a link for people without an account. It names nobody."""

    __tablename__ = "shared_reports"

    id: Mapped[Id]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    snapshot: Mapped[Document]
    """See :mod:`tracking.reports.shared_reports`; it never changes."""
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    expires_at: Mapped[Instant]
    revoked_at: Mapped[Instant | None]
    views: Mapped[int] = mapped_column(default=0)
    viewed_at: Mapped[Instant | None]
    """The last time that somebody looked."""
