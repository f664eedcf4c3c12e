"""Shared fixtures: both databases, settings, a frozen clock, the application and its clients.

``session``: a session inside a transaction that is rolled back afterwards; for service functions.
``database``: an engine with real commits, emptied afterwards; for views, the sending worker and the collector.
A test that requests one of them runs once on SQLite and once on PostgreSQL.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.orm import Session
from xdist.remote import Producer

import wsgi  # importing it registers every package, and so every table
from campaigns import clock, config, db
from campaigns.accounts.models import Organisation, Role, User
from campaigns.web.security.rate_limits import RateLimit
from tests import servers
from tests.xdist_scheduler import ByInstallation

SECRET = b"k" * 32

# The same examples in every run, without a deadline; with ``TORTURE`` set more examples, chosen at random.
hypothesis.settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("torture", deadline=None, max_examples=1_000)
hypothesis.settings.load_profile("torture" if os.environ.get("TORTURE") else "steady")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByInstallation:
    return ByInstallation(config, log)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path) -> Iterator[config.Settings]:
    """Settings of a ``var`` directory of the test's own."""
    test_settings = config.Settings(
        var=tmp_path,
        database_url="",
        redis_url="redis+socket:///dev/null/nowhere",  # A path that can't be created.
        base_url="http://localhost",
        tracking_url="http://localhost",
        smtp_url="smtp://127.0.0.1:9",
        catcher=False,
        secret_keys=((1, SECRET),),
    )
    config.set_settings(test_settings)
    yield test_settings
    config.set_settings(None)
    db.set_engine(None)


@pytest.fixture(scope="session")
def sqlite_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = db.make_engine(f"sqlite:///{tmp_path_factory.mktemp('db') / 'test.db'}")
    db.Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_engine() -> Iterator[Engine]:
    with servers.postgres() as url:
        engine = db.make_engine(url)
        db.Base.metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Engine:
    selected: Engine = request.getfixturevalue(f"{request.param}_engine")
    db.set_engine(selected)
    return selected


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False) as session:
            yield session
        outer.rollback()


def _wait_for_other_transactions(connection: Connection) -> None:
    """Wait until no other transaction is open; a transaction that the test itself left open fails it with its query."""
    others = text(
        "SELECT state, query FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL"
    )
    deadline = time.monotonic() + 60
    while left_open := connection.execute(others).all():
        assert time.monotonic() < deadline, f"transactions left open: {left_open}"
        time.sleep(0.01)
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))


_TABLES = db.Base.metadata.sorted_tables
_NON_EMPTY_TABLES = text(
    " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in _TABLES)
)
_ADVANCED_SEQUENCES = text("SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL")


@pytest.fixture
def database(engine: Engine) -> Iterator[Engine]:
    with engine.begin() as connection:
        _reset_sequences(connection)
    yield engine
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            _wait_for_other_transactions(connection)
            # DELETE, because TRUNCATE creates a new file for every table, which takes longer for a few rows.
            # Disables triggers and foreign keys.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        filled = set(connection.scalars(_NON_EMPTY_TABLES))
        for table in reversed(_TABLES):
            if table.name in filled:
                connection.execute(table.delete())


def _reset_sequences(connection: Connection) -> None:
    """Reset the sequences: rolled-back tests have advanced PostgreSQL's."""
    if connection.dialect.name == "sqlite":
        connection.execute(text("DELETE FROM sqlite_sequence"))
        return
    for sequence in connection.scalars(_ADVANCED_SEQUENCES).all():
        connection.execute(text(f"SELECT setval('{sequence}', 1, false)"))


NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class FrozenClock:
    """A clock that stands still until it is set: ``clock.at = …``."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def frozen() -> Iterator[FrozenClock]:
    frozen = FrozenClock(NOON)
    with clock.override(frozen):
        yield frozen


@cache
def _application() -> Flask:
    """One application for many tests, because compiling its routes and templates is slow."""
    app = wsgi.create_app()
    app.config.update(TESTING=True, WTF_CSRF_ENABLED=False)
    return app


@cache
def _rate_limits() -> list[RateLimit]:
    """Every rate limit of the application, so that the calls of one test don't count in the next one."""
    return [
        found
        for name in list(sys.modules)
        if name.startswith(("campaigns", "tracking"))
        for found in vars(sys.modules[name]).values()
        if isinstance(found, RateLimit)
    ]


@pytest.fixture
def empty_app(database: Engine) -> Iterator[Flask]:
    """The application before its first run: no organisation, no users.

    A test may change its config and add routes; both are reset for the next test.
    """
    app = _application()
    for limit in _rate_limits():
        limit._buckets.clear()
    app._got_first_request = False  # allows the test to add a route
    config_before, rules_before = dict(app.config), len(list(app.url_map.iter_rules()))
    yield app
    app.config.clear()
    app.config.update(config_before)
    if len(list(app.url_map.iter_rules())) != rules_before:
        _application.cache_clear()


@pytest.fixture
def app(empty_app: Flask) -> Flask:
    """The application after its first run, with one user of each role."""
    with db.transaction() as session:
        session.add(
            Organisation(
                id=1,
                name="Acme",
                sender_name="Acme",
                sender_email="hello@acme.example",
                postal_address="1 Main Street, Tbilisi",
            )
        )
        for role in Role:
            session.add(
                User(
                    email=f"{role.value}@acme.example",
                    name=role.value.capitalize(),
                    password_hash="!",
                    role=role,
                    created_at=clock.now(),
                )
            )
    return empty_app


def signed_in(app: Flask, role: Role) -> FlaskClient:
    """A client that is signed in as the user with ``role``."""
    client = app.test_client()
    with db.read_only_session() as session:
        person = session.query(User).filter_by(role=role).first()
        assert person is not None
        key = f"{person.id}.{person.session_epoch}"
    with client.session_transaction() as cookies:
        cookies["_user_id"] = key
        cookies["_fresh"] = True
    return client


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client that is not signed in."""
    return app.test_client()


@pytest.fixture
def owner_client(app: Flask) -> FlaskClient:
    return signed_in(app, Role.OWNER)


@pytest.fixture
def coordinator_client(app: Flask) -> FlaskClient:
    return signed_in(app, Role.COORDINATOR)


@pytest.fixture
def viewer_client(app: Flask) -> FlaskClient:
    return signed_in(app, Role.VIEWER)


@contextmanager
def _count_queries(engine: Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def record(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", record)


@pytest.fixture
def count_queries() -> Callable[[Engine], AbstractContextManager[list[str]]]:
    """``with count_queries(engine) as n: …``; ``n`` is the list of executed statements."""
    return _count_queries
