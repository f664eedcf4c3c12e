"""Import runs on both databases: counts, rejections, consent, suppression, claims, restart."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import consent, contacts, erasure, lists, suppression
from campaigns.audience.imports import files, runner, service, upsert
from campaigns.audience.imports.rejections import iter_rejections
from campaigns.audience.models import (
    ConsentEntry,
    ConsentLevel,
    ConsentPurpose,
    Contact,
    ContactImport,
    ImportRejection,
    ImportState,
    ListMember,
    SuppressionReason,
)
from campaigns.errors import Conflict
from tests.audience.imports.csv_files import (
    CONSENT_OPTIONS,
    counts,
    reload_import,
    run_dry_run,
    run_import,
    start_import,
    upload_file,
)
from tests.conftest import FrozenClock


def contacts_by_email() -> dict[str, Contact]:
    with db.read_only_session() as session:
        return {contact.email: contact for contact in session.scalars(select(Contact))}


def rejection_reasons(found: ContactImport) -> dict[int, str]:
    with db.read_only_session() as session:
        return {one.row_number: one.message % one.params for one in iter_rejections(session, found.id)}


def consent_levels(email: str, purpose: ConsentPurpose = ConsentPurpose.EMAIL) -> list[ConsentLevel]:
    with db.read_only_session() as session:
        stmt = select(ConsentEntry.level).join(Contact).where(Contact.email == email, ConsentEntry.purpose == purpose)
        return list(session.scalars(stmt.order_by(ConsentEntry.id)))


def test_new_changed_and_unchanged_rows_are_counted(database: Engine) -> None:
    with db.transaction() as session:
        contacts.add_contact(session, SYSTEM, email="ann@example.org", first_name="Ann", attributes={"city": "Lyon"})
        contacts.add_contact(session, SYSTEM, email="bob@example.org", first_name="Bob")
    file = "Email,First name,City\nANN@example.org,,Paris\nbob@example.org,Bob,\ncyd@example.org,Cyd,Baku\n"
    dry = run_dry_run(file)
    assert counts(dry) == (1, 1, 1, 0)
    assert dry.rows_total == dry.rows_read == 3
    assert set(contacts_by_email()) == {"ann@example.org", "bob@example.org"}
    start_import(dry)
    runner.run(dry.id)
    done = reload_import(dry)
    assert (done.state, counts(done)) == (ImportState.DONE, (1, 1, 1, 0))
    assert contacts_by_email()["ann@example.org"].first_name == "Ann"
    assert contacts_by_email()["ann@example.org"].attributes == {"city": "Paris"}
    assert contacts_by_email()["bob@example.org"].attributes == {}
    assert contacts_by_email()["cyd@example.org"].attributes == {"city": "Baku"}
    assert contacts_by_email()["cyd@example.org"].source == "people.csv"


def test_bad_rows_are_rejected_with_their_reasons(database: Engine) -> None:
    done = run_import(
        "email,first name,language\n"
        "ann@example.org,Ann,en\n"
        "not an address,B,\n"
        ",C,\n"
        f"dan@example.org,{'x' * 101},\n"
        "eve@example.org,Eve,Klingon!\n"
        "Ann@Example.org,Ann again,\n"
        "fay@example.org,Fay,fr,extra\n"
        "gus@example.org,Gus\n"
    )
    assert counts(done) == (2, 0, 0, 6)
    assert done.rows_total == 8
    assert rejection_reasons(done) == {
        3: "“not an address” is not an e-mail address: it has no @.",
        4: "The e-mail address is missing.",
        5: "Longer than 100 characters.",
        6: "“Klingon!” is not a language code such as en or fa.",
        7: "The same address stands in row 2 already.",
        8: "The row has 4 cells for 3 columns.",
    }
    assert contacts_by_email()["ann@example.org"].first_name == "Ann"


def test_consent_is_what_the_file_states(database: Engine) -> None:
    run_import("email\nann@example.org\n", **CONSENT_OPTIONS)
    with db.read_only_session() as session:
        entries = session.scalars(select(ConsentEntry).order_by(ConsentEntry.purpose)).all()
    assert [(one.purpose, one.level) for one in entries] == [
        (ConsentPurpose.EMAIL, ConsentLevel.FULL),
        (ConsentPurpose.TRACKING, ConsentLevel.FULL),
    ]
    assert {(one.source, one.wording) for one in entries} == {("Spring fair", "Yes, write to me.")}
    assert all(one.evidence["row"] == 2 for one in entries)


def test_without_consent_statement_no_consent_is_recorded(database: Engine) -> None:
    run_import("email\nann@example.org\n")
    assert consent_levels("ann@example.org") == []


def test_import_keeps_existing_answers(database: Engine) -> None:
    with db.transaction() as session:
        for name in ("no", "partly", "yes"):
            contacts.add_contact(session, SYSTEM, email=f"{name}@example.org")
        ids_by_email = {one.email: one.id for one in session.scalars(select(Contact))}
        consent.grant(
            session, SYSTEM, ids_by_email["no@example.org"], ConsentPurpose.EMAIL, ConsentLevel.FULL, source="form"
        )
        consent.withdraw(session, SYSTEM, ids_by_email["no@example.org"], ConsentPurpose.EMAIL, source="page")
        consent.grant(
            session,
            SYSTEM,
            ids_by_email["partly@example.org"],
            ConsentPurpose.TRACKING,
            ConsentLevel.DELIVERABILITY,
            source="f",
        )
        consent.grant(
            session, SYSTEM, ids_by_email["yes@example.org"], ConsentPurpose.EMAIL, ConsentLevel.FULL, source="form"
        )
    file = "email\nno@example.org\npartly@example.org\nyes@example.org\nnew@example.org\n"
    assert run_dry_run(file, **CONSENT_OPTIONS).consent_kept == 2
    done = run_import(file, **CONSENT_OPTIONS)
    assert done.consent_kept == 2
    assert consent_levels("no@example.org") == [ConsentLevel.FULL, ConsentLevel.NONE]
    assert consent_levels("partly@example.org", ConsentPurpose.TRACKING) == [ConsentLevel.DELIVERABILITY]
    assert consent_levels("partly@example.org") == [ConsentLevel.FULL]
    assert consent_levels("yes@example.org") == [ConsentLevel.FULL]
    assert consent_levels("new@example.org") == [ConsentLevel.FULL]


def test_suppressed_contacts_stay_suppressed_and_erased_are_rejected(database: Engine) -> None:
    with db.transaction() as session:
        contacts.add_contact(session, SYSTEM, email="left@example.org")
        suppression.suppress(session, SYSTEM, "left@example.org", SuppressionReason.UNSUBSCRIBED)
        suppression.suppress(session, SYSTEM, "bounced@example.org", SuppressionReason.BOUNCED)
        gone = contacts.add_contact(session, SYSTEM, email="gone@example.org")
        erasure.erase_contact(session, SYSTEM, gone.id)
    file = "email,first name\nleft@example.org,Lea\nbounced@example.org,Bo\nGone@example.org,Go\n"
    assert counts(run_dry_run(file, **CONSENT_OPTIONS)) == (1, 1, 0, 1)
    done = run_import(file, **CONSENT_OPTIONS)
    assert (counts(done), done.suppressed) == ((1, 1, 0, 1), 2)
    assert rejection_reasons(done) == {4: contacts.ADDRESS_ERASED}
    assert set(contacts_by_email()) == {"left@example.org", "bounced@example.org"}
    assert contacts_by_email()["left@example.org"].first_name == "Lea"
    assert consent_levels("left@example.org") == []
    with db.read_only_session() as session:
        assert session.scalars(select(Contact).where(~suppression.suppressed_sql())).all() == []


def test_the_target_list_gets_old_and_new_people_once(database: Engine) -> None:
    with db.transaction() as session:
        ann = contacts.add_contact(session, SYSTEM, email="ann@example.org")
        chosen = lists.create_list(session, SYSTEM, "Fair")
        lists.add_members(session, SYSTEM, chosen.id, [ann.id])
    file = "email\nann@example.org\nbob@example.org\nbad\n"
    run_import(file, list_id=chosen.id)
    run_import(file, list_id=chosen.id)
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(ListMember)) == 2


def test_many_chunks_add_up(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHUNK_ROWS", 7)
    rows = [f"person{n % 90}@example.org,{n}" for n in range(100)]
    done = run_import("email,number\n" + "\n".join(rows))
    assert counts(done) == (90, 0, 0, 10)
    assert done.rows_read == done.rows_total == 100
    assert contacts_by_email()["person5@example.org"].attributes == {"number": "5"}
    assert not files.staging_path(done.content_key).exists()


def test_a_worker_that_lost_its_claim_writes_nothing(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "CHUNK_ROWS", 10)
    found = run_dry_run("email\n" + "\n".join(f"p{n}@example.org" for n in range(30)))
    start_import(found)
    real, calls = upsert.merge_chunk, []

    def slow(*args: object) -> object:
        calls.append(1)
        return real(*args)  # type: ignore[arg-type]

    def chunks(self: object, *args: object) -> object:
        for n, chunk in enumerate(original(self, *args)):  # type: ignore[arg-type]
            if n == 1 and len(calls) == 1:  # the first worker stalls; another one completes the import
                frozen.at += timedelta(minutes=1)
                runner.run(found.id)
            yield chunk

    original = runner._ImportJob.chunks
    monkeypatch.setattr(runner._ImportJob, "chunks", chunks)
    monkeypatch.setattr(runner, "merge_chunk", slow)
    runner.run(found.id)
    done = reload_import(found)
    assert (done.state, counts(done)) == (ImportState.DONE, (30, 0, 0, 0))


def test_one_import_is_claimed_once_and_due_again_after_its_lease(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        found = upload_file(session, "email\nann@example.org\n")
        service.request_dry_run(session, SYSTEM, found)
    with db.read_only_session() as session:
        assert runner.due_imports(session) == [found.id]
    assert runner._ImportJob.claim(found.id) is not None
    assert runner._ImportJob.claim(found.id) is None
    with db.read_only_session() as session:
        assert runner.due_imports(session) == []
    frozen.at += runner.LEASE + timedelta(seconds=1)
    with db.read_only_session() as session:
        assert runner.due_imports(session) == [found.id]


def test_second_start_is_a_conflict(database: Engine) -> None:
    found = run_dry_run("email\nann@example.org\n")
    start_import(found)
    with pytest.raises(Conflict, match="under way"):
        start_import(found)
    runner.run(found.id)
    runner.run(found.id)
    with pytest.raises(Conflict, match="done"):
        start_import(found)
    assert counts(reload_import(found)) == (1, 0, 0, 0)


def test_missing_file_fails_the_dry_run(database: Engine) -> None:
    with db.transaction() as session:
        found = upload_file(session, "email\nann@example.org\n")
        service.request_dry_run(session, SYSTEM, found)
    files.delete_files(found.content_key)
    runner.run(found.id)
    assert reload_import(found).state is ImportState.UPLOADED
    assert reload_import(found).error == service.FILE_GONE


def test_a_failed_import_goes_on_where_it_stopped(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHUNK_ROWS", 10)
    found = run_dry_run("email\n" + "\n".join(f"p{n}@example.org" for n in range(30)))
    start_import(found)
    real, calls = upsert.merge_chunk, []

    def failing(*args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("boom")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "merge_chunk", failing)
    runner.run(found.id)
    stopped = reload_import(found)
    assert (stopped.state, stopped.rows_read, stopped.created) == (ImportState.FAILED, 10, 10)
    start_import(found)
    runner.run(found.id)
    assert (reload_import(found).state, counts(reload_import(found))) == (ImportState.DONE, (30, 0, 0, 0))


def test_rejections_are_stored_once(database: Engine) -> None:
    dry = run_dry_run("email\nbad\nann@example.org\n")
    assert dry.problems[0]["row"] == 2
    done = run_import("email\nbad\nann@example.org\n")
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(ImportRejection)) == 1
    assert done.finished_at is not None
