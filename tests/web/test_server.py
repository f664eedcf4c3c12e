"""The server asks for quick answers first, and everything else takes its usual way."""

import sys
from types import ModuleType
from typing import Any

import pytest
from granian.server import mp

from campaigns.web import server

REQUEST = {"PATH_INFO": "/o/x", "REQUEST_METHOD": "GET"}


class Protocol:
    """What granian gives to an application."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.sent.append((status, headers, body))


def by_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("X-Software", environ["SERVER_SOFTWARE"])])
    return [b"by wsgi"]


def asked(options: dict[str, Any], access_log: str | None = None) -> tuple[int, list[tuple[str, str]], bytes]:
    protocol = Protocol()
    status = server.wrapped(by_wsgi, options, access_log)(protocol, dict(REQUEST))
    (sent,) = protocol.sent
    assert sent[0] == status
    return sent


def test_this_granian_takes_the_short_cut() -> None:
    assert getattr(mp, server._WRAP) is server.wrapped


def test_without_a_quick_answer_wsgi_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked({}) == (404, [("X-Software", "Granian")], b"by wsgi")
    monkeypatch.setattr(sys.modules[__name__], "quickly", lambda request: None, raising=False)
    assert asked({})[2] == b"by wsgi"


def test_a_quick_answer_sees_the_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def quickly(request: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        seen.append(request)
        return "302 Found", [("Location", "https://example.org/")], b""

    monkeypatch.setattr(sys.modules[__name__], "quickly", quickly, raising=False)
    assert asked({}) == (302, [("Location", "https://example.org/")], b"")
    assert seen == [REQUEST]
    monkeypatch.setitem(REQUEST, "PATH_INFO", "/prefix/o/x")
    assert asked({"url_path_prefix": "/prefix"})[2] == b"by wsgi"


def test_an_application_without_a_module_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_wsgi, "__module__", ModuleType("nowhere").__name__)
    assert asked({})[0] == 404
