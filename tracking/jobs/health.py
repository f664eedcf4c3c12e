"""How the hits are doing: for the health page."""

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
from tracking.spool.writer import spool


class CollectorHealth(NamedTuple):
    """Of this host's spools, and of the log as a whole."""

    collecting: bool
    """Whether a collector runs on this host."""
    backlog_bytes: int
    lag: timedelta
    """Age of the oldest hit on this host that is not in the log yet."""
    collected_at: datetime | None
    lost_hits: int
    """Hits answered while a disk refused to keep them; those of this process count at once."""
    unreadable_bytes: int
    set_aside: int
    """Records that could not be counted, and are kept for a version that can."""
    overdue: int
    """Events whose settle window is over since more than a minute."""

    @property
    def well(self) -> bool:
        late = self.lag > timedelta(minutes=1) or self.overdue > 0
        return self.collecting and not late


def health(session: Session) -> CollectorHealth:
    """What the health page shows."""
    files = reader.files(config.settings().spool)
    offsets = dict(session.execute(select(SpoolCheckpoint.spool, SpoolCheckpoint.offset)).all())
    collected_at, lost, unreadable = session.execute(
        select(
            func.max(SpoolCheckpoint.updated_at),
            func.coalesce(func.sum(SpoolCheckpoint.lost_hits), 0),
            func.coalesce(func.sum(SpoolCheckpoint.lost), 0),
        )
    ).one()
    return CollectorHealth(
        collecting=_collecting(),
        backlog_bytes=reader.backlog(files.values(), offsets),
        lag=_lag(files.values(), offsets),
        collected_at=collected_at,
        lost_hits=int(lost) + spool().untold,
        unreadable_bytes=int(unreadable),
        set_aside=session.scalar(select(func.count()).select_from(DeadLetter)) or 0,
        overdue=_overdue(session),
    )


def _collecting() -> bool:
    """Somebody holds the collector's lock. Asked with a shared lock, so that askers don't meet each other."""
    try:
        with (config.settings().spool / LOCK_NAME).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def _lag(spools: Iterable[list[reader.SpoolFile]], offsets: dict[str, int]) -> timedelta:
    waiting = [reader.read(of_spool, offsets.get(of_spool[0].spool, 0), 10_000).hits for of_spool in spools]
    oldest = [hits[0][1].at for hits in waiting if hits]
    return max(clock.now() - db.from_micros(min(oldest)), timedelta(0)) if oldest else timedelta(0)


def _overdue(session: Session) -> int:
    before = clock.now() - clock.scaled(SETTLE_SECONDS) - timedelta(minutes=1)
    return (
        session.scalar(select(func.count()).where(text(f"label = {TrafficLabel.SETTLING:d}"), Event.at < before)) or 0
    )
