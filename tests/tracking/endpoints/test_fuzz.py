"""Fuzzing of pixels and links: no server error and no redirect for malformed input.

Some hundred malformed tokens, paths and headers by default; 100,000 with ``TORTURE`` set.
"""

import os
import random
import socket
import string
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from campaigns import db
from campaigns.migrations import schema
from campaigns.tokens import Purpose, mint_send_token
from tests.e2e.installation import free_port
from tests.tracking.fixtures import Mailing, call_wsgi, make_mailing, wsgi_environ
from tests.tracking.web_server import raw_request, web_server
from tracking.endpoints import link_targets

TORTURE = bool(os.environ.get("TORTURE"))
WSGI_REQUESTS, SERVER_REQUESTS = (100_000, 5_000) if TORTURE else (800, 100)
PATH_PREFIXES = ("/o/", "/c/", "/l/", "/v/")
TOKEN_CHARACTERS = string.ascii_letters + string.digits + "-_"
MALICIOUS_PARTS = (
    "%00",
    "%ff",
    "%0d%0aX: 1",
    "..",
    "//",
    "\\",
    "%2e%2e%2f",
    "=",
    "+",
    "%",
    "%zz",
    "é".encode().hex(),
    "?url=//e.vil",
)


def malformed_path(chance: random.Random, mailing: Mailing) -> str:
    """A malformed path."""
    token = mailing.token(chance.randrange(len(mailing.sends)))
    kind = chance.randrange(8)
    if kind == 0:
        token = "".join(chance.choices(TOKEN_CHARACTERS, k=chance.randrange(60)))
    elif kind == 1:
        at = chance.randrange(len(token))
        token = token[:at] + chance.choice(TOKEN_CHARACTERS.replace(token[at], "")) + token[at + 1 :]
    elif kind == 2:
        token = token[: chance.randrange(len(token))]
    elif kind == 3:
        token += "".join(chance.choices(TOKEN_CHARACTERS + "=/+", k=chance.randrange(1, 40)))
    elif kind == 4:
        at = chance.randrange(len(token))
        token = token[:at] + chance.choice(MALICIOUS_PARTS) + token[at:]
    elif kind == 5:
        token = mint_send_token(chance.choice([p for p in Purpose if p is not Purpose.ENGAGEMENT]), mailing.sends[0])
    elif kind == 6:
        token = chance.choice(TOKEN_CHARACTERS) * chance.choice((28, 512, 8_000))
    else:
        token = mint_send_token(Purpose.ENGAGEMENT, chance.getrandbits(64) | 1 << 48)
    number = chance.choice(["1", "2", "0", "-1", "99999", "1/2", "٣", "", "1e3"]) if chance.random() < 0.8 else ""
    prefix = chance.choice(PATH_PREFIXES)
    return f"{prefix}{token}/{number}" if prefix == "/c/" else f"{prefix}{token}"


def random_text(chance: random.Random) -> str:
    """A random Latin-1 string of up to 5,000 characters."""
    length = chance.choice((0, 1, 30, 500, 5_000))
    return "".join(map(chr, chance.choices(range(256), k=length)))


def test_malformed_wsgi_requests_never_redirect_or_fail(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_targets, "_MISSING_TTL_SECONDS", 0.01)
    mailing, chance = make_mailing(5), random.Random(3)
    statuses: Counter[int] = Counter()
    for _ in range(WSGI_REQUESTS):
        asking = wsgi_environ(
            malformed_path(chance, mailing),
            chance.choice(["GET", "GET", "HEAD", "POST", "", random_text(chance)]),
            random_text(chance),
            random_text(chance),
            user_agent=random_text(chance),
            x_forwarded_for=random_text(chance),
            sec_purpose=random_text(chance),
        )
        answer = call_wsgi(asking)
        statuses[answer.status] += 1
        assert "Location" not in answer.headers, asking
    assert set(statuses) <= {200, 404, 405}, statuses


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    var, port = tmp_path_factory.mktemp("var"), free_port()
    engine = db.make_engine(f"sqlite:///{var / 'kampania.db'}")
    schema.upgrade(engine)
    engine.dispose()
    with web_server(var, port):
        yield port, var


def test_malformed_server_requests_never_redirect_or_fail(running: tuple[int, Path]) -> None:
    port, var = running
    db.set_engine(db.make_engine(f"sqlite:///{var / 'kampania.db'}"))
    mailing, chance = make_mailing(3), random.Random(4)
    for _ in range(SERVER_REQUESTS):
        path = malformed_path(chance, mailing).encode("latin-1", "replace").replace(b" ", b"%20")
        status, headers = raw_request(port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert status in (200, 400, 404, 414, 431), (path[:200], status)
        assert b"location:" not in headers.lower(), path[:200]


HEADERS = {
    "64 KB of user agent": b"User-Agent: " + b"x" * 65_000 + b"\r\n",
    "more than is allowed": b"User-Agent: " + b"x" * 1_000_000 + b"\r\n",
    "thousands of headers": b"".join(b"X-%d: 1\r\n" % n for n in range(5_000)),
    "ninety headers": b"".join(b"X-%d: 1\r\n" % n for n in range(90)),
    "NUL": b"User-Agent: a\0b\r\n",
    "no UTF-8": b"User-Agent: \xff\xfe\x80\r\nX-Forwarded-For: \xff\r\nSec-Purpose: \xff\r\n",
    "the same twice": b"User-Agent: a\r\nUser-Agent: b\r\nContent-Length: 0\r\n",
    "a bare line feed": b"X: a\nLocation: http://e.vil/\r\n",
    "a body that never comes": b"Content-Length: 99999999\r\n",
}


@pytest.mark.parametrize("name", HEADERS)
def test_junk_in_headers(running: tuple[int, Path], name: str) -> None:
    port, _ = running
    for path in (b"/o/x", b"/c/x/1", b"/l/x"):
        asking = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + HEADERS[name] + b"\r\n"
        status, headers = raw_request(port, asking)
        assert status in (0, 200, 400, 404, 431), status  # 0: the server closed the connection.
        assert b"location:" not in headers.lower()
    assert raw_request(port, b"GET /o/x HTTP/1.0\r\n\r\n")[0] == 200


def test_slow_clients_do_not_block_others(running: tuple[int, Path]) -> None:
    port, _ = running
    slow = []
    for _ in range(200):
        one = socket.create_connection(("127.0.0.1", port))
        one.send(b"GET /o/x HTTP/1.1\r\nHost: x\r\nUser-Ag")
        slow.append(one)
    late = threading.Timer(20, lambda: None)
    late.start()
    assert raw_request(port, b"GET /o/x HTTP/1.0\r\n\r\n")[0] == 200
    assert late.is_alive()
    late.cancel()
    for one in slow:
        one.close()
