"""Throughput of the collector (events per second) and disk bytes per event, on both databases.

``python -m tests.benchmarks.collector [events] [sends]``. Each figure is shown with its limit and with the rate of only
decoding the same hits in the same run: absolute figures vary with the machine's load, ratios do not. Collecting
includes consent as of the hit, first labels, rollups and the checkpoint in one transaction; settling includes final
labels, first-seen rows and milestones. Hits come in waves, each settled and vacuumed before the next, as in a log of
many days: freed pages are reused, so the growth in the second half of the waves counts.
"""

import operator
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple

from sqlalchemy import Engine

import wsgi  # noqa: F401  (registers every package's tables)
from campaigns import clock, config, db
from tests import servers
from tests.tracking.fixtures import Mailing, make_mailing
from tracking.bots import final_labels
from tracking.bots.bursts import BurstCache
from tracking.collector import collector
from tracking.counters import bulk_sql
from tracking.jobs import counter_check
from tracking.models.events import HitKind
from tracking.spool import reader
from tracking.spool.record_codec import Hit, RequestFlag, pack
from tracking.spool.writer import file_name

NOW = clock.now()
WAVE_COUNT, WAVE_LENGTH = 6, timedelta(minutes=30)
LIMITS = {"sqlite": 60_000, "postgresql": 35_000}
MAX_BYTES = 120
AGENTS = [b"Mozilla/5.0", b"Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"]
AGENTS += [
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_{n % 8}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{n}.1"
    f" Safari/605.1.{n}".encode()
    for n in range(200)
]
LINKS = 8


def main(count: int, sends: int) -> int:
    missed = 0
    with databases() as chosen:
        for url in chosen:
            missed += measure(url, count, sends)
    return missed


@contextmanager
def databases() -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as home, servers.postgres() as url:
        yield [f"sqlite:///{Path(home) / 'bench.db'}", url]


