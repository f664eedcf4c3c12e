"""Keyset pagination: forwards, backwards, mixed directions, and altered cursors."""

from datetime import timedelta

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.accounts.models import AuditLogEntry
from campaigns.web.pages.pagination import Page, _decode_cursor, paginate
from tests.conftest import NOON

flask = Flask("pages")


def add_entries(session: Session, count: int) -> None:
    for number in range(count):
        session.add(
            AuditLogEntry(
                at=NOON + timedelta(minutes=number // 3),
                actor_kind="system",
                actor_id=None,
                actor_name="system",
                action=f"v{number % 4}",
                subject_kind="thing",
                subject_id=str(number),
                detail={},
            )
        )
    session.flush()


def get_page(session: Session, url: str, keys: list[object]) -> Page:
    with flask.test_request_context(url):
        return paginate(session, select(AuditLogEntry), keys, size=10)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "keys",
    [
        [AuditLogEntry.id],
        [AuditLogEntry.id.desc()],
        [AuditLogEntry.at.desc(), AuditLogEntry.id.desc()],
        [AuditLogEntry.action, AuditLogEntry.id.desc()],
        [AuditLogEntry.at, AuditLogEntry.action.desc(), AuditLogEntry.id],
    ],
)
def test_forwards_and_backwards(session: Session, keys: list[object]) -> None:
    add_entries(session, 35)
    expected = [entry.id for entry in session.scalars(select(AuditLogEntry).order_by(*keys))]  # type: ignore[arg-type]
    url, seen, last = "/x?q=a%26b", [], None
    while url:
        page = last = get_page(session, url, keys)
        seen += [entry.id for entry in page.items]
        assert "q=a%26b" in (page.next_url or "q=a%26b")
        url = page.next_url or ""
    assert seen == expected
    assert last is not None
    back: list[int] = []
    while last.previous_url:
        last = get_page(session, last.previous_url, keys)
        back = [entry.id for entry in last.items] + back
        assert last.next_url
    assert back == expected[:30]


def test_several_columns_give_named_tuples(session: Session) -> None:
    add_entries(session, 3)
    with flask.test_request_context("/x"):
        stmt = select(AuditLogEntry.action, AuditLogEntry.subject_id.label("number"))
        page = paginate(session, stmt, [AuditLogEntry.id], size=2)
    assert [tuple(item) for item in page] == [("v0", "0"), ("v1", "1")]
    assert page.items[0].number == "0"
    assert page.next_url is not None


def test_an_empty_list(session: Session) -> None:
    assert get_page(session, "/x", [AuditLogEntry.id]) == Page([], None, None)


@pytest.mark.parametrize("cursor", ["", "x", "e30", "W10", "WzFd.", "WyJhIl0", "W251bGxd", "W3t9XQ", "é", "A" * 9999])
def test_an_invalid_cursor_gives_the_first_page(session: Session, cursor: str) -> None:
    add_entries(session, 12)
    assert len(get_page(session, f"/x?after={cursor}", [AuditLogEntry.at, AuditLogEntry.id])) == 10


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_any_cursor_is_decoded_or_ignored(text: str) -> None:
    keys = [AuditLogEntry.at, AuditLogEntry.id]
    opened = _decode_cursor(text, keys)
    assert opened is None or len(opened) == 2
