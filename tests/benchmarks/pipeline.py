"""Throughput of the whole send pipeline, database → compose → SMTP → recorded, through a real worker.

``python -m tests.benchmarks.pipeline [part …]``, with MAILS and PEOPLE in the environment.

Runs of Postfix's ``smtp-source`` and of ours alternate into the same ``smtp-sink``, with mails of the same size over as
many connections; only such pairs are compared. CPU is the worker's, from /proc. Then the throughput into our minimal
sink (needs gcc), and the memory with a large audience.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import wsgi  # noqa: F401  (registers every package's tables)
from campaigns import clock, config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.content.models import Link
from campaigns.delivery.domains import dkim_keys
from campaigns.delivery.mime import dkim
from campaigns.delivery.mime.dkim import Algorithm
from campaigns.delivery.queue import expansion
from tests.benchmarks import _sinks
from tests.benchmarks._contacts import make_contacts
from tests.benchmarks._worker import LaunchCost, running_worker
from tests.benchmarks.contact_import import databases
from tests.delivery.launched_activity import make_mailing, make_version

MAILS = int(os.environ.get("MAILS", "8000"))
PEOPLE = int(os.environ.get("PEOPLE", "1000000"))
PAIRS = 5
CONNECTIONS = 10
OCTETS = 33_000

ROW = '<tr><td style="padding:10px 25px;font-size:13px;color:#000000">Lorem ipsum dolor sit amet</td></tr>\n'
LINKS = "".join(f'{ROW * 21}<a href="{{{{ links[{n}] }}}}">Offer {n}</a>\n' for n in range(1, 14))
UNSUBSCRIBE = '<a href="{{ unsubscribe_url }}">No more of this</a>'
PLAIN = "<p>Dear {{ contact.first_name }} of {{ contact.city|default('somewhere') }}</p>\n"
LOGIC = (
    "<p>Dear {{ contact.first_name|upper }}"
    "{% if contact.city == 'Tbilisi' %}, here in town{% else %}, far away{% endif %}"
    "</p>\n<ul>{% for like in contact.likes|split(',') %}<li>{{ loop.index }}. {{ like }}</li>{% endfor %}</ul>\n"
)
TEXT = "{{ contact.first_name }}\n" + "{{ links[1] }} and words.\n" * 13 + "{{ unsubscribe_url }}\n"

Pattern = dict[str, str]


class MissedLimits:
    """Number of missed limits."""

    count = 0


def print_figure(label: str, value: str) -> None:
    sys.stdout.write(f"{label:44} {value}\n")
    sys.stdout.flush()


def check_limit(label: str, value: float, limit: float, *, at_most: bool = False, unit: str = "") -> None:
    is_met = value <= limit if at_most else value >= limit
    MissedLimits.count += not is_met
    shown, bound = (f"{number:,.0f}" if number >= 100 else f"{number:.3g}" for number in (value, limit))
    print_figure(label, f"{shown}{unit} ({'at most' if at_most else 'at least'} {bound}){'' if is_met else '  MISSED'}")


def create_launched_activity(html: str, mails: int) -> int:
    """Create a live, expanded activity for the first ``mails`` contacts; return its id."""
    with db.transaction() as session:
        activity = make_mailing(session, 0, everybody=True, list_id=None)
        links = [Link(number=n, url=f"https://example.org/{n}", label="") for n in range(1, 14)]
        activity.email.version_id = make_version(session, html=f"{html}{LINKS}{UNSUBSCRIBE}", text=TEXT, links=links).id
        activity_id = activity.id
    expansion.expand(activity_id, min(mails, expansion.CHUNK))
    return activity_id


@contextmanager
def bench_installation(
    url: str, contacts: int, port: int, connections: int = CONNECTIONS
) -> Iterator[Mapping[str, str]]:
    """Create a database with that many contacts; yields the environment of its worker."""
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as home:
        environ = {
            "KAMPANIA_VAR": home,
            "DATABASE_URL": url or f"sqlite:///{home}/bench.db",
            "SMTP_URL": f"smtp://127.0.0.1:{port}?connections={connections}",
            "BASE_URL": "https://mail.example.org",
            "REDIS_URL": "",
        }
        config.set_settings(config.read(environ))
        engine = db.make_engine(environ["DATABASE_URL"])
        db.Base.metadata.drop_all(engine)
        db.Base.metadata.create_all(engine)
        db.set_engine(engine)
        with db.transaction() as session:
            make_contacts(session, contacts)
        _analyse()
        try:
            yield environ
        finally:
            db.set_engine(None)
            engine.dispose()


def _analyse() -> None:
    with db.engine().begin() as connection:
        connection.exec_driver_sql("ANALYZE")


def median_run(runs: list[LaunchCost]) -> LaunchCost:
    return LaunchCost(statistics.median(run.rate for run in runs), statistics.median(run.cpu for run in runs))


def compare_with_smtp_source(url: str, html: str, cpu: float, name: str) -> None:
    """Alternate smtp-source and our worker into Postfix's sink."""
    if not (_sinks.find_program("smtp-source") and _sinks.find_program("smtp-sink")):
        print_figure(name, "skipped: no smtp-source (Debian: postfix)")
        return
    with _sinks.smtp_sink() as port, bench_installation(url, MAILS, port) as environ, running_worker(environ) as worker:
        worker.launch(create_launched_activity(html, MAILS), MAILS)
        source_rates, our_runs = [], []
        for _ in range(PAIRS):
            activity_id = create_launched_activity(html, MAILS)
            source_rates.append(_sinks.run_smtp_source(port, MAILS, OCTETS, CONNECTIONS))
            our_runs.append(worker.launch(activity_id, MAILS))
        ratio = statistics.median(run.rate / rate for run, rate in zip(our_runs, source_rates, strict=True))
        median = median_run(our_runs)
        print_figure(f"{name}: smtp-source, ours", f"{statistics.median(source_rates):,.0f}/s, {median.rate:,.0f}/s")
        check_limit(f"{name}: × smtp-source", ratio, 1.0)
        check_limit(f"{name}: CPU per 1,000", median.cpu, cpu, at_most=True, unit=" s")
        resident, _ = worker.memory()
        check_limit(f"{name}: memory", resident, 80, at_most=True, unit=" MB")


