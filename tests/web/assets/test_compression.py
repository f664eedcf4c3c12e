"""Compression of responses for clients that support it, with a random length."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context
from flask.testing import FlaskClient

from campaigns.web.assets import compression

WORDS = "What did this campaign bring? " * 200


@pytest.fixture
def client() -> FlaskClient:
    app = Flask("page")
    compression.init(app)
    made: dict[str, Callable[[], Any]] = {
        "page": lambda: WORDS,
        "little": lambda: "Nothing yet",
        "stream": lambda: Response(stream_with_context(iter([WORDS])), mimetype="text/html"),
        "picture": lambda: Response(WORDS.encode(), mimetype="image/png"),
        "gone": lambda: (WORDS, 404),
    }
    for name, view in made.items():
        app.add_url_rule(f"/{name}", name, view)
    return app.test_client()


def test_pages_are_compressed_for_those_who_ask(client: FlaskClient) -> None:
    sent = client.get("/page", headers={"Accept-Encoding": "gzip, br"})
    assert sent.headers["Content-Encoding"] == "gzip"
    assert int(sent.headers["Content-Length"]) == len(sent.data) < len(WORDS) / 10
    assert gzip.decompress(sent.data).decode() == WORDS
    plain = client.get("/page")
    assert plain.get_data(as_text=True) == WORDS
    assert "Content-Encoding" not in plain.headers
    assert sent.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"


def test_what_is_little_streamed_or_no_text_stays_as_it_is(client: FlaskClient) -> None:
    for name in ("little", "stream", "picture", "gone"):
        assert "Content-Encoding" not in client.get(f"/{name}", headers={"Accept-Encoding": "gzip"}).headers, name
    assert client.head("/page", headers={"Accept-Encoding": "gzip"}).status_code == 200


def test_lengths_tell_nothing() -> None:
    assert len({len(compression.zipped(b"the same")) for _ in range(60)}) > 10
