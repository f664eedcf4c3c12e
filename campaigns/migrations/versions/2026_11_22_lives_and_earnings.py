"""Totals of whole lives beside those of days; what each activity had to do with each conversion, and its sums."""

import sqlalchemy as sa
from alembic import op

from campaigns import db

revision = "b7e15c94d203"
down_revision = "e7a40c19b2d8"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_VISITS = ("visits", "visitors", "campaign_visitors", "engaged", "active_seconds", "pages", "new", "aggregate")
_EARNED = """
    WITH touched AS (
        SELECT t.conversion_id, t.activity_id, a.campaign_id, a.channel, min(t.position) AS place
        FROM conversion_touches t JOIN activities a ON a.id = t.activity_id WHERE t.settling = {no}
        GROUP BY t.conversion_id, t.activity_id, a.campaign_id, a.channel
    ), parts AS (
        SELECT id AS conversion_id, activity_id, 1 AS own, 0.0 AS first, 0.0 AS last,
            0 AS touched, 0 AS of_channel, 0 AS of_campaign
        FROM conversions WHERE activity_id IS NOT NULL
        UNION ALL SELECT conversion_id, activity_id, 0,
            CASE WHEN model = 'first_touch' THEN CAST(share AS FLOAT) ELSE 0.0 END,
            CASE WHEN model = 'last_touch' THEN CAST(share AS FLOAT) ELSE 0.0 END, 0, 0, 0
        FROM credits
        UNION ALL SELECT conversion_id, activity_id, 0, 0.0, 0.0, 1,
            CASE WHEN row_number() OVER (PARTITION BY conversion_id, campaign_id, channel ORDER BY place) = 1
                THEN 1 ELSE 0 END,
            CASE WHEN row_number() OVER (PARTITION BY conversion_id, campaign_id ORDER BY place) = 1
                THEN 1 ELSE 0 END
        FROM touched
    )
    INSERT INTO earnings (activity_id, at, conversion_id, own, value, first, first_value, last, last_value,
        touched, of_channel, of_campaign)
    SELECT p.activity_id, c.at, p.conversion_id, max(p.own), CASE WHEN max(p.own) = 1 THEN c.value END,
        sum(p.first), CASE WHEN sum(p.first) > 0 THEN CAST(CAST(c.value AS FLOAT) * sum(p.first) AS {money}) END,
        sum(p.last), CASE WHEN sum(p.last) > 0 THEN CAST(CAST(c.value AS FLOAT) * sum(p.last) AS {money}) END,
        max(p.touched), max(p.of_channel), max(p.of_campaign)
    FROM parts p JOIN conversions c ON c.id = p.conversion_id
    GROUP BY p.activity_id, c.at, p.conversion_id, c.value
"""

_SUMS = {
    name: f"coalesce({{row}}{name}, 0)"
    if name.endswith("value")
    else f"CASE WHEN {{row}}{name.removesuffix('d')} IS NULL THEN 0 ELSE 1 END"
    if name.endswith("valued")
    else f"{{row}}{name}"
    for name in (
        "own",
        "valued",
        "value",
        "first",
        "first_valued",
        "first_value",
        "last",
        "last_valued",
        "last_value",
        "touched",
        "of_channel",
        "of_campaign",
    )
}
_MORE = ", ".join(f"{name} = {{kept}}{name} + excluded.{name}" for name in _SUMS)


def _one(row: str, sign: str) -> str:
    sums = ", ".join(f"{sign}({sql.format(row=row)})" for sql in _SUMS.values())
    return (
        f"INSERT INTO life_earnings (activity_id, part, {', '.join(_SUMS)}) SELECT {row}activity_id, 0, {sums}"
        f" WHERE true ON CONFLICT (activity_id, part) DO UPDATE SET {_MORE.format(kept='')};"
    )


def _all(source: str, sign: str) -> str:
    sums = ", ".join(f"{sign}sum({sql.format(row='')})" for sql in _SUMS.values())
    return (
        f"INSERT INTO life_earnings AS kept (activity_id, part, {', '.join(_SUMS)})"  # noqa: S608
        f" SELECT activity_id, pg_backend_pid() & 255, {sums} FROM {source} GROUP BY 1, 2 ORDER BY 1, 2"
        f" ON CONFLICT (activity_id, part) DO UPDATE SET {_MORE.format(kept='kept.')};"
    )


