"""Tests of the link check: links are requested, but never in a private network, also by DNS or redirects."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from campaigns.delivery.preflight.link_check import LinkChecker, is_public

REQUESTS: list[tuple[str, str]] = []


class _Site(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        REQUESTS.append((self.command, self.path))
        name, _, rest = self.path.strip("/").partition("/")
        if name == "slow":
            threading.Event().wait(1.5)
        if name == "loop":
            return self._answer(302, f"/loop/{len(REQUESTS)}")
        if name == "to":
            return self._answer(301, rest)
        if name == "moved":
            return self._answer(308, "/")
        if name == "nohead" and self.command == "HEAD":
            return self._answer(405)
        return self._answer(404 if name == "gone" else 200)

    do_GET = do_HEAD  # The name that http.server requires.

    def _answer(self, status: int, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://public.example:{server.server_port}"
        server.shutdown()
        thread.join()


HOSTS = {"public.example": ["127.0.0.1"], "inside.example": ["10.0.0.7"], "both.example": ["127.0.0.1", "10.0.0.7"]}


def lookup(host: str, _port: int) -> list[str]:
    if host not in HOSTS:
        raise OSError("no such name")
    return HOSTS[host]


CHECKER = LinkChecker(lookup=lookup, is_allowed=lambda address: address == "127.0.0.1")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/nohead", 200), ("/gone", 404), ("/moved", 200)],
    ids=["well", "get", "gone", "moved"],
)
def test_status(site: str, path: str, status: int) -> None:
    found = CHECKER.check_one(f"{site}{path}")
    assert found.status == status
    assert found.is_ok is (status == 200)


@pytest.mark.parametrize(
    "url",
    [
        "http://inside.example/",
        "http://both.example/",
        "http://nowhere.example/",
        "ftp://public.example/",
        "http://u@public.example/",
    ],
)
def test_refused_without_a_request(url: str) -> None:
    REQUESTS.clear()
    found = CHECKER.check_one(url)
    assert found.status is None
    assert found.message
    assert REQUESTS == []


def test_redirects_are_checked(site: str) -> None:
    found = CHECKER.check_one(f"{site}/to/http://inside.example/secret")
    assert (found.status, found.final_url) == (None, "http://inside.example/secret")
    assert "private network" in found.message
    REQUESTS.clear()
    assert "five redirects" in CHECKER.check_one(f"{site}/loop").message
    assert len(REQUESTS) == 6


def test_timeout(site: str) -> None:
    checker = LinkChecker(lookup=lookup, is_allowed=lambda _: True, timeout=0.2)
    assert checker.check_one(f"{site}/slow").status is None
    assert len(CHECKER.check_all([f"{site}/", f"{site}/", f"{site}/gone"])) == 2


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "2002:0a00:0001::",
        "224.0.0.1",
        "64:ff9b::a00:1",
    ],
)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2606:4700:4700::1111")
