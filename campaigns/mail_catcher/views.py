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
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("mail_catcher", __name__)

_PAGE_SIZE = 50


@blueprint.before_request
def _require_catcher() -> None:
    """Require permission for personal data; 404 unless this installation uses the mail catcher as its relay."""
    if not config.settings().catcher:
        abort(404)
    current_actor().require(Permission.PERSONAL)


@blueprint.get("/catcher")
def catcher() -> str:
    address = request.args.get("address", "").strip()[:254]
    before, after = (request.args.get(name, type=int) for name in ("before", "after"))
    mails = MailStore().mails(address=address, before=before, after=after, limit=_PAGE_SIZE + 1)
    more = len(mails) > _PAGE_SIZE
    mails = (mails[1:] if after is not None else mails[:_PAGE_SIZE]) if more else mails
    link = partial(_page_url, address)
    newer = link("after", mails[0].id) if mails and (more if after is not None else before is not None) else None
    older = link("before", mails[-1].id) if mails and (more or after is not None) else None
    return render_template(
        "pages/mail_catcher/mails.html",
        mails=mails,
        address=address,
        previous_url=newer,
        next_url=older,
        at=_received_at,
    )


def _page_url(address: str, direction: str, mail_id: int) -> str:
    return "/catcher?" + urlencode({**({"address": address} if address else {}), direction: mail_id})


@blueprint.get("/catcher/<int:number>")
def mail(number: int) -> str:
    stored, message = _load_mail(number)
    return render_template(
        "pages/mail_catcher/mail.html",
        mail=stored,
        at=_received_at(stored),
        headers=list(message.items()),
        text=_decoded_body(message, "plain"),
        has_html=bool(_decoded_body(message, "html")),
        source=stored.raw.decode("utf-8", "replace"),
    )


@blueprint.get("/catcher/<int:number>/html")
def html(number: int) -> Response:
    """Return the HTML part for the sandboxed frame: no scripts, images only from our own hosts."""
    _, message = _load_mail(number)
    response = Response(_with_blank_target(_decoded_body(message, "html")), mimetype="text/html")
    settings = config.settings()
    hosts = " ".join(sorted({_origin(settings.tracking_url), _origin(settings.base_url)}))
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; img-src {hosts} data:; style-src 'unsafe-inline'; "
        "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
    )
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _load_mail(mail_id: int) -> tuple[StoredMail, EmailMessage]:
    stored = MailStore().mail(mail_id)
    if stored is None:
        abort(404)
    message = message_from_bytes(stored.raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return stored, message


def _decoded_body(message: EmailMessage, subtype: str) -> str:
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


_BASE_TAG = '<base target="_blank">'


def _with_blank_target(page: str) -> str:
    """Make links open in a new tab, as mail clients do."""
    head_tag = re.search(r"<head\b[^>]*>", page, re.IGNORECASE)
    return page[: head_tag.end()] + _BASE_TAG + page[head_tag.end() :] if head_tag else _BASE_TAG + page


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _received_at(mail: StoredMail) -> datetime:
    return datetime.fromtimestamp(mail.received_at, UTC)
