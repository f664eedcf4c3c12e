"""Progress, the list of sends, and test mails."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_babel import gettext as _
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import Permission
from campaigns.content import compilation
from campaigns.content.models import Message
from campaigns.delivery import deciding, progress, relays, test_mail, tripping
from campaigns.delivery.deciding import Decision
from campaigns.delivery.models import REASON_LABELS, Send, SendState
from campaigns.delivery.views.mailing import mailing
from campaigns.errors import Invalid, KampaniaError, NotFound
from campaigns.language import N_
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.web.database import db_session
from campaigns.web.errors import problem_text, say
from campaigns.web.guards import actor
from campaigns.web.locale import ngettext
from campaigns.web.pagination import page_of

blueprint = Blueprint("delivery", __name__)


@blueprint.get("/activities/<int:activity_id>/progress")
def progress_page(activity_id: int) -> Any:
    session = db_session()
    return render_template("pages/delivery/progress.html", **_standing(session, mailing(session, activity_id)))


@blueprint.get("/activities/<int:activity_id>/progress/counts")
def progress_counts(activity_id: int) -> Any:
    session = db_session()
    return render_template("pages/delivery/_counts.html", **_standing(session, mailing(session, activity_id)))


def _standing(session: Session, found: Activity) -> dict[str, Any]:
    return {
        "activity": found,
        "now": progress.progress(session, found),
        "skipped": progress.skipped(session, found.id),
        "replies": progress.replies(session, found.id),
        "trouble": relays.trouble(session),
        "harm": tripping.told(session, found.id) if found.status is ActivityStatus.PAUSED else None,
        "may_launch": actor().may(Permission.LAUNCH),
        "SendState": SendState,
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


@blueprint.post("/activities/<int:activity_id>/sends/<any(unknown,held):state>/<any(sent,failed,again):decision>")
def decide(activity_id: int, state: str, decision: str) -> Any:
    session = db_session()
    found = mailing(session, activity_id, Permission.LAUNCH)
    try:
        settled = deciding.decide(session, actor(), found, SendState(state), Decision(decision), _one_send())
        session.commit()
        flash(ngettext("%(num)s send resolved.", "%(num)s sends resolved.", settled), "success")
    except KampaniaError as error:
        session.rollback()
        flash(say(error), "danger")
    return redirect(url_for("delivery.progress_page", activity_id=activity_id), 303)


def _one_send() -> int | None:
    """The send that the form names; None when it names none, and the decision is about all of them."""
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
        compilation.compile_ahead(looking, message_id)
    session = db_session()
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound(N_("There is no such message."))
    address = request.form.get("address", "").strip()
    try:
        sent = test_mail.send_tests(session, actor(), message, address, request.form.get("key", ""), _contact())
        session.commit()
        flash(
            _("A test mail is on its way to %(address)s.", address=", ".join(each.address for each in sent)), "success"
        )
    except Invalid as error:
        session.rollback()
        flash("; ".join(map(problem_text, error.problems)), "danger")
    return redirect(_next(f"/messages/{message_id}"), 303)


def _contact() -> int | None:
    """Whose values the test mail carries."""
    text = request.form.get("contact", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _next(default: str) -> str:
    """Back to where the form stood, if that is a page of ours."""
    wanted = request.form.get("next", "")
    ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if ours else default
