"""Tables of goals, conversions and the credit for them."""

from datetime import date
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Numeric,
    SmallInteger,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, BigId, DecimalRate, Document, Id, Instant, Money, Name, Words, choice
from campaigns.i18n import N_


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
    """What counts beside new leads."""

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
    since: Mapped[Instant]
    """What happened before does not count."""
    created_at: Mapped[Instant]


class ExchangeRate(Base):
    """What one unit of a foreign currency is worth in the organisation's, from a day on."""

    __tablename__ = "exchange_rates"

    currency: Mapped[str] = mapped_column(String(3), primary_key=True)
    valid_from: Mapped[date] = mapped_column(primary_key=True)
    rate: Mapped[Decimal] = mapped_column(DecimalRate)


class CustomEvent(Base):
    """Something that a page or a program reported by name; a goal may wait for it."""

    __tablename__ = "custom_events"
    __table_args__ = (
        Index("ix_custom_events_due", "id", sqlite_where=text("processed = 0"), postgresql_where=text("NOT processed")),
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
    processed: Mapped[bool] = mapped_column(default=False)
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
        Index(
            "ix_conversions_unconverted",
            "currency",
            postgresql_where=text("value IS NULL AND amount IS NOT NULL"),
            sqlite_where=text("value IS NULL AND amount IS NOT NULL"),
        ),
    )

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


class ConversionTouchpoint(Base):
    """One touch before a conversion, in order: what every way of giving credit looks at."""

    __tablename__ = "conversion_touchpoints"
    __table_args__ = (
        Index(
            "ix_conversion_touchpoints_settling",
            "source_id",
            sqlite_where=text("settling = 1"),
            postgresql_where=text("settling"),
        ),
    )

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


class AttributionModel(StrEnum):
    FIRST_TOUCH = "first_touch"
    LAST_TOUCH = "last_touch"

    @property
    def label(self) -> str:
        return {self.FIRST_TOUCH: N_("First touch"), self.LAST_TOUCH: N_("Last touch")}[self]


class AttributionCredit(Base):
    """One share of a conversion under one model; the shares of a conversion and model add up to 1."""

    __tablename__ = "attribution_credits"

    conversion_id: Mapped[int] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[AttributionModel] = mapped_column(choice(AttributionModel), primary_key=True)
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), primary_key=True, index=True)
    share: Mapped[float] = mapped_column(Numeric(9, 8, asdecimal=False))
    touch: Mapped[dict[str, object]] = mapped_column(JSON, default=dict)
    """What earned it: ``{"kind", "at", "event_id"}``."""


class OfflineImport(Base):
    """A CSV of events that happened elsewhere, on its way into :class:`CustomEvent`. The worker's tick finds it."""

    __tablename__ = "offline_imports"
    __table_args__ = (
        Index(
            "ix_offline_imports_due",
            "id",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

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
    created: Mapped[int] = mapped_column(default=0)
    duplicates: Mapped[int] = mapped_column(default=0)
    """Rows whose id was reported before."""
    rejected: Mapped[int] = mapped_column(default=0)
    error: Mapped[Words]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    finished_at: Mapped[Instant | None]


class OfflineImportError(Base):
    """A row of an offline import that was not taken over, and why."""

    __tablename__ = "offline_import_errors"

    import_id: Mapped[int] = mapped_column(ForeignKey("offline_imports.id", ondelete="CASCADE"), primary_key=True)
    row_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    field: Mapped[str] = mapped_column(String(80))
    message: Mapped[Words]
    """A msgid, its places to be filled from ``params``."""
    params: Mapped[Document]
    cells: Mapped[list[str]] = mapped_column(JSON)
