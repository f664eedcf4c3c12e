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


class FakeProtocol:
    """Fake of granian's protocol object."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.sent.append((status, headers, body))


def wsgi_application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("X-Software", environ["SERVER_SOFTWARE"])])
    return [b"by wsgi"]


def respond(options: dict[str, Any], access_log: str | None = None) -> tuple[int, list[tuple[str, str]], bytes]:
    protocol = FakeProtocol()
    status = wsgi_server.wrap_application(wsgi_application, options, access_log)(protocol, dict(REQUEST))
    (sent,) = protocol.sent
    assert sent[0] == status
    return sent


def test_the_installed_granian_uses_the_fast_path() -> None:
    assert getattr(mp, wsgi_server._WRAP_NAME) is wsgi_server.wrap_application


def test_without_a_fast_answer_wsgi_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert respond({}) == (404, [("X-Software", "Granian")], b"by wsgi")
    monkeypatch.setattr(sys.modules[__name__], "answer_fast", lambda request: None, raising=False)
    assert respond({})[2] == b"by wsgi"


def test_the_fast_path_gets_the_request_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def answer_fast(request: dict[str, Any]) -> Answer:
        seen.append(request)
        return 302, [("Location", "https://example.org/")], b""

    monkeypatch.setattr(sys.modules[__name__], "answer_fast", answer_fast, raising=False)
    assert respond({}) == (302, [("Location", "https://example.org/")], b"")
    assert seen == [REQUEST]
    monkeypatch.setitem(REQUEST, "PATH_INFO", "/prefix/o/x")
    assert respond({"url_path_prefix": "/prefix"})[2] == b"by wsgi"


def test_a_stream_runs_in_its_own_thread() -> None:
    ended, threads = Event(), []

    class Streaming(FakeProtocol):
        def response_iter(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
            threads.append(current_thread())
            self.sent.append((status, headers, next(body)))
            ended.set()

    def streaming(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        kind = "text/event-stream; charset=utf-8" if environ.get(server_sent_events.OWN_THREAD) else "text/plain"
        start_response("200 OK", [("Content-Type", kind)])
        return iter([b"first"])

    for accept in ("text/event-stream", "*/*"):
        ended.clear()
        wsgi_server.wrap_application(streaming, {})(Streaming(), REQUEST | {"HTTP_ACCEPT": accept})
        assert ended.wait(60)
    assert [thread is current_thread() for thread in threads] == [False, True]


def test_stopping_the_server_ends_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(server_sent_events, "change_poller", server_sent_events.ChangePoller())
    monkeypatch.setattr(wsgi_server, "_granian_set_signals", lambda stop, *others: stop(15, None))
    vars(_signals)["set_main_signals"](
        lambda *arguments: calls.append((arguments, server_sent_events.change_poller.stopped.is_set()))
    )
    assert calls == [((15, None), True)]


def test_an_application_without_a_module_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi_application, "__module__", ModuleType("nowhere").__name__)
    assert respond({})[0] == 404
