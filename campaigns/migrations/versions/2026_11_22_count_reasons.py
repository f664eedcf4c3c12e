"""Count sends by their reasons too, so that nobody reads a million of them to say why they wait or were left out."""

from alembic import op

revision = "7d1c5e0a94b2"
down_revision = "9662980b5796"

_NEVER = "timestamptz 'epoch'"
_REASONS = {"suppressed": 256, "no_consent": 512, "capped": 1024, "expired": 2048, "given up": 4096, "window": 8192}


def _marks(row: str, *, reasons: bool = True) -> str:
    """With what 2026_11_22_bounces_and_complaints counted, and beside it 256 to 8192."""
    tests = (
        f"{row}trackable",
        f"{row}first_opened_at IS NOT NULL OR {row}clicked_at IS NOT NULL",
        f"{row}clicked_at IS NOT NULL",
        f"{row}unsubscribed_at IS NOT NULL",
        f"{row}sent_at IS NOT NULL",
        f"{row}state = 'bounced' AND {row}reason = 'hard'",
        f"{row}state = 'bounced' AND {row}reason = 'policy'",
        f"{row}complained_at IS NOT NULL",
    )
    told = " ".join(f"WHEN '{reason}' THEN {bit}" for reason, bit in _REASONS.items())
    bits = [f"CASE WHEN {test} THEN {1 << bit} ELSE 0 END" for bit, test in enumerate(tests)]
    return " + ".join([*bits, f"CASE {row}reason WHEN '' THEN 0 {told} ELSE 0 END"] if reasons else bits)


def _one(row: str, number: int) -> str:
    at = f"ifnull(ifnull({row}.sent_at, {row}.bounced_at), 0)"
    return (
        "INSERT INTO send_counts (activity_id, bucket, state, marks, part, number)"
        f" SELECT {row}.activity_id, {at} - {at} % 900000000, {row}.state, {_marks(row + '.')}, 0, {number}"
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
    changed = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in columns)
    return [
        *(f"DROP TRIGGER IF EXISTS sends_{name}" for name in ("inserted", "updated", "deleted")),
        f"CREATE TRIGGER sends_inserted AFTER INSERT ON sends BEGIN {_one('NEW', 1)} END",
        f"CREATE TRIGGER sends_updated AFTER UPDATE OF {', '.join(columns)} ON sends WHEN {changed}"
        f" BEGIN {_one('OLD', -1)} {_one('NEW', 1)} END",
        f"CREATE TRIGGER sends_deleted AFTER DELETE ON sends BEGIN {_one('OLD', -1)} END",
    ]


def _all(source: str) -> str:
    bucket = f"date_bin('15 minutes', coalesce(sent_at, bounced_at, {_NEVER}), {_NEVER})"
    return (
        "INSERT INTO send_counts AS kept (activity_id, bucket, state, marks, part, number)"  # noqa: S608
        f" SELECT activity_id, {bucket}, state, {_marks('')}, pg_backend_pid() & 255, sum(change)"
        f" FROM ({source}) AS changed WHERE occasion = '' GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0"
        " ORDER BY 1, 2, 3, 4"
        " ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = kept.number + excluded.number;"
    )


def _postgres() -> list[str]:
    after, before = "SELECT *, 1 AS change FROM after", "SELECT *, -1 AS change FROM before"
    return [
        "CREATE OR REPLACE FUNCTION count_sends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF TG_OP = 'INSERT' THEN {_all(after)}"
        f" ELSIF TG_OP = 'UPDATE' THEN {_all(before + ' UNION ALL ' + after)}"
        f" ELSE {_all(before)} END IF; RETURN NULL; END $$"
    ]


def _moved(bucket: str, number: str, marks: str) -> str:
    """The rows with a reason, taken out of their old counter or put into their new one."""
    reasons = ", ".join(f"'{reason}'" for reason in _REASONS)
    return (
        "INSERT INTO send_counts (activity_id, bucket, state, marks, part, number)"  # noqa: S608
        f" SELECT activity_id, {bucket}, state, {marks}, 0, {number} FROM sends"
        f" WHERE occasion = '' AND reason IN ({reasons}) GROUP BY 1, 2, 3, 4"
        " ON CONFLICT (activity_id, bucket, state, marks, part)"
        " DO UPDATE SET number = send_counts.number + excluded.number"
    )


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    if postgres:
        bucket = f"date_bin('15 minutes', coalesce(sent_at, bounced_at, {_NEVER}), {_NEVER})"
    else:
        at = "ifnull(ifnull(sent_at, bounced_at), 0)"
        bucket = f"{at} - {at} % 900000000"
    op.get_bind().exec_driver_sql(_moved(bucket, "-count(*)", _marks("", reasons=False)))
    op.get_bind().exec_driver_sql(_moved(bucket, "count(*)", _marks("")))
    for statement in _postgres() if postgres else _sqlite():
        op.get_bind().exec_driver_sql(statement)
