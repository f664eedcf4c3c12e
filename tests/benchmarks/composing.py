"""CPU time of composing, signing, expanding and recording: ``python -m tests.benchmarks.composing [recipients]``.

``tests.benchmarks.smtp_client`` measures the SMTP client, ``tests.benchmarks.pipeline`` a whole launch.
"""

import dataclasses
import datetime as dt
import sys
import tempfile
import time
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, text, update

import wsgi  # noqa: F401  (registers every package's tables)
from campaigns import clock, config, db
from campaigns.accounts.models import Organisation
from campaigns.delivery.mime import dkim, mail_template
from campaigns.delivery.mime.compose import compose
from campaigns.delivery.mime.dkim import Algorithm, Signer
from campaigns.delivery.models import Send
from campaigns.delivery.queue import claims, expansion, payload
from campaigns.delivery.queue.results import SendResult, record_results
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus
from campaigns.planning.models import EmailDetails
from tests.benchmarks.contact_import import databases
from tests.delivery.launched_activity import make_mailing, make_version
from tests.delivery.mime.test_mail_template import make_mail_context

ZONES = sorted(zone for zone in zoneinfo.available_timezones() if zone.startswith(("Europe/", "America/", "Asia/")))
AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ROW = '<tr><td style="padding:10px 25px;font-size:13px;color:#000000">Lorem ipsum dolor sit amet</td></tr>\n'
LINKS = "".join(f'{ROW * 19}<a href="{{{{ links[{n}] }}}}">Offer {n}</a>\n' for n in range(1, 14))
KINDS = {
    "plain fields": "Dear {{ contact.first_name }} of {{ contact.city }}",
    "conditions": "{% if contact.city == 'X' %}a{% else %}{{ contact.city|default('b') }}{% endif %}",
    "a loop": "{% for n in range(3) %}<b>{{ contact.city|upper }}</b>{% endfor %}",
}


def print_figure(label: str, value: str) -> None:
    sys.stdout.write(f"{label:46} {value}\n")
    sys.stdout.flush()


def cpu_ms(work: Callable[[], object], times: int) -> float:
    """CPU milliseconds per call, the best of three rounds."""
    work()
    rounds = []
    for _ in range(3):
        began = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - began) / times * 1000)
    return min(rounds)


def measure_composing() -> None:
    for kind, source in KINDS.items():
        context = make_mail_context(source + LINKS, f"{source}\n{'{{ links[1] }} and words. ' * 13}", "Zoé", "Tbilisi")
        kb = len(compose(context, AT).content) // 1024
        assert context.version is not None
        context = dataclasses.replace(
            context,
            template=mail_template.build_template(context.version, context.activity, context.organisation, True),
        )
        print_figure(f"compose, {kind}, {kb} KB", f"{cpu_ms(lambda made=context: compose(made, AT), 2000):.4f} ms")  # type: ignore[misc]
    for algorithm in Algorithm:
        signers = (Signer("example.org", "k", dkim.load_private_key(dkim.generate_key(algorithm)[0])),)
        signing = dataclasses.replace(context, signers=signers)
        milliseconds = cpu_ms(lambda: compose(signing, AT), 300)  # noqa: B023
        print_figure(
            f"compose and sign, {algorithm.label}",
            f"{milliseconds:.3f} ms, {1000 / milliseconds:,.0f} a second and core",
        )


def measure_rows(people: int) -> None:
    with db.transaction() as session:
        activity = make_mailing(session, 0, everybody=True, list_id=None)
        activity.email.version_id = make_version(session).id
        activity_id, now = activity.id, clock.now()
        zone_cases = " ".join(f"WHEN {number} THEN '{zone}'" for number, zone in enumerate(ZONES))
        insert_contacts = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :people) "
            "INSERT INTO contacts (email, first_name, last_name, attributes, source, created_at, updated_at, timezone) "
            "SELECT 'p' || i || '@example.org', 'Ana', 'B', '{}', '', :now, :now, "
            f"CASE i % {len(ZONES)} {zone_cases} END FROM n"
        )
        at = db.to_micros(now) if session.get_bind().dialect.name == "sqlite" else now
        session.execute(text(insert_contacts), {"people": people, "now": at})
        insert_consent = (
            "INSERT INTO consent_log (contact_id, purpose, level, at, source, wording, evidence, recorded_by) "
            "SELECT id, p, 'full', :now, '', '', '{}', '' "
            "FROM contacts, (SELECT 'email' AS p UNION SELECT 'tracking') AS q"
        )
        session.execute(text(insert_consent), {"now": at})
    for what, quiet in (("", None), (f", quiet hours in {len(ZONES)} time zones", dt.time(8))):
        with db.transaction() as session:
            session.execute(delete(Send))
            session.execute(update(EmailDetails).values(expanded_to=0, expanded_at=None))
            session.execute(update(Organisation).values(quiet_from=quiet and dt.time(21), quiet_until=quiet))
        began = time.perf_counter()
        expansion.expand(activity_id)
        print_figure(f"  expand {people:,}{what}", f"{people / (time.perf_counter() - began):,.0f} rows a second")
    with db.transaction() as session:
        session.execute(update(Send).values(due_at=clock.now()))
        session.execute(update(Organisation).values(quiet_from=None, quiet_until=None))
    cpu_seconds = {"claim": 0.0, "load": 0.0, "record": 0.0}
    for batch in map(str, range(10)):
        with db.transaction() as session:
            began = time.process_time()
            rows = claims.claim(session, activity_id, batch, 1000)
            cpu_seconds["claim"] += time.process_time() - began
            began = time.process_time()
            claimed = payload.load(session, activity_id, rows)
            cpu_seconds["load"] += time.process_time() - began
        results = [
            SendResult(send, DeliveryResult(DeliveryStatus.SENT, "250 2.0.0 Ok"), clock.now_micros())
            for send in claimed.sends
        ]
        began = time.process_time()
        with db.transaction() as session:
            record_results(session, batch, results)
        cpu_seconds["record"] += time.process_time() - began
    for what, seconds in cpu_seconds.items():
        print_figure(f"  {what}, our CPU", f"{seconds / 10:.4f} ms a mail")


def main() -> None:
    people = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as home, databases(Path(home)) as chosen:
        config.set_settings(config.read({"KAMPANIA_VAR": home}))
        measure_composing()
        for name, url in chosen:
            print_figure(name, "")
            engine = db.make_engine(url)
            db.Base.metadata.create_all(engine)
            db.set_engine(engine)
            measure_rows(people)
            db.set_engine(None)
            engine.dispose()


if __name__ == "__main__":
    main()
