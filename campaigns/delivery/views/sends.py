"""Pages of an email activity's progress and sends, and the endpoint of test mails."""

from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, stream_with_context, url_for
from flask_babel import gettext as _
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import Permission
from campaigns.content import versions
from campaigns.content.models import Message
from campaigns.delivery.bounces.effects import circuit_breaker
from campaigns.delivery.models import REASON_LABELS, Send, SendState, SkipReason
from campaigns.delivery.relays import availability, reply_stats
from campaigns.delivery.sends import csv_export, progress, resolution
from campaigns.delivery.sends.resolution import Resolution
from campaigns.delivery.transactional import test_sends
from campaigns.delivery.views.page_data import mailing
from campaigns.errors import KampaniaError, NotFound, ValidationFailed
from campaigns.i18n import N_
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.web.i18n.formatting import ngettext
from campaigns.web.pages.error_pages import problem_text, say
from campaigns.web.pages.fragment_polling import seal, unless_seen
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("delivery", __name__)


@blueprint.get("/activities/<int:activity_id>/progress")
def progress_page(activity_id: int) -> Any:
    session = db_session()
    found = mailing(session, activity_id)
    standing = _standing(session, found)
    return render_template(
        "pages/delivery/progress.html",
        counted=Markup(seal(render_template("pages/delivery/_counts.html", **standing))),  # noqa: S704  # ours
        **standing,
        **_controls(session, found),
    )


@blueprint.get("/activities/<int:activity_id>/progress/counts")
def progress_counts(activity_id: int) -> Any:
    session = db_session()
    return unless_seen(
        render_template("pages/delivery/_counts.html", **_standing(session, mailing(session, activity_id)))
    )


@blueprint.get("/activities/<int:activity_id>/progress/controls")
def progress_controls(activity_id: int) -> Any:
    """The buttons and the sends that need a decision; 204 when ``seen`` shows that they have not changed."""
    session = db_session()
    found = mailing(session, activity_id)
    controls = _controls(session, found)
    if request.args.get("seen") == controls["pressable"]:
        return "", 204
    return render_template("pages/delivery/_controls.html", activity=found, SendState=SendState, **controls)


@blueprint.get("/activities/<int:activity_id>/progress/domains")
def progress_domains(activity_id: int) -> Any:
    """Counts by recipient domain. Reads every send, so it is loaded on request only."""
    session = db_session()
    found = mailing(session, activity_id, Permission.PERSONAL)
    page = "_domains" if request.headers.get("HX-Request") else "progress_domains"
    return render_template(
        f"pages/delivery/{page}.html",
        activity=found,
        domains=progress.by_domain(session, found.id),
        SendState=SendState,
    )


def _standing(session: Session, found: Activity) -> dict[str, Any]:
    now = progress.progress(session, found, request.args.get("was", ""))
    return {
        "activity": found,
        "now": now,
        "answers": reply_stats.answers(session, found.id),
        "carried": reply_stats.by_relay(session, found.id),
        "trouble": availability.trouble(session),
        "harm": circuit_breaker.told(session, found.id) if found.status is ActivityStatus.PAUSED else None,
        "SendState": SendState,
        "pace": _pace(found, now),
    }


def _pace(found: Activity, now: progress.SendProgress) -> int:
    """Polling interval of the page in seconds; 0 when nothing changes any more."""
    if found.status is ActivityStatus.LIVE or now.done < now.total:
        return 2
    return 10 if found.status in (ActivityStatus.PAUSED, ActivityStatus.SCHEDULED) else 0


def _controls(session: Session, found: Activity) -> dict[str, Any]:
    counts = progress.counts(session, found.id)
    failed = resolution.again_possible(session, found.id)
    open_ = {state: counts.get(state, 0) for state in (SendState.UNKNOWN, SendState.HELD)}
    numbers = {**open_, SendState.FAILED: failed}
    return {
        "to_decide": numbers,
        "may_launch": actor().may(Permission.LAUNCH),
        "pressable": ".".join([found.status.value, *map(str, numbers.values())]),
    }


@blueprint.get("/activities/<int:activity_id>/sends")
def sends(activity_id: int) -> Any:
    session = db_session()
    found = mailing(session, activity_id, Permission.PERSONAL)
    asked = select(Send).where(Send.activity_id == found.id)
    wanted = request.args.get("state", "")
    state = SendState(wanted) if wanted in set(SendState) else None
    if state is not None:
        asked = asked.where(Send.state == state)
    reason = request.args.get("reason", "")
    if reason in set(SkipReason):
        asked = asked.where(Send.state == SendState.SKIPPED, Send.reason == reason)
    return render_template(
        "pages/delivery/sends.html",
        activity=found,
        page=page_of(session, asked, [Send.id]),
        state=state,
        counts=progress.counts(session, found.id),
        states=list(SendState),
        skip_label=REASON_LABELS,
        may_launch=actor().may(Permission.LAUNCH),
    )


@blueprint.get("/activities/<int:activity_id>/sends.csv")
def sends_csv(activity_id: int) -> Any:
    """CSV of the sends in ``state``; without it of those that did not arrive (csv_export.NOT_REACHED)."""
    found = mailing(db_session(), activity_id, Permission.EXPORT)
    wanted = request.args.get("state", "")
    chosen = (SendState(wanted),) if wanted in set(SendState) else csv_export.NOT_REACHED
    answer = Response(
        stream_with_context(piece.encode() for piece in csv_export.csv_of(actor(), found.id, chosen)),
        mimetype="text/csv",
    )
    name = f"sends-{found.id}{f'-{wanted}' if wanted in set(SendState) else ''}.csv"
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    answer.headers["Cache-Control"] = "no-store"
    return answer


@blueprint.post(
    "/activities/<int:activity_id>/sends/<any(unknown,held,failed):state>/<any(sent,failed,again):decision>"
)
def decide(activity_id: int, state: str, decision: str) -> Any:
    session = db_session()
    found = mailing(session, activity_id, Permission.LAUNCH)
    try:
        settled = resolution.decide(session, actor(), found, SendState(state), Resolution(decision), _one_send())
        session.commit()
        flash(ngettext("%(num)s send resolved.", "%(num)s sends resolved.", settled), "success")
    except KampaniaError as error:
        session.rollback()
        flash(say(error), "danger")
    return redirect(url_for("delivery.progress_page", activity_id=activity_id), 303)


def _one_send() -> int | None:
    """The send id of the form; None when there is none: the decision applies to all sends in the state."""
    text = request.form.get("send", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 2**63):
        raise NotFound(N_("There is no such send any more."))
    return int(text)


@blueprint.post("/messages/<int:message_id>/test-mail")
def send_test_mail(message_id: int) -> Any:
    actor().require(Permission.LAUNCH)
    with db.reading() as looking:
        versions.compile_ahead(looking, message_id)
    session = db_session()
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound(N_("There is no such message."))
    address = request.form.get("address", "").strip()
    try:
        sent = test_sends.send_tests(session, actor(), message, address, request.form.get("key", ""), _contact())
        session.commit()
        flash(
            _("A test mail is on its way to %(address)s.", address=", ".join(each.address for each in sent)), "success"
        )
    except ValidationFailed as error:
        session.rollback()
        flash("; ".join(map(problem_text, error.problems)), "danger")
    return redirect(_next(f"/messages/{message_id}"), 303)


def _contact() -> int | None:
    """Id of the contact whose values are merged into the test mail, or None."""
    text = request.form.get("contact", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _next(default: str) -> str:
    """The form's ``next``, if it is a path of this site; else ``default``. Protects against open redirects."""
    wanted = request.form.get("next", "")
    ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if ours else default
