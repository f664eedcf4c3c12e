"""Pages of maintenance runs, for owners: trial of the rules, relabelling, counter check."""

from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, redirect, render_template
from sqlalchemy import select

from campaigns import clock
from campaigns.accounts.actor import Permission
from campaigns.accounts.models import User
from campaigns.errors import ValidationFailed
from campaigns.web.pages.error_pages import put_problems
from campaigns.web.pages.fragment_polling import unless_seen
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import actor
from tracking.bots.rules import RULES
from tracking.counters.periods import Period
from tracking.forms import TrialForm
from tracking.jobs import maintenance_runs
from tracking.models.maintenance import MaintenanceKind, MaintenanceRun
from tracking.reports.timezone import our_zone

blueprint = Blueprint("maintenance", __name__, url_prefix="/health/log")


@blueprint.route("", methods=["GET", "POST"])
def index() -> Any:
    """Form to order a trial, and the list of runs."""
    actor().require(Permission.SETTINGS)
    today = clock.now().astimezone(our_zone()).date()
    form = TrialForm(since=today - timedelta(days=27), until=today)
    if form.validate_on_submit():
        if there := idempotent_forms.already():
            return there
        chosen = Period(form.since.data, form.until.data).window(our_zone())
        try:
            made = maintenance_runs.order(db_session(), actor(), MaintenanceKind.TRIAL, chosen.since, chosen.until)
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            return idempotent_forms.made(f"/health/log/{made.id}")
    stmt = select(MaintenanceRun, User.name.label("who")).outerjoin(User, User.id == MaintenanceRun.created_by)
    page = render_template(
        "pages/tracking/inspections.html",
        form=form,
        rules=RULES,
        second=timedelta(seconds=1),
        running=maintenance_runs.running(db_session()),
        page=page_of(db_session(), stmt, [MaintenanceRun.id.desc()]),
    )
    return page, 400 if form.is_submitted() else 200


@blueprint.post("/checks")
def check() -> Any:
    actor().require(Permission.SETTINGS)
    if there := idempotent_forms.already():
        return there
    return idempotent_forms.made(
        f"/health/log/{maintenance_runs.order(db_session(), actor(), MaintenanceKind.CHECK).id}"
    )


@blueprint.get("/<int:inspection_id>")
def show(inspection_id: int) -> str:
    return _shown(inspection_id, "inspection")


@blueprint.get("/<int:inspection_id>/progress")
def progress(inspection_id: int) -> Response:
    return unless_seen(_shown(inspection_id, "_inspection"))


def _shown(inspection_id: int, page: str) -> str:
    actor().require(Permission.SETTINGS)
    found = maintenance_runs.inspection(db_session(), inspection_id)
    who = db_session().get(User, found.created_by) if found.created_by else None
    return render_template(
        f"pages/tracking/{page}.html",
        found=found,
        told=maintenance_runs.told(db_session(), found),
        labels=maintenance_runs.LABELS,
        who=who.name if who else "",
        last=found.until - timedelta(seconds=1) if found.until else None,
        rules=RULES,
    )


@blueprint.post("/<int:inspection_id>/change")
def carry_out(inspection_id: int) -> Any:
    """Order the run that applies the findings of a trial or check."""
    actor().require(Permission.SETTINGS)
    made = maintenance_runs.again(db_session(), actor(), inspection_id)
    db_session().commit()
    return redirect(f"/health/log/{made.id}", 303)
