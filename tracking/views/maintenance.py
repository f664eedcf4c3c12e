"""Pages of maintenance runs, for owners: trial of the rules, relabelling, counter check."""

from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, redirect, render_template
from sqlalchemy import select

from campaigns import clock
from campaigns.accounts.actor import Permission
from campaigns.accounts.models import User
from campaigns.errors import ValidationFailed
from campaigns.web.pages.error_pages import add_form_problems
from campaigns.web.pages.fragment_polling import unless_unchanged
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor
from tracking.bots.rules import RULES_VERSION
from tracking.counters.periods import Period
from tracking.forms import TrialForm
from tracking.jobs import maintenance_runs
from tracking.models.maintenance import MaintenanceKind, MaintenanceRun
from tracking.reports.timezone import organisation_zone

blueprint = Blueprint("maintenance", __name__, url_prefix="/health/log")


@blueprint.route("", methods=["GET", "POST"])
def index() -> Any:
    """Form to order a trial, and the list of runs."""
    current_actor().require(Permission.SETTINGS)
    today = clock.now().astimezone(organisation_zone()).date()
    form = TrialForm(since=today - timedelta(days=27), until=today)
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        window = Period(form.since.data, form.until.data).window(organisation_zone())
        try:
            new_run = maintenance_runs.order_run(
                db_session(), current_actor(), MaintenanceKind.TRIAL, window.since, window.until
            )
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            return idempotent_forms.commit_and_redirect(f"/health/log/{new_run.id}")
    stmt = select(MaintenanceRun, User.name.label("who")).outerjoin(User, User.id == MaintenanceRun.created_by)
    page = render_template(
        "pages/tracking/maintenance_runs.html",
        form=form,
        rules=RULES_VERSION,
        second=timedelta(seconds=1),
        running=maintenance_runs.unfinished_run_id(db_session()),
        page=paginate(db_session(), stmt, [MaintenanceRun.id.desc()]),
    )
    return page, 400 if form.is_submitted() else 200


@blueprint.post("/checks")
def check() -> Any:
    current_actor().require(Permission.SETTINGS)
    if earlier_response := idempotent_forms.previous_result():
        return earlier_response
    return idempotent_forms.commit_and_redirect(
        f"/health/log/{maintenance_runs.order_run(db_session(), current_actor(), MaintenanceKind.CHECK).id}"
    )


@blueprint.get("/<int:run_id>")
def show(run_id: int) -> str:
    return _render_run(run_id, "maintenance_run")


@blueprint.get("/<int:run_id>/progress")
def progress(run_id: int) -> Response:
    return unless_unchanged(_render_run(run_id, "_maintenance_run"))


def _render_run(run_id: int, page: str) -> str:
    current_actor().require(Permission.SETTINGS)
    maintenance_run = maintenance_runs.get_run(db_session(), run_id)
    orderer = db_session().get(User, maintenance_run.created_by) if maintenance_run.created_by else None
    return render_template(
        f"pages/tracking/{page}.html",
        run=maintenance_run,
        report=maintenance_runs.report(db_session(), maintenance_run),
        labels=maintenance_runs.LABELS,
        who=orderer.name if orderer else "",
        last=maintenance_run.until - timedelta(seconds=1) if maintenance_run.until else None,
        rules=RULES_VERSION,
    )


@blueprint.post("/<int:run_id>/change")
def apply(run_id: int) -> Any:
    """Order the run that applies the findings of a trial or check."""
    current_actor().require(Permission.SETTINGS)
    new_run = maintenance_runs.order_follow_up(db_session(), current_actor(), run_id)
    db_session().commit()
    return redirect(f"/health/log/{new_run.id}", 303)
