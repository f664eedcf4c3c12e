"""The event log, first-seen marks, rollups, checkpoints, conversions and their credit."""

from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    text,
)
from sqlalchemy.event import listen
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from campaigns.db import Base, BigId, Document, Id, Instant, Money, Name, Rate, UtcDateTime, Words, choice
from campaigns.language import N_
from tracking import inspection_models, visit_models  # noqa: F401  (their tables belong to this room, too)


class Kind(IntEnum):
    """What a hit asked for."""

    OPEN = 1  # pixel loaded
    CLICK = 2  # tracked link followed
    VIEW = 3  # hosted landing page shown

    @property
    def label(self) -> str:
        return {self.OPEN: N_("Open"), self.CLICK: N_("Click"), self.VIEW: N_("Page view")}[self]


class Label(IntEnum):
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


class minute(FunctionElement[datetime]):
    """The minute of an instant, UTC, by which PostgreSQL's index of an activity's events is kept: a number that many
    rows share stands in it once, so that a row takes a quarter of what its very instant would. SQLite's index
    gains nothing by it and holds the instant, which is what this is there: in order by it, and then by the
    instant, events are in order of their instants on both."""

    name = "minute"
    inherit_cache = True
    type = UtcDateTime()


@compiles(minute)
def _its_instant(element: minute, compiler: Any, **more: Any) -> str:
    return str(compiler.process(element.clauses, **more))


@compiles(minute, "postgresql")
def _its_minute(element: minute, compiler: Any, **more: Any) -> str:
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
    """Bit set of :class:`tracking.screening.Reason`."""
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

NEWEST_FIRST = (minute(Event.at).desc(), Event.at.desc(), Event.id.desc())
"""By the index of an activity's events."""


class FirstSeen(Base):
    """First human event of a send by activity, kind and link: what makes uniques cheap and exact.

    What follows from these is not kept: whoever followed a link, followed any, and a click is an open, too
    (:func:`tracking.counting.uniques`). So a rollup's uniques of human opens are openers as the open rate counts them.
    """

    __tablename__ = "first_seen"
    __table_args__ = (PrimaryKeyConstraint("send_id", "activity_id", "kind", "link"), {"sqlite_with_rowid": False})

    send_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    at: Mapped[Instant]
    activity_id: Mapped[int] = mapped_column(Integer, autoincrement=False)
    kind: Mapped[int] = mapped_column(SmallInteger, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, autoincrement=False)


class Rollup(Base):
    """Counted events of 15 minutes UTC. ``link`` 0 counts all links of the kind together."""

    __tablename__ = "rollups"
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


class DayRollup(Base):
    """The same summed by the days of the time zone that :class:`DayZone` names. By link first: most questions are
    about all links together."""

    __tablename__ = "day_rollups"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    day: Mapped[Instant] = mapped_column(primary_key=True)
    """When it began."""
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    events: Mapped[int] = mapped_column(default=0)
    uniques: Mapped[int] = mapped_column(default=0)


class LifeRollup(Base):
    """The same summed over all days, whatever the time zone: most pages ask for a whole life."""

    __tablename__ = "life_rollups"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    events: Mapped[int] = mapped_column(default=0)
    uniques: Mapped[int] = mapped_column(default=0)


class DayZone(Base):
    """In whose days the counters of days are summed: one row, and none before anything was counted. Without it there
    are no totals of lives, either."""

    __tablename__ = "day_zones"

    id: Mapped[Id]
    zone: Mapped[str] = mapped_column(String(64))


class Checkpoint(Base):
    """How far a spool has been counted, moved in the transaction that counts."""

    __tablename__ = "checkpoints"

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


class SetAside(Base):
    """A record of a spool that could not be counted: kept as it was, so that nothing is lost, and passed over."""

    __tablename__ = "set_aside"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    """What would be the event's."""
    record: Mapped[bytes] = mapped_column(LargeBinary)
    error: Mapped[str] = mapped_column(String(500))
    at: Mapped[Instant]


