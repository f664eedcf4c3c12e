"""A look over the log that an owner ordered: who, when, how far it is, and what it found."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, Document, Id, Instant, Words, choice
from campaigns.i18n import N_


class MaintenanceKind(StrEnum):
    TRIAL = "trial"
    RELABEL = "relabel"
    CHECK = "check"
    REPAIR = "mend"

    @property
    def label(self) -> str:
        return {
            self.TRIAL: N_("Trial of the rules"),
            self.RELABEL: N_("Labels anew"),
            self.CHECK: N_("Check of the counters"),
            self.REPAIR: N_("Counters mended"),
        }[self]

    @property
    def is_of_labels(self) -> bool:
        """Whether it asks the rules about events, not the counters about sums."""
        return self in (self.TRIAL, self.RELABEL)

    @property
    def changes(self) -> bool:
        return self in (self.RELABEL, self.REPAIR)


class MaintenanceRun(Base):
    """One look over the log, in portions, each in the transaction that says how far it got."""

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
    kind: Mapped[MaintenanceKind] = mapped_column(choice(MaintenanceKind))
    since: Mapped[Instant | None]
    """Of labels: events from this instant …"""
    until: Mapped[Instant | None]
    """… until before this one. Counters are checked as a whole."""
    rules: Mapped[int] = mapped_column(SmallInteger)
    """Version of the screening rules that were in force when it was ordered."""
    total: Mapped[int] = mapped_column(default=0)
    """Events, or activities whose counters are checked; events by their counters, so about as many."""
    done: Mapped[int] = mapped_column(default=0)
    cursor: Mapped[list[int]] = mapped_column(JSON, default=list)
    """Where it goes on: activity, instant in microseconds, event."""
    results: Mapped[Document]
    """Of labels: events by ``activity:kind:before:after``; of counters: how many differ, by activity."""
    error: Mapped[Words]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[Instant]
    finished_at: Mapped[Instant | None]
