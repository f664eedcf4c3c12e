"""Tests of the offline import: idempotence, rejected rows, resuming."""

import io

import pytest
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts.actor import Actor
from campaigns.accounts.models import Role
from campaigns.errors import Forbidden, ValidationFailed
from tests.factories import make_user
from tests.tracking.conversions.test_goals import make_goal, match_goals, stored_conversions
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


def upload_csv(text: str = CSV, role: Role = Role.COORDINATOR) -> int:
    with db.transaction() as session:
        actor = Actor.of_user(make_user(session, role=role))
        return offline_import.upload(session, actor, filename="../till.csv", stream=io.BytesIO(text.encode())).id


def load_import(import_id: int) -> tuple[OfflineImport, list[tuple[int, str]]]:
    with db.read_only_session() as session:
        import_job = offline_import.get_import(session, import_id)
        return import_job, [
            (row.row_number, row.field) for row in offline_import.rejected_rows(session, import_job, 100)
        ]


@pytest.fixture
def goal(database: Engine) -> None:
    with db.transaction() as session:
        make_goal(session)


def test_invalid_row_does_not_stop_the_others(goal: None) -> None:
    import_id = upload_csv()
    with db.read_only_session() as session:
        assert offline_import.due_import_ids(session) == [import_id]
    offline_import.run(import_id)
    import_job, refused = load_import(import_id)
    assert (
        import_job.filename,
        import_job.rows_read,
        import_job.created,
        import_job.duplicates,
        import_job.rejected,
    ) == ("till.csv", 7, 2, 0, 5)
    assert refused == [(2, "at"), (3, "email"), (4, "event"), (5, "value"), (7, "id")]
    assert match_goals() == 2
    with db.read_only_session() as session:
        assert offline_import.due_import_ids(session) == []


def test_the_same_file_twice_counts_once(goal: None) -> None:
    for new in (2, 0):
        import_id = upload_csv()
        offline_import.run(import_id)
        offline_import.run(import_id)
        assert load_import(import_id)[0].created == new
    match_goals()
    assert len(stored_conversions()) == 2  # The row of January is older than the goal and is rejected.


def test_interrupted_import_resumes(goal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_import, "_CHUNK_ROWS", 2)
    import_id, import_chunk, calls = upload_csv(), offline_import._import_chunk, []

    def exit_in_third_chunk(*given: object) -> bool:
        calls.append(given)
        if len(calls) == 3:
            raise SystemExit
        return import_chunk(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(offline_import, "_import_chunk", exit_in_third_chunk)
    with pytest.raises(SystemExit):
        offline_import.run(import_id)
    assert load_import(import_id)[0].rows_read == 4
    offline_import.run(import_id)
    import_job, refused = load_import(import_id)
    assert (import_job.rows_read, import_job.created, import_job.duplicates, import_job.rejected, len(refused)) == (
        7,
        2,
        0,
        5,
        5,
    )


@pytest.mark.parametrize("text", ["", "a;b\n1;2\n", "id;value\n1;2\n", "\x89PNG", "PK\x03\x04"])
def test_invalid_files_are_rejected(goal: None, text: str) -> None:
    with pytest.raises(ValidationFailed):
        upload_csv(text)
    with db.read_only_session() as session:
        assert session.scalars(select(OfflineImport)).all() == []


def test_viewer_may_not_upload(goal: None) -> None:
    with pytest.raises(Forbidden):
        upload_csv(role=Role.VIEWER)