class GoalKind(StrEnum):
    """What reaches a goal."""

    FORM = "form"
    PAGE = "page"
    EVENT = "event"
    STAGE = "stage"

    @property
    def label(self) -> str:
        return {
            self.FORM: N_("A form is sent"),
            self.PAGE: N_("A page is visited"),
            self.EVENT: N_("An event is reported (a purchase, a sign-up …)"),
            self.STAGE: N_("A lead reaches a stage"),
        }[self]


LEAD_GOAL = "lead"
"""The goal that is always there: every new lead reaches it."""


class Goal(Base):
    """What counts beside new leads, from its creation on."""

    __tablename__ = "goals"

    id: Mapped[Id]
    key: Mapped[str] = mapped_column(String(40), unique=True)
    """What programs and files call it; never changes."""
    name: Mapped[Name]
    kind: Mapped[GoalKind] = mapped_column(choice(GoalKind))
    match: Mapped[str] = mapped_column(String(300))
    """Of FORM the activity's id, of PAGE a path with ``*``, of EVENT its name, of STAGE a lead's stage."""
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"), index=True)
    """Whose conversions count; NULL: every campaign's."""
    once: Mapped[bool] = mapped_column(default=True)
    """Whether each contact (or visitor) reaches it at most once."""
    value: Mapped[Money | None]
    """What one conversion is worth when nothing else says so, in the organisation's currency."""
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[Instant]


class ExchangeRate(Base):
    """What one unit of a foreign currency is worth in the organisation's, from a day on."""

    __tablename__ = "exchange_rates"

    currency: Mapped[str] = mapped_column(String(3), primary_key=True)
    valid_from: Mapped[date] = mapped_column(primary_key=True)
    rate: Mapped[Decimal] = mapped_column(Rate)


class CustomEvent(Base):
    """Something that a page or a program reported by name; a goal may wait for it."""

    __tablename__ = "custom_events"
    __table_args__ = (
        Index("ix_custom_events_due", "id", sqlite_where=text("noticed = 0"), postgresql_where=text("NOT noticed")),
        Index(None, "contact_id", "at"),
    )

    id: Mapped[Id]
    external_id: Mapped[str] = mapped_column(String(80), unique=True)
    """The reporter's own, so that a repeated report is the same event."""
    name: Mapped[str] = mapped_column(String(80))
    at: Mapped[Instant]
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"))
    visit_id: Mapped[int | None] = mapped_column(BigId, index=True)
    activity_id: Mapped[int | None] = mapped_column(ForeignKey("activities.id"))
    """The activity that the reporter names; usually unknown, and found from the touches."""
    amount: Mapped[Money | None]
    currency: Mapped[str] = mapped_column(String(3), default="")
    detail: Mapped[Document]
    noticed: Mapped[bool] = mapped_column(default=False)
    """Whether the tick has looked which goals it reaches."""


class Conversion(Base):
    """A goal reached."""

    __tablename__ = "conversions"
    __table_args__ = (
        Index(None, "campaign_id", "at"),
        # A campaign's goals are summed in the order of this index, and from nothing else.
        Index("ix_conversions_by_goal", "campaign_id", "goal", "currency", "at", "value", "amount"),
        Index("ix_conversions_by_time", "at", "goal", "activity_id", "value"),
        Index(None, "goal", "contact_id"),
        Index("ix_conversions_unconverted", "currency", postgresql_where=text("value IS NULL AND amount IS NOT NULL"),
              sqlite_where=text("value IS NULL AND amount IS NOT NULL")),
    )  # fmt: skip

    id: Mapped[Id]
    external_id: Mapped[str] = mapped_column(String(140), unique=True)
    """``submission:<id>`` for forms, ``lead:<id>`` for leads entered by hand, ``<goal>:<what reached it>`` else."""
    submission_id: Mapped[int | None] = mapped_column(BigId, unique=True)
    """The submission of a form that reached it: how the tick finds where it had got to."""
    goal: Mapped[str] = mapped_column(String(40), default=LEAD_GOAL)
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))
    """The activity's; NULL where nothing is known to have brought it: it counts for the company alone."""
    activity_id: Mapped[int | None] = mapped_column(ForeignKey("activities.id"), index=True)
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"), index=True)
    visit_id: Mapped[int | None] = mapped_column(BigId, index=True)
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("leads.id", ondelete="SET NULL"), index=True)
    amount: Mapped[Money | None]
    """As reported, in ``currency``."""
    currency: Mapped[str] = mapped_column(String(3), default="", server_default=text("''"))
    value: Mapped[Money | None]
    """In the organisation's currency; NULL without amount, or for as long as no exchange rate is known."""
    at: Mapped[Instant]


