"""Counters of sends by state, kept by database triggers in the transaction that changes a send.

Twelve services change a send's state; a trigger counts for all of them. A page about a million sends reads a few
hundred rows. Only launches are counted, no test sends.

Sends in state sending are counted as queued, so that a claim updates no counter (CPU per mail of a claim:
``tests/benchmarks/composing``). :mod:`campaigns.delivery.sends.progress` counts the few rows in state sending.
"""

from collections.abc import Mapping
from enum import IntFlag

from sqlalchemy import DDL, BigInteger, SmallInteger, event
from sqlalchemy.orm import Mapped, mapped_column

from campaigns.db import Base, BigId, Instant, string_enum
from campaigns.delivery.models import EXPIRED, GIVEN_UP, OUTSIDE_WINDOW, Send, SendState, SkipReason


class SendFlag(IntFlag):
    """Properties of a send that are counted besides its state."""

    TRACKABLE = 1
    OPENED = 2  # by a human open, or a human click that implies it
    CLICKED = 4
    UNSUBSCRIBED = 8
    ACCEPTED = 16  # accepted by the relay, also when it bounced afterwards
    HARD_BOUNCE = 32  # bounced because the address does not exist
    POLICY_BOUNCE = 64  # bounced by policy
    COMPLAINED = 128
    SUPPRESSED = 256  # this and the next five: Send.reason, at most one of them
    NO_CONSENT = 512
    CAPPED = 1024
    EXPIRED = 2048
    GIVEN_UP = 4096
    WINDOW = 8192


REASON_FLAGS: Mapping[str, SendFlag] = {
    SkipReason.SUPPRESSED.value: SendFlag.SUPPRESSED,
    SkipReason.NO_CONSENT.value: SendFlag.NO_CONSENT,
    SkipReason.CAPPED.value: SendFlag.CAPPED,
    EXPIRED: SendFlag.EXPIRED,
    GIVEN_UP: SendFlag.GIVEN_UP,
    OUTSIDE_WINDOW: SendFlag.WINDOW,
}


class SendCount(Base):
    """Number of an activity's launch sends with the same bucket, state and flags."""

    __tablename__ = "send_counts"
    __table_args__ = {"sqlite_with_rowid": False}

    activity_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    bucket: Mapped[Instant] = mapped_column(primary_key=True)
    """Start of the 15 minutes (UTC) of ``sent_at``, else of ``bounced_at``; 1970 when both are NULL."""
    state: Mapped[SendState] = mapped_column(string_enum(SendState), primary_key=True)
    """SENDING is counted as QUEUED."""
    flags: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """Bit set of :class:`SendFlag`; for queued sends only the flag of their reason."""
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """0 to 255: on PostgreSQL the backend's process id modulo 256, so that concurrent transactions update different
    rows and do not wait for each other; on SQLite 0. Only the sum over all parts is meaningful: one part may be
    negative."""
    count: Mapped[int] = mapped_column(BigInteger)


Send.__table__.add_is_dependent_on(SendCount.__table__)  # type: ignore[attr-defined]  # Create send_counts first: the triggers on sends insert into it.


_UNDER_WAY = "('queued', 'sending')"


def _state_sql(row: str) -> str:
    return f"CASE {row}state WHEN 'sending' THEN 'queued' ELSE {row}state END"


def _flags_sql(row: str) -> str:
    """SQL of the flags. Queued and sending rows have only their reason's flag, so that a claim changes no counter.

    The engagement flags are tested only when one of the engagement columns is set.
    """
    engagement_columns = f"{row}first_opened_at", f"{row}clicked_at", f"{row}unsubscribed_at", f"{row}complained_at"
    engagement_flags = _bits_sql(
        (f"{engagement_columns[0]} IS NOT NULL OR {engagement_columns[1]} IS NOT NULL", SendFlag.OPENED),
        (f"{engagement_columns[1]} IS NOT NULL", SendFlag.CLICKED),
        (f"{engagement_columns[2]} IS NOT NULL", SendFlag.UNSUBSCRIBED),
        (f"{engagement_columns[3]} IS NOT NULL", SendFlag.COMPLAINED),
    )
    flags = _bits_sql(
        (f"{row}trackable", SendFlag.TRACKABLE),
        (f"{row}sent_at IS NOT NULL", SendFlag.ACCEPTED),
        (f"{row}state = 'bounced' AND {row}reason = 'hard'", SendFlag.HARD_BOUNCE),
        (f"{row}state = 'bounced' AND {row}reason = 'policy'", SendFlag.POLICY_BOUNCE),
    )
    flags += f" + CASE WHEN coalesce({', '.join(engagement_columns)}) IS NULL THEN 0 ELSE {engagement_flags} END"
    reasons = " ".join(f"WHEN '{reason}' THEN {bit:d}" for reason, bit in REASON_FLAGS.items())
    return (
        f"CASE WHEN {row}state IN {_UNDER_WAY} THEN 0 ELSE {flags} END"
        f" + CASE {row}reason WHEN '' THEN 0 {reasons} ELSE 0 END"
    )


def _bits_sql(*tests: tuple[str, SendFlag]) -> str:
    return " + ".join(f"CASE WHEN {test} THEN {bit:d} ELSE 0 END" for test, bit in tests)


