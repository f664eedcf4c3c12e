"""Crash safety of imports: after kill -9 and restart, the result equals that of an undisturbed run."""

import os
import random
import signal
import time
from datetime import timedelta
from itertools import count
from typing import Any

from sqlalchemy import Engine, select, text

from campaigns import clock, db
from campaigns.audience.imports import runner
from campaigns.audience.imports.upsert import prepare_chunk
from campaigns.audience.models import (
    ConsentEntry,
    Contact,
    ContactImport,
    ContactList,
    ImportRejection,
    ImportState,
    ListMember,
)
from tests.audience.imports.csv_files import CONSENT_OPTIONS, reload_import, run_dry_run, start_import

ROWS = 1_500


def csv_content() -> str:
    chance = random.Random(7)
    lines = ["email,first name,city"]
    for n in range(ROWS):
        address = f"p{chance.randrange(ROWS)}@example.org" if n % 50 else "broken"
        lines.append(f"{address},First{n},City {n % 9}")
    return "\n".join(lines)


def create_existing_contacts() -> int:
    """Create a list and some existing contacts; return the list's id."""
    with db.transaction() as session:
        contact_list = ContactList(name="Fair", created_at=clock.now())
        session.add(contact_list)
        session.add_all(
            Contact(
                email=f"p{n}@example.org",
                first_name="Old",
                attributes={"city": "Old", "n": str(n)},
                created_at=clock.now(),
                updated_at=clock.now(),
            )
            for n in range(0, ROWS, 3)
        )
    return contact_list.id


def import_outcome(found: ContactImport) -> dict[str, Any]:
    with db.read_only_session() as session:
        people = session.execute(select(Contact.email, Contact.first_name, Contact.attributes).order_by(Contact.email))
        ledger = session.execute(
            select(Contact.email, ConsentEntry.purpose, ConsentEntry.level)
            .join(ConsentEntry)
            .order_by(Contact.email, ConsentEntry.purpose)
        )
        members = session.execute(select(Contact.email).join(ListMember).order_by(Contact.email))
        rejected = session.execute(
            select(ImportRejection.row_number, ImportRejection.message).order_by(ImportRejection.row_number)
        )
        counted = ("rows_total", "rows_read", "created", "updated", "unchanged", "rejected", "consent_kept", "state")
        return {
            "people": people.all(),
            "ledger": ledger.all(),
            "members": members.all(),
            "rejected": rejected.all(),
            "counts": {name: getattr(found, name) for name in counted},
        }


def delete_all_rows(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in (
            "import_rejections",
            "contact_imports",
            "consent_log",
            "list_members",
            "lists",
            "contacts",
            "audit_log",
        ):
            connection.execute(text(f"DELETE FROM {table}"))


def run_in_fork(engine: Engine, import_id: int, max_chunks: int = ROWS) -> int:
    """Run the import in a forked process with small chunks; return its pid.

    After ``max_chunks`` chunks the process pauses until it is killed.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:  # child process: it must not use the parent's database connections
        db.set_engine(db.make_engine(engine.url.render_as_string(hide_password=False)))
        runner.CHUNK_ROWS, runner.LEASE = 40, timedelta(0)
        prepared = count()

        def prepare_or_wait(*arguments: Any) -> Any:
            if next(prepared) == max_chunks:
                signal.pause()
            return prepare_chunk(*arguments)

        setattr(runner, "prepare_chunk", prepare_or_wait)  # noqa: B010
        runner.run(import_id)
        code = 0
    finally:
        os._exit(code)


def wait_for_exit(pid: int) -> int:
    """Wait for the process; return 0, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_an_import_survives_kill_9(database: Engine) -> None:
    file = csv_content()
    undisturbed = run_dry_run(file, list_id=create_existing_contacts(), **CONSENT_OPTIONS)
    start_import(undisturbed)
    assert wait_for_exit(run_in_fork(database, undisturbed.id)) == 0
    expected = import_outcome(reload_import(undisturbed))
    assert expected["counts"]["state"] is ImportState.DONE

    delete_all_rows(database)
    found = run_dry_run(file, list_id=create_existing_contacts(), **CONSENT_OPTIONS)
    start_import(found)
    for stop in (1, 400, 800, 1_200):
        child = run_in_fork(database, found.id, (stop - reload_import(found).rows_read) // 40 + 5)
        deadline = time.monotonic() + 100
        while reload_import(found).rows_read < stop and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert wait_for_exit(child) == -signal.SIGKILL
    assert 0 < reload_import(found).rows_read < ROWS
    assert wait_for_exit(run_in_fork(database, found.id)) == 0
    assert import_outcome(reload_import(found)) == expected
