"""Import runs on both databases: counts, rejections, consent, suppression, claims, restart."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import consent, contacts, erasure, lists, suppression
from campaigns.audience.imports import files, runner, service, upsert
from campaigns.audience.imports.rejections import rejections
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
from tests.audience.imports.csv_files import ASKED, again, begin, checked, counts, imported, uploaded
from tests.conftest import FrozenClock


def people() -> dict[str, Contact]:
    with db.reading() as session:
        return {contact.email: contact for contact in session.scalars(select(Contact))}


def reasons(found: ContactImport) -> dict[int, str]:
    with db.reading() as session:
        return {one.row_number: one.message % one.params for one in rejections(session, found.id)}


def levels(email: str, purpose: ConsentPurpose = ConsentPurpose.EMAIL) -> list[ConsentLevel]:
    with db.reading() as session:
        stmt = select(ConsentEntry.level).join(Contact).where(Contact.email == email, ConsentEntry.purpose == purpose)
        return list(session.scalars(stmt.order_by(ConsentEntry.id)))


def test_new_changed_and_unchanged_rows_are_counted_apart(database: Engine) -> None:
    with db.transaction() as session:
        contacts.add_contact(session, SYSTEM, email="ann@example.org", first_name="Ann", attributes={"city": "Lyon"})
        contacts.add_contact(session, SYSTEM, email="bob@example.org", first_name="Bob")
    file = "Email,First name,City\nANN@example.org,,Paris\nbob@example.org,Bob,\ncyd@example.org,Cyd,Baku\n"
    dry = checked(file)
    assert counts(dry) == (1, 1, 1, 0)
    assert dry.rows_total == dry.rows_read == 3
    assert set(people()) == {"ann@example.org", "bob@example.org"}
    begin(dry)
    runner.run(dry.id)
    done = again(dry)
    assert (done.state, counts(done)) == (ImportState.DONE, (1, 1, 1, 0))
    assert people()["ann@example.org"].first_name == "Ann"
    assert people()["ann@example.org"].attributes == {"city": "Paris"}
    assert people()["bob@example.org"].attributes == {}
    assert people()["cyd@example.org"].attributes == {"city": "Baku"}
    assert people()["cyd@example.org"].source == "people.csv"


def test_bad_rows_are_rejected_with_their_reasons(database: Engine) -> None:
    done = imported(
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
    assert reasons(done) == {
        3: "“not an address” is not an e-mail address: it has no @.",
        4: "The e-mail address is missing.",
        5: "Longer than 100 characters.",
        6: "“Klingon!” is not a language code such as en or fa.",
        7: "The same address stands in row 2 already.",
        8: "The row has 4 cells for 3 columns.",
    }
    assert people()["ann@example.org"].first_name == "Ann"


def test_consent_is_what_the_file_states(database: Engine) -> None:
    imported("email\nann@example.org\n", **ASKED)
    with db.reading() as session:
        entries = session.scalars(select(ConsentEntry).order_by(ConsentEntry.purpose)).all()
    assert [(one.purpose, one.level) for one in entries] == [
        (ConsentPurpose.EMAIL, ConsentLevel.FULL),
        (ConsentPurpose.TRACKING, ConsentLevel.FULL),
    ]
    assert {(one.source, one.wording) for one in entries} == {("Spring fair", "Yes, write to me.")}
    assert all(one.evidence["row"] == 2 for one in entries)


def test_without_a_statement_nobody_has_consented(database: Engine) -> None:
    imported("email\nann@example.org\n")
    assert levels("ann@example.org") == []


def test_an_import_changes_nobodys_own_answer(database: Engine) -> None:
    with db.transaction() as session:
        for name in ("no", "partly", "yes"):
            contacts.add_contact(session, SYSTEM, email=f"{name}@example.org")
        who = {one.email: one.id for one in session.scalars(select(Contact))}
        consent.grant(session, SYSTEM, who["no@example.org"], ConsentPurpose.EMAIL, ConsentLevel.FULL, source="form")
        consent.withdraw(session, SYSTEM, who["no@example.org"], ConsentPurpose.EMAIL, source="page")
        consent.grant(
            session, SYSTEM, who["partly@example.org"], ConsentPurpose.TRACKING, ConsentLevel.DELIVERABILITY, source="f"
        )
        consent.grant(session, SYSTEM, who["yes@example.org"], ConsentPurpose.EMAIL, ConsentLevel.FULL, source="form")
    file = "email\nno@example.org\npartly@example.org\nyes@example.org\nnew@example.org\n"
    assert checked(file, **ASKED).consent_kept == 2
    done = imported(file, **ASKED)
    assert done.consent_kept == 2
    assert levels("no@example.org") == [ConsentLevel.FULL, ConsentLevel.NONE]
    assert levels("partly@example.org", ConsentPurpose.TRACKING) == [ConsentLevel.DELIVERABILITY]
    assert levels("partly@example.org") == [ConsentLevel.FULL]
    assert levels("yes@example.org") == [ConsentLevel.FULL]
    assert levels("new@example.org") == [ConsentLevel.FULL]


def test_the_suppressed_stay_so_and_the_erased_stay_away(database: Engine) -> None:
    with db.transaction() as session:
        contacts.add_contact(session, SYSTEM, email="left@example.org")
        suppression.suppress(session, SYSTEM, "left@example.org", SuppressionReason.UNSUBSCRIBED)
        suppression.suppress(session, SYSTEM, "bounced@example.org", SuppressionReason.BOUNCED)
        gone = contacts.add_contact(session, SYSTEM, email="gone@example.org")
        erasure.erase_contact(session, SYSTEM, gone.id)
    file = "email,first name\nleft@example.org,Lea\nbounced@example.org,Bo\nGone@example.org,Go\n"
    assert counts(checked(file, **ASKED)) == (1, 1, 0, 1)
    done = imported(file, **ASKED)
    assert (counts(done), done.suppressed) == ((1, 1, 0, 1), 2)
    assert reasons(done) == {4: contacts.ERASED}
    assert set(people()) == {"left@example.org", "bounced@example.org"}
    assert people()["left@example.org"].first_name == "Lea"
    assert levels("left@example.org") == []
    with db.reading() as session:
        assert session.scalars(select(Contact).where(~suppression.suppressed_sql())).all() == []


def test_the_target_list_gets_old_and_new_people_once(database: Engine) -> None:
    with db.transaction() as session:
        ann = contacts.add_contact(session, SYSTEM, email="ann@example.org")
        chosen = lists.create_list(session, SYSTEM, "Fair")
        lists.add_members(session, SYSTEM, chosen.id, [ann.id])
    file = "email\nann@example.org\nbob@example.org\nbad\n"
    imported(file, list_id=chosen.id)
    imported(file, list_id=chosen.id)
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(ListMember)) == 2


def test_many_chunks_add_up(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHUNK", 7)
    rows = [f"person{n % 90}@example.org,{n}" for n in range(100)]
    done = imported("email,number\n" + "\n".join(rows))
    assert counts(done) == (90, 0, 0, 10)
    assert done.rows_read == done.rows_total == 100
    assert people()["person5@example.org"].attributes == {"number": "5"}
    assert not files.stage_of(done.content_key).exists()


def test_a_worker_that_lost_its_claim_writes_nothing(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "CHUNK", 10)
    found = checked("email\n" + "\n".join(f"p{n}@example.org" for n in range(30)))
    begin(found)
    real, calls = upsert.merge, []

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
    monkeypatch.setattr(runner, "merge", slow)
    runner.run(found.id)
    done = again(found)
    assert (done.state, counts(done)) == (ImportState.DONE, (30, 0, 0, 0))


def test_one_import_is_claimed_once_and_due_again_after_its_lease(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        found = uploaded(session, "email\nann@example.org\n")
        service.check(session, SYSTEM, found)
    with db.reading() as session:
        assert runner.due_imports(session) == [found.id]
    assert runner._ImportJob.claimed(found.id) is not None
    assert runner._ImportJob.claimed(found.id) is None
    with db.reading() as session:
        assert runner.due_imports(session) == []
    frozen.at += runner.LEASE + timedelta(seconds=1)
    with db.reading() as session:
        assert runner.due_imports(session) == [found.id]


def test_the_second_click_starts_nothing(database: Engine) -> None:
    found = checked("email\nann@example.org\n")
    begin(found)
    with pytest.raises(Conflict, match="under way"):
        begin(found)
    runner.run(found.id)
    runner.run(found.id)
    with pytest.raises(Conflict, match="done"):
        begin(found)
    assert counts(again(found)) == (1, 0, 0, 0)


def test_a_file_that_is_gone_says_so(database: Engine) -> None:
    with db.transaction() as session:
        found = uploaded(session, "email\nann@example.org\n")
        service.check(session, SYSTEM, found)
    files.forget(found.content_key)
    runner.run(found.id)
    assert again(found).state is ImportState.UPLOADED
    assert again(found).error == service.FILE_GONE


def test_a_failed_import_goes_on_where_it_stopped(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHUNK", 10)
    found = checked("email\n" + "\n".join(f"p{n}@example.org" for n in range(30)))
    begin(found)
    real, calls = upsert.merge, []

    def failing(*args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("boom")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "merge", failing)
    runner.run(found.id)
    stopped = again(found)
    assert (stopped.state, stopped.rows_read, stopped.created) == (ImportState.FAILED, 10, 10)
    begin(found)
    runner.run(found.id)
    assert (again(found).state, counts(again(found))) == (ImportState.DONE, (30, 0, 0, 0))


def test_rejections_are_kept_once(database: Engine) -> None:
    dry = checked("email\nbad\nann@example.org\n")
    assert dry.problems[0]["row"] == 2
    done = imported("email\nbad\nann@example.org\n")
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(ImportRejection)) == 1
    assert done.finished_at is not None
