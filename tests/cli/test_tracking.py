"""`kampania tracking …`: relabelling, and checking and repairing counters."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, select, update

from campaigns import cli, clock, config, db
from campaigns.accounts.models import AuditLogEntry
from campaigns.migrations import schema
from tests.tracking.collector.test_collector import check_counts
from tests.tracking.fixtures import Mailing, events, make_mailing
from tracking.bots import final_labels
from tracking.collector import collector
from tracking.models.events import DeadLetter, Event, HitRollup, TrafficLabel


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.main, ["tracking", *words], catch_exceptions=False)


@pytest.fixture
def mailing(settings: config.Settings) -> Iterator[Mailing]:
    """Two clicks of two contacts with final labels, in a database of the test's own with the migrated schema."""
    engine: Engine = db.make_engine(f"sqlite:///{settings.var / 'kampania.db'}")
    schema.upgrade(engine)
    db.set_engine(engine)
    launched, past = make_mailing(2), clock.now() - timedelta(minutes=40)
    with clock.override(lambda: past):
        launched.click(index=0), launched.click(index=1, ip="198.51.100.9")
    collector.collect_once()
    final_labels.settle_due()
    yield launched
    engine.dispose()


def test_a_dry_run_of_relabelling_changes_nothing(mailing: Mailing) -> None:
    before = [event.label for event in events()]
    with db.transaction() as session:
        session.execute(update(Event).values(label=TrafficLabel.MACHINE))
    assert run("rebuild").exit_code == 0
    day = clock.now() - timedelta(days=1)
    period = ("--from", f"{day:%Y-%m-%d}", "--to", f"{day + timedelta(days=2):%Y-%m-%d}")
    dry_run = run("relabel", *period, "--dry-run")
    assert "2 events would change their label" in dry_run.output
    assert {event.label for event in events()} == {TrafficLabel.MACHINE}
    done = run("relabel", *period)
    assert (done.exit_code, "machine → " in done.output, "2 events changed" in done.output) == (0, True, True)
    assert [event.label for event in events()] == before
    check_counts()
    with db.read_only_session() as session:
        assert session.scalars(select(AuditLogEntry.action)).all() == ["relabel"]
    assert run("relabel", "--from", "yesterday").exit_code == 2


def test_differing_counters_are_reported_and_repaired(mailing: Mailing) -> None:
    assert run("verify").exit_code == 0
    with db.transaction() as session:
        session.execute(update(HitRollup).values(events=HitRollup.events + 1))
    checked = run("verify")
    assert checked.exit_code == 1
    assert f"activity_id={mailing.activity_id}" in checked.output
    assert run("rebuild").exit_code == 0
    assert "0 counters differ" in run("verify").output


def test_dead_letters_are_counted_by_retry(mailing: Mailing, monkeypatch: pytest.MonkeyPatch) -> None:
    mailing.click(2)
    with monkeypatch.context() as broken:
        broken.setattr(collector, "_first_label", lambda *_: 1 / 0)
        collector.collect_once()
    with db.read_only_session() as session:
        assert len(session.scalars(select(DeadLetter)).all()) == 1
    assert run("retry-dead-letters").output.startswith("1 hits")
    assert run("retry-dead-letters").output.startswith("0 hits")
    assert len(events()) == 3
    check_counts()
