"""Spools → events, marks, rollups: one transaction together with its checkpoint.

One collector is active per host, under a lock file; it reads every spool there. Whatever kills it,
the checkpoint stands where the counted events end, so that each hit is counted exactly once.
Consent is asked as of the hit's time: without it an event carries no person.
"""

import fcntl
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from campaigns import clock, config, db
from campaigns.audience import consent
from campaigns.audience.models import ConsentEntry, ConsentLevel, ConsentPurpose
from campaigns.errors import KampaniaError
from tracking import batches, counting, destinations, screening, tail
from tracking.agents import Agents
from tracking.batches import EventRow
from tracking.models import Checkpoint, Kind, Label
from tracking.records import Hit

log = structlog.get_logger(__name__)

IDLE_SECONDS = 0.1
TIDY_SECONDS = 60.0
_LONGEST_PAUSE = 5.0
LOCK_NAME = "collector.lock"


class Place(NamedTuple):
    """One hit and where it stands."""

    spool_id: int
    offset: int
    hit: Hit


class Collector:
    """Counts what the spools of this host hold. Remembers user agents between rounds."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or config.settings().spool
        self._agents = Agents()
        self._offsets: dict[str, int] = {}

    def collect_once(self) -> int:
        """Count one portion of each spool, a transaction each; how many hits that were.

        A spool that fails is left where it stands and doesn't keep the others waiting; the first
        error is raised at the end.
        """
        total, errors = 0, []
        for spool, of_spool in tail.files(self._directory).items():
            try:
                total += self._collect(spool, of_spool)
            except (SQLAlchemyError, OSError) as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return total

    def tidy(self) -> int:
        """Delete the files that are counted and that nobody writes to any more."""
        with db.reading() as session:
            offsets = dict(session.execute(select(Checkpoint.spool, Checkpoint.offset)).all())
        return sum(
            tail.delete_counted(of_spool, offsets.get(spool, 0))
            for spool, of_spool in tail.files(self._directory).items()
        )

    def _collect(self, spool: str, of_spool: list[tail.SpoolFile]) -> int:
        if spool not in self._offsets:
            self._offsets[spool] = _offset(spool)
        offset = self._offsets[spool]
        read = tail.read(of_spool, offset)
        if read.offset == offset:
            return 0
        try:
            with db.engine().begin() as connection:
                batches.lock_counting(connection)
                spool_id = _advance(connection, spool, offset, read)
                self._count(connection, [Place(spool_id, at, hit) for at, hit in read.hits])
        except BaseException:
            del self._offsets[spool]  # Somebody else may have moved it.
            self._agents.rolled_back()
            raise
        self._offsets[spool] = read.offset
        self._agents.committed()
        if read.skipped or read.lost:
            log.error("collect.loss", spool=spool, skipped_bytes=read.skipped, lost_hits=read.lost)
        return len(read.hits)

    def _count(self, connection: Connection, places: list[Place]) -> None:
        if not places:
            return
        agents = self._agents.numbers(connection, {place.hit.user_agent for place in places})
        allowed = _allowed(connection, [place.hit for place in places])
        rows, opened = [], dict[int, int]()
        for place in places:
            hit, level = place.hit, allowed(place.hit)
            row = _event(place, agents[hit.user_agent], level is ConsentLevel.FULL)
            rows.append(row)
            if level is ConsentLevel.DELIVERABILITY and hit.kind == Kind.OPEN and row.label == Label.SETTLING:
                opened[hit.target] = max(hit.at, opened.get(hit.target, 0))
        batches.insert_events(connection, rows)
        counting.add(connection, rows)
        if opened:
            counting.note_last_date(connection, opened)


def _event(place: Place, user_agent_id: int, with_person: bool) -> EventRow:
    hit = place.hit
    found = screening.facts(hit.kind, hit.flags, hit.user_agent)
    is_view = hit.kind == Kind.VIEW
    return EventRow(
        spool_id=place.spool_id,
        offset=place.offset,
        at=hit.at,
        kind=hit.kind,
        label=screening.first_label(found),
        reasons=int(found if with_person else found | screening.Reason.NOBODY),
        rules=screening.RULES,
        activity_id=hit.number if is_view else hit.target >> 32,
        send_id=hit.target if with_person else None,
        link=0 if is_view else hit.number,
        network=hit.network,
        user_agent_id=user_agent_id,
    )


def _offset(spool: str) -> int:
    with db.reading() as session:
        return session.scalar(select(Checkpoint.offset).where(Checkpoint.spool == spool)) or 0


def _advance(connection: Connection, spool: str, offset: int, read: tail.Read) -> int:
    """Move the checkpoint, which must stand at ``offset``; its id."""
    moved = connection.execute(
        update(Checkpoint)
        .where(Checkpoint.spool == spool, Checkpoint.offset == offset)
        .values(
            offset=read.offset,
            lost=Checkpoint.lost + read.skipped,
            lost_hits=Checkpoint.lost_hits + read.lost,
            updated_at=clock.now(),
        )
        .returning(Checkpoint.id)
    ).scalar_one_or_none()
    if moved is not None:
        return int(moved)
    if offset:
        raise OSError(f"spool {spool} was counted by somebody else")
    return int(
        connection.execute(
            insert(Checkpoint)
            .values(
                spool=spool,
                host=socket.gethostname()[:200],
                offset=read.offset,
                lost=read.skipped,
                lost_hits=read.lost,
                updated_at=clock.now(),
            )
            .returning(Checkpoint.id)
        ).scalar_one()
    )


def _allowed(connection: Connection, hits: list[Hit]) -> Callable[[Hit], ConsentLevel]:
    """How much of a person each hit may carry, as of its own instant.

    A send without a contact (a test mail to an address) carries what it was composed with; one
    whose contact has gone, or that is gone itself, carries nobody.
    """
    contacts = _contacts(connection, {hit.target for hit in hits if hit.target & 0xFFFFFFFF})
    people = {found for found in contacts.values() if not isinstance(found, ConsentLevel)}
    oldest, newest = min(hit.at for hit in hits), max(hit.at for hit in hits)
    session = Session(connection)
    levels = consent.as_of(session, people, ConsentPurpose.TRACKING, db.from_micros(newest))
    changed = _changed(session, people, oldest, newest)

    def allowed(hit: Hit) -> ConsentLevel:
        found = contacts.get(hit.target, ConsentLevel.NONE)
        if isinstance(found, ConsentLevel):
            return found
        if found in changed:
            return consent.as_of(session, [found], ConsentPurpose.TRACKING, db.from_micros(hit.at))[found]
        return levels[found]

    return allowed


def _contacts(connection: Connection, send_ids: set[int]) -> dict[int, int | ConsentLevel]:
    rows = batches.select_by_ids(
        connection, "SELECT id, contact_id, recipient_key, trackable FROM sends WHERE id IN {ids}", send_ids
    )
    without_contact = {
        row[0]: ConsentLevel.FULL if row[3] and row[2].startswith("a:") else ConsentLevel.NONE for row in rows
    }
    return {row[0]: without_contact[row[0]] if row[1] is None else row[1] for row in rows}


def _changed(session: Session, people: set[int], oldest: int, newest: int) -> set[int]:
    """Contacts who changed their mind while these hits came in."""
    return people & set(
        session.scalars(
            select(ConsentEntry.contact_id).where(
                ConsentEntry.purpose == ConsentPurpose.TRACKING,
                ConsentEntry.at > db.from_micros(oldest),
                ConsentEntry.at <= db.from_micros(newest),
            )
        )
    )


@contextmanager
def only_collector(directory: Path) -> Iterator[bool]:
    """True within the block if no other process of this host collects."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def collect_once() -> int:
    """Count everything that lies in this host's spools; how many hits that were.

    Counts nothing while another process is this host's collector.
    """
    with only_collector(config.settings().spool) as alone:
        return _drain(Collector()) if alone else 0


def _drain(collector: Collector) -> int:
    total = 0
    while count := collector.collect_once():
        total += count
    return total


def run(stop: threading.Event) -> None:
    """Collect until ``stop`` is set; waits for its turn while another collector is active."""
    while not stop.is_set():
        with only_collector(config.settings().spool) as alone:
            if alone:
                _run(Collector(), stop)
        stop.wait(1)


def _run(collector: Collector, stop: threading.Event) -> None:
    pause, tidy_at, sync_at = IDLE_SECONDS, 0.0, 0.0
    while not stop.is_set():
        try:
            count = collector.collect_once()
            if time.monotonic() >= sync_at:
                sync_at = time.monotonic() + destinations.SYNC_SECONDS
                destinations.sync()
            if time.monotonic() >= tidy_at:
                tidy_at = time.monotonic() + TIDY_SECONDS
                collector.tidy()
            pause = IDLE_SECONDS
        except (SQLAlchemyError, KampaniaError, OSError) as error:
            log.error("collect.failed", error=str(error)[:500])
            count, pause = 0, min(pause * 2, _LONGEST_PAUSE)
        if not count:
            stop.wait(pause)


def main() -> None:
    """Collect until told to stop by SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(stop)


if __name__ == "__main__":
    main()
