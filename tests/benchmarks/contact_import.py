"""Throughput of contact imports (rows per second), on both databases.

``python -m tests.benchmarks.contact_import [rows]`` imports a file into an empty database, then the same file with
every second row changed.
"""

import io
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import wsgi  # noqa: F401  (registers every package's tables)
from campaigns import config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.imports import runner, service
from campaigns.audience.models import ConsentLevel
from tests import servers


def csv_file(rows: int, changed: bool) -> bytes:
    rng = Random(1)
    numbers = list(range(rows))
    rng.shuffle(numbers)
    lines = ["email,first name,last name,city"]
    lines += [
        f"person{n}@mail{n % 97}.example.org,First{n},Last{n},{'New' if changed and n % 2 else 'City'} {n % 50}"
        for n in numbers
    ]
    return "\n".join(lines).encode()


def timed_import(content: bytes) -> tuple[float, float, dict[str, int]]:
    """Import a file; return (seconds of the dry run, seconds of the import, row counts)."""
    with db.transaction() as session:
        upload = service.upload(session, SYSTEM, filename="bench.csv", stream=io.BytesIO(content))
        consent = {"email_consent": ConsentLevel.FULL, "consent_wording": "yes", "consent_source": "bench"}
        service.configure(session, SYSTEM, upload, mapping=upload.mapping, **consent)  # type: ignore[arg-type]
        service.request_dry_run(session, SYSTEM, upload)
    start = time.perf_counter()
    runner.run(upload.id)
    check_seconds = time.perf_counter() - start
    with db.transaction() as session:
        service.request_import(session, SYSTEM, service.import_of(session, upload.id))
    start = time.perf_counter()
    runner.run(upload.id)
    import_seconds = time.perf_counter() - start
    with db.read_only_session() as session:
        done = service.import_of(session, upload.id)
        return (
            check_seconds,
            import_seconds,
            {"created": done.created, "updated": done.updated, "unchanged": done.unchanged},
        )


@contextmanager
def databases(var: Path) -> Iterator[list[tuple[str, str]]]:
    with servers.postgres() as url:
        yield [("sqlite", f"sqlite:///{var / 'bench.db'}"), ("postgres", url)]


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as home, databases(Path(home)) as chosen:
        config.set_settings(config.read({"KAMPANIA_VAR": home}))
        for name, url in chosen:
            engine = db.make_engine(url)
            db.Base.metadata.create_all(engine)
            db.set_engine(engine)
            for what, changed in (("new", False), ("half changed", True)):
                dry, real, counts = timed_import(csv_file(rows, changed))
                print(  # noqa: T201
                    f"{name:9} {what:13} dry {rows / dry:8,.0f} rows/s  import {rows / real:8,.0f} rows/s  {counts}"
                )
            db.set_engine(None)
            engine.dispose()


if __name__ == "__main__":
    main()
