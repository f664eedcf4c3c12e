"""WSGI endpoints of the page script: the script file and its reports, answered before Flask.

``/k.js``  the script
``/e``     its reports: a few hundred bytes of JSON by POST

A report is stored only when its Origin is a host that the organisation declares its own. Any other request gets the
same answer, 204, and stores nothing. No cookie is set or read and nothing redirects. The visitor's address is reduced
to its network before anything is written.
"""

import gzip
import json
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

import campaigns.web
from campaigns import clock
from campaigns.errors import InvalidTokenError
from campaigns.tokens import Purpose, keyring
from campaigns.web.fast_path import Answer, Environ, Header
from tracking.endpoints import ip_networks
from tracking.endpoints.request_context import EndpointContext, endpoint_context
from tracking.spool.record_codec import (
    MAX_ORIGIN_BYTES,
    MAX_REPORT_BYTES,
    MAX_USER_AGENT_BYTES,
    REPORT_KIND,
    RequestFlag,
    pack_fields,
)

log = structlog.get_logger(__name__)

SCRIPT = Path(campaigns.web.__file__).parent / "static" / "k.js"
MAX_REPORTS_PER_WINDOW = 1_000
"""Limit of reports per network and window. An office of some hundred people behind one address stays below it."""
WINDOW_SECONDS = 10.0
_MAX_NETWORKS = 50_000
_ANONYMOUS_FIELDS = frozenset("turpnvcexh")
"""Fields that are stored of a report whose browser opts out of tracking (DNT, Sec-GPC or the script's own flag)."""
_UNTRACKED = int(RequestFlag.UNTRACKED)
_MAX_TOKEN_LENGTH = 100
_BACKSLASH = ord("\\")  # JSON may spell a field name with escapes; a body with a backslash is parsed.
_SCRIPT_MAX_AGE = 3_600

_BASE_HEADERS: list[Header] = [("Cache-Control", "no-store"), ("Vary", "Origin")]
_NO_CONTENT: Answer = (204, _BASE_HEADERS, b"")
_TOO_LARGE: Answer = (413, [*_BASE_HEADERS, ("Content-Length", "0"), ("Connection", "close")], b"")
_TOO_MANY: Answer = (429, [*_BASE_HEADERS, ("Content-Length", "0"), ("Retry-After", f"{WINDOW_SECONDS:.0f}")], b"")


def handle_request(environ: Environ) -> Answer | None:
    """Status, headers and body for ``/e`` and ``/k.js``; None for any other path."""
    path = environ.get("PATH_INFO", "")
    if path == "/e":
        try:
            answer = _handle_report(environ)
        except Exception as error:  # A visited page must never show an error of this endpoint.
            log.exception("page_report.failed", error=str(error))
            answer = _NO_CONTENT
    elif path == "/k.js":
        answer = _serve_script(environ)
    else:
        return None
    return (*answer[:2], b"") if environ.get("REQUEST_METHOD") == "HEAD" else answer


def _handle_report(environ: Environ) -> Answer:
    method = environ.get("REQUEST_METHOD", "GET")
    if method != "POST":
        return _handle_other_method(method, environ)
    body = _read_body(environ)
    if body is None:
        return _TOO_LARGE
    context = endpoint_context()
    allowed = _cors_answer(environ.get("HTTP_ORIGIN", ""), context.link_targets.site_config().own_hosts)
    if allowed is None:
        return _NO_CONTENT
    remote = environ.get("REMOTE_ADDR", "")
    network = (
        context.resolve_network(remote, environ.get("HTTP_X_FORWARDED_FOR", ""))
        if context.behind_proxy
        else context.resolve_network(remote)
    )
    # A shared network number stands for many unrelated visitors: one of them must not exhaust the limit for all.
    if not ip_networks.is_shared(network) and not _flood_limit.allows(network):
        return _TOO_MANY
    answer, origin = allowed
    if body[:1] == b"{":
        _store_report(context, body, network, origin, environ)
    return answer


def _handle_other_method(method: str, environ: Environ) -> Answer:
    if method == "OPTIONS":
        allowed = _cors_answer(environ.get("HTTP_ORIGIN", ""), endpoint_context().link_targets.site_config().own_hosts)
        return 204, [*(allowed[0][1] if allowed else _BASE_HEADERS), *_PREFLIGHT_HEADERS], b""
    return 405, [*_BASE_HEADERS, ("Content-Length", "0"), ("Allow", "POST, OPTIONS")], b""


_PREFLIGHT_HEADERS: list[Header] = [
    ("Access-Control-Allow-Methods", "POST"),
    ("Access-Control-Allow-Headers", "Content-Type"),
    ("Access-Control-Max-Age", "86400"),
]


def _read_body(environ: Environ) -> bytes | None:
    """The request body; None when it is too large. A body with a larger Content-Length is not read at all."""
    length = _bytes_to_read(environ.get("CONTENT_LENGTH", ""))
    if length is None:
        return None
    body: bytes = environ["wsgi.input"].read(length)
    return None if len(body) > MAX_REPORT_BYTES else body


