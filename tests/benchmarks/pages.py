"""Cost of the report pages at full size, on both databases.

``python -m tests.benchmarks.pages [events] [--full] [--keep DIR] [--only sqlite|postgresql] [--plans]``.

10,000,000 events (``--full``; else 200,000 or the number given), a tenth as many contacts, a fifth as many visits, a
hundredth as many conversions and 200 campaigns, one of which has a tenth of all rows; see
:mod:`tests.benchmarks._dataset`. ``--keep`` stores the dataset in a directory (about 10 GB at full size) and reuses it.

A page is requested through the whole application. Its time is the CPU time of this process and of the database's
server process, since the machine may have other load; also shown are the wall time, the time in templates and the
number of statements, of the best of several rounds. ``--plans`` prints each page's slowest statements with their query
plans.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, before_render_template, template_rendered
from flask.testing import FlaskClient
from sqlalchemy import Engine, event, inspect, select

import wsgi
from campaigns import clock, config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import Role
from campaigns.migrations import schema
from tests import servers
from tests.benchmarks import collector
from tests.benchmarks._dataset import DatasetBuilder, DatasetSize, measured_ids, row_counts
from tests.conftest import signed_in
from tracking.conversions import attribution_ledger
from tracking.counters import breakdowns, daily
from tracking.metrics import performance
from tracking.models.attribution import ConversionAttribution, DailyAttribution
from tracking.models.events import RollupTimeZone, SpoolCheckpoint, TotalHitRollup
from tracking.models.visits import LandingPageCounts

MAX_QUERY_MS, MAX_PAGE_MS, MAX_TIMELINE_MS, MAX_QUERIES = 20.0, 100.0, 50.0, 30
ROUNDS = 7


def main() -> int:
    options = _options()
    size = DatasetSize.of(10_000_000 if options.full else options.events)
    missed = 0
    for name in ("sqlite", "postgresql"):
        if options.only in (None, name):
            with database(name, options.keep) as url, installed_config():
                missed += measure(url, size, plans=options.plans)
    return missed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pages")
    parser.add_argument("events", nargs="?", type=int, default=200_000)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--plans", action="store_true")
    return parser.parse_args()


@contextmanager
def database(name: str, keep: Path | None) -> Iterator[str]:
    """Yield a database's URL; the database is deleted afterwards, unless it is to be kept."""
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as home:
        if name == "sqlite":
            yield f"sqlite:///{(keep or Path(home)).resolve() / 'bench.db'}"
            return
        with servers.postgres_server(keep.resolve() / "postgres" if keep else None) as server:
            yield server.url


@contextmanager
def installed_config() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as home:
        config.set_settings(config.read({"KAMPANIA_VAR": home}))
        yield
        config.set_settings(None)


def measure(url: str, size: DatasetSize, *, plans: bool) -> int:
    """Measure one database; return how many limits were missed."""
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = db.make_engine(url)
    collector.write(
        f"{engine.dialect.name}: {size.events:,} events, {size.contacts:,} contacts, {size.visits:,} visits"
    )
    db.set_engine(engine)
    if not inspect(engine).has_table("event_rollups"):
        collector.write("  uncached:")
        DatasetBuilder(engine, size, collector.write).build()
        db.set_engine(engine)
    else:
        _upgrade_schema(engine)
    with db.read_only_session() as session:
        ids = measured_ids(session)
        collector.write("  " + ", ".join(f"{name} {number:,}" for name, number in row_counts(session).items()))
        at = session.query(SpoolCheckpoint).one().updated_at
    with clock.override(lambda: at):  # A kept dataset is measured as of its creation.
        missed = _measure_pages(engine, ids, plans=plans)
    db.set_engine(None)
    engine.dispose()
    return missed


def _upgrade_schema(engine: Engine) -> None:
    """Create tables, indexes and rollups that were added since the dataset was created."""
    db.Base.metadata.create_all(engine)
    belongs = schema.include_object_for(engine.dialect.name)
    for table in db.Base.metadata.sorted_tables:
        existing = {index["name"]: index["column_names"] for index in inspect(engine).get_indexes(table.name)}
        for index in table.indexes:
            if not belongs(index, None, "index", False, None):
                continue
            if existing.get(str(index.name)) != [column.name for column in index.columns]:
                collector.write(f"  index {index.name}")
                if index.name in existing:
                    index.drop(engine)
                index.create(engine)
    with engine.begin() as connection:
        if (
            connection.scalar(select(RollupTimeZone.time_zone)) is None
            or connection.scalar(select(TotalHitRollup.link).limit(1)) is None
        ):
            daily.rebuild(connection)
        if connection.scalar(select(ConversionAttribution.own).limit(1)) is None:
            attribution_ledger.rebuild(connection)
        elif connection.scalar(select(DailyAttribution.own).limit(1)) is None:
            attribution_ledger.rebuild_totals(connection)
        if connection.scalar(select(LandingPageCounts.visits).limit(1)) is None:
            breakdowns.rebuild(connection)
    collector.analyse(engine)


