"""Database engine, sessions, declarative base, and column types with the same meaning on SQLite and PostgreSQL."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Enum,
    Integer,
    MetaData,
    Numeric,
    Select,
    String,
    Text,
    any_,
    bindparam,
    create_engine,
    event,
    func,
    literal,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator, TypeEngine

from campaigns import config

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, the form in which SQLite stores an instant. Exact, unlike ``timestamp()``."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    return _EPOCH + value * _MICROSECOND


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware instant in UTC: ``timestamptz`` on PostgreSQL, integer microseconds on SQLite.

    Integers need less space in SQLite's rows and indexes than date strings.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(BigInteger())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: instants are aware")
        return to_micros(value) if dialect.name == "sqlite" else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return from_micros(value) if dialect.name == "sqlite" else value.astimezone(UTC)


class MoneyType(TypeDecorator[Decimal]):
    """An amount of money with two decimals; integer cents on SQLite, which has no exact decimals."""

    impl = Numeric(14, 2)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(BigInteger() if dialect.name == "sqlite" else Numeric(14, 2))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return int((Decimal(value) * 100).to_integral_value())

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        if value is None:
            return None
        return Decimal(value) / 100 if dialect.name == "sqlite" else Decimal(value)


class DecimalRate(TypeDecorator[Decimal]):
    """A positive factor with eight decimals; text on SQLite, which has no exact decimals."""

    impl = Numeric(20, 8)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String(30) if dialect.name == "sqlite" else Numeric(20, 8))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return str(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, _dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


# SQLite makes only INTEGER PRIMARY KEY an alias of its rowid, which is what generates the numbers.
BigId = BigInteger().with_variant(Integer(), "sqlite")

Id = Annotated[int, mapped_column(BigId, primary_key=True)]
Name = Annotated[str, mapped_column(String(200))]
Address = Annotated[str, mapped_column(String(254))]  # RFC 5321, 4.5.3.1.3, as corrected by erratum 1690
LongText = Annotated[str, mapped_column(Text, default="")]
Instant = Annotated[datetime, mapped_column(UtcDateTime)]
Money = Annotated[Decimal, mapped_column(MoneyType)]
Document = Annotated[dict[str, Any], mapped_column(JSON, default=dict)]


def string_enum(enum: type[StrEnum]) -> Enum:
    """A StrEnum stored as its value in VARCHAR(20), so new members need no migration."""
    return Enum(
        enum,
        native_enum=False,
        create_constraint=False,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """Declarative base of all tables. The naming convention names constraints, so that migrations can drop them."""

    type_annotation_map = {int: BigId}  # A foreign key gets the type of its target.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def make_engine(url: str, cache_kib: int = 16_000) -> Engine:
    """An engine for SQLite or PostgreSQL with the connection settings that both need.

    SQLite: WAL, foreign keys on, a busy timeout of 10 s, and transactions begun explicitly, because with the driver's
    own handling a row written in a savepoint survives a rollback of the outer transaction. A transaction begins with
    IMMEDIATE unless the execution option ``read_only`` is set: it takes the write lock at the start and never fails
    half-way with "database is locked". Each connection keeps up to ``cache_kib`` KiB of the database file in memory.

    PostgreSQL: JIT compilation is off.
    """
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(
            url, json_serializer=_compact_json, connect_args={"timeout": 10, "check_same_thread": False}
        )
        event.listen(engine, "connect", partial(_prepare_sqlite, cache_kib))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        url,
        json_serializer=_compact_json,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=10,
        connect_args={"application_name": "kampania", "connect_timeout": 5},
    )
    event.listen(engine, "connect", _prepare_postgres)
    return engine


def _prepare_postgres(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # JIT compilation takes longer than most of our queries run; estimates that are too high trigger it.
    connection.execute("SET jit = off")
    connection.commit()


def _prepare_sqlite(cache_kib: int, connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "busy_timeout=10000",
        "temp_store=MEMORY",
        f"cache_size=-{cache_kib}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def in_ids(session: Session, column: Any, ids: Collection[int]) -> ColumnElement[bool]:
    """Whether ``column`` is one of ``ids``, passed as a single bound value whatever their number.

    The SQL text is the same for any number of ids, and no limit on bound variables applies.
    """
    if session.get_bind().dialect.name == "sqlite":
        given = bindparam(None, json.dumps(list(ids)), String, unique=True)
        return column.in_(select(func.json_each(given).table_valued("value").c.value))  # type: ignore[no-any-return]
    return column == any_(bindparam(None, list(ids), ARRAY(BigInteger), unique=True))  # type: ignore[no-any-return]


class PreparedQuery:
    """A SELECT compiled once and executed often.

    On SQLite all rows come back as one JSON value (``json_group_array``), because sqlite3 releases the GIL per row:
    beside a busy thread every release costs a thread switch. Values are numbers and strings, booleans are 0 and 1 on
    SQLite, and the order of rows is undefined.
    """

    def __init__(self, query: Select[Any]) -> None:
        self._select = query
        self._json_select = select(func.json_group_array(func.json_array(*query.subquery().c)))

    def rows(self, session: Session, **values: Any) -> list[Sequence[Any]]:
        """All rows of the query; ``values`` are its bound parameters."""
        connection = session.connection()
        if session.get_bind().dialect.name != "sqlite":
            return connection.execute(self._select, values).all()  # type: ignore[return-value]
        decoded: list[Sequence[Any]] = json.loads(connection.execute(self._json_select, values).scalar_one())
        return decoded


_LARGE_TABLE_ROWS = 10_000
_ANALYZE_SAMPLE_ROWS = 1_000


def analyze_large_tables() -> list[str]:
    """Run ANALYZE on SQLite's large tables and return their names; a no-op on PostgreSQL, which does it by itself.

    Without statistics SQLite's planner assumes ten rows per key. ANALYZE samples a thousand rows of each index. Small
    tables are skipped: outdated statistics of a table that grew since are worse than the planner's default.
    """
    if engine().dialect.name != "sqlite":
        return []
    names = []
    for table in Base.metadata.tables.values():
        # One transaction per table, so another writer waits for one ANALYZE at most.
        with engine().begin() as connection:
            large = select(literal(1)).select_from(table).limit(1).offset(_LARGE_TABLE_ROWS)
            if connection.execute(large).first() is not None:
                connection.exec_driver_sql(f"PRAGMA analysis_limit={_ANALYZE_SAMPLE_ROWS}")
                connection.exec_driver_sql(f'ANALYZE "{table.name}"')
                names.append(table.name)
    return names


_engine: Engine | None = None


def engine() -> Engine:
    """The engine of this process, created at the first call."""
    global _engine
    if _engine is None:
        _engine = make_engine(config.settings().database_url)
    return _engine


def set_engine(replacement: Engine | None) -> None:
    """Replace the engine of this process (tests, forked children); None makes the next call create a new one."""
    global _engine
    _engine = replacement


def new_session(*, read_only: bool = False) -> Session:
    """A session on this process's engine. A ``read_only`` one never waits for SQLite's write lock."""
    bind = engine().execution_options(read_only=True) if read_only else engine()
    return Session(bind, expire_on_commit=False, autoflush=True)


@contextmanager
def transaction() -> Iterator[Session]:
    """A write transaction: commits at the end of the block, rolls back on any exception."""
    with new_session() as session, session.begin():
        yield session


@contextmanager
def read_only_session() -> Iterator[Session]:
    """A read-only session; changes made in it are rolled back."""
    with new_session(read_only=True) as session:
        yield session
