"""Upgrade of a database of version 0.1 to the baseline of 0.2.0: tables, columns and stored values get their new names.

Everything happens in one transaction: a failed upgrade leaves the database as version 0.1 knows it. Of the tables only
``activities``, which loses its e-mail columns to ``email_details``, and on SQLite ``first_seen`` are copied.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

LAST_REVISION = "e93b5d20f7a8"
"""The newest revision of version 0.1."""
EARLIER_REVISIONS = frozenset(
    {
        "613455ce4230",
        "f96f33c6f6b1",
        "2a70a7efe552",
        "d2526595264a",
        "d0007a9faa7f",
        "cba26f77727b",
        "3f0e852261e4",
        "5f68db6c1af5",
        "c07b9d35e1a4",
        "b44f2eb498d6",
        "d7e51f0a93c6",
        "8f3e61c07d2a",
        "c4a9d2e81b57",
        "9662980b5796",
        "03677a2d9620",
        "e94c7a1d30f6",
        "84ef742b1484",
        "aa380f9d478d",
        "7d1c5e0a94b2",
        "08a5dec3f9a6",
        "5d1c0f2a97be",
        "733e08fe1cdd",
        "9e651e287bea",
        "6db5ca9fe924",
        "3e31f94cc1f7",
        "c24c90676ac1",
        "b51e07c3a9d4",
        "523a55912ee9",
        "a81f4d06c3e9",
        "c61a7d04e2b8",
        "b7e15c94d203",
        "e7a40c19b2d8",
    }
)
"""The other revisions of 0.1: such a database is upgraded by 0.1 first."""

TABLES: tuple[tuple[str, str], ...] = (
    ("organisation", "organisations"),
    ("people", "users"),
    ("sign_in_attempts", "login_attempts"),
    ("made", "idempotency_keys"),
    ("audit", "audit_log"),
    ("consent", "consent_log"),
    ("imports", "contact_imports"),
    ("confirmations", "pending_consents"),
    ("links", "message_links"),
    ("relays", "relay_health"),
    ("configured_relays", "relays"),
    ("relay_answers", "relay_reply_counts"),
    ("arrivals", "inbound_messages"),
    ("tallies", "feedback_counts"),
    ("mailboxes", "bounce_mailboxes"),
    ("webhooks", "bounce_webhooks"),
    ("link_changes", "link_overrides"),
    ("setbacks", "job_failures"),
    ("conversion_touches", "conversion_touchpoints"),
    ("credits", "attribution_credits"),
    ("offline_refusals", "offline_import_errors"),
    ("earnings", "conversion_attributions"),
    ("day_earnings", "daily_attributions"),
    ("life_earnings", "total_attributions"),
    ("inspections", "maintenance_runs"),
    ("rollups", "event_rollups"),
    ("day_rollups", "event_rollups_daily"),
    ("life_rollups", "event_rollups_total"),
    ("day_zones", "rollup_time_zone"),
    ("checkpoints", "spool_checkpoints"),
    ("set_aside", "dead_letters"),
    ("shared_figures", "shared_reports"),
    ("web_arrivals", "traffic_sources"),
    ("day_visits", "visit_rollups_daily"),
    ("day_groups", "channel_rollups_daily"),
    ("life_visits", "visit_rollups_total"),
    ("landings", "entry_page_counts"),
    ("whereabouts", "device_country_counts"),
    ("day_salts", "daily_salts"),
    ("forms_seen", "pending_form_views"),
    ("pages_reached", "pending_page_goals"),
    ("sites_seen", "site_heartbeats"),
)
"""Former and new name, in an order in which each new name is free."""

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "audit_log": {"verb": "action"},
    "inbound_messages": {"way": "source", "finding": "feedback_type", "said": "diagnostic"},
    "feedback_counts": {"way": "source", "finding": "feedback_type"},
    "feedback": {
        "way": "source",
        "finding": "feedback_type",
        "said": "diagnostic",
        "spent": "led_to_suppression",
    },
    "bounce_webhooks": {"way": "source"},
    "bounce_mailboxes": {"remove": "delete_messages", "looked_at": "polled_at"},
    "job_failures": {"chore": "job"},
    "relay_reply_counts": {
        "fate": "status",
        "words": "reply",
        "part": "shard",
        "number": "count",
        "example": "sample_reply",
    },
    "send_counts": {"marks": "flags", "part": "shard", "number": "count"},
    "daily_attributions": {"part": "shard"},
    "total_attributions": {"part": "shard"},
    "custom_events": {"noticed": "processed"},
    "leads": {"stage_noticed": "stage_processed"},
    "submissions": {"noticed": "processed"},
    "pending_consents": {"asked_at": "requested_at", "mailed": "mail_sent"},
    "contact_aliases": {"was_id": "merged_contact_id"},
    "suppressions": {"lighter": "previous_reason"},
    "maintenance_runs": {"place": "cursor", "found": "results"},
    "visits": {"arrival_id": "traffic_source_id", "known": "attributed_by"},
    "entry_page_counts": {"arrival_id": "traffic_source_id"},
    "rollup_time_zone": {"zone": "time_zone"},
    "offline_imports": {"new": "created", "known": "duplicates", "refused": "rejected"},
    "preflights": {"seen": "facts"},
}
"""By new table name: former and new column name."""

VALUES: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("job_failures", "job"): {
        "begin": "start launch",
        "post": "queue system mail",
        "cancel left over": "cancel remaining",
        "take over": "recover batch",
        "expand": "expand audience",
        "settle": "finalise label",
        "settle submitted": "link submission",
        "convert": "convert submission",
        "credit": "recompute credit",
        "reach": "match event",
        "reach stage": "match stage",
        "reach form": "match form",
        "reach page": "match page",
        "offline": "import conversions",
        "bounce": "process bounce",
        "inspect": "run maintenance",
    },
    ("relay_reply_counts", "status"): {
        "dead": "no_such_recipient",
        "refused": "rejected",
        "ours": "sender_rejected",
        "later": "deferred",
        "lost": "connection_lost",
        "broken": "not_composable",
    },
    ("maintenance_runs", "kind"): {"mend": "repair"},
    ("audit_log", "actor_kind"): {"clock": "system", "person": "user"},
    ("audit_log", "subject_kind"): {
        "person": "user",
        "inspection": "maintenance run",
        "mailbox": "bounce mailbox",
        "webhook": "bounce webhook",
    },
    ("audit_log", "action"): {
        "take out": "delete",
        "enter": "create",
        "make": "create",
        "add": "create",
        "found": "create",
        "change": "update",
        "begin": "start",
        "sign in": "log in",
        "come back": "resubscribe",
        "note": "edit notes",
        "ask for mail": "request mail",
        "order trial": "start trial",
        "order relabel": "start relabel",
        "order check": "start check",
        "order mend": "start repair",
        "take up": "reactivate",
        "switch on": "enable",
        "switch off": "disable",
        "trip": "trip circuit breaker",
        "events.relabelled": "relabel",
    },
}
"""By new table and column name: former and new stored value."""

_IRREGULAR_NAMES = {"fk_earnings_conversion_id_conversions": "fk_conversion_attributions_conversion_id"}
"""Constraints that 0.1 named against its own convention."""

_EMAIL_COLUMNS = (
    "message_id",
    "version_id",
    "list_id",
    "everybody",
    "stop_after",
    "window_days",
    "window_from",
    "window_until",
    "expanded_to",
    "expanded_at",
)


def upgrade(connection: sa.Connection, baseline: ModuleType) -> None:
    """Bring the database to the revision of ``baseline`` and commit; nothing is changed when it raises.

    ``baseline`` is the migration of 0.2.0: it supplies the new table's definition and the triggers.
    """
    with _foreign_keys_off(connection), connection.begin():
        context = MigrationContext.configure(connection, opts={"render_as_batch": True})
        with Operations.context(context) as operations:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
            _drop_triggers(connection)
            for former, new in TABLES:
                operations.rename_table(former, new)
            for table, columns in COLUMNS.items():
                for former, new in columns.items():
                    connection.exec_driver_sql(f'ALTER TABLE {table} RENAME COLUMN "{former}" TO "{new}"')
            _rename_constraints_and_indexes(connection)
            _map_values(connection)
            _move_email_columns(connection, operations, baseline)
            _put_key_columns_first(connection, baseline)
            baseline.create_triggers()
            _check(connection)
            connection.execute(
                sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": baseline.revision}
            )


@contextmanager
def _foreign_keys_off(connection: sa.Connection) -> Iterator[None]:
    """On SQLite, do not enforce foreign keys while ``activities`` is copied; the pragma has no effect in a
    transaction."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.rollback()
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA writable_schema=OFF")
        driver.execute("PRAGMA foreign_keys=ON")


