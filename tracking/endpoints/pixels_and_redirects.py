"""WSGI endpoints of open pixels, link redirects, short links and view pixels, answered before Flask.

``/o/<token>``  the open pixel of a send
``/c/<token>/<n>``  link *n* of a send: a redirect to the target stored for it
``/l/<code>``  a short link of an activity that is sent elsewhere: a redirect without a recipient
``/v/<slug>``  the view pixel of a landing page; ``?k=`` carries the visit token of the send that brought the visitor

An answer never waits for the spool and never fails with it. An invalid token gets the same GIF, or a page that says so,
but never a redirect (no open redirector) and never a server error.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import structlog

from campaigns import clock
from campaigns.content.rendering import links
from campaigns.errors import InvalidTokenError, TemporaryError, ValidationFailed, ValidationProblem
from campaigns.tokens import Purpose, keyring
from campaigns.web.fast_path import Answer, Environ, Header
from tracking.endpoints import link_targets
from tracking.endpoints.link_targets import LinkTarget, LinkTargetCache
from tracking.endpoints.request_context import EndpointContext, endpoint_context
from tracking.models.events import HitKind
from tracking.spool.record_codec import MAX_USER_AGENT_BYTES, RequestFlag, pack_fields

log = structlog.get_logger(__name__)

GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c000000000100010000020144003b")
_PIXEL_HEADERS = [
    ("Content-Type", "image/gif"),
    ("Cache-Control", "no-cache, no-store, must-revalidate, max-age=0, private"),
]
_REDIRECT_HEADERS = [
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Robots-Tag", "noindex"),
]
_PAGE_HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Robots-Tag", "noindex"),
]
_PREFETCH_HEADERS = ("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_PURPOSE", "HTTP_X_MOZ")
_VISIT_MINUTES = 30
_RETRY_AFTER_SECONDS = 30
# Plain integers: arithmetic on enum members runs Python code for every hit (CPU per answer: tests/benchmarks/hits.py).
_OPEN, _CLICK, _VIEW = int(HitKind.OPEN), int(HitKind.CLICK), int(HitKind.VIEW)
_HEAD, _PREFETCH, _NAVIGATED = int(RequestFlag.HEAD), int(RequestFlag.PREFETCH), int(RequestFlag.NAVIGATED)
_SEQUENCE_MASK = 0xFFFFFFFF  # The sequence number in a send's id. 0 marks a token that is the same for all recipients.


def handle_request(environ: Environ) -> Answer | None:
    """Status, headers and body for one of these paths; None for any other path."""
    path: str = environ["PATH_INFO"]
    handler = _HANDLERS.get(path[:3])
    if handler is None:
        return None
    method = environ["REQUEST_METHOD"]
    try:
        answer = handler(path[3:], environ, endpoint_context()) if method in _ALLOWED_METHODS else _NOT_ALLOWED
    except Exception as error:  # Recipients must never see a server error.
        log.exception("hit.failed", error=str(error))
        answer = _error_page(HTTPStatus.NOT_FOUND) if handler in (_handle_click, _handle_short_link) else _PIXEL_ANSWER
    if method == "HEAD":
        status, headers, body = answer
        return status, [*headers, ("Content-Length", str(len(body)))], b""
    return answer  # Granian derives Content-Length from a body of one piece.


_PIXEL_ANSWER: Answer = (200, _PIXEL_HEADERS, GIF)


def _error_page(status: HTTPStatus, *extra_headers: Header) -> Answer:
    body = _PAGE_MESSAGES[status].join(_PAGE_PARTS).encode()
    return status.value, [*_PAGE_HEADERS, *extra_headers], body


_PAGE_PARTS = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>Link</title><p>',
    "</p></html>\n",
)
_PAGE_MESSAGES = {
    HTTPStatus.NOT_FOUND: "This link is incomplete or was changed.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address can only be looked at.",
    HTTPStatus.GONE: "Whoever sent this link has switched it off. It leads nowhere any more.",
    HTTPStatus.SERVICE_UNAVAILABLE: "This link cannot be followed just now. Please try again in a minute.",
}


_ALLOWED_METHODS = ("GET", "HEAD")
_NOT_ALLOWED = _error_page(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))


def _handle_open(token: str, environ: Environ, context: EndpointContext) -> Answer:
    try:
        send_id = context.open_token(token)
    except InvalidTokenError:
        return _PIXEL_ANSWER
    _store_hit(context, _OPEN, send_id, 0, environ)
    return _PIXEL_ANSWER


def _handle_click(rest: str, environ: Environ, context: EndpointContext) -> Answer:
    token, _, digits = rest.partition("/")
    try:
        send_id = context.open_token(token)
        target = context.link_targets.resolved.get((send_id >> 32, digits)) or _resolve_link(
            context.link_targets, send_id, digits
        )
    except InvalidTokenError:
        return _error_page(HTTPStatus.NOT_FOUND)
    except TemporaryError:
        return _try_later()
    if target is None:
        return _error_page(HTTPStatus.NOT_FOUND)
    number, answer, around_visit_token = target
    if around_visit_token is not None and send_id & _SEQUENCE_MASK:
        answer = _redirect(_mint_visit_token(send_id).join(around_visit_token))
    _store_hit(context, _CLICK, send_id, number, environ)
    return answer


def _handle_short_link(code: str, environ: Environ, context: EndpointContext) -> Answer:
    cache = context.link_targets
    try:
        link = cache.short_link(code)
    except TemporaryError:
        return _try_later()
    if link is None:
        return _error_page(HTTPStatus.NOT_FOUND)
    answer = (
        _redirect_to_target(link.url, cache.site_config().own_hosts)[0] if link.url else _error_page(HTTPStatus.GONE)
    )
    _store_hit(context, _CLICK, link.activity_id << 32, link.number, environ)
    return answer


def _redirect(location: str) -> Answer:
    return 302, [("Location", location), *_REDIRECT_HEADERS], b""


def _try_later() -> Answer:
    return _error_page(HTTPStatus.SERVICE_UNAVAILABLE, ("Retry-After", str(_RETRY_AFTER_SECONDS)))


def _handle_view(slug: str, environ: Environ, context: EndpointContext) -> Answer:
    activity_id = context.link_targets.landing_page_activity(slug)
    if activity_id is not None:
        _store_hit(context, _VIEW, _visiting_send(environ.get("QUERY_STRING", "")), activity_id, environ)
    return _PIXEL_ANSWER


_HANDLERS: dict[str, Callable[[str, Environ, EndpointContext], Answer]] = {
    "/o/": _handle_open,
    "/c/": _handle_click,
    "/l/": _handle_short_link,
    "/v/": _handle_view,
}


@lru_cache(maxsize=1_000)
def _parse_link_number(digits: str) -> int:
    """The link number, accepted only in its canonical spelling; 0 for anything else."""
    if 0 < len(digits) <= 5 and digits.isascii() and digits.isdigit() and digits[0] != "0":
        return int(digits)
    return 0


def _visiting_send(query: str) -> int:
    """The send id in the visit token ``k`` of a query string; 0 when there is none or it is invalid."""
    try:
        tokens = parse_qs(query, max_num_fields=10).get("k", [])
        payload = keyring().open_expiring(Purpose.VISIT, tokens[0]) if tokens else b""
    except (InvalidTokenError, ValueError):
        return 0
    return int.from_bytes(payload) if len(payload) == 8 else 0


def _resolve_link(cache: LinkTargetCache, send_id: int, digits: str) -> LinkTarget | None:
    """Resolve a link and cache the answer when it is the same for all recipients; None when there is no such link.

    Raises TemporaryError when the link is unknown on this host and the database is down.
    """
    # Taken before the target is read: a concurrent change replaces the dictionary, so that a stale answer is lost.
    resolved = cache.resolved
    number = _parse_link_number(digits)
    url = cache.url(send_id, number) if number else None
    if url is None:
        return None
    try:
        merged = link_targets.personalise_url(url, send_id)
        answer_and_token_place = (
            _redirect_to_target(merged, cache.site_config().own_hosts)
            if url != link_targets.SWITCHED_OFF
            else (_error_page(HTTPStatus.GONE), None)
        )
    except (ValidationFailed, ValueError) as error:
        log.warning("hit.target_missing", send=send_id, error=str(error))
        return None
    target = LinkTarget(number, *answer_and_token_place)
    if merged == url and cache.uses_activity_links(send_id):
        resolved[send_id >> 32, digits] = target
    return target


@lru_cache(maxsize=10_000)
def _redirect_to_target(url: str, hosts: frozenset[str]) -> tuple[Answer, tuple[str, str] | None]:
    """The redirect to a merged target; for a page on an own host also the URL parts around the visit token.

    Raises ValidationFailed or ValueError when the URL is not a valid target.
    """
    ascii_url = links.to_ascii_url(url)
    fault = links.url_problem(ascii_url, hosts)
    if fault is not None:
        raise ValidationFailed(ValidationProblem(fault))
    is_own_host = urlsplit(ascii_url).hostname in hosts
    return _redirect(ascii_url), _split_at_visit_token(ascii_url) if is_own_host else None


def _split_at_visit_token(url: str) -> tuple[str, str]:
    """The URL before and after the value of ``k``. An existing ``k`` parameter is removed."""
    parts = urlsplit(url)
    kept = [part for part in parts.query.split("&") if part and part.partition("=")[0] != "k"]
    before = parts._replace(query="&".join([*kept, "k="]), fragment="").geturl()
    return before, f"#{parts.fragment}" if parts.fragment else ""


def _mint_visit_token(send_id: int) -> str:
    expires = clock.now() + timedelta(minutes=_VISIT_MINUTES)
    return keyring().mint_expiring(Purpose.VISIT, send_id.to_bytes(8), expires)


def _store_hit(context: EndpointContext, kind: int, target: int, number: int, environ: Environ) -> None:
    flags = _HEAD if environ["REQUEST_METHOD"] == "HEAD" else 0
    if environ.get("HTTP_SEC_FETCH_USER") == "?1":
        flags |= _NAVIGATED
    # Four separate lookups instead of a loop: every hit passes here (CPU per answer: tests/benchmarks/hits.py), and few
    # requests carry one of these headers.
    if (
        "HTTP_SEC_PURPOSE" in environ
        or "HTTP_PURPOSE" in environ
        or "HTTP_X_PURPOSE" in environ
        or "HTTP_X_MOZ" in environ
    ) and any("prefetch" in environ.get(header, "").lower() for header in _PREFETCH_HEADERS):
        flags |= _PREFETCH
    remote = environ.get("REMOTE_ADDR", "")
    network = (
        context.resolve_network(remote, environ.get("HTTP_X_FORWARDED_FOR", ""))
        if context.behind_proxy
        else context.resolve_network(remote)
    )
    agent = environ.get("HTTP_USER_AGENT", "").encode("latin-1", "replace")
    if len(agent) > MAX_USER_AGENT_BYTES:
        agent = agent[:MAX_USER_AGENT_BYTES]
    context.store_record(pack_fields(clock.now_micros(), kind, flags, target, number, network, agent))
