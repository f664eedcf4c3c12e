"""Arbitrary input in any form field is accepted or refused, and never a server error.

Each field gets one of the unusual values in turn, on one of the databases; with ``TORTURE`` set all values on both.
"""

import os
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from tests.architecture.test_permissions import furnished as furnished
from tests.architecture.test_permissions import urls

ALL = bool(os.environ.get("TORTURE"))
TEXTS = ("a\x00b", "x" * 30_000, "\u202e\u2066🦔 ی‌ک <b>\"'")
NUMBERS = ("-1", "1e400", "NaN", "9" * 40, "0.001")
DATES = ("0001-01-01", "9999-12-31", "2026-13-40")
INSTANTS = ("0001-01-01T00:00", "9999-12-31T23:59")
UNUSUAL_VALUES = {
    "date": DATES,
    "datetime-local": INSTANTS,
    "number": NUMBERS,
    "hidden": TEXTS[:2],
    "select": (TEXTS[0], "9" * 30),
}
QUERIES = (
    "?q=a%00b",
    "?after=WyJhYmMiXQ",
    "?before=WyJhXHUwMDAwIl0",
    "?after=WyJcdWQ4MDAiLCJhIl0",
    "?list=9" + "9" * 30,
    "?before=0001-01-01T00:00:00%2B14:00",
    "?after=W3sidCI6IjAwMDEtMDEtMDFUMDA6MDA6MDArMTQ6MDAifSwgMV0",
    "?stage=x&campaign=999999999999999&owner=%D9%A3&state=x&status=x&channel=x&contact=999999999999999999",
)


class FormParser(HTMLParser):
    """The forms of a page with method POST: (action, {field: value}, {field: type})."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self._in_post_form = False
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        if tag == "form":
            self._in_post_form = attributes.get("method", "").lower() == "post"
            if self._in_post_form:
                self.forms.append((attributes.get("action", ""), {}, {}))
        if not self._in_post_form:
            return
        _, values, kinds = self.forms[-1]
        name = attributes.get("name", "")
        if tag in ("input", "textarea", "select") and name:
            kinds[name] = attributes.get("type", "text") if tag == "input" else tag
            if tag == "input" and (attributes.get("type") not in ("checkbox", "radio") or "checked" in attributes):
                values[name] = attributes.get("value", "")
            self._select = name if tag == "select" else ""
        if tag == "option" and self._select and ("selected" in attributes or self._select not in values):
            values[self._select] = attributes.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._in_post_form = False


def post_forms(client: FlaskClient, app: Flask) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    seen = set()
    for _, page in urls(app, "GET"):
        reader = FormParser()
        answer = client.get(page)
        assert answer.status_code < 500, page
        assert answer.status_code != 403, page
        reader.feed(answer.get_data(as_text=True))
        for action, values, kinds in reader.forms:
            path = action or page
            if (path, *sorted(kinds)) not in seen and any(kind not in ("hidden", "submit") for kind in kinds.values()):
                seen.add((path, *sorted(kinds)))
                yield path, values, kinds


def test_every_field_of_every_form(furnished: Flask, owner_client: FlaskClient, database: Engine) -> None:
    server_errors, requests, on_second_database = [], 0, database.dialect.name == "postgresql"
    for path, present, kinds in list(post_forms(owner_client, furnished)):
        if path == "/me/password":
            continue  # It would end the session; the authentication tests cover passwords.
        filled = {
            name: value
            or {"email": "a@b.example", "text": "Words", "textarea": "Words"}.get(kinds.get(name, ""), value)
            for name, value in present.items()
        }
        for name, kind in kinds.items():
            if kind in ("checkbox", "radio", "file", "submit"):
                continue
            values = UNUSUAL_VALUES.get(kind, TEXTS)
            for value in values if ALL else (values[requests % len(values)],):
                requests += 1
                if not ALL and requests % 2 == on_second_database:
                    continue
                status = owner_client.post(path, data={**filled, name: value}).status_code
                if status >= 500:
                    server_errors.append((path, name, value[:20], status))
    assert server_errors == []
    assert requests > 60


def test_every_page_with_any_query(furnished: Flask, owner_client: FlaskClient) -> None:
    asked = [
        path + question
        for place, (_, path) in enumerate(urls(furnished, "GET"))
        for question in (QUERIES if ALL else (QUERIES[place % len(QUERIES)],))
    ]
    assert [(path, status) for path in asked if (status := owner_client.get(path).status_code) >= 500] == []


@pytest.mark.parametrize(
    "path",
    [
        "/f/a%00b",
        "/f/%ff",
        "/u/a%00b",
        "/password/reset/%00",
        "/static/%00",
        "/static/../wsgi.py",
        "/messages/starters/%00/preview",
        "/messages/starters/..%2f..%2fx/preview",
    ],
)
def test_any_url(furnished: Flask, owner_client: FlaskClient, path: str) -> None:
    assert owner_client.get(path).status_code in (400, 404)


def test_public_forms(furnished: Flask, client: FlaskClient) -> None:
    for path in ("/f/form-1", "/f/form-1/embed", "/sign-in", "/password/forgot"):
        for value in TEXTS:
            data = dict.fromkeys(("email", "password", "first_name", "k", "external_id", "next", "consent"), value)
            assert client.post(path, data=data).status_code < 500, (path, value[:10])
            data |= {"email": "somebody@b.example", "external_id": "0" * 32}
            assert client.post(path, data=data).status_code < 500, (path, value[:10])