def _drop_triggers(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
        for name in names:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        return
    rows = connection.exec_driver_sql(
        "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0"
    ).all()
    for name, table in rows:
        connection.exec_driver_sql(f"DROP TRIGGER {name} ON {table}")
    for function in ("count_sends", "sum_earnings"):
        connection.exec_driver_sql(f"DROP FUNCTION {function}()")


def new_name(name: str) -> str:
    """The new name of a constraint, index or sequence: ``kind_table_columns`` by the naming convention of
    :class:`campaigns.db.Base`, or ``table_column_seq``."""
    if name in _IRREGULAR_NAMES:
        return _IRREGULAR_NAMES[name]
    prefix, _, rest = name.partition("_")
    kinds = ("ix", "uq", "fk", "pk", "ck")
    if prefix not in kinds:
        prefix, rest = "", name
    table = max(
        (former for former, _ in TABLES if rest == former or rest.startswith(former + "_")), key=len, default=""
    )
    new_table = dict(TABLES).get(table, "")
    columns = rest.removeprefix(table) if table else rest
    owner = new_table or next((each for each in COLUMNS if rest.startswith(each + "_")), "")
    if not table and owner:
        columns = rest.removeprefix(owner)
    for former, new in COLUMNS.get(owner, {}).items():
        columns = re.sub(rf"_{former}(?=_|$)", f"_{new}", columns)
    return "_".join(filter(None, (prefix, f"{owner}{columns}" if owner else rest)))


def _rename_constraints_and_indexes(connection: sa.Connection) -> None:
    rename: Callable[[sa.Connection], None] = {"sqlite": _rename_on_sqlite, "postgresql": _rename_on_postgres}[
        connection.dialect.name
    ]
    rename(connection)


def _rename_on_postgres(connection: sa.Connection) -> None:
    constraints = connection.exec_driver_sql(
        "SELECT conname, conrelid::regclass::text FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conparentid = 0 AND contype IN ('p', 'u', 'f', 'c')"
    ).all()
    _rename_all(connection, {name: f'TABLE {table} RENAME CONSTRAINT "{{}}"' for name, table in constraints})
    relations = connection.exec_driver_sql(
        "SELECT relname, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'INDEX' END FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('i', 'I', 'S') AND NOT relispartition"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = pg_class.oid)"  # renamed with its constraint
    ).all()
    _rename_all(connection, {name: f'{kind} "{{}}" RENAME' for name, kind in relations})


