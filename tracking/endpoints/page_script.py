"""The page script and what it reports, answered by plain WSGI before Flask sees them.

``/k.js``  the script
``/e``     its reports: a few hundred bytes of JSON by POST

A report is kept when it comes from a page of a host that the organisation declares its own. Whatever
else arrives gets the same answer, 204, and leaves nothing. No cookie is set or read, nothing redirects,
and the visitor's address is cut to its network before anything is written.
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
from campaigns.errors import BadToken
from campaigns.tokens import Purpose, keyring
from campaigns.web.fast_path import Answer, Environ, Header
from tracking.endpoints import ip_networks
from tracking.endpoints.request_context import EndpointContext, desk
from tracking.spool.record_codec import LONGEST_ORIGIN, LONGEST_REPORT, LONGEST_USER_AGENT, REPORT, RequestFlag, packed

log = structlog.get_logger(__name__)

SCRIPT = Path(campaigns.web.__file__).parent / "static" / "k.js"
PER_WINDOW = 1_000
"""Reports of one network in a window: an office of some hundred people behind one address stays below."""
WINDOW_SECONDS = 10.0
_MOST_NETWORKS = 50_000
_ANYBODYS = frozenset("turpnvcexh")
"""What is kept of a report when its browser asks not to be tracked."""
_UNTRACKED = int(RequestFlag.UNTRACKED)
_LONGEST_TOKEN = 100
_BACKSLASH = ord("\\")  # Names in another spelling have one.
_SCRIPT_SECONDS = 3_600

_QUIET: list[Header] = [("Cache-Control", "no-store"), ("Vary", "Origin")]
_NOTHING: Answer = (204, _QUIET, b"")
_TOO_LARGE: Answer = (413, [*_QUIET, ("Content-Length", "0"), ("Connection", "close")], b"")
_TOO_MANY: Answer = (429, [*_QUIET, ("Content-Length", "0"), ("Retry-After", f"{WINDOW_SECONDS:.0f}")], b"")


def answered(environ: Environ) -> Answer | None:
    """Status, headers and body for one of our paths; None for any other."""
    path = environ.get("PATH_INFO", "")
    if path == "/e":
        try:
            answer = _report(environ)
        except Exception as error:  # Whatever breaks in here, a visited page never sees an error of ours.
            log.exception("beacons.failed", error=str(error))
            answer = _NOTHING
    elif path == "/k.js":
        answer = _script(environ)
    else:
        return None
    return (*answer[:2], b"") if environ.get("REQUEST_METHOD") == "HEAD" else answer


def _report(environ: Environ) -> Answer:
    method = environ.get("REQUEST_METHOD", "GET")
    if method != "POST":
        return _unsent(method, environ)
    body = _body(environ)
    if body is None:
        return _TOO_LARGE
    at = desk()
    allowed = _allowed(environ.get("HTTP_ORIGIN", ""), at.known.site().hosts)
    if allowed is None:
        return _NOTHING
    remote = environ.get("REMOTE_ADDR", "")
    network = at.network(remote, environ.get("HTTP_X_FORWARDED_FOR", "")) if at.proxied else at.network(remote)
    # Many may ask from an address that says nothing; refusing them all would be somebody else's doing.
    if not ip_networks.is_shared(network) and not _counter.admits(network):
        return _TOO_MANY
    answer, origin = allowed
    if body[:1] == b"{":
        _keep(at, body, network, origin, environ)
    return answer


def _unsent(method: str, environ: Environ) -> Answer:
    if method == "OPTIONS":
        allowed = _allowed(environ.get("HTTP_ORIGIN", ""), desk().known.site().hosts)
        return 204, [*(allowed[0][1] if allowed else _QUIET), *_PREFLIGHT], b""
    return 405, [*_QUIET, ("Content-Length", "0"), ("Allow", "POST, OPTIONS")], b""


_PREFLIGHT: list[Header] = [
    ("Access-Control-Allow-Methods", "POST"),
    ("Access-Control-Allow-Headers", "Content-Type"),
    ("Access-Control-Max-Age", "86400"),
]


def _body(environ: Environ) -> bytes | None:
    """The body; None for one that is too large, which is not read."""
    length = _length(environ.get("CONTENT_LENGTH", ""))
    if length is None:
        return None
    body: bytes = environ["wsgi.input"].read(length)
    return None if len(body) > LONGEST_REPORT else body


@lru_cache(maxsize=4_096)
def _length(given: str) -> int | None:
    """How much to read of a body whose header gives this length; None when that is too much."""
    if not given.isdecimal():
        return LONGEST_REPORT + 1
    return int(given) if len(given) < 10 and int(given) <= LONGEST_REPORT else None


def _keep(at: EndpointContext, body: bytes, network: int, origin: bytes, environ: Environ) -> None:
    """Most reports are kept as they came, and read by the collector: only who came by a mail or asks not to be
    tracked is looked at here."""
    flags, send_id = 0, 0
    asks = environ.get("HTTP_DNT") == "1" or environ.get("HTTP_SEC_GPC") == "1"
    if asks or _BACKSLASH in body or body.find(b'"k"') >= 0 or body.find(b'"d"') >= 0:
        said = _read(body)
        if said is None:
            return
        if asks or said.get("d"):
            flags, network = _UNTRACKED, ip_networks.UNKNOWN
            body = json.dumps({name: value for name, value in said.items() if name in _ANYBODYS}).encode()
        elif said.get("k"):
            send_id = sent_by(said["k"])
    words = b"\n".join((_agent(environ.get("HTTP_USER_AGENT", "")), origin, body))
    at.keep(packed(clock.micros(), REPORT, flags, send_id, 0, network, words))


@lru_cache(maxsize=4_096)
def _agent(said: str) -> bytes:
    """In one line."""
    return said.encode("latin-1", "replace")[:LONGEST_USER_AGENT].replace(b"\n", b" ")


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def sent_by(token: object) -> int:
    """The send by whose link the visitor came; 0 when the token says nothing, is forged or too old."""
    if not isinstance(token, str) or len(token) > _LONGEST_TOKEN:
        return 0
    try:
        payload = keyring().open_expiring(Purpose.VISIT, token)
    except (BadToken, ValueError):
        return 0
    send_id = int.from_bytes(payload) if len(payload) == 8 else 0
    return send_id if send_id < 1 << 63 else 0


@lru_cache(maxsize=4_096)
def _allowed(origin: str, hosts: frozenset[str]) -> tuple[Answer, bytes] | None:
    """What a page of one of our own hosts is told, and the origin as it is kept; None for others. Hosts may be declared
    with or without their port.

    Our pages may read the empty answer. Browsers send their beacons with credentials, and complain in their console
    unless that is allowed, too; nobody here looks at them.
    """
    if len(origin) > LONGEST_ORIGIN:
        return None
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    if parts.scheme not in ("https", "http") or not (parts.hostname in hosts or parts.netloc.lower() in hosts):
        return None
    may_read = [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
    return (204, [*_QUIET, *may_read], b""), origin.encode("latin-1", "replace")


class _FloodLimit:
    """How many reports each network sent in this window, in this process. It slows floods down; it is no accounting,
    so threads that count at once may miss one."""

    def __init__(self) -> None:
        self._until = 0.0
        self._seen: dict[int, int] = {}

    def admits(self, network: int) -> bool:
        now = clock.steady()
        if now >= self._until or len(self._seen) > _MOST_NETWORKS:
            self._until, self._seen = now + WINDOW_SECONDS, {}
        self._seen[network] = count = self._seen.get(network, 0) + 1
        return count <= PER_WINDOW


_counter = _FloodLimit()


def _script(environ: Environ) -> Answer:
    if environ.get("REQUEST_METHOD", "GET") not in ("GET", "HEAD"):
        return 405, [("Content-Length", "0"), ("Allow", "GET, HEAD")], b""
    plain, zipped, tag = _served()
    headers = [
        ("Content-Type", "text/javascript; charset=utf-8"),
        ("Cache-Control", f"public, max-age={_SCRIPT_SECONDS}"),
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
def _served() -> tuple[bytes, bytes, str]:
    plain = SCRIPT.read_bytes()
    tag = blake2b(plain, digest_size=8).hexdigest()
    return plain, gzip.compress(plain, 9, mtime=0), f'"{tag}"'
