"""Count nothing when a send is claimed: those under way stand in the counters as queued, and of either only why it
waits is counted."""

import sqlalchemy as sa
from alembic import op

revision = "a81f4d06c3e9"
down_revision = "9e651e287bea"

_REASONS = {"suppressed": 256, "no_consent": 512, "capped": 1024, "expired": 2048, "given up": 4096, "window": 8192}
_UNDER_WAY = "('queued', 'sending')"
_NEVER = "timestamptz 'epoch'"


def _bits(*tests: tuple[str, int]) -> str:
    return " + ".join(f"CASE WHEN {test} THEN {bit} ELSE 0 END" for test, bit in tests)


def _marks(row: str) -> str:
    opened = f"{row}first_opened_at", f"{row}clicked_at", f"{row}unsubscribed_at", f"{row}complained_at"
    seldom = _bits(
        (f"{opened[0]} IS NOT NULL OR {opened[1]} IS NOT NULL", 2),
        (f"{opened[1]} IS NOT NULL", 4),
        (f"{opened[2]} IS NOT NULL", 8),
        (f"{opened[3]} IS NOT NULL", 128),
    )
    sent = _bits(
        (f"{row}trackable", 1),
        (f"{row}sent_at IS NOT NULL", 16),
        (f"{row}state = 'bounced' AND {row}reason = 'hard'", 32),
        (f"{row}state = 'bounced' AND {row}reason = 'policy'", 64),
    )
    sent += f" + CASE WHEN coalesce({', '.join(opened)}) IS NULL THEN 0 ELSE {seldom} END"
    reasons = " ".join(f"WHEN '{reason}' THEN {bit}" for reason, bit in _REASONS.items())
    return (
        f"CASE WHEN {row}state IN {_UNDER_WAY} THEN 0 ELSE {sent} END"
        f" + CASE {row}reason WHEN '' THEN 0 {reasons} ELSE 0 END"
    )


def _place(row: str, floor: str, never: str) -> str:
    known = floor.format(at=f"coalesce({row}sent_at, {row}bounced_at, {never})")
    return (
        f"CASE WHEN {row}state IN {_UNDER_WAY} THEN {never} ELSE {known} END,"
        f" CASE {row}state WHEN 'sending' THEN 'queued' ELSE {row}state END, {_marks(row)}"
    )


def _one(row: str, number: int) -> str:
    return (
        "INSERT INTO send_counts (activity_id, bucket, state, marks, part, number)"
        f" SELECT {row}.activity_id, {_place(row + '.', '{at} - {at} % 900000000', '0')}, 0, {number}"
        f" WHERE {row}.occasion = ''"
        " ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = number + excluded.number;"
    )


def _sqlite() -> list[str]:
    columns = (
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
    why, all_ = (
        " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in some)
        for some in (("reason", "occasion"), columns)
    )
    moved = f"CASE WHEN OLD.state IN {_UNDER_WAY} AND NEW.state IN {_UNDER_WAY} THEN {why} ELSE {all_} END"
    return [
        *(f"DROP TRIGGER IF EXISTS sends_{name}" for name in ("inserted", "updated", "deleted")),
        f"CREATE TRIGGER sends_inserted AFTER INSERT ON sends BEGIN {_one('NEW', 1)} END",
        f"CREATE TRIGGER sends_updated AFTER UPDATE OF {', '.join(columns)} ON sends WHEN {moved}"
        f" BEGIN {_one('OLD', -1)} {_one('NEW', 1)} END",
        f"CREATE TRIGGER sends_deleted AFTER DELETE ON sends BEGIN {_one('OLD', -1)} END",
    ]


def _all(source: str) -> str:
    place = _place("", f"date_bin('15 minutes', {{at}}, {_NEVER})", _NEVER)
    return (
        "INSERT INTO send_counts AS kept (activity_id, bucket, state, marks, part, number)"  # noqa: S608
        f" SELECT activity_id, {place}, pg_backend_pid() & 255, sum(change)"
        f" FROM ({source}) AS changed WHERE occasion = '' GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0"
        " ORDER BY 1, 2, 3, 4"
        " ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = kept.number + excluded.number;"
    )


def _postgres() -> list[str]:
    after, before = "SELECT *, 1 AS change FROM after", "SELECT *, -1 AS change FROM before"
    moved = " OR ".join(
        f"EXISTS (SELECT FROM {rows} WHERE state NOT IN {_UNDER_WAY} OR reason <> '' OR occasion <> '')"
        for rows in ("after", "before")
    )
    return [
        "CREATE OR REPLACE FUNCTION count_sends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF TG_OP = 'UPDATE' THEN IF NOT ({moved}) THEN RETURN NULL; END IF; END IF;"
        f" IF TG_OP = 'INSERT' THEN {_all(after)}"
        f" ELSIF TG_OP = 'UPDATE' THEN {_all(before + ' UNION ALL ' + after)}"
        f" ELSE {_all(before)} END IF; RETURN NULL; END $$"
    ]


def upgrade() -> None:
    bind = op.get_bind()
    postgres = bind.dialect.name == "postgresql"
    if postgres:  # Until the counters are folded nobody counts, the old way or the new.
        bind.exec_driver_sql("LOCK TABLE sends, send_counts IN SHARE ROW EXCLUSIVE MODE")
    counts = sa.table("send_counts", *map(sa.column, ("activity_id", "bucket", "state", "marks", "part", "number")))
    theirs = counts.c.state.in_(("queued", "sending"))
    why = counts.c.marks.op("&")(sum(_REASONS.values()))
    folded = bind.execute(
        sa.select(counts.c.activity_id, why.label("marks"), sa.func.sum(counts.c.number).label("number"))
        .where(theirs)
        .group_by(counts.c.activity_id, why)
    ).all()
    bind.execute(counts.delete().where(theirs))
    never = sa.literal_column(_NEVER if postgres else "0")
    for activity_id, marks, number in folded:
        of_one = {"activity_id": activity_id, "state": "queued", "marks": marks, "part": 0, "number": int(number)}
        bind.execute(counts.insert().values(bucket=never, **of_one))
    for statement in _postgres() if postgres else _sqlite():
        bind.exec_driver_sql(statement)
