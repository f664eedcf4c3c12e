"""kill -9 in the middle of an import: going on gives what an undisturbed run gives."""

import base64
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select, text

from campaigns import clock, db
from campaigns.audience.models import ConsentEntry, Contact, ContactImport, ImportRejection, ImportState, ListMember
from tests.audience.csvs import ASKED, again, begin, checked
from tests.conftest import SECRET

ROWS = 3_000
PROGRAM = """
import sys
from datetime import timedelta
from campaigns.audience import import_run
import_run.CHUNK, import_run.LEASE = 40, timedelta(0)
import_run.run(int(sys.argv[1]))
"""


def content() -> str:
    chance = random.Random(7)
    lines = ["email,first name,city"]
    for n in range(ROWS):
        address = f"p{chance.randrange(ROWS)}@example.org" if n % 50 else "broken"
        lines.append(f"{address},First{n},City {n % 9}")
    return "\n".join(lines)


def seed() -> int:
    """A list, and some people who are there before."""
    with db.transaction() as session:
        chosen = db.Base.metadata.tables["lists"]
        list_id = session.execute(chosen.insert().values(name="Fair", created_at=clock.now())).inserted_primary_key[0]
        session.add_all(
            Contact(
                email=f"p{n}@example.org", first_name="Old", attributes={"city": "Old", "n": str(n)},
                created_at=clock.now(), updated_at=clock.now(),
            )
            for n in range(0, ROWS, 3)
        )  # fmt: skip
    return int(list_id)


def outcome(found: ContactImport) -> dict[str, Any]:
    with db.reading() as session:
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


def empty(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in ("import_rejections", "imports", "consent", "list_members", "lists", "contacts", "audit"):
            connection.execute(text(f"DELETE FROM {table}"))


def run_apart(engine: Engine, import_id: int, var: Path) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ,
        "KAMPANIA_VAR": str(var),
        "DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "SECRET_KEYS": f"1:{base64.b64encode(SECRET).decode()}",
    }
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(import_id)], env=environ)


def test_an_import_survives_kill_9(database: Engine, tmp_path: Path) -> None:
    file = content()
    undisturbed = checked(file, list_id=seed(), **ASKED)
    begin(undisturbed)
    assert run_apart(database, undisturbed.id, tmp_path).wait(60) == 0
    expected = outcome(again(undisturbed))
    assert expected["counts"]["state"] is ImportState.DONE

    empty(database)
    found = checked(file, list_id=seed(), **ASKED)
    begin(found)
    kills = 0
    for stop in (1, 800, 1600, 2400):
        process = run_apart(database, found.id, tmp_path)
        deadline = time.monotonic() + 60
        while again(found).rows_read < stop and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        kills += process.wait(10) == -9
    assert kills >= 3
    between = again(found)
    assert 0 < between.rows_read < ROWS
    assert run_apart(database, found.id, tmp_path).wait(60) == 0
    assert outcome(again(found)) == expected