def _rename_all(connection: sa.Connection, statements: Mapping[str, str]) -> None:
    """Give what ``statements`` name its new name, by way of a temporary one: two may change places."""
    changed = [name for name in statements if new_name(name) != name]
    for number, name in enumerate(changed):
        connection.exec_driver_sql(f'ALTER {statements[name].format(name)} TO "renamed_{number}"')
    for number, name in enumerate(changed):
        connection.exec_driver_sql(f'ALTER {statements[name].format(f"renamed_{number}")} TO "{new_name(name)}"')


def _rename_on_sqlite(connection: sa.Connection) -> None:
    """SQLite cannot rename an index or a constraint, whose names only stand in the text of the schema.

    The text is edited as https://www.sqlite.org/lang_altertable.html describes for changes that do not affect the
    rows; an index is dropped and made again.
    """
    indexes = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).all()
    for name, sql in indexes:
        if new_name(name) != name:
            connection.exec_driver_sql(f"DROP INDEX {name}")
            connection.exec_driver_sql(re.sub(rf"\b{name}\b", new_name(name), sql, count=1))
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema=ON")
    tables = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all()
    for name, sql in tables:
        renamed = re.sub(r"(?<=CONSTRAINT )(\w+)", lambda match: new_name(match[1]), sql)
        if renamed != sql:
            connection.exec_driver_sql("UPDATE sqlite_master SET sql = ? WHERE name = ?", (renamed, name))
    connection.exec_driver_sql(f"PRAGMA schema_version={version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema=OFF")


def _map_values(connection: sa.Connection) -> None:
    for (table, column), values in VALUES.items():
        cases = " ".join(f"WHEN '{former}' THEN '{new}'" for former, new in values.items())
        listed = ", ".join(f"'{former}'" for former in values)
        connection.exec_driver_sql(
            f"UPDATE {table} SET {column} = CASE {column} {cases} END WHERE {column} IN ({listed})"  # noqa: S608
        )
    connection.exec_driver_sql(
        "UPDATE audit_log SET action = 'resolve ' || substr(action, 8) WHERE substr(action, 1, 7) = 'decide '"
    )
    connection.exec_driver_sql(
        "UPDATE audit_log SET actor_name = 'system' WHERE actor_kind = 'system' AND actor_name = 'clock'"
    )


def _move_email_columns(connection: sa.Connection, operations: Operations, baseline: ModuleType) -> None:
    baseline.create_email_details()
    columns = ", ".join(_EMAIL_COLUMNS)
    connection.exec_driver_sql(
        f"INSERT INTO email_details (activity_id, {columns})"  # noqa: S608
        f" SELECT id, {columns} FROM activities WHERE channel = 'email'"
    )
    with operations.batch_alter_table("activities") as activities:
        for column in ("message_id", "version_id", "list_id"):
            activities.drop_constraint(f"fk_activities_{column}", type_="foreignkey")
        for column in _EMAIL_COLUMNS:
            activities.drop_column(column)


def _put_key_columns_first(connection: sa.Connection, baseline: ModuleType) -> None:
    """Copy ``first_seen`` on SQLite, whose ``integrity_check`` before 3.41 expects the key columns of a WITHOUT ROWID
    table to come first."""
    if connection.dialect.name != "sqlite":
        return
    connection.exec_driver_sql("ALTER TABLE first_seen RENAME TO first_seen_0_1")
    baseline.create_first_seen()
    columns = "send_id, activity_id, kind, link, at"
    connection.exec_driver_sql(
        f"INSERT INTO first_seen ({columns}) SELECT {columns} FROM first_seen_0_1"  # noqa: S608
    )
    connection.exec_driver_sql("DROP TABLE first_seen_0_1")


def _check(connection: sa.Connection) -> None:
    """Raise RuntimeError when the result is not sound."""
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
    if broken or found != "ok":
        raise RuntimeError(f"The upgrade would leave a damaged database: {broken[:3] or found}")