@lru_cache(maxsize=4_096)
def _bytes_to_read(content_length: str) -> int | None:
    """The number of bytes to read for this Content-Length; None when it exceeds the limit.

    Without a valid length one byte more than the limit is read, so that a longer body is detected.
    """
    if not content_length.isdecimal():
        return MAX_REPORT_BYTES + 1
    return int(content_length) if len(content_length) < 10 and int(content_length) <= MAX_REPORT_BYTES else None


def _store_report(context: EndpointContext, body: bytes, network: int, origin: bytes, environ: Environ) -> None:
    """Append the report to the spool. The body is stored unparsed and read by the collector, except when it carries a
    visit token or opts out of tracking.
    """
    flags, send_id = 0, 0
    opted_out = environ.get("HTTP_DNT") == "1" or environ.get("HTTP_SEC_GPC") == "1"
    if opted_out or _BACKSLASH in body or body.find(b'"k"') >= 0 or body.find(b'"d"') >= 0:
        report = _parse_object(body)
        if report is None:
            return
        if opted_out or report.get("d"):
            flags, network = _UNTRACKED, ip_networks.UNKNOWN_NETWORK
            body = json.dumps({name: value for name, value in report.items() if name in _ANONYMOUS_FIELDS}).encode()
        elif report.get("k"):
            send_id = send_of_visit_token(report["k"])
    payload = b"\n".join((_user_agent_bytes(environ.get("HTTP_USER_AGENT", "")), origin, body))
    context.store_record(pack_fields(clock.now_micros(), REPORT_KIND, flags, send_id, 0, network, payload))


@lru_cache(maxsize=4_096)
def _user_agent_bytes(user_agent: str) -> bytes:
    """The user agent as one line of at most ``MAX_USER_AGENT_BYTES``; the newline separates it from the rest of the
    payload.
    """
    return user_agent.encode("latin-1", "replace")[:MAX_USER_AGENT_BYTES].replace(b"\n", b" ")


def _parse_object(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def send_of_visit_token(token: object) -> int:
    """The send whose link brought the visitor; 0 when the token is malformed, forged or expired."""
    if not isinstance(token, str) or len(token) > _MAX_TOKEN_LENGTH:
        return 0
    try:
        payload = keyring().open_expiring(Purpose.VISIT, token)
    except (InvalidTokenError, ValueError):
        return 0
    send_id = int.from_bytes(payload) if len(payload) == 8 else 0
    return send_id if send_id < 1 << 63 else 0


@lru_cache(maxsize=4_096)
def _cors_answer(origin: str, hosts: frozenset[str]) -> tuple[Answer, bytes] | None:
    """The answer for an own host, with CORS headers, and the origin in bytes; None for a foreign origin. Own hosts may
    be declared with or without a port.

    ``navigator.sendBeacon`` sends requests with credentials. Browsers log an error unless the answer allows
    credentials, although the endpoint ignores them.
    """
    if len(origin) > MAX_ORIGIN_BYTES:
        return None
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    if parts.scheme not in ("https", "http") or not (parts.hostname in hosts or parts.netloc.lower() in hosts):
        return None
    cors_headers = [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
    return (204, [*_BASE_HEADERS, *cors_headers], b""), origin.encode("latin-1", "replace")


class _FloodLimit:
    """Count of reports per network in the current window, in this process. Approximate: it is not locked, so concurrent
    threads may miss a count.
    """

    def __init__(self) -> None:
        self._window_ends_at = 0.0
        self._counts: dict[int, int] = {}

    def allows(self, network: int) -> bool:
        now = clock.monotonic()
        if now >= self._window_ends_at or len(self._counts) > _MAX_NETWORKS:
            self._window_ends_at, self._counts = now + WINDOW_SECONDS, {}
        self._counts[network] = count = self._counts.get(network, 0) + 1
        return count <= MAX_REPORTS_PER_WINDOW


_flood_limit = _FloodLimit()


def _serve_script(environ: Environ) -> Answer:
    if environ.get("REQUEST_METHOD", "GET") not in ("GET", "HEAD"):
        return 405, [("Content-Length", "0"), ("Allow", "GET, HEAD")], b""
    plain, zipped, tag = _script_variants()
    headers = [
        ("Content-Type", "text/javascript; charset=utf-8"),
        ("Cache-Control", f"public, max-age={_SCRIPT_MAX_AGE}"),
        ("Cross-Origin-Resource-Policy", "cross-origin"),
        ("X-Content-Type-Options", "nosniff"),
        ("ETag", tag),
        ("Vary", "Accept-Encoding"),
    ]
    if tag in environ.get("HTTP_IF_NONE_MATCH", ""):
        return 304, headers, b""
    body = plain
    if "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
        headers, body = [*headers, ("Content-Encoding", "gzip")], zipped
    return 200, [*headers, ("Content-Length", str(len(body)))], body


@lru_cache(maxsize=1)
def _script_variants() -> tuple[bytes, bytes, str]:
    plain = SCRIPT.read_bytes()
    tag = blake2b(plain, digest_size=8).hexdigest()
    return plain, gzip.compress(plain, 9, mtime=0), f'"{tag}"'
