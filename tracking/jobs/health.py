"""Collector health: backlog, lag, lost hits and dead letters, for the health page and endpoint."""

import fcntl
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from campaigns import clock, config, db
from tracking.bots.rules import SETTLE_SECONDS
from tracking.collector.collector import LOCK_NAME
from tracking.models.events import DeadLetter, Event, SpoolCheckpoint, TrafficLabel
from tracking.spool import reader
from tracking.spool.writer import spool_writer


class CollectorHealth(NamedTuple):
    """State of this host's collector and spools, and of the event log as a whole."""

    collecting: bool
    """Whether a collector runs on this host."""
    backlog_bytes: int
    lag: timedelta
    """Age of the oldest hit in this host's spools that is not in the event log yet."""
    collected_at: datetime | None
    lost_hits: int
    """Hits that were answered but not written, because the disk refused the write.

    Includes those of this process that aren't recorded in the database yet.
    """
    unreadable_bytes: int
    dead_letters: int
    """Number of dead letters: records that this version can't process, kept for a later one."""
    overdue: int
    """Number of events whose settle window ended more than a minute ago."""

    @property
    def is_healthy(self) -> bool:
        """Whether a collector runs, lags by at most a minute, and no label is overdue."""
        is_late = self.lag > timedelta(minutes=1) or self.overdue > 0
        return self.collecting and not is_late


def collector_health(session: Session) -> CollectorHealth:
    """Measure the collector's health on this host."""
    spools = reader.list_spools(config.settings().spool)
    offsets = dict(session.execute(select(SpoolCheckpoint.spool, SpoolCheckpoint.offset)).all())
    collected_at, lost_hits, unreadable_bytes = session.execute(
        select(
            func.max(SpoolCheckpoint.updated_at),
            func.coalesce(func.sum(SpoolCheckpoint.lost_hits), 0),
            func.coalesce(func.sum(SpoolCheckpoint.lost), 0),
        )
    ).one()
    return CollectorHealth(
        collecting=_is_collector_running(),
        backlog_bytes=reader.backlog_bytes(spools.values(), offsets),
        lag=_lag(spools.values(), offsets),
        collected_at=collected_at,
        lost_hits=int(lost_hits) + spool_writer().unreported_losses,
        unreadable_bytes=int(unreadable_bytes),
        dead_letters=session.scalar(select(func.count()).select_from(DeadLetter)) or 0,
        overdue=_count_overdue_labels(session),
    )


def _is_collector_running() -> bool:
    """Whether a process holds the collector's lock.

    Tested with a shared lock, so that concurrent tests don't block each other.
    """
    try:
        with (config.settings().spool / LOCK_NAME).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def _lag(spools: Iterable[list[reader.SpoolFile]], offsets: dict[str, int]) -> timedelta:
    pending = [reader.read_chunk(of_spool, offsets.get(of_spool[0].spool, 0), 10_000).hits for of_spool in spools]
    oldest = [hits[0][1].at for hits in pending if hits]
    return max(clock.now() - db.from_micros(min(oldest)), timedelta(0)) if oldest else timedelta(0)


def _count_overdue_labels(session: Session) -> int:
    cutoff = clock.now() - clock.scaled(SETTLE_SECONDS) - timedelta(minutes=1)
    return (
        session.scalar(select(func.count()).where(text(f"label = {TrafficLabel.SETTLING:d}"), Event.at < cutoff)) or 0
    )
