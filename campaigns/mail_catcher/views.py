"""Pages of the mail catcher: the list of caught mails and one mail as its recipient sees it."""

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from functools import partial
from urllib.parse import urlencode, urlsplit

from flask import Blueprint, Response, abort, render_template, request

from campaigns import config
from campaigns.accounts.actor import Permission
from campaigns.mail_catcher.store import MailStore, StoredMail
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("mail_catcher", __name__)

_PAGE = 50


@blueprint.before_request
def _only_when_catching() -> None:
    """Require permission for personal data; 404 unless this installation uses the mail catcher as its relay."""
    if not config.settings().catcher:
        abort(404)
    actor().require(Permission.PERSONAL)


@blueprint.get("/catcher")
def catcher() -> str:
    address = request.args.get("address", "").strip()[:254]
    before, after = (request.args.get(name, type=int) for name in ("before", "after"))
    found = MailStore().mails(address=address, before=before, after=after, limit=_PAGE + 1)
    more = len(found) > _PAGE
    found = (found[1:] if after is not None else found[:_PAGE]) if more else found
    link = partial(_page, address)
    newer = link("after", found[0].id) if found and (more if after is not None else before is not None) else None
    older = link("before", found[-1].id) if found and (more or after is not None) else None
    return render_template(
        "pages/demo/catcher.html", mails=found, address=address, previous_url=newer, next_url=older, at=_at
    )


def _page(address: str, direction: str, number: int) -> str:
    return "/catcher?" + urlencode({**({"address": address} if address else {}), direction: number})


@blueprint.get("/catcher/<int:number>")
def mail(number: int) -> str:
    caught, message = _mail(number)
    return render_template(
        "pages/demo/mail.html",
        mail=caught,
        at=_at(caught),
        headers=list(message.items()),
        text=_body(message, "plain"),
        has_html=bool(_body(message, "html")),
        source=caught.raw.decode("utf-8", "replace"),
    )


@blueprint.get("/catcher/<int:number>/html")
def html(number: int) -> Response:
    """Return the HTML part for the sandboxed frame: no scripts, images only from our own hosts."""
    _, message = _mail(number)
    answer = Response(_opening_elsewhere(_body(message, "html")), mimetype="text/html")
    settings = config.settings()
    hosts = " ".join(sorted({_origin(settings.tracking_url), _origin(settings.base_url)}))
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; img-src {hosts} data:; style-src 'unsafe-inline'; "
        "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
    )
    answer.headers["X-Frame-Options"] = "SAMEORIGIN"
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def _mail(number: int) -> tuple[StoredMail, EmailMessage]:
    found = MailStore().mail(number)
    if found is None:
        abort(404)
    message = message_from_bytes(found.raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return found, message


def _body(message: EmailMessage, subtype: str) -> str:
    part: Message | None = message.get_body((subtype,))
    if part is None:
        return ""
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes):
        return ""
    try:
        return raw.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:  # unknown charset
        return raw.decode("ascii", "replace")


_BASE = '<base target="_blank">'


def _opening_elsewhere(page: str) -> str:
    """Make links open in a new tab, as mail clients do."""
    found = re.search(r"<head\b[^>]*>", page, re.IGNORECASE)
    return page[: found.end()] + _BASE + page[found.end() :] if found else _BASE + page


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _at(mail: StoredMail) -> datetime:
    return datetime.fromtimestamp(mail.at, UTC)
