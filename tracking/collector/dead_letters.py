"""Dead letters: records that cannot be counted are stored unchanged, so that one of them never blocks the others."""

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from campaigns import clock
from tracking.models.events import DeadLetter
from tracking.spool.record_codec import Hit, pack, scan

log = structlog.get_logger(__name__)

Hits = Sequence[tuple[int, Hit]]
"""Hits with their offsets in the spool."""
CountHits = Callable[[Connection, int, Hits], None]
OFFSET_MASK = (1 << 40) - 1
"""Mask of the spool offset in an event id; the bits above it are the checkpoint's id."""


def event_id_at(spool_id: int, offset: int) -> int:
    """The id of the event at an offset of a spool."""
    return spool_id << 40 | offset


def is_transient(error: Exception) -> bool:
    """Whether the error lies with the database or the disk, so that the same hits may be counted later."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError | InternalError | OSError | MemoryError)


def count_isolating_failures(connection: Connection, spool_id: int, hits: Hits, count: CountHits) -> int:
    """Count hits of which some cannot be counted: halve the list until each failing hit stands alone and becomes a dead
    letter. Returns the number of dead letters. Raises transient errors.
    """
    try:
        with connection.begin_nested():
            count(connection, spool_id, hits)
    except Exception as error:
        if is_transient(error):
            raise
        if len(hits) == 1:
            _store_dead_letter(connection, spool_id, hits[0], error)
            return 1
        middle = len(hits) // 2
        return sum(
            count_isolating_failures(connection, spool_id, half, count) for half in (hits[:middle], hits[middle:])
        )
    return 0


def _store_dead_letter(
    connection: Connection, spool_id: int, offset_and_hit: tuple[int, Hit], error: Exception
) -> None:
    offset, hit = offset_and_hit
    id = event_id_at(spool_id, offset)
    log.error("collector.dead_letter", id=id, error=repr(error)[:500])
    message = f"{type(error).__name__}: {error}".replace("\0", "�")[:500]
    connection.execute(insert(DeadLetter).values(id=id, record=pack(hit), error=message, at=clock.now()))


def recount(connection: Connection, count: CountHits, limit: int = 1_000) -> int:
    """Count the dead letters that can be counted by now, for instance after an upgrade. Returns how many
    were counted.
    """
    counted = 0
    for id, record in connection.execute(
        select(DeadLetter.id, DeadLetter.record).order_by(DeadLetter.id).limit(limit)
    ).all():
        try:
            with connection.begin_nested():
                count(connection, id >> 40, [(id & OFFSET_MASK, hit) for _, hit in scan(bytes(record)).hits])
                connection.execute(delete(DeadLetter).where(DeadLetter.id == id))
        except Exception as error:
            if is_transient(error):
                raise
        else:
            counted += 1
    return counted
