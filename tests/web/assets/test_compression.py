"""Compression of responses for clients that support it, with a random length."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context
from flask.testing import FlaskClient

from campaigns.web.assets import compression

TEXT = "What did this campaign bring? " * 200


@pytest.fixture
def client() -> FlaskClient:
    app = Flask("page")
    compression.init(app)
    views: dict[str, Callable[[], Any]] = {
        "page": lambda: TEXT,
        "little": lambda: "Nothing yet",
        "stream": lambda: Response(stream_with_context(iter([TEXT])), mimetype="text/html"),
        "picture": lambda: Response(TEXT.encode(), mimetype="image/png"),
        "gone": lambda: (TEXT, 404),
    }
    for name, view in views.items():
        app.add_url_rule(f"/{name}", name, view)
    return app.test_client()


def test_pages_are_compressed_for_clients_that_accept_gzip(client: FlaskClient) -> None:
    sent = client.get("/page", headers={"Accept-Encoding": "gzip, br"})
    assert sent.headers["Content-Encoding"] == "gzip"
    assert int(sent.headers["Content-Length"]) == len(sent.data) < len(TEXT) / 10
    assert gzip.decompress(sent.data).decode() == TEXT
    plain = client.get("/page")
    assert plain.get_data(as_text=True) == TEXT
    assert "Content-Encoding" not in plain.headers
    assert sent.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"


def test_small_streamed_and_binary_responses_are_not_compressed(client: FlaskClient) -> None:
    for name in ("little", "stream", "picture", "gone"):
        assert "Content-Encoding" not in client.get(f"/{name}", headers={"Accept-Encoding": "gzip"}).headers, name
    assert client.head("/page", headers={"Accept-Encoding": "gzip"}).status_code == 200


def test_compressed_lengths_vary() -> None:
    assert len({len(compression.gzip_padded(b"the same")) for _ in range(60)}) > 10
