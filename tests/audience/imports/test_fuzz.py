"""Imports of arbitrary bytes: refused as a whole or imported completely; no formulas in exports."""

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.imports import runner, service
from campaigns.audience.imports.rejections import neutralise_formula, rejected_csv
from campaigns.audience.models import Contact, ImportState
from campaigns.errors import ValidationFailed
from tests.audience.imports.csv_files import reload_import, start_import

csv_line = st.builds(
    ",".join,
    st.lists(
        st.one_of(
            st.sampled_from(
                ["ann@example.org", "Bob@Example.org", "x", "", '"', '"a', 'b"', "=1+1", "\x00", "é", "\ufffd"]
            ),
            st.text(max_size=8),
        ),
        min_size=1,
        max_size=4,
    ),
)
file_contents = st.one_of(
    st.binary(max_size=200), st.lists(csv_line, max_size=12).map(lambda ls: "\n".join(ls).encode("utf-8", "replace"))
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=file_contents)
def test_arbitrary_bytes_are_imported_or_refused(database: Engine, content: bytes) -> None:
    try:
        with db.transaction() as session:
            found = service.upload(session, SYSTEM, filename="x.csv", stream=io.BytesIO(content))
            service.configure(session, SYSTEM, found, mapping=found.mapping)
            service.request_dry_run(session, SYSTEM, found)
    except ValidationFailed:
        return
    runner.run(found.id)
    dry = reload_import(found)
    assert dry.state is ImportState.CHECKED, dry.error
    with db.read_only_session() as session:
        before = session.scalar(select(func.count()).select_from(Contact)) or 0
    start_import(found)
    runner.run(found.id)
    done = reload_import(found)
    assert done.state is ImportState.DONE, done.error
    counted = [(one.created, one.updated, one.unchanged, one.rejected) for one in (dry, done)]
    assert counted[0] == counted[1]
    assert sum(counted[1]) == done.rows_total == done.rows_read
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(Contact)) == before + done.created
        pieces = rejected_csv(SYSTEM, done, lambda one: one.message, ("row", "reason"))
        assert sum(1 for _ in pieces) == done.rejected + 1


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+49 1", "'+49 1"),
        ("-1", "'-1"),
        ("@a", "'@a"),
        ("\t=1", "'\t=1"),
        (" =1", "' =1"),
        ("a=1", "a=1"),
        ("", ""),
        ("ann@example.org", "ann@example.org"),
    ],
)
def test_formulas_are_neutralised(cell: str, shown: str) -> None:
    assert neutralise_formula(cell) == shown
