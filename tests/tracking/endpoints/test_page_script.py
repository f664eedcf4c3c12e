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
from tests.tracking.fixtures import call_wsgi, wsgi_environ, wsgi_request
from tests.tracking.page_script_site import HOST, Tab, collect_visits, declare_own_hosts, post_report
from tracking.endpoints import page_script
from tracking.spool.record_codec import MAX_REPORT_BYTES

VIEW = {"t": "v", "u": f"https://{HOST}/", "p": 1}


@pytest.fixture(autouse=True)
def site(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resets the flood limit and declares HOST an own host."""
    monkeypatch.setattr(page_script, "_flood_limit", page_script._FloodLimit())
    declare_own_hosts()


def spool_bytes(settings: config.Settings) -> bytes:
    return b"".join(path.read_bytes() for path in settings.spool.glob("*.spool"))


def test_the_script_is_small_and_cacheable() -> None:
    plain, packed = wsgi_request("/k.js"), wsgi_request("/k.js", accept_encoding="gzip, br")
    assert len(packed.body) < 2_048
    assert gzip.decompress(packed.body) == plain.body == page_script.SCRIPT.read_bytes()
    assert (plain.status, plain.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert "max-age" in plain.headers["Cache-Control"]
    again = wsgi_request("/k.js", if_none_match=plain.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    assert wsgi_request("/k.js", "POST").status == 405
    assert not re.search(rb"cookie\s*=", plain.body)


def test_a_report_is_answered_without_body_or_cookie() -> None:
    answer = post_report(VIEW)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers == {
        "Cache-Control": "no-store",
        "Vary": "Origin",
        "Access-Control-Allow-Origin": f"https://{HOST}",
        "Access-Control-Allow-Credentials": "true",
    }
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        assert wsgi_request("/e", method).status == 405


def test_cors_preflight() -> None:
    ours, theirs = (wsgi_request("/e", "OPTIONS", origin=f"https://{host}") for host in (HOST, "evil.example"))
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
def test_reports_from_foreign_origins_are_not_stored(settings: config.Settings, origin: str) -> None:
    answer = post_report(VIEW, origin)
    assert (answer.status, "Access-Control-Allow-Origin" in answer.headers) == (204, False)
    assert spool_bytes(settings) == b""


def test_origin_must_match_the_reported_page(settings: config.Settings) -> None:
    declare_own_hosts(HOST, "other.example")
    post_report({**VIEW, "u": "https://other.example/"})
    assert collect_visits() == []


class Endless(io.RawIOBase):
    """A request body without an end: reading until EOF would never return."""

    def __init__(self) -> None:
        self.read_so_far = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "read() without a limit"
        self.read_so_far += size
        return b"x" * size


def test_a_large_body_is_refused_unread(settings: config.Settings) -> None:
    with_length, without_length = Endless(), Endless()
    for body, length in ((with_length, {"CONTENT_LENGTH": "1048576"}), (without_length, {})):
        given = wsgi_environ("/e", "POST", origin=f"https://{HOST}")
        assert call_wsgi({**given, **length, "wsgi.input": body}).status == 413
    assert (with_length.read_so_far, without_length.read_so_far) == (0, MAX_REPORT_BYTES + 1)
    assert post_report({**VIEW, "x": "y" * (MAX_REPORT_BYTES - 100)}).status == 204
    assert post_report(b"{" + b" " * MAX_REPORT_BYTES).status == 413
    assert post_report(b"", content_length="-5").status == 204


def test_flood_limit_is_per_network(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, frozen: FrozenClock
) -> None:
    monkeypatch.setattr(page_script, "MAX_REPORTS_PER_WINDOW", 20)
    statuses = [post_report(VIEW, ip=f"93.184.216.{number}").status for number in range(30)]
    assert statuses == [204] * 20 + [429] * 10
    assert post_report(VIEW, ip="93.184.217.1").status == 204
    assert {post_report(VIEW, ip="10.0.0.1").status for _ in range(30)} == {204}, "says nothing about who asks"
    frozen.at += timedelta(seconds=page_script.WINDOW_SECONDS)
    assert post_report(VIEW, ip="93.184.216.1").status == 204


def test_ip_addresses_are_never_on_disk(settings: config.Settings, database: Engine, frozen: FrozenClock) -> None:
    Tab("/private?email=ana@example.org", ip="93.184.216.34").report()
    Tab(
        "/", ip="2606:2800:220:1:248:1893:25c8:1946", headers={"dnt": "1"}, extra_fields={"i": "abc", "k": "x"}
    ).report()
    written = spool_bytes(settings)
    for trace in (b"93.184.216.34", b"25c8", bytes([93, 184, 216, 34]), bytes([34, 216, 184, 93])):
        assert trace not in written
    assert b'"i"' not in written, "with Do Not Track no visitor id is stored either"
    collect_visits()
    on_disk = b"".join(path.read_bytes() for path in Path(settings.var).rglob("*") if path.is_file())
    assert b"93.184.216.34" not in on_disk


def test_opt_out_flag_may_be_spelled_with_escapes(settings: config.Settings) -> None:
    post_report(b'{"t":"v","u":"https://%s/","p":1,"i":"secret","\\u0064":1}' % HOST.encode())
    assert b"secret" not in spool_bytes(settings)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"t":"v"}', b'{"t":"z","u":"http://x","p":1}', b'{"k":' + b"[" * 99])
def test_invalid_reports_create_no_visit(body: bytes) -> None:
    assert post_report(body).status == 204
    assert collect_visits() == []


def test_a_spool_error_is_not_visible_to_the_page(settings: config.Settings) -> None:
    settings.spool.write_text("in the way")
    assert post_report(VIEW).status == 204


def test_an_internal_error_is_not_visible_to_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(page_script, "_store_report", breaks)
    assert post_report(json.dumps(VIEW).encode()).status == 204