class ConversionTouch(Base):
    """One touch before a conversion, in order: what every way of giving credit looks at."""

    __tablename__ = "conversion_touches"
    __table_args__ = (
        Index("ix_conversion_touches_settling", "source_id", sqlite_where=text("settling = 1"),
              postgresql_where=text("settling")),
    )  # fmt: skip

    conversion_id: Mapped[int] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """From 0, the first touch."""
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10))
    """``click`` or ``visit``"""
    source_id: Mapped[int] = mapped_column(BigInteger)
    """The event's or the visit's id."""
    at: Mapped[Instant]
    settling: Mapped[bool] = mapped_column(default=False)
    """Whether the click's label wasn't final when it was written down."""


class CreditModel(StrEnum):
    FIRST_TOUCH = "first_touch"
    LAST_TOUCH = "last_touch"

    @property
    def label(self) -> str:
        return {self.FIRST_TOUCH: N_("First touch"), self.LAST_TOUCH: N_("Last touch")}[self]


class Credit(Base):
    """One share of a conversion under one model; the shares of a conversion and model add up to 1."""

    __tablename__ = "credits"

    conversion_id: Mapped[int] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[CreditModel] = mapped_column(choice(CreditModel), primary_key=True)
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), primary_key=True, index=True)
    share: Mapped[float] = mapped_column(Numeric(9, 8, asdecimal=False))
    touch: Mapped[dict[str, object]] = mapped_column(JSON, default=dict)
    """What earned it: ``{"kind", "at", "event_id"}``."""


class OfflineImport(Base):
    """A CSV of events that happened elsewhere, on its way into :class:`CustomEvent`. The worker's tick finds it."""

    __tablename__ = "offline_imports"
    __table_args__ = (
        Index("ix_offline_imports_due", "id", sqlite_where=text("finished_at IS NULL"),
              postgresql_where=text("finished_at IS NULL")),
    )  # fmt: skip

    id: Mapped[Id]
    filename: Mapped[Name]
    content_key: Mapped[str] = mapped_column(String(64))
    """Name of the uploaded file among the imports."""
    encoding: Mapped[str] = mapped_column(String(20))
    delimiter: Mapped[str] = mapped_column(String(1))
    columns: Mapped[list[str]] = mapped_column(JSON, default=list)
    rows_total: Mapped[int] = mapped_column(default=0)
    rows_read: Mapped[int] = mapped_column(default=0)
    """How far it got: written in the transaction of each chunk."""
    new: Mapped[int] = mapped_column(default=0)
    known: Mapped[int] = mapped_column(default=0)
    """Rows whose id was reported before."""
    refused: Mapped[int] = mapped_column(default=0)
    error: Mapped[Words]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    finished_at: Mapped[Instant | None]


class OfflineRefusal(Base):
    """A row of an offline import that was not taken over, and why."""

    __tablename__ = "offline_refusals"

    import_id: Mapped[int] = mapped_column(ForeignKey("offline_imports.id", ondelete="CASCADE"), primary_key=True)
    row_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    field: Mapped[str] = mapped_column(String(80))
    message: Mapped[Words]
    """A msgid, its places to be filled from ``params``."""
    params: Mapped[Document]
    cells: Mapped[list[str]] = mapped_column(JSON)


class SharedFigures(Base):
    """A snapshot of a campaign's figures behind a link for people without an account. It names nobody."""

    __tablename__ = "shared_figures"

    id: Mapped[Id]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    snapshot: Mapped[Document]
    """See :mod:`tracking.sharing`; it never changes."""
    created_by: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    expires_at: Mapped[Instant]
    revoked_at: Mapped[Instant | None]
    views: Mapped[int] = mapped_column(default=0)
    viewed_at: Mapped[Instant | None]
    """The last time that somebody looked."""
