"""The event log, first-seen marks, rollups, checkpoints, conversions and their credit."""

from enum import IntEnum, StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, BigId, Id, Instant, Money, Name, choice
from campaigns.language import N_


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


class Event(Base):
    """A labelled, logged fact: one answered hit. ``id = checkpoint's id << 40 | offset in its spool``,
    so the primary key makes it exactly once; a string in JSON."""

    __tablename__ = "events"
    __table_args__ = (
        Index(None, "send_id"),
        Index(None, "activity_id", "at"),
        Index("ix_events_settling", "at", sqlite_where=text("label = 0"), postgresql_where=text("label = 0")),
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


class FirstSeen(Base):
    """First event of a send by activity, kind, link (0: any) and label: what makes uniques cheap and exact.

    A settling event marks nothing yet: its label is not one that anybody is counted under.

    A human click implies an open: the row (OPEN, 0, HUMAN) holds the earliest human open *or* click,
    the same instant as ``Send.first_opened_at``. So a rollup's uniques of human opens are openers as
    the open rate counts them.
    """

    __tablename__ = "first_seen"
    __table_args__ = {"sqlite_with_rowid": False}

    send_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    activity_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    link: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    label: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    at: Mapped[Instant]


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
    """Sends whose first event of this activity, kind, link and label lies in this bucket (:class:`FirstSeen`)."""


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


class Conversion(Base):
    """A goal reached."""

    __tablename__ = "conversions"
    __table_args__ = (Index(None, "campaign_id", "at"),)

    id: Mapped[Id]
    external_id: Mapped[str] = mapped_column(String(80), unique=True)
    """``submission:<id>`` for forms, ``lead:<id>`` for leads entered by hand."""
    submission_id: Mapped[int | None] = mapped_column(BigId, unique=True)
    """The submission of a form that reached it: how the tick finds where it had got to."""
    goal: Mapped[str] = mapped_column(String(40), default="lead")
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), index=True)
    contact_id: Mapped[int] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"), index=True)
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("leads.id", ondelete="SET NULL"), index=True)
    value: Mapped[Money | None]
    at: Mapped[Instant]


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
    settling_event_id: Mapped[int | None] = mapped_column(index=True)
    """The click that earned it, for as long as its label isn't final; then NULL, or another touch's credit."""
