"""``/k.js`` and ``/e``: small script, CORS for own hosts only, no address on disk."""

import gzip
import io
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from campaigns import config
from tests.conftest import FrozenClock
from tests.tracking.fixtures import ask, asked, environ
from tests.tracking.page_script_site import HOST, Tab, open_site, post, visits
from tracking.endpoints import page_script
from tracking.spool.record_codec import LONGEST_REPORT

VIEW = {"t": "v", "u": f"https://{HOST}/", "p": 1}


@pytest.fixture(autouse=True)
def site(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resets the flood limit and declares HOST an own host."""
    monkeypatch.setattr(page_script, "_counter", page_script._FloodLimit())
    open_site()


def spooled(settings: config.Settings) -> bytes:
    return b"".join(path.read_bytes() for path in settings.spool.glob("*.spool"))


def test_the_script_is_small_and_kept_for_a_while() -> None:
    plain, packed = ask("/k.js"), ask("/k.js", accept_encoding="gzip, br")
    assert len(packed.body) < 2_048
    assert gzip.decompress(packed.body) == plain.body == page_script.SCRIPT.read_bytes()
    assert (plain.status, plain.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert "max-age" in plain.headers["Cache-Control"]
    again = ask("/k.js", if_none_match=plain.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    assert ask("/k.js", "POST").status == 405
    assert not re.search(rb"cookie\s*=", plain.body)


def test_an_answer_is_empty_and_sets_nothing() -> None:
    answer = post(VIEW)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers == {
        "Cache-Control": "no-store",
        "Vary": "Origin",
        "Access-Control-Allow-Origin": f"https://{HOST}",
        "Access-Control-Allow-Credentials": "true",
    }
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        assert ask("/e", method).status == 405


def test_a_browser_may_ask_first() -> None:
    ours, theirs = (ask("/e", "OPTIONS", origin=f"https://{host}") for host in (HOST, "evil.example"))
    assert (ours.status, ours.headers["Access-Control-Allow-Origin"]) == (204, f"https://{HOST}")
    assert ours.headers["Access-Control-Allow-Methods"] == "POST"
    assert (theirs.status, "Access-Control-Allow-Origin" in theirs.headers) == (204, False)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://evil.example",
        f"https://{HOST}.evil.example",
        f"ftp://{HOST}",
        "https://[",
        f"https://a@{HOST}x",
        f"https://{'a' * 300}@{HOST}",
    ],
)
def test_foreign_origins_leave_nothing(settings: config.Settings, origin: str) -> None:
    answer = post(VIEW, origin)
    assert (answer.status, "Access-Control-Allow-Origin" in answer.headers) == (204, False)
    assert spooled(settings) == b""


def test_a_page_of_ours_cannot_speak_for_another(settings: config.Settings) -> None:
    open_site(HOST, "other.example")
    post({**VIEW, "u": "https://other.example/"})
    assert visits() == []


class Endless(io.RawIOBase):
    """A request body without an end: reading until EOF would never return."""

    def __init__(self) -> None:
        self.read_so_far = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "the whole of it"
        self.read_so_far += size
        return b"x" * size


def test_a_megabyte_is_refused_unread(settings: config.Settings) -> None:
    told, untold = Endless(), Endless()
    for body, length in ((told, {"CONTENT_LENGTH": "1048576"}), (untold, {})):
        given = environ("/e", "POST", origin=f"https://{HOST}")
        assert asked({**given, **length, "wsgi.input": body}).status == 413
    assert (told.read_so_far, untold.read_so_far) == (0, LONGEST_REPORT + 1)
    assert post({**VIEW, "x": "y" * (LONGEST_REPORT - 100)}).status == 204
    assert post(b"{" + b" " * LONGEST_REPORT).status == 413
    assert post(b"", content_length="-5").status == 204


def test_a_flood_from_one_network_is_held_and_others_are_not(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, frozen: FrozenClock
) -> None:
    monkeypatch.setattr(page_script, "PER_WINDOW", 20)
    statuses = [post(VIEW, ip=f"93.184.216.{number}").status for number in range(30)]
    assert statuses == [204] * 20 + [429] * 10
    assert post(VIEW, ip="93.184.217.1").status == 204
    assert {post(VIEW, ip="10.0.0.1").status for _ in range(30)} == {204}, "says nothing about who asks"
    frozen.at += timedelta(seconds=page_script.WINDOW_SECONDS)
    assert post(VIEW, ip="93.184.216.1").status == 204


def test_no_address_is_ever_on_disk(settings: config.Settings, database: Engine, frozen: FrozenClock) -> None:
    Tab("/private?email=ana@example.org", ip="93.184.216.34").tell()
    Tab("/", ip="2606:2800:220:1:248:1893:25c8:1946", headers={"dnt": "1"}, more={"i": "abc", "k": "x"}).tell()
    written = spooled(settings)
    for told in (b"93.184.216.34", b"25c8", bytes([93, 184, 216, 34]), bytes([34, 216, 184, 93])):
        assert told not in written
    assert b'"i"' not in written, "whoever asks not to be tracked has no id on disk either"
    visits()
    on_disk = b"".join(path.read_bytes() for path in Path(settings.var).rglob("*") if path.is_file())
    assert b"93.184.216.34" not in on_disk


def test_no_spelling_hides_who_asks_not_to_be_tracked(settings: config.Settings) -> None:
    post(b'{"t":"v","u":"https://%s/","p":1,"i":"secret","\\u0064":1}' % HOST.encode())
    assert b"secret" not in spooled(settings)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"t":"v"}', b'{"t":"z","u":"http://x","p":1}', b'{"k":' + b"[" * 99])
def test_what_the_script_never_says_is_no_visit(body: bytes) -> None:
    assert post(body).status == 204
    assert visits() == []


def test_a_disk_that_is_full_never_shows(settings: config.Settings) -> None:
    settings.spool.write_text("in the way")
    assert post(VIEW).status == 204


def test_what_breaks_inside_is_no_error_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(page_script, "_keep", breaks)
    assert post(json.dumps(VIEW).encode()).status == 204
