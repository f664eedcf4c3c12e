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
from campaigns.delivery.views.page_data import email_activity
from campaigns.errors import KampaniaError, NotFound, ValidationFailed
from campaigns.i18n import N_
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.web.i18n.formatting import ngettext
from campaigns.web.pages.error_pages import error_text, problem_text
from campaigns.web.pages.fragment_polling import unless_unchanged, with_version
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("delivery", __name__)


@blueprint.get("/activities/<int:activity_id>/progress")
def progress_page(activity_id: int) -> Any:
    session = db_session()
    activity = email_activity(session, activity_id)
    context = _progress_context(session, activity)
    return render_template(
        "pages/delivery/progress.html",
        counted=Markup(with_version(render_template("pages/delivery/_counts.html", **context))),  # noqa: S704  # ours
        **context,
        **_controls_context(session, activity),
    )


@blueprint.get("/activities/<int:activity_id>/progress/counts")
def progress_counts(activity_id: int) -> Any:
    session = db_session()
    return unless_unchanged(
        render_template(
            "pages/delivery/_counts.html", **_progress_context(session, email_activity(session, activity_id))
        )
    )


@blueprint.get("/activities/<int:activity_id>/progress/controls")
def progress_controls(activity_id: int) -> Any:
    """The buttons and the sends that need a decision; 204 when ``seen`` shows that they have not changed."""
    session = db_session()
    activity = email_activity(session, activity_id)
    controls = _controls_context(session, activity)
    if request.args.get("seen") == controls["pressable"]:
        return "", 204
    return render_template("pages/delivery/_controls.html", activity=activity, SendState=SendState, **controls)


@blueprint.get("/activities/<int:activity_id>/progress/domains")
def progress_domains(activity_id: int) -> Any:
    """Counts by recipient domain. Reads every send, so it is loaded on request only."""
    session = db_session()
    activity = email_activity(session, activity_id, Permission.PERSONAL)
    page = "_domains" if request.headers.get("HX-Request") else "progress_domains"
    return render_template(
        f"pages/delivery/{page}.html",
        activity=activity,
        domains=progress.by_domain(session, activity.id),
        SendState=SendState,
    )


def _progress_context(session: Session, activity: Activity) -> dict[str, Any]:
    send_progress = progress.measure_progress(session, activity, request.args.get("was", ""))
    return {
        "activity": activity,
        "now": send_progress,
        "answers": reply_stats.reply_groups(session, activity.id),
        "carried": reply_stats.throughput_by_relay(session, activity.id),
        "trouble": availability.failing_relay(session),
        "harm": circuit_breaker.trip_rates(session, activity.id) if activity.status is ActivityStatus.PAUSED else None,
        "SendState": SendState,
        "pace": _poll_seconds(activity, send_progress),
    }


def _poll_seconds(activity: Activity, send_progress: progress.SendProgress) -> int:
    """Polling interval of the page in seconds; 0 when nothing changes any more."""
    if activity.status is ActivityStatus.LIVE or send_progress.done < send_progress.total:
        return 2
    return 10 if activity.status in (ActivityStatus.PAUSED, ActivityStatus.SCHEDULED) else 0


def _controls_context(session: Session, activity: Activity) -> dict[str, Any]:
    counts = progress.count_by_state(session, activity.id)
    resendable = resolution.count_resendable(session, activity.id)
    undecided = {state: counts.get(state, 0) for state in (SendState.UNKNOWN, SendState.HELD)}
    numbers = {**undecided, SendState.FAILED: resendable}
    return {
        "to_decide": numbers,
        "may_launch": current_actor().may(Permission.LAUNCH),
        "pressable": ".".join([activity.status.value, *map(str, numbers.values())]),
    }


@blueprint.get("/activities/<int:activity_id>/sends")
def sends(activity_id: int) -> Any:
    session = db_session()
    activity = email_activity(session, activity_id, Permission.PERSONAL)
    query = select(Send).where(Send.activity_id == activity.id)
    state_arg = request.args.get("state", "")
    state = SendState(state_arg) if state_arg in set(SendState) else None
    if state is not None:
        query = query.where(Send.state == state)
    reason = request.args.get("reason", "")
    if reason in set(SkipReason):
        query = query.where(Send.state == SendState.SKIPPED, Send.reason == reason)
    return render_template(
        "pages/delivery/sends.html",
        activity=activity,
        page=paginate(session, query, [Send.id]),
        state=state,
        counts=progress.count_by_state(session, activity.id),
        states=list(SendState),
        skip_label=REASON_LABELS,
        may_launch=current_actor().may(Permission.LAUNCH),
    )


@blueprint.get("/activities/<int:activity_id>/sends.csv")
def sends_csv(activity_id: int) -> Any:
    """CSV of the sends in ``state``; without it of those that did not arrive (csv_export.NOT_REACHED)."""
    activity = email_activity(db_session(), activity_id, Permission.EXPORT)
    state_arg = request.args.get("state", "")
    states = (SendState(state_arg),) if state_arg in set(SendState) else csv_export.NOT_REACHED
    response = Response(
        stream_with_context(piece.encode() for piece in csv_export.export_csv(current_actor(), activity.id, states)),
        mimetype="text/csv",
    )
    name = f"sends-{activity.id}{f'-{state_arg}' if state_arg in set(SendState) else ''}.csv"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post(
    "/activities/<int:activity_id>/sends/<any(unknown,held,failed):state>/<any(sent,failed,again):decision>"
)
def decide(activity_id: int, state: str, decision: str) -> Any:
    session = db_session()
    activity = email_activity(session, activity_id, Permission.LAUNCH)
    try:
        resolved = resolution.resolve_sends(
            session, current_actor(), activity, SendState(state), Resolution(decision), _send_id()
        )
        session.commit()
        flash(ngettext("%(num)s send resolved.", "%(num)s sends resolved.", resolved), "success")
    except KampaniaError as error:
        session.rollback()
        flash(error_text(error), "danger")
    return redirect(url_for("delivery.progress_page", activity_id=activity_id), 303)


def _send_id() -> int | None:
    """The send id of the form; None when there is none: the decision applies to all sends in the state."""
    text = request.form.get("send", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 2**63):
        raise NotFound(N_("There is no such send any more."))
    return int(text)


@blueprint.post("/messages/<int:message_id>/test-mail")
def send_test_mail(message_id: int) -> Any:
    current_actor().require(Permission.LAUNCH)
    with db.read_only_session() as reader:
        versions.precompile(reader, message_id)
    session = db_session()
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound(N_("There is no such message."))
    address = request.form.get("address", "").strip()
    try:
        sent = test_sends.send_tests(
            session, current_actor(), message, address, request.form.get("key", ""), _contact_id()
        )
        session.commit()
        flash(
            _("A test mail is on its way to %(address)s.", address=", ".join(each.address for each in sent)), "success"
        )
    except ValidationFailed as error:
        session.rollback()
        flash("; ".join(map(problem_text, error.problems)), "danger")
    return redirect(_redirect_target(f"/messages/{message_id}"), 303)


def _contact_id() -> int | None:
    """Id of the contact whose values are merged into the test mail, or None."""
    text = request.form.get("contact", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _redirect_target(default: str) -> str:
    """The form's ``next``, if it is a path of this site; else ``default``. Protects against open redirects."""
    target = request.form.get("next", "")
    is_local = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_local else default
