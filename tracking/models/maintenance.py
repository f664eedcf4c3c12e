"""Table of maintenance runs over the event log and the counters."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, Document, Id, Instant, LongText, string_enum
from campaigns.i18n import N_


class MaintenanceKind(StrEnum):
    TRIAL = "trial"
    RELABEL = "relabel"
    CHECK = "check"
    REPAIR = "repair"

    @property
    def label(self) -> str:
        return {
            self.TRIAL: N_("Trial of the rules"),
            self.RELABEL: N_("Labels anew"),
            self.CHECK: N_("Check of the counters"),
            self.REPAIR: N_("Counters mended"),
        }[self]

    @property
    def is_label_run(self) -> bool:
        """Whether it applies the rules to events, as opposed to comparing counters."""
        return self in (self.TRIAL, self.RELABEL)

    @property
    def writes_changes(self) -> bool:
        return self in (self.RELABEL, self.REPAIR)


class MaintenanceRun(Base):
    """A maintenance run ordered by an owner. It is processed in chunks; each chunk's transaction stores
    the progress.
    """

    __tablename__ = "maintenance_runs"
    __table_args__ = (
        Index(
            "ix_maintenance_runs_due",
            "id",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    kind: Mapped[MaintenanceKind] = mapped_column(string_enum(MaintenanceKind))
    since: Mapped[Instant | None]
    """Label runs: events from this instant …"""
    until: Mapped[Instant | None]
    """… until before this one. Counters are checked as a whole."""
    rules: Mapped[int] = mapped_column(SmallInteger)
    """Version of the bot rules when the run was ordered."""
    total: Mapped[int] = mapped_column(default=0)
    """Number of events (an estimate, from the counters), or of activities whose counters are checked."""
    done: Mapped[int] = mapped_column(default=0)
    cursor: Mapped[list[int]] = mapped_column(JSON, default=list)
    """Where the next chunk starts: activity, instant in microseconds, event."""
    results: Mapped[Document]
    """Label runs: number of events by ``activity:kind:before:after``. Counter runs: number of
    differences by activity.
    """
    error: Mapped[LongText]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    finished_at: Mapped[Instant | None]
