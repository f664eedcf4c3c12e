"""Rough figures of the hits' way: ``python -m tests.bench.hits [events]``; DATABASE_URL chooses the database.

µs of CPU per hit inside one process (token, spool and all, without a server), then events per
second of the collector and of settlement, and bytes per event on SQLite.
"""

import os
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

os.environ["KAMPANIA_VAR"] = tempfile.mkdtemp(prefix="kampania-bench-")

import wsgi  # noqa: F401  (knows every room, so that every table is known)
from campaigns import clock, config, db
from tests.tracking.scene import asked, environ, make_mailing
from tracking import collect, destinations, rollups, settle

RECIPIENTS = 1_000


def timed(name: str, count: int, began: float, cpu: float) -> None:
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    per_second, each = count / wall, f"{wall / count * 1e6:>8.1f} µs {used / count * 1e6:>8.1f} µs CPU"
    sys.stdout.write(f"{name:<28}{count:>9,} {per_second:>10,.0f}/s {each}\n")


def main(count: int) -> None:
    db.Base.metadata.create_all(db.engine())
    sys.stdout.write(f"{db.engine().dialect.name}\n")
    mailing = make_mailing(RECIPIENTS)
    destinations.sync()
    pixels = [environ(f"/o/{mailing.token(n)}", ip=f"9.{n >> 8}.{n & 255}.1") for n in range(RECIPIENTS)]
    clicks = [environ(f"/c/{mailing.token(n)}/{1 + n % 4}", ip=f"9.{n >> 8}.{n & 255}.1") for n in range(RECIPIENTS)]
    for name, asking in (("pixel, answered and kept", pixels), ("link, answered and kept", clicks)):
        began, cpu = time.perf_counter(), time.process_time()
        for number in range(count // 2):
            asked(asking[number % RECIPIENTS])
        timed(name, count // 2, began, cpu)
    began, cpu = time.perf_counter(), time.process_time()
    timed("collected", collect.collect_once(), began, cpu)
    with clock.use(later):
        began, cpu, settled = time.perf_counter(), time.process_time(), 0
        while portion := settle.settle_due(limit=5_000):
            settled += portion
        timed("settled", settled, began, cpu)
    with db.reading() as session:
        differences = len(rollups.compare(session))
    sys.stdout.write(f"differences from a raw recount: {differences}\n")
    if db.engine().dialect.name == "sqlite":
        size = sum(path.stat().st_size for path in Path(config.settings().var).glob("kampania.db*"))
        sys.stdout.write(f"{size / count:,.0f} bytes per event\n")


NOW = clock.now()


def later() -> datetime:
    return NOW + timedelta(hours=1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
