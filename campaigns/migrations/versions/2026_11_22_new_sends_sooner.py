"""SQLite: a new send is counted without asking twice whether it is a launch's."""

from alembic import op

revision = "e93b5d20f7a8"
down_revision = "c07b9d35e1a4"

_REASONS = {"suppressed": 256, "no_consent": 512, "capped": 1024, "expired": 2048, "given up": 4096, "window": 8192}
_UNDER_WAY = "('queued', 'sending')"


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


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    place = _place("NEW.", "{at} - {at} % 900000000", "0")
    op.get_bind().exec_driver_sql("DROP TRIGGER sends_inserted")
    op.get_bind().exec_driver_sql(
        "CREATE TRIGGER sends_inserted AFTER INSERT ON sends WHEN NEW.occasion = '' BEGIN"  # noqa: S608
        " INSERT INTO send_counts (activity_id, bucket, state, marks, part, number)"
        f" VALUES (NEW.activity_id, {place}, 0, 1)"
        " ON CONFLICT (activity_id, bucket, state, marks, part) DO UPDATE SET number = number + excluded.number; END"
    )
