"""Tables of goals, custom events, conversions and their attribution credit."""

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

from campaigns.db import Base, BigId, DecimalRate, Document, Id, Instant, LongText, Money, Name, string_enum
from campaigns.i18n import N_


class GoalKind(StrEnum):
    """Kinds of conditions that reach a goal."""

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
"""Key of the built-in goal: every new lead reaches it."""


class Goal(Base):
    """A goal defined by a user, in addition to the built-in lead goal."""

    __tablename__ = "goals"

    id: Mapped[Id]
    key: Mapped[str] = mapped_column(String(40), unique=True)
    """Name in API calls and files; never changes."""
    name: Mapped[Name]
    kind: Mapped[GoalKind] = mapped_column(string_enum(GoalKind))
    match: Mapped[str] = mapped_column(String(300))
    """FORM: the activity's id. PAGE: a path with ``*``. EVENT: the event's name. STAGE: a lead's stage."""
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"), index=True)
    """The campaign whose conversions count; NULL for all campaigns."""
    once: Mapped[bool] = mapped_column(default=True)
    """Whether each contact (or visitor) reaches the goal at most once."""
    value: Mapped[Money | None]
    """Default value of a conversion, in the organisation's currency."""
    active: Mapped[bool] = mapped_column(default=True)
    since: Mapped[Instant]
    """Earlier events do not count."""
    created_at: Mapped[Instant]


class ExchangeRate(Base):
    """Value of one unit of a foreign currency in the organisation's currency, from a day on."""

    __tablename__ = "exchange_rates"

    currency: Mapped[str] = mapped_column(String(3), primary_key=True)
    valid_from: Mapped[date] = mapped_column(primary_key=True)
    rate: Mapped[Decimal] = mapped_column(DecimalRate)


class CustomEvent(Base):
    """An event that a page or an API client reported by name; a goal may count it."""

    __tablename__ = "custom_events"
    __table_args__ = (
        Index("ix_custom_events_due", "id", sqlite_where=text("processed = 0"), postgresql_where=text("NOT processed")),
        Index(None, "contact_id", "at"),
    )

    id: Mapped[Id]
    external_id: Mapped[str] = mapped_column(String(80), unique=True)
    """Id given by the reporter: a repeated report is the same event."""
    name: Mapped[str] = mapped_column(String(80))
    at: Mapped[Instant]
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"))
    visit_id: Mapped[int | None] = mapped_column(BigId, index=True)
    activity_id: Mapped[int | None] = mapped_column(ForeignKey("activities.id"))
    """The activity that the reporter names. Usually NULL; the activity is then derived from the touches."""
    amount: Mapped[Money | None]
    currency: Mapped[str] = mapped_column(String(3), default="")
    detail: Mapped[Document]
    processed: Mapped[bool] = mapped_column(default=False)
    """Whether the scheduler has matched the event against the goals."""


class Conversion(Base):
    """A reached goal."""

    __tablename__ = "conversions"
    __table_args__ = (
        Index(None, "campaign_id", "at"),
        # Covering index: a campaign's goals are summed from it alone.
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
    """``submission:<id>`` for forms, ``lead:<id>`` for leads entered by hand, ``<goal>:<source of the conversion>``
    else.
    """
    submission_id: Mapped[int | None] = mapped_column(BigId, unique=True)
    """The form submission that reached the goal. The highest one marks where the scheduler continues."""
    goal: Mapped[str] = mapped_column(String(40), default=LEAD_GOAL)
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))
    """The activity's campaign; NULL when no activity is known: the conversion counts for the organisation only."""
    activity_id: Mapped[int | None] = mapped_column(ForeignKey("activities.id"), index=True)
    contact_id: Mapped[int | None] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"), index=True)
    visit_id: Mapped[int | None] = mapped_column(BigId, index=True)
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("leads.id", ondelete="SET NULL"), index=True)
    amount: Mapped[Money | None]
    """As reported, in ``currency``."""
    currency: Mapped[str] = mapped_column(String(3), default="", server_default=text("''"))
    value: Mapped[Money | None]
    """In the organisation's currency; NULL without an amount or while no exchange rate is known."""
    at: Mapped[Instant]


class ConversionTouchpoint(Base):
    """One touch before a conversion, in order; the input of every attribution model."""

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
    """Counts from 0, the first touch."""
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10))
    """``click`` or ``visit``"""
    source_id: Mapped[int] = mapped_column(BigInteger)
    """Id of the event or the visit."""
    at: Mapped[Instant]
    settling: Mapped[bool] = mapped_column(default=False)
    """Whether the click's label was not final yet when the row was written."""


class AttributionModel(StrEnum):
    FIRST_TOUCH = "first_touch"
    LAST_TOUCH = "last_touch"

    @property
    def label(self) -> str:
        return {self.FIRST_TOUCH: N_("First touch"), self.LAST_TOUCH: N_("Last touch")}[self]


class AttributionCredit(Base):
    """One share of a conversion under one model. The shares of a conversion under a model add up to 1."""

    __tablename__ = "attribution_credits"

    conversion_id: Mapped[int] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[AttributionModel] = mapped_column(string_enum(AttributionModel), primary_key=True)
    activity_id: Mapped[int] = mapped_column(ForeignKey("activities.id"), primary_key=True, index=True)
    share: Mapped[float] = mapped_column(Numeric(9, 8, asdecimal=False))
    touch: Mapped[dict[str, object]] = mapped_column(JSON, default=dict)
    """The touch that earned it: ``{"kind", "at", "event_id"}``."""


class OfflineImport(Base):
    """A CSV file of offline events that becomes :class:`CustomEvent` rows. Unfinished imports are found by the
    scheduler.
    """

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
    """Name of the stored upload."""
    encoding: Mapped[str] = mapped_column(String(20))
    delimiter: Mapped[str] = mapped_column(String(1))
    columns: Mapped[list[str]] = mapped_column(JSON, default=list)
    rows_total: Mapped[int] = mapped_column(default=0)
    rows_read: Mapped[int] = mapped_column(default=0)
    """Rows processed so far, written in the transaction of each chunk."""
    created: Mapped[int] = mapped_column(default=0)
    duplicates: Mapped[int] = mapped_column(default=0)
    """Rows whose id had been reported before."""
    rejected: Mapped[int] = mapped_column(default=0)
    error: Mapped[LongText]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    finished_at: Mapped[Instant | None]


class OfflineImportError(Base):
    """A rejected row of an offline import, with the reason."""

    __tablename__ = "offline_import_errors"

    import_id: Mapped[int] = mapped_column(ForeignKey("offline_imports.id", ondelete="CASCADE"), primary_key=True)
    row_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    field: Mapped[str] = mapped_column(String(80))
    message: Mapped[LongText]
    """A msgid with placeholders for ``params``."""
    params: Mapped[Document]
    cells: Mapped[list[str]] = mapped_column(JSON)
