"""Collector: moves hits from the spools of a host into events and counters.

Each chunk is one transaction: events, first-seen rows, rollups and the spool's checkpoint. After a crash the checkpoint
stands where the counted events end, so each hit is counted exactly once. One collector is active per host, under a lock
file, and reads every spool of the host. Consent is evaluated as of the time of the hit: without it an event carries no
send id.
"""

import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import structlog
from sqlalchemy import Connection, insert, select, update

from campaigns import clock, config, db
from campaigns.audience.models import ConsentLevel
from tracking.bots import rules as bots_rules
from tracking.collector import consent_at_hit, dead_letters, sessions
from tracking.collector.user_agents import UserAgentCache
from tracking.counters import aggregation, bulk_sql
from tracking.endpoints import link_targets
from tracking.models.events import HitKind, SpoolCheckpoint
from tracking.spool import reader
from tracking.spool.record_codec import REPORT_KIND

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.2
_MIN_HITS_PER_ROUND = 5_000
"""Below this number the collector pauses before the next round. Small rounds cost more per hit and take CPU time from
the web processes (latency while collecting: tests/benchmarks/hits.py).
"""
CLEANUP_SECONDS = 60.0
_MAX_PAUSE_SECONDS = 5.0
LOCK_NAME = "collector.lock"
_FULL, _DATE_ONLY = ConsentLevel.FULL, ConsentLevel.DELIVERABILITY
_OPEN, _VIEW, _NOBODY = int(HitKind.OPEN), int(HitKind.VIEW), int(bots_rules.LabelReason.NOBODY)
_ACTIVITY_ID_LIMIT, _LINK_NUMBER_LIMIT = 1 << 31, 1 << 15
_INSTANT_LIMIT = db.to_micros(datetime(9999, 1, 1, tzinfo=UTC))