_SQLITE = (
    f"CREATE TRIGGER earnings_inserted AFTER INSERT ON earnings BEGIN {_one('NEW.', '')} END",
    f"CREATE TRIGGER earnings_deleted AFTER DELETE ON earnings BEGIN {_one('OLD.', '-')} END",
)
_POSTGRES = (
    "CREATE OR REPLACE FUNCTION sum_earnings() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    f" IF TG_OP = 'INSERT' THEN {_all('changed', '')} ELSE {_all('changed', '-')} END IF; RETURN NULL; END $$",
    *(
        f"CREATE TRIGGER earnings_{name} AFTER {what} ON earnings REFERENCING {which} TABLE AS changed"
        " FOR EACH STATEMENT EXECUTE FUNCTION sum_earnings()"
        for name, what, which in (("inserted", "INSERT", "NEW"), ("deleted", "DELETE", "OLD"))
    ),
)


def _small(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger(), autoincrement=False, nullable=False)


def upgrade() -> None:
    op.create_table(
        "life_rollups",
        sa.Column("activity_id", _BIG, autoincrement=False, nullable=False),
        _small("link"),
        _small("kind"),
        _small("label"),
        sa.Column("events", _BIG, nullable=False),
        sa.Column("uniques", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("activity_id", "link", "kind", "label", name=op.f("pk_life_rollups")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "life_visits",
        sa.Column("activity_id", _BIG, autoincrement=False, nullable=False),
        _small("label"),
        *(sa.Column(name, _BIG, nullable=False) for name in _VISITS),
        sa.PrimaryKeyConstraint("activity_id", "label", name=op.f("pk_life_visits")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "earnings",
        sa.Column("activity_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("at", db.UtcDateTime(), nullable=False),
        sa.Column("conversion_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("own", sa.Integer(), nullable=False),
        sa.Column("value", db.MoneyType(), nullable=True),
        sa.Column("first", sa.Float(), nullable=False),
        sa.Column("first_value", db.MoneyType(), nullable=True),
        sa.Column("last", sa.Float(), nullable=False),
        sa.Column("last_value", db.MoneyType(), nullable=True),
        sa.Column("touched", sa.Integer(), nullable=False),
        sa.Column("of_channel", sa.Integer(), nullable=False),
        sa.Column("of_campaign", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversion_id"],
            ["conversions.id"],
            name=op.f("fk_earnings_conversion_id_conversions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("activity_id", "at", "conversion_id", name=op.f("pk_earnings")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "life_earnings",
        sa.Column("activity_id", _BIG, autoincrement=False, nullable=False),
        _small("part"),
        *(
            sa.Column(
                name,
                db.MoneyType()
                if name.endswith("value")
                else sa.Float()
                if name in ("first", "last")
                else sa.BigInteger(),
                nullable=False,
            )
            for name in _SUMS
        ),
        sa.PrimaryKeyConstraint("activity_id", "part", name=op.f("pk_life_earnings")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_earnings_conversion_id", "earnings", ["conversion_id"])
    op.create_index(
        "ix_conversions_by_goal", "conversions", ["campaign_id", "goal", "currency", "at", "value", "amount"]
    )
    op.create_index(
        "ix_leads_campaign_id_activity_id_created_at", "leads", ["campaign_id", "activity_id", "created_at"]
    )
    op.drop_index("ix_conversions_at", table_name="conversions")
    op.create_index("ix_conversions_by_time", "conversions", ["at", "goal", "activity_id", "value"])
    op.create_index("ix_sends_contact_id_id", "sends", ["contact_id", "id"])
    op.drop_index("ix_sends_contact_id", table_name="sends")
    op.drop_index("ix_leads_created_at", table_name="leads")
    op.create_index(
        "ix_leads_created_at_campaign_id_activity_id", "leads", ["created_at", "campaign_id", "activity_id"]
    )
    op.execute(
        "INSERT INTO life_rollups (activity_id, link, kind, label, events, uniques)"
        " SELECT activity_id, link, kind, label, sum(events), sum(uniques) FROM day_rollups"
        " GROUP BY activity_id, link, kind, label"
    )
    sums = ", ".join(f"sum({name})" for name in _VISITS)
    op.execute(
        f"INSERT INTO life_visits (activity_id, label, {', '.join(_VISITS)})"  # noqa: S608
        f" SELECT activity_id, label, {sums} FROM day_visits GROUP BY activity_id, label"
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE if sqlite else _POSTGRES:
        op.get_bind().exec_driver_sql(statement.replace("%", "%%"))
    op.execute(_EARNED.format(no="0" if sqlite else "FALSE", money="BIGINT" if sqlite else "NUMERIC(14, 2)"))