def measure_minimal_sink(
    url: str, html: str, name: str, rate: float, *, signed: bool = False, per_core: bool = False
) -> None:
    """Measure into our minimal sink, which uses almost no CPU."""
    if not _sinks.find_program("gcc"):
        print_figure(name, "skipped: no gcc")
        return
    with _sinks.minimal_sink() as port, bench_installation(url, MAILS, port) as environ:
        if signed:
            activate_rsa_key()
        with running_worker(environ) as worker:
            worker.launch(create_launched_activity(html, MAILS), MAILS)
            median = median_run([worker.launch(create_launched_activity(html, MAILS), MAILS) for _ in range(3)])
    print_figure(f"{name}: rate and CPU", f"{median.rate:,.0f}/s, {median.cpu:.3f} s per 1,000")
    check_limit(
        f"{name}{' a core' if per_core else ''}", 1000 / median.cpu if per_core else median.rate, rate, unit="/s"
    )
    if signed:
        signature_seconds = signature_cost()
        print_figure(
            f"{name}: signatures alone",
            f"{1000 / signature_seconds:,.0f}/s a core; we reach {signature_seconds / median.cpu:.0%} of that",
        )


def signature_cost() -> float:
    """CPU seconds of 1,000 RSA signatures without mails: the lower bound of any sender."""
    key = dkim.load_private_key(dkim.generate_key(Algorithm.RSA)[0])
    assert isinstance(key, rsa.RSAPrivateKey)
    rounds = []
    for _ in range(10):
        began = time.process_time()
        for _ in range(100):
            key.sign(bytes(1500), padding.PKCS1v15(), hashes.SHA256())
        rounds.append((time.process_time() - began) * 10)
    return statistics.median(rounds)


def activate_rsa_key() -> None:
    """Activate an RSA key for the sending domain."""
    with db.transaction() as session:
        for key in dkim_keys.create_keys(session, SYSTEM, "example.org"):
            if key.algorithm is Algorithm.RSA:
                key.published_at = clock.now()
                dkim_keys.activate(session, SYSTEM, key)


def measure_round_trip() -> None:
    """Measure at a round-trip time of 20 ms, against smtp-source, which waits for each reply (five round trips)."""
    mails = 600
    with (
        _sinks.distant_sink() as port,
        bench_installation("", mails, port, connections=4) as environ,
        running_worker(environ) as worker,
    ):
        worker.launch(create_launched_activity(PLAIN, mails), mails)
        run = worker.launch(create_launched_activity(PLAIN, mails), mails)
        print_figure("20 ms, 4 connections", f"{run.rate:,.0f}/s")
        if _sinks.find_program("smtp-source"):
            check_limit("20 ms: × smtp-source", run.rate / _sinks.run_smtp_source(port, mails // 4, OCTETS, 4), 3.0)


def measure_large_audience() -> None:
    """Measure memory and expansion with a large and with a small audience."""
    if not _sinks.find_program("gcc"):
        print_figure("large audience", "skipped: no gcc")
        return
    for contacts in (10_000, PEOPLE):
        with _sinks.minimal_sink() as port, bench_installation("", contacts, port) as environ:
            began, cpu = time.perf_counter(), time.process_time()
            activity_id = create_launched_activity(PLAIN, contacts)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            print_figure(
                f"expand {contacts:,}", f"{contacts / seconds:,.0f} rows/s, {contacts / cpu:,.0f} a CPU second"
            )
            if contacts == PEOPLE:
                check_limit(f"expand {contacts:,}, by CPU", contacts / cpu, 100_000, unit=" rows/s")
            with running_worker(environ) as worker:
                run = worker.launch(activity_id, contacts)
                _, peak = worker.memory()
                print_figure(
                    f"send {contacts:,}", f"{run.rate:,.0f}/s, {run.cpu:.3f} s CPU per 1,000, at most {peak:.0f} MB"
                )
                check_limit(f"memory at {contacts:,}", peak, 80, at_most=True, unit=" MB")


def parts() -> dict[str, Callable[[], None]]:
    def on(kind: str, measure: Callable[[str], None]) -> Callable[[], None]:
        def run() -> None:
            with tempfile.TemporaryDirectory() as home, databases(Path(home)) as chosen:
                measure(dict(chosen)[kind])

        return run

    return {
        "sqlite": lambda: compare_with_smtp_source("", PLAIN, 0.11, "plain, SQLite"),
        "logic": lambda: compare_with_smtp_source("", LOGIC, 0.16, "logic, SQLite"),
        "postgres": on("postgres", lambda url: compare_with_smtp_source(url, PLAIN, 0.11, "plain, PostgreSQL")),
        "cheap": lambda: measure_minimal_sink("", PLAIN, "cheap sink, plain", 8000),
        "cheap-postgres": on(
            "postgres", lambda url: measure_minimal_sink(url, PLAIN, "cheap sink, plain, PostgreSQL", 8000)
        ),
        "rsa": lambda: measure_minimal_sink("", PLAIN, "cheap sink, RSA", 1800, signed=True, per_core=True),
        "afar": measure_round_trip,
        "large": measure_large_audience,
    }


def main(part_names: list[str]) -> int:
    every = parts()
    for name in part_names or every:
        every[name]()
    return min(MissedLimits.count, 100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
