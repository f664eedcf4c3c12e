"""Settings pages of bounce and complaint intake: sources, their status, and unparsed messages."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns import config, db
from campaigns.accounts.actor import Permission
from campaigns.accounts.organisation import organisation
from campaigns.delivery.bounces.intake import imap, maildir, queue
from campaigns.delivery.bounces.intake import settings as intake_settings
from campaigns.delivery.bounces.intake.settings import MailboxInput
from campaigns.delivery.bounces.models import RECORDED, FeedbackSource, FeedbackType, InboundMessage, Webhook
from campaigns.delivery.bounces.webhooks import PROVIDERS, ses
from campaigns.delivery.bounces.webhooks.common import WebhookRejected
from campaigns.delivery.smtp.address import TlsMode
from campaigns.errors import KampaniaError, NotFound
from campaigns.i18n import N_
from campaigns.web.pages.error_pages import say
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("bounces", __name__, url_prefix="/bounces")
_PROVIDER = f"<any({','.join(way.value for way in PROVIDERS)}):name>"


@blueprint.get("")
def index() -> Any:
    actor().require(Permission.SETTINGS)
    session, settings = db_session(), config.settings()
    return render_template(
        "pages/delivery/bounces.html",
        bounce_domain=organisation(session).bounce_domain or "",
        sender_domain=organisation(session).sender_email.rpartition("@")[2],
        port=settings.bounce_port,
        base=settings.base_url,
        waiting=maildir.waiting(),
        standings=intake_settings.standings(session),
        mailbox=intake_settings.mailbox(session),
        webhooks={way: session.get(Webhook, way) for way in PROVIDERS},
        kept=intake_settings.for_a_look(session),
        ways=list(FeedbackSource),
        Way=FeedbackSource,
        recorded=[f for f in FeedbackType if f in RECORDED],
        ignored=[finding for finding in FeedbackType if finding not in RECORDED],
        tls=list(TlsMode),
    )


@blueprint.post("/domain")
def domain() -> Any:
    return _tried(
        lambda: intake_settings.set_domain(db_session(), actor(), request.form.get("bounce_domain", "")),
        _("It is saved."),
    )


@blueprint.post(f"/webhooks/{_PROVIDER}")
def webhook(name: str) -> Any:
    form = request.form
    return _tried(
        lambda: intake_settings.set_webhook(
            db_session(),
            actor(),
            FeedbackSource(name),
            form.get("secret", ""),
            form.get("topics", ""),
            active="active" in form,
        ),
        _("It is saved."),
    )


@blueprint.post("/webhooks/ses/subscription")
def subscription() -> Any:
    actor().require(Permission.SETTINGS)
    arn = request.form.get("topic", "")
    with db.reading() as session:
        url = intake_settings.pending_subscription(session, actor(), arn)
    try:
        ses.confirm(arn, url)  # No transaction is open during the request to Amazon.
    except (WebhookRejected, OSError) as error:
        flash(_("Amazon could not be told: %(error)s", error=str(error)), "danger")
        return redirect("/bounces", 303)
    return _tried(lambda: intake_settings.subscribed(db_session(), actor(), arn), _("Amazon was told."))


@blueprint.post("/mailbox")
def change_mailbox() -> Any:
    form = request.form
    port, tls = form.get("port", ""), form.get("tls", "")
    words = MailboxInput(
        host=form.get("host", "").strip().rstrip(".").lower(),
        port=int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0,
        tls=TlsMode(tls) if tls in set(TlsMode) else TlsMode.IMPLICIT,
        user=form.get("user", "").strip(),
        password=form.get("password", ""),
        folder=form.get("folder", "").strip() or "INBOX",
        delete_messages="remove" in form,
        active="active" in form,
    )
    return _tried(lambda: intake_settings.set_mailbox(db_session(), actor(), words), _("It is saved."))


@blueprint.post("/mailbox/trial")
def try_mailbox() -> Any:
    actor().require(Permission.SETTINGS)
    try:
        with db.reading() as session:
            found = intake_settings.mailbox_to_try(session, actor())
    except KampaniaError as error:
        flash(say(error), "danger")
        return redirect("/bounces", 303)
    look = imap.attempt(found)
    if look.error:
        flash(_("It cannot be read: %(error)s", error=look.error), "danger")
    else:
        flash(_("It can be read: %(count)s messages.", count=look.messages), "success")
    return redirect("/bounces", 303)


@blueprint.get("/kept/<int:arrival_id>")
def kept(arrival_id: int) -> Any:
    actor().require(Permission.SETTINGS)
    return render_template("pages/delivery/kept.html", kept=_kept(arrival_id))


@blueprint.post("/kept/<int:arrival_id>/removal")
def throw_away(arrival_id: int) -> Any:
    actor().require(Permission.SETTINGS)
    found = _kept(arrival_id)
    return _tried(lambda: queue.throw_away(db_session(), found.id), _("It is thrown away."))


def _kept(arrival_id: int) -> InboundMessage:
    found = db_session().get(InboundMessage, arrival_id)
    if found is None or found.raw is None:
        raise NotFound(N_("This message is not kept any more."))
    return found


def _tried(verb: Callable[[], object], done: str) -> Any:
    actor().require(Permission.SETTINGS)
    try:
        verb()
        db_session().commit()
        flash(done, "success")
    except KampaniaError as error:
        db_session().rollback()
        flash(say(error), "danger")
    return redirect("/bounces", 303)