def _bucket_sql(row: str, truncate: str, epoch: str) -> str:
    """SQL of the bucket. ``truncate`` cuts the instant ``{at}`` to 15 minutes; ``epoch`` is the instant 1970."""
    event_bucket = truncate.format(at=f"coalesce({row}sent_at, {row}bounced_at, {epoch})")
    return f"CASE WHEN {row}state IN {_UNDER_WAY} THEN {epoch} ELSE {event_bucket} END"


def _row_upsert(row: str, number: int, *, of_launch: bool = False) -> str:
    """SQLite: upsert that adds ``number`` to the counter of one row.

    ``of_launch``: the trigger's WHEN has already tested that the row belongs to a launch.
    """
    bucket = _bucket_sql(f"{row}.", "{at} - {at} % 900000000", "0")
    values = f"{row}.activity_id, {bucket}, {_state_sql(row + '.')}, {_flags_sql(row + '.')}, 0, {number}"
    source = f"VALUES ({values})" if of_launch else f"SELECT {values} WHERE {row}.occasion = ''"
    return (
        "INSERT INTO send_counts (activity_id, bucket, state, flags, shard, count)"
        f" {source}"
        " ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = count + excluded.count;"
    )


_COUNTED = (
    "state",
    "sent_at",
    "bounced_at",
    "trackable",
    "first_opened_at",
    "clicked_at",
    "unsubscribed_at",
    "complained_at",
    "reason",
    "occasion",
)


def _changed_sql(*columns: str) -> str:
    return " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in columns)


_CHANGED = (
    f"CASE WHEN OLD.state IN {_UNDER_WAY} AND NEW.state IN {_UNDER_WAY} THEN {_changed_sql('reason', 'occasion')}"
    f" ELSE {_changed_sql(*_COUNTED)} END"
)
SQLITE_TRIGGERS = (
    "CREATE TRIGGER IF NOT EXISTS sends_inserted AFTER INSERT ON sends WHEN NEW.occasion = ''"
    f" BEGIN {_row_upsert('NEW', 1, of_launch=True)} END",
    f"CREATE TRIGGER IF NOT EXISTS sends_updated AFTER UPDATE OF {', '.join(_COUNTED)} ON sends WHEN {_CHANGED}"
    f" BEGIN {_row_upsert('OLD', -1)} {_row_upsert('NEW', 1)} END",
    f"CREATE TRIGGER IF NOT EXISTS sends_deleted AFTER DELETE ON sends BEGIN {_row_upsert('OLD', -1)} END",
)

_EPOCH = "timestamptz 'epoch'"
_BUCKET_START = f"date_bin('15 minutes', {{at}}, {_EPOCH})"


def _statement_upsert(source: str) -> str:
    """PostgreSQL: upsert of all rows of a statement, summed per counter and ordered against deadlocks."""
    bucket = _bucket_sql("", _BUCKET_START, _EPOCH)
    return (
        "INSERT INTO send_counts AS kept (activity_id, bucket, state, flags, shard, count)"  # noqa: S608
        f" SELECT activity_id, {bucket}, {_state_sql('')}, {_flags_sql('')}, pg_backend_pid() & 255, sum(change)"
        f" FROM ({source}) AS changed WHERE occasion = '' GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0"
        " ORDER BY 1, 2, 3, 4"
        " ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = kept.count + excluded.count;"
    )


_AFTER, _BEFORE = "SELECT *, 1 AS change FROM after", "SELECT *, -1 AS change FROM before"
_CHANGED_ROWS = " OR ".join(
    f"EXISTS (SELECT FROM {rows} WHERE state NOT IN {_UNDER_WAY} OR reason <> '' OR occasion <> '')"
    for rows in ("after", "before")
)
POSTGRES_TRIGGERS = (
    f"CREATE OR REPLACE FUNCTION count_sends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    f" IF TG_OP = 'UPDATE' THEN IF NOT ({_CHANGED_ROWS}) THEN RETURN NULL; END IF; END IF;"
    f" IF TG_OP = 'INSERT' THEN {_statement_upsert(_AFTER)}"
    f" ELSIF TG_OP = 'UPDATE' THEN {_statement_upsert(_BEFORE + ' UNION ALL ' + _AFTER)}"
    f" ELSE {_statement_upsert(_BEFORE)} END IF; RETURN NULL; END $$",
    *(
        f"CREATE OR REPLACE TRIGGER sends_{name} AFTER {what} ON sends REFERENCING {tables}"
        " FOR EACH STATEMENT EXECUTE FUNCTION count_sends()"
        for name, what, tables in (
            ("inserted", "INSERT", "NEW TABLE AS after"),
            ("updated", "UPDATE", "OLD TABLE AS before NEW TABLE AS after"),
            ("deleted", "DELETE", "OLD TABLE AS before"),
        )
    ),
)

for _dialect, _statements in (("sqlite", SQLITE_TRIGGERS), ("postgresql", POSTGRES_TRIGGERS)):
    for _statement in _statements:
        _ddl = DDL(_statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
        event.listen(Base.metadata, "after_create", _ddl.execute_if(dialect=_dialect))