def measure(url: str, count: int, sends: int) -> int:
    """Measure one database; return how many limits were missed."""
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as home:
        config.set_settings(config.read({"KAMPANIA_VAR": home}))
        engine = db.make_engine(url)
        db.Base.metadata.create_all(engine)
        db.set_engine(engine)
        mailing = make_mailing(1, urls=[f"https://example.org/{n}" for n in range(LINKS)], sent_at=NOW)
        insert_recipients(engine, mailing, sends)
        write(f"{engine.dialect.name}: {count:,} hits of {sends:,} sends")
        costs, sizes = list[tuple[Cost, Cost, Cost]](), list[dict[str, int]]()
        for number in range(WAVE_COUNT):
            costs.append(run_wave(engine, mailing, number, count // WAVE_COUNT, sends))
            sizes.append(table_sizes(engine))
        decoding, collecting, settling = (sum(kind, Cost()) for kind in zip(*costs, strict=True))
        limit, collected = LIMITS[engine.dialect.name], collecting.rate
        print_rate("decoded only (peer)", decoding)
        print_rate("collected, all bookkeeping", collecting, limit, decoding.rate)
        print_rate("settled", settling, None, decoding.rate)
        missed = int(collected < limit) + report_size(
            WAVE_COUNT // 2 * (count // WAVE_COUNT), sizes[WAVE_COUNT // 2 - 1], sizes[-1]
        )
        with db.read_only_session() as session:
            differences = len(counter_check.find_mismatches(session))
        write(f"  {'differences from a raw recount':<34}{differences:>12,}")
        engine.dispose()
        db.set_engine(None)
        return missed + bool(differences)


class Cost(NamedTuple):
    """Cost of some work."""

    done: int = 0
    our_seconds: float = 0.0
    """Seconds of CPU of this process."""
    server_seconds: float = 0.0
    """Seconds of CPU of the database's server process; the two processes never work at the same time."""
    wall: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(*map(operator.add, self, other))

    @property
    def rate(self) -> float:
        """Items per second of CPU."""
        return self.done / (self.our_seconds + self.server_seconds)


def run_wave(engine: Engine, mailing: Mailing, number: int, count: int, sends: int) -> tuple[Cost, Cost, Cost]:
    """Write half an hour of hits; return the costs of (decoding, collecting, settling)."""
    began = NOW + number * WAVE_LENGTH
    written = write_spool(config.settings().spool, mailing, number, count, sends)
    decoding = measure_cost(lambda: decode(written))
    collecting = measure_cost(collector.collect_once)
    with clock.override(lambda: began + 2 * WAVE_LENGTH):
        settling = measure_cost(settle_all)
    vacuum(engine)
    return decoding, collecting, settling


def insert_recipients(engine: Engine, mailing: Mailing, sends: int) -> None:
    """Insert contacts with two consent entries each, and their sends."""
    source = series(engine).format(n=sends)
    with engine.begin() as connection:
        columns = "email, first_name, last_name, attributes, source, created_at, updated_at"
        copied = "first_name, last_name, attributes, source, created_at, updated_at"
        connection.exec_driver_sql(
            f"INSERT INTO contacts (id, {columns}) SELECT c.id + g.n, 'p' || g.n || '@example.org', {copied}"
            f" FROM contacts c, {source}"
        )
        connection.exec_driver_sql(
            "INSERT INTO consent_log (contact_id, purpose, level, at, source, wording, evidence, recorded_by)"
            " SELECT c.id, k.purpose, k.level, k.at, k.source, k.wording, k.evidence, k.recorded_by"
            " FROM contacts c, consent_log k WHERE c.id > (SELECT min(contact_id) FROM consent_log)"
        )
        moved = "address, occasion, version_id, state, reason, trackable, attempts, reply, sent_at"
        connection.exec_driver_sql(
            f"INSERT INTO sends (id, activity_id, contact_id, recipient_key, {moved})"
            f" SELECT s.id - 1 + g.n, s.activity_id, s.contact_id + g.n, 'c:' || (s.contact_id + g.n), {moved}"
            f" FROM sends s, {source}"
        )
    analyse(engine)


def series(engine: Engine) -> str:
    """SQL of a table ``g`` of the numbers from 2 to ``{n}``."""
    if engine.dialect.name == "postgresql":
        return "generate_series(2, {n}) AS g(n)"
    return "(WITH RECURSIVE g(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM g WHERE n < {n}) SELECT n FROM g) AS g"


def analyse(engine: Engine) -> None:
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def write_spool(directory: Path, mailing: Mailing, wave: int, count: int, sends: int) -> Path:
    """Write a spool of 55 % opens, a third of them by a machine, and 45 % clicks."""
    rng, at, start = Random(wave), db.to_micros(NOW + wave * WAVE_LENGTH), mailing.activity_id << 32
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / file_name(f"{wave:032x}", 0)
    with path.open("wb") as stream:
        for number in range(count):
            kind = HitKind.OPEN if rng.random() < 0.55 else HitKind.CLICK
            recipient, link = rng.randint(1, sends), 0 if kind == HitKind.OPEN else rng.randint(1, LINKS)
            agent = AGENTS[0] if kind == HitKind.OPEN and rng.random() < 1 / 3 else rng.choice(AGENTS[1:])
            hit_at = at + number * (WAVE_LENGTH // timedelta(microseconds=1)) // count
            flags = int(RequestFlag.NAVIGATED) if link else 0
            stream.write(
                pack(Hit(hit_at, int(kind), flags, start | recipient, link, 0x0A0000 + recipient % 60_000, agent))
            )

    return path


def decode(written: Path) -> int:
    of_spool = reader.list_spools(written.parent)[written.name.partition("-")[0]]
    offset = total = 0
    while (read := reader.read_chunk(of_spool, offset)).offset != offset:
        offset, total = read.offset, total + len(read.hits)
    return total


def settle_all() -> int:
    total, crowds = 0, BurstCache()
    while settled := final_labels.settle_due(bursts=crowds):
        total += settled
    return total


def measure_cost(work: Callable[[], int]) -> Cost:
    began, cpu, theirs = time.perf_counter(), time.process_time(), server_seconds()
    done = work()
    wall, ours = time.perf_counter() - began, time.process_time() - cpu
    return Cost(done, ours, server_seconds() - theirs, wall)


def print_rate(name: str, cost: Cost, limit: int | None = None, peer: float | None = None) -> None:
    ratio = f"  {cost.rate / peer:5.2f} of the peer" if peer else ""
    bound = f"  limit {limit:,}/s {'met' if cost.rate >= limit else 'MISSED'}" if limit else ""
    cpu_times = f"{cost.our_seconds / cost.done * 1e6:6.1f} + {cost.server_seconds / cost.done * 1e6:5.1f} µs"
    write(f"  {name:<34}{cost.rate:>12,.0f}/s  {cpu_times}  wall {cost.done / cost.wall:>9,.0f}/s{ratio}{bound}")


def server_seconds() -> float:
    """CPU seconds so far of the PostgreSQL process of our only connection; 0 on SQLite."""
    engine = db.engine()
    if engine.dialect.name != "postgresql":
        return 0.0
    with engine.connect() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    # schedstat counts nanoseconds; stat only hundredths of a second.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def report_size(count: int, before: dict[str, int], after: dict[str, int]) -> int:
    bytes_per_event = {name: (used - before.get(name, 0)) / count for name, used in after.items()}
    events = sum(used for name, used in bytes_per_event.items() if "events" in name)
    parts = ", ".join(f"{name} {used:.1f}" for name, used in bytes_per_event.items() if used >= 0.1)
    missed = events > MAX_BYTES
    write(f"  bytes per further event{events:>23.1f}    limit {MAX_BYTES} {'MISSED' if missed else 'met'}  ({parts})")
    return int(missed)


def vacuum(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM")


def table_sizes(engine: Engine) -> dict[str, int]:
    """Return bytes of the event log and its counters, by table and index."""
    with engine.connect() as connection:
        tables = ("events", "first_seen", "event_rollups", "user_agents")
        if bulk_sql.is_postgres(connection):
            sql = (
                "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind IN ('r', 'i') AND ("
                + " OR ".join(f"relname LIKE '%%{table}%%'" for table in tables)
                + ")"
            )
        else:
            sql = "SELECT name, sum(pgsize) FROM dbstat WHERE " + " OR ".join(
                f"name LIKE '%{table}%'" for table in tables
            )
            sql += " GROUP BY name"
        return {name: int(used) for name, used in connection.exec_driver_sql(sql)}


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(main(words[0] if words else 100_000, words[1] if len(words) > 1 else 50_000))
