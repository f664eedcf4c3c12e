"""Pages of offline imports: upload, progress, rejected rows with their reasons."""

import csv
import io
from typing import Any

from flask import Blueprint, Response, render_template, stream_with_context
from flask_babel import gettext as _
from sqlalchemy import select

from campaigns.accounts.actor import Permission
from campaigns.audience.imports import files
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.web.pages.error_pages import put_problems, say
from campaigns.web.pages.fragment_polling import unless_seen
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import actor
from tracking.conversions import goals, offline_import
from tracking.forms import ConversionFile
from tracking.models.conversions import LEAD_GOAL, GoalKind, OfflineImport, OfflineImportError

blueprint = Blueprint("offline_imports", __name__, url_prefix="/conversions/import")

_SHOWN = 20


@blueprint.route("", methods=["GET", "POST"])
def index() -> Any:
    actor().require(Permission.LEADS)
    form = ConversionFile()
    if form.validate_on_submit():
        if there := idempotent_forms.already():
            return there
        file = form.file.data
        try:
            made = offline_import.upload(db_session(), actor(), filename=file.filename or "", stream=file.stream)
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            return idempotent_forms.made(f"/conversions/import/{made.id}")
    page = render_template(
        "pages/tracking/offline.html",
        form=form,
        page=page_of(db_session(), select(OfflineImport), [OfflineImport.id.desc()]),
        most=files.LARGEST >> 20,
        waited=goals.waiting_for(db_session(), GoalKind.EVENT),
    )
    return page, 400 if form.is_submitted() else 200


@blueprint.get("/template.csv")
def template() -> Response:
    """A CSV template: the header and an example row."""
    actor().require(Permission.LEADS)
    known = next((goal.match for goal in goals.waiting_for(db_session(), GoalKind.EVENT)), "purchase")
    out = io.StringIO()
    lines = csv.writer(out)
    lines.writerow(["id", "event", "email", "at", "value", "currency", "activity"])
    lines.writerow(["order-1001", known, "ann@example.com", "2026-01-31T14:30:00+04:00", "120.00", "EUR", ""])
    return _attachment("conversions.csv", "\ufeff" + out.getvalue())


@blueprint.get("/<int:import_id>")
def show(import_id: int) -> str:
    return _shown(import_id, "offline_import")


@blueprint.get("/<int:import_id>/progress")
def progress(import_id: int) -> Response:
    return unless_seen(_shown(import_id, "_offline_import"))


def _shown(import_id: int, page: str) -> str:
    actor().require(Permission.LEADS)
    found = offline_import.offline_import(db_session(), import_id)
    return render_template(
        f"pages/tracking/{page}.html",
        found=found,
        refused=[(one, _reason(one)) for one in offline_import.refusals(db_session(), found, _SHOWN)],
        lead=LEAD_GOAL,
    )


@blueprint.get("/<int:import_id>/refused.csv")
def refused(import_id: int) -> Response:
    actor().require(Permission.EXPORT)
    found = offline_import.offline_import(db_session(), import_id)
    pieces = offline_import.refused_csv(actor(), found, _reason, (_("Row"), _("Field"), _("Reason")))
    response = Response(stream_with_context(piece.encode() for piece in pieces), mimetype="text/csv")
    return _named(response, f"refused-{import_id}.csv")


def _reason(one: OfflineImportError) -> str:
    return say(ValidationProblem(one.message, params=one.params))


def _attachment(name: str, text: str) -> Response:
    return _named(Response(text, mimetype="text/csv"), name)


def _named(response: Response, name: str) -> Response:
    response.headers.set("Content-Disposition", "attachment", filename=name)
    response.headers["Cache-Control"] = "no-store"
    return response