def _measure_pages(engine: Engine, ids: dict[str, int], *, plans: bool) -> int:
    app = wsgi.create_app()
    app.config.update(TESTING=True, WTF_CSRF_ENABLED=False)
    client = signed_in(app, Role.COORDINATOR)
    missed = 0
    collector.write(f"  {'':<44}{'CPU':>8} {'wall':>8} {'database':>9} {'templates':>10} {'queries':>8}  limit")
    for name in ("large", "middling"):
        campaign_id = ids[name]
        missed += measure_page(
            engine,
            app,
            f"questions of a {name} campaign",
            partial(load_performance, campaign_id),
            MAX_QUERY_MS,
        )
    pages = [
        ("performance, large", f"/campaigns/{ids['large']}/performance", MAX_PAGE_MS, MAX_QUERIES),
        ("performance, large, 28 days", f"/campaigns/{ids['large']}/performance?period=28", MAX_PAGE_MS, MAX_QUERIES),
        (
            "performance, large, figures asked again",
            f"/campaigns/{ids['large']}/performance/figures",
            MAX_PAGE_MS,
            None,
        ),
        ("performance, middling", f"/campaigns/{ids['middling']}/performance", MAX_PAGE_MS, MAX_QUERIES),
        ("visits fragment, large", f"/campaigns/{ids['large']}/visits", None, None),
        ("profile fragment, large", f"/campaigns/{ids['large']}/profile", None, None),
        ("campaigns", "/campaigns", MAX_PAGE_MS, None),
        ("campaigns by leads", "/campaigns?sort=leads", MAX_PAGE_MS, None),
        ("campaigns by cost per lead", "/campaigns?sort=cost_per_lead", MAX_PAGE_MS, None),
        ("campaigns by lead-conversion rate", "/campaigns?sort=lead_conversion_rate", MAX_PAGE_MS, None),
        ("campaigns by open rate", "/campaigns?sort=open_rate", MAX_PAGE_MS, None),
        ("timeline", f"/contacts/{ids['plain']}/timeline", MAX_TIMELINE_MS, None),
        ("timeline with very much history", f"/contacts/{ids['heavy']}/timeline", MAX_TIMELINE_MS, None),
        ("overview", "/overview", MAX_PAGE_MS, None),
        ("overview, 90 days", "/overview?period=90", MAX_PAGE_MS, None),
        ("today", "/today", None, None),
    ]
    for name, path, limit, most in pages:
        missed += measure_page(engine, app, name, lambda path=path: load_page(client, path), limit, most, plans=plans)  # type: ignore[misc]
    return missed


def load_performance(campaign_id: int) -> None:
    with db.read_only_session() as session:
        performance.campaign_performance(session, SYSTEM, campaign_id)


def load_page(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200, (path, response.status)


@dataclass
class QueryStats:
    """Time spent in the database and in templates, and the statements."""

    statements: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    templates: float = 0.0
    _began: float = 0.0

    def before(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def after(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            self.statements[statement] += 1
            spent = time.perf_counter() - self._began
            self.seconds[statement] = self.seconds.get(statement, 0.0) + spent
            self.parameters[statement] = parameters


@contextmanager
def watch_queries(engine: Engine, app: Flask) -> Iterator[QueryStats]:
    stats, began = QueryStats(), []

    def begin(*_: Any, **__: Any) -> None:
        began.append(time.perf_counter())

    def end(*_: Any, **__: Any) -> None:
        stats.templates += time.perf_counter() - began.pop()

    event.listen(engine, "before_cursor_execute", stats.before)
    event.listen(engine, "after_cursor_execute", stats.after)
    with before_render_template.connected_to(begin, app), template_rendered.connected_to(end, app):
        yield stats
    event.remove(engine, "before_cursor_execute", stats.before)
    event.remove(engine, "after_cursor_execute", stats.after)


def measure_page(
    engine: Engine,
    app: Flask,
    name: str,
    work: Callable[[], None],
    limit: float | None,
    max_queries: int | None = None,
    *,
    plans: bool = False,
) -> int:
    """Measure ``work`` and print it; return how many limits were missed."""
    work()
    best: tuple[float, float, QueryStats] | None = None
    for _ in range(ROUNDS):
        with watch_queries(engine, app) as stats:
            cpu_before, server_before, began = time.process_time(), collector.server_seconds(), time.perf_counter()
            work()
            wall = (time.perf_counter() - began) * 1000
            cpu = (time.process_time() - cpu_before + collector.server_seconds() - server_before) * 1000
        if best is None or cpu < best[0]:
            best = cpu, wall, stats
    assert best is not None
    cpu, wall, stats = best
    queries, db_ms = stats.statements.total(), sum(stats.seconds.values()) * 1000
    failed = int(limit is not None and cpu > limit) + int(max_queries is not None and queries > max_queries)
    verdict = (
        ""
        if limit is None
        else f"{limit:.0f} ms{f', {max_queries} queries' if max_queries else ''} {'MISSED' if failed else 'met'}"
    )
    collector.write(
        f"  {name:<44}{cpu:>8.1f} {wall:>8.1f} {db_ms:>9.1f} {stats.templates * 1000:>10.1f} {queries:>8}  {verdict}"
    )
    if plans:
        print_query_plans(engine, stats)
    return failed


def print_query_plans(engine: Engine, stats: QueryStats) -> None:
    for statement, seconds in sorted(stats.seconds.items(), key=lambda entry: -entry[1])[:4]:
        if seconds < 0.002:
            continue
        collector.write(
            f"    {seconds * 1000:.1f} ms × {stats.statements[statement]}: {' '.join(statement.split())[:1500]}"
        )
        explain = "EXPLAIN (ANALYZE, BUFFERS)" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
        with engine.connect() as connection:
            for row in connection.exec_driver_sql(f"{explain} {statement}", stats.parameters[statement]):
                collector.write(f"        {row[-1]}")


if __name__ == "__main__":
    sys.exit(main())
