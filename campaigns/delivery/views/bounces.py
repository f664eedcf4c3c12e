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
from campaigns.delivery.bounces.models import RECORDED_TYPES, FeedbackSource, FeedbackType, InboundMessage, Webhook
from campaigns.delivery.bounces.webhooks import PROVIDERS, ses
from campaigns.delivery.bounces.webhooks.provider import WebhookRejected
from campaigns.delivery.smtp.address import TlsMode
from campaigns.errors import KampaniaError, NotFound
from campaigns.i18n import N_
from campaigns.web.pages.error_pages import error_text
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("bounces", __name__, url_prefix="/bounces")
_PROVIDER = f"<any({','.join(source.value for source in PROVIDERS)}):name>"


@blueprint.get("")
def index() -> Any:
    current_actor().require(Permission.SETTINGS)
    session, settings = db_session(), config.settings()
    return render_template(
        "pages/delivery/bounces.html",
        bounce_domain=organisation(session).bounce_domain or "",
        sender_domain=organisation(session).sender_email.rpartition("@")[2],
        port=settings.bounce_port,
        base=settings.base_url,
        waiting=maildir.count_waiting(),
        standings=intake_settings.source_statuses(session),
        mailbox=intake_settings.find_mailbox(session),
        webhooks={source: session.get(Webhook, source) for source in PROVIDERS},
        kept=intake_settings.messages_to_inspect(session),
        sources=list(FeedbackSource),
        Source=FeedbackSource,
        recorded=[f for f in FeedbackType if f in RECORDED_TYPES],
        ignored=[finding for finding in FeedbackType if finding not in RECORDED_TYPES],
        tls=list(TlsMode),
    )


@blueprint.post("/domain")
def domain() -> Any:
    return _commit_or_flash(
        lambda: intake_settings.set_bounce_domain(db_session(), current_actor(), request.form.get("bounce_domain", "")),
        _("It is saved."),
    )


@blueprint.post(f"/webhooks/{_PROVIDER}")
def webhook(name: str) -> Any:
    form = request.form
    return _commit_or_flash(
        lambda: intake_settings.set_webhook(
            db_session(),
            current_actor(),
            FeedbackSource(name),
            form.get("secret", ""),
            form.get("topics", ""),
            active="active" in form,
        ),
        _("It is saved."),
    )


@blueprint.post("/webhooks/ses/subscription")
def subscription() -> Any:
    current_actor().require(Permission.SETTINGS)
    arn = request.form.get("topic", "")
    with db.read_only_session() as session:
        url = intake_settings.pending_subscription(session, current_actor(), arn)
    try:
        ses.confirm_subscription(arn, url)  # No transaction is open during the request to Amazon.
    except (WebhookRejected, OSError) as error:
        flash(_("Amazon could not be told: %(error)s", error=str(error)), "danger")
        return redirect("/bounces", 303)
    return _commit_or_flash(
        lambda: intake_settings.mark_subscribed(db_session(), current_actor(), arn), _("Amazon was told.")
    )


@blueprint.post("/mailbox")
def change_mailbox() -> Any:
    form = request.form
    port, tls = form.get("port", ""), form.get("tls", "")
    mailbox = MailboxInput(
        host=form.get("host", "").strip().rstrip(".").lower(),
        port=int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0,
        tls=TlsMode(tls) if tls in set(TlsMode) else TlsMode.IMPLICIT,
        user=form.get("user", "").strip(),
        password=form.get("password", ""),
        folder=form.get("folder", "").strip() or "INBOX",
        delete_messages="remove" in form,
        active="active" in form,
    )
    return _commit_or_flash(
        lambda: intake_settings.set_mailbox(db_session(), current_actor(), mailbox), _("It is saved.")
    )


@blueprint.post("/mailbox/trial")
def try_mailbox() -> Any:
    current_actor().require(Permission.SETTINGS)
    try:
        with db.read_only_session() as session:
            mailbox = intake_settings.mailbox_to_test(session, current_actor())
    except KampaniaError as error:
        flash(error_text(error), "danger")
        return redirect("/bounces", 303)
    result = imap.check_connection(mailbox)
    if result.error:
        flash(_("It cannot be read: %(error)s", error=result.error), "danger")
    else:
        flash(_("It can be read: %(count)s messages.", count=result.messages), "success")
    return redirect("/bounces", 303)


@blueprint.get("/kept/<int:arrival_id>")
def kept(arrival_id: int) -> Any:
    current_actor().require(Permission.SETTINGS)
    return render_template("pages/delivery/inbound_message.html", kept=_kept_message(arrival_id))


@blueprint.post("/kept/<int:arrival_id>/removal")
def throw_away(arrival_id: int) -> Any:
    current_actor().require(Permission.SETTINGS)
    message = _kept_message(arrival_id)
    return _commit_or_flash(lambda: queue.discard_content(db_session(), message.id), _("It is thrown away."))


def _kept_message(arrival_id: int) -> InboundMessage:
    message = db_session().get(InboundMessage, arrival_id)
    if message is None or message.raw is None:
        raise NotFound(N_("This message is not kept any more."))
    return message


def _commit_or_flash(action: Callable[[], object], success: str) -> Any:
    current_actor().require(Permission.SETTINGS)
    try:
        action()
        db_session().commit()
        flash(success, "success")
    except KampaniaError as error:
        db_session().rollback()
        flash(error_text(error), "danger")
    return redirect("/bounces", 303)
