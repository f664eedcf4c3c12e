"""SQLite's write lock is not held during slow operations, which would block every other writer."""

import io
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, create_engine

from campaigns import db
from campaigns.content.mjml import subprocess_sandbox
from tests.factories import make_form, make_message


def can_write(engine: Engine) -> bool:
    """Whether another connection could write now."""
    if engine.dialect.name != "sqlite":
        return True
    other = create_engine(engine.url, connect_args={"timeout": 0})
    try:
        with other.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql("ROLLBACK")
        return True
    except Exception:
        return False
    finally:
        other.dispose()


class SlowBody(io.BytesIO):
    """A request body that records, at each read, whether others could write at that moment."""

    def __init__(self, body: bytes, engine: Engine) -> None:
        super().__init__(body)
        self.engine, self.could_write = engine, list[bool]()

    def readinto(self, buffer: Any, /) -> int:
        self.could_write.append(can_write(self.engine))
        return super().readinto(buffer)


@pytest.mark.parametrize("path", ["/sign-in", "/password/forgot", "/me/language", "/contacts/new", "/f/form-1"])
def test_a_slow_upload_holds_no_write_lock(
    app: Flask, owner_client: FlaskClient, client: FlaskClient, database: Engine, path: str
) -> None:
    with db.transaction() as session:
        make_form(session, slug="form-1")
    body = SlowBody(b"email=somebody&password=x&name=x", database)
    browser = owner_client if path in ("/me/language", "/contacts/new") else client
    browser.post(
        path, input_stream=body, content_type="application/x-www-form-urlencoded", content_length=len(body.getvalue())
    )
    assert body.could_write
    assert all(body.could_write)


@pytest.mark.parametrize("what", ["check", "preview", "", "test-mail"])
def test_compiling_holds_no_write_lock(
    coordinator_client: FlaskClient, database: Engine, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with db.transaction() as session:
        message = make_message(session, subject=f"A subject for {what} {database.dialect.name}")
    could_write: list[bool] = []
    real_ask = subprocess_sandbox.run_in_sandbox

    def ask(question: Any, *rest: Any) -> Any:
        could_write.append(can_write(database))
        return real_ask(question, *rest)

    monkeypatch.setattr(subprocess_sandbox, "run_in_sandbox", ask)
    path = f"/messages/{message.id}/{what}".rstrip("/")
    data = {
        "mjml": f"<mjml><mj-body><!-- {what} {database.dialect.name} --></mj-body></mjml>",
        "language": "en",
        "subject": "x" * 600,
        "revision": "1",
        "name": "x",
        "address": "me@acme.example",
    }
    assert coordinator_client.post(path, data=data).status_code in (200, 303, 400)
    assert could_write
    assert all(could_write)
