"""Tests of the offline import: idempotence, rejected rows, resuming."""

import io

import pytest
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts.actor import Actor
from campaigns.accounts.models import Role
from campaigns.errors import Forbidden, ValidationFailed
from tests.factories import make_person
from tests.tracking.conversions.test_goals import make_goal, notice, reached
from tracking.conversions import offline_import
from tracking.models.conversions import OfflineImport

CSV = """id;event;email;at;value;currency
A-1;purchase;ann@example.com;2026-01-05T10:00:00+04:00;10;EUR
A-2;purchase;ann@example;;5;
A-3;unheard of;;;5;
A-4;purchase;;;-5;
A-1;purchase;ann@example.com;;99;
;purchase;;;;
A-5;purchase;"bob@example.com";;;
"""


def uploaded(text: str = CSV, role: Role = Role.COORDINATOR) -> int:
    with db.transaction() as session:
        actor = Actor.of(make_person(session, role=role))
        return offline_import.upload(session, actor, filename="../till.csv", stream=io.BytesIO(text.encode())).id


def found(import_id: int) -> tuple[OfflineImport, list[tuple[int, str]]]:
    with db.reading() as session:
        one = offline_import.offline_import(session, import_id)
        return one, [(row.row_number, row.field) for row in offline_import.refusals(session, one, 100)]


@pytest.fixture
def goal(database: Engine) -> None:
    with db.transaction() as session:
        make_goal(session)


def test_a_bad_row_costs_that_row_only(goal: None) -> None:
    import_id = uploaded()
    with db.reading() as session:
        assert offline_import.due(session) == [import_id]
    offline_import.run(import_id)
    one, refused = found(import_id)
    assert (one.filename, one.rows_read, one.created, one.duplicates, one.rejected) == ("till.csv", 7, 2, 0, 5)
    assert refused == [(2, "at"), (3, "email"), (4, "event"), (5, "value"), (7, "id")]
    assert notice() == 2
    with db.reading() as session:
        assert offline_import.due(session) == []


def test_the_same_file_twice_counts_once(goal: None) -> None:
    for new in (2, 0):
        import_id = uploaded()
        offline_import.run(import_id)
        offline_import.run(import_id)
        assert found(import_id)[0].created == new
    notice()
    assert len(reached()) == 2  # The row of January is older than the goal and is rejected.


def test_an_interrupted_run_goes_on(goal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_import, "_CHUNK", 2)
    import_id, take, calls = uploaded(), offline_import._take, []

    def dying(*given: object) -> bool:
        calls.append(given)
        if len(calls) == 3:
            raise SystemExit
        return take(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(offline_import, "_take", dying)
    with pytest.raises(SystemExit):
        offline_import.run(import_id)
    assert found(import_id)[0].rows_read == 4
    offline_import.run(import_id)
    one, refused = found(import_id)
    assert (one.rows_read, one.created, one.duplicates, one.rejected, len(refused)) == (7, 2, 0, 5, 5)


@pytest.mark.parametrize("text", ["", "a;b\n1;2\n", "id;value\n1;2\n", "\x89PNG", "PK\x03\x04"])
def test_what_is_no_table_of_events(goal: None, text: str) -> None:
    with pytest.raises(ValidationFailed):
        uploaded(text)
    with db.reading() as session:
        assert session.scalars(select(OfflineImport)).all() == []


def test_viewers_upload_nothing(goal: None) -> None:
    with pytest.raises(Forbidden):
        uploaded(role=Role.VIEWER)
