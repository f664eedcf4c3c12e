"""The web server's fast path, its fallback to WSGI, and streamed responses."""

import sys
from collections.abc import Iterator
from threading import Event, current_thread
from types import ModuleType
from typing import Any

import pytest
from granian import _signals
from granian.server import mp

from campaigns.web import wsgi_server
from campaigns.web.fast_path import Answer
from campaigns.web.pages import server_sent_events

REQUEST = {"PATH_INFO": "/o/x", "REQUEST_METHOD": "GET"}


class Protocol:
    """Fake of granian's protocol object."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.sent.append((status, headers, body))


def by_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("X-Software", environ["SERVER_SOFTWARE"])])
    return [b"by wsgi"]


def asked(options: dict[str, Any], access_log: str | None = None) -> tuple[int, list[tuple[str, str]], bytes]:
    protocol = Protocol()
    status = wsgi_server.wrapped(by_wsgi, options, access_log)(protocol, dict(REQUEST))
    (sent,) = protocol.sent
    assert sent[0] == status
    return sent


def test_this_granian_takes_the_short_cut() -> None:
    assert getattr(mp, wsgi_server._WRAP) is wsgi_server.wrapped


def test_without_a_quick_answer_wsgi_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked({}) == (404, [("X-Software", "Granian")], b"by wsgi")
    monkeypatch.setattr(sys.modules[__name__], "quickly", lambda request: None, raising=False)
    assert asked({})[2] == b"by wsgi"


def test_a_quick_answer_sees_the_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def quickly(request: dict[str, Any]) -> Answer:
        seen.append(request)
        return 302, [("Location", "https://example.org/")], b""

    monkeypatch.setattr(sys.modules[__name__], "quickly", quickly, raising=False)
    assert asked({}) == (302, [("Location", "https://example.org/")], b"")
    assert seen == [REQUEST]
    monkeypatch.setitem(REQUEST, "PATH_INFO", "/prefix/o/x")
    assert asked({"url_path_prefix": "/prefix"})[2] == b"by wsgi"


def test_a_stream_gets_a_thread_of_its_own() -> None:
    ended, threads = Event(), []

    class Streaming(Protocol):
        def response_iter(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
            threads.append(current_thread())
            self.sent.append((status, headers, next(body)))
            ended.set()

    def streaming(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        kind = "text/event-stream; charset=utf-8" if environ.get(server_sent_events.ASIDE) else "text/plain"
        start_response("200 OK", [("Content-Type", kind)])
        return iter([b"first"])

    for accept in ("text/event-stream", "*/*"):
        ended.clear()
        wsgi_server.wrapped(streaming, {})(Streaming(), REQUEST | {"HTTP_ACCEPT": accept})
        assert ended.wait(60)
    assert [thread is current_thread() for thread in threads] == [False, True]


def test_who_stops_the_server_ends_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(server_sent_events, "watch", server_sent_events.ChangePoller())
    monkeypatch.setattr(wsgi_server, "_listen", lambda stop, *others: stop(15, None))
    vars(_signals)["set_main_signals"](lambda *said: heard.append((said, server_sent_events.watch.ended.is_set())))
    assert heard == [((15, None), True)]


def test_an_application_without_a_module_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_wsgi, "__module__", ModuleType("nowhere").__name__)
    assert asked({})[0] == 404