class Collector:
    """Counts the spools of this host. Caches user agent ids and checkpoints between rounds."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or config.settings().spool
        self._user_agents = UserAgentCache()
        self._offsets: dict[str, int] = {}

    def collect_once(self) -> int:
        """Count one chunk of each spool, each in its own transaction. Returns the number of hits.

        A spool that fails keeps its checkpoint and does not block the others. The first error is raised at the end.
        """
        total, errors = 0, []
        for spool, files in reader.list_spools(self._directory).items():
            try:
                with bulk_sql.gc_paused():
                    total += self._collect_spool(spool, files)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return total

    def delete_counted_files(self) -> int:
        """Delete the files that are counted and have no writer. Returns how many were deleted."""
        with db.read_only_session() as session:
            offsets = dict(session.execute(select(SpoolCheckpoint.spool, SpoolCheckpoint.offset)).all())
        return sum(
            reader.delete_counted(of_spool, offsets.get(spool, 0))
            for spool, of_spool in reader.list_spools(self._directory).items()
        )

    def _collect_spool(self, spool: str, files: list[reader.SpoolFile]) -> int:
        if spool not in self._offsets:
            self._offsets[spool] = _stored_offset(spool)
        offset = self._offsets[spool]
        chunk = reader.read_chunk(files, offset)
        if chunk.offset == offset:
            return 0
        try:
            self._count_chunk(spool, offset, chunk, self.count)
        except Exception as error:
            del self._offsets[spool]  # Another collector may have moved the checkpoint.
            self._user_agents.rollback()
            if dead_letters.is_transient(error):
                raise
            self._count_chunk(spool, offset, chunk, self._count_isolating_failures)
        self._offsets[spool] = chunk.offset
        self._user_agents.commit()
        if chunk.skipped_bytes or chunk.lost_hits:
            log.error("collector.hits_lost", spool=spool, skipped_bytes=chunk.skipped_bytes, lost_hits=chunk.lost_hits)
        return len(chunk.hits)

    def _count_chunk(self, spool: str, offset: int, chunk: reader.ReadResult, count: Callable[..., object]) -> None:
        with db.engine().begin() as connection:
            bulk_sql.lock_counting(connection)
            spool_id = _advance_checkpoint(connection, spool, offset, chunk)
            if chunk.hits:
                count(connection, spool_id, chunk.hits)

    def _count_isolating_failures(self, connection: Connection, spool_id: int, hits: dead_letters.Hits) -> None:
        """Count a chunk with records that cannot be counted: those become dead letters. Each part of the chunk has a
        savepoint, and its rollback removes new user agents, so their ids are not cached.
        """

        def count(connection: Connection, spool_id: int, hits: dead_letters.Hits) -> None:
            self._user_agents.rollback()
            self.count(connection, spool_id, hits)

        dead_letters.count_isolating_failures(connection, spool_id, hits, count)
        self._user_agents.rollback()

    def count(self, connection: Connection, spool_id: int, hits: dead_letters.Hits) -> None:
        """Write the events of hits and update all counters. Raises when any single hit cannot be written."""
        reports = [one for one in hits if one[1][1] == REPORT_KIND]
        if reports:
            sessions.count(connection, spool_id, reports)
            hits = [one for one in hits if one[1][1] != REPORT_KIND]
        if hits:
            self._count_hits(connection, spool_id, hits)

    def _count_hits(self, connection: Connection, spool_id: int, hits: dead_letters.Hits) -> None:
        rows, date_only_opens = self._event_rows(connection, spool_id, hits)
        bulk_sql.insert_events(connection, rows)
        aggregation.count_new_events(connection, rows)
        if date_only_opens:
            aggregation.record_last_open_date(connection, date_only_opens)

    def _event_rows(
        self, connection: Connection, spool_id: int, hits: dead_letters.Hits
    ) -> tuple[list[bulk_sql.EventTuple], dict[int, int]]:
        """The event rows of hits, and the last open (microseconds, by send) of recipients whose consent allows only its
        date.

        This loop runs for every hit: the label is computed once per (kind, flags, user agent), and consent once per
        send. Raises ValueError for a hit that does not fit the columns.
        """
        levels, as_of = consent_at_hit.consent_levels(connection, hits)
        first_labels = dict[tuple[int, int, bytes], tuple[int, int, int]]()
        id_base, rules = dead_letters.event_id_at(spool_id, 0), bots_rules.RULES_VERSION
        rows, date_only_opens = list[bulk_sql.EventTuple](), dict[int, int]()
        for offset, (at, kind, flags, target, number, network, user_agent) in hits:
            key = kind, flags, user_agent
            first_label = first_labels.get(key)
            if first_label is None:
                first_label = first_labels[key] = self._user_agents.id_of(connection, user_agent), *_first_label(*key)
            agent, label, reasons = first_label
            activity_id, link = (number, 0) if kind == _VIEW else (target >> 32, number)
            if not (
                0 <= at < _INSTANT_LIMIT and 0 <= activity_id < _ACTIVITY_ID_LIMIT and 0 <= link < _LINK_NUMBER_LIMIT
            ):
                raise ValueError(f"no such instant, activity or link: {at}, {activity_id}, {link}")
            level = levels.get(target) or as_of(target, at)
            send_id: int | None = target
            if level is not _FULL:
                send_id, reasons = None, reasons | _NOBODY
                if level is _DATE_ONLY and kind == _OPEN and not label:
                    date_only_opens[target] = max(at, date_only_opens.get(target, 0))
            rows.append((id_base | offset, at, send_id, network, activity_id, agent, reasons, kind, label, rules, link))
        return rows, date_only_opens


@lru_cache(maxsize=50_000)
def _first_label(kind: int, flags: int, user_agent: bytes) -> tuple[int, int]:
    """The first label and its reasons. Raises ValueError for an unknown kind."""
    reasons = bots_rules.immediate_signals(HitKind(kind), flags, user_agent)
    return int(bots_rules.first_label(reasons)), int(reasons)


def _stored_offset(spool: str) -> int:
    with db.read_only_session() as session:
        return session.scalar(select(SpoolCheckpoint.offset).where(SpoolCheckpoint.spool == spool)) or 0


def _advance_checkpoint(connection: Connection, spool: str, offset: int, chunk: reader.ReadResult) -> int:
    """Move the checkpoint, which must stand at ``offset``; returns its id. Raises OSError when another collector moved
    it.
    """
    moved = connection.execute(
        update(SpoolCheckpoint)
        .where(SpoolCheckpoint.spool == spool, SpoolCheckpoint.offset == offset)
        .values(
            offset=chunk.offset,
            lost=SpoolCheckpoint.lost + chunk.skipped_bytes,
            lost_hits=SpoolCheckpoint.lost_hits + chunk.lost_hits,
            updated_at=clock.now(),
        )
        .returning(SpoolCheckpoint.id)
    ).scalar_one_or_none()
    if moved is not None:
        return int(moved)
    if offset:
        raise OSError(f"spool {spool} was counted by somebody else")
    return int(
        connection.execute(
            insert(SpoolCheckpoint)
            .values(
                spool=spool,
                host=socket.gethostname()[:200],
                offset=chunk.offset,
                lost=chunk.skipped_bytes,
                lost_hits=chunk.lost_hits,
                updated_at=clock.now(),
            )
            .returning(SpoolCheckpoint.id)
        ).scalar_one()
    )


@contextmanager
def collector_lock(directory: Path) -> Iterator[bool]:
    """Take the lock of this host's collector for the block. Yields False when another process holds it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def collect_once() -> int:
    """Count everything in this host's spools. Returns the number of hits; 0 while another process is the collector."""
    with collector_lock(config.settings().spool) as acquired:
        return _drain(Collector()) if acquired else 0


def recount_dead_letters() -> int:
    """Count the dead letters that can be counted by now. Returns how many were counted."""
    with db.engine().begin() as connection:
        bulk_sql.lock_counting(connection)
        return dead_letters.recount(connection, Collector().count)


def _drain(collector: Collector) -> int:
    total = 0
    while count := collector.collect_once():
        total += count
    return total


def run(stop: threading.Event) -> None:
    """Collect until ``stop`` is set. Waits while another process is the collector of this host."""
    while not stop.is_set():
        with collector_lock(config.settings().spool) as acquired:
            if acquired:
                _collect_until_stopped(Collector(), stop)
        stop.wait(1)


def _collect_until_stopped(collector: Collector, stop: threading.Event) -> None:
    pause, tidy_at, sync_at = PAUSE_SECONDS, 0.0, 0.0
    while not stop.is_set():
        try:
            count = collector.collect_once()
            if time.monotonic() >= sync_at:
                sync_at = time.monotonic() + link_targets.SYNC_SECONDS
                link_targets.sync()
            if time.monotonic() >= tidy_at:
                tidy_at = time.monotonic() + CLEANUP_SECONDS
                collector.delete_counted_files()
            pause = PAUSE_SECONDS
        except Exception as error:
            log.error("collector.round_failed", error=str(error)[:500])
            count, pause = 0, min(pause * 2, _MAX_PAUSE_SECONDS)
        if count < _MIN_HITS_PER_ROUND:
            stop.wait(pause)


def main() -> None:
    """Collect until SIGTERM or SIGINT."""
    # Linux: under SCHED_BATCH the collector does not preempt web processes that wake up; its share of CPU time stays.
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(stop)


if __name__ == "__main__":
    main()
