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
from campaigns.web.pages.error_pages import add_form_problems, error_text
from campaigns.web.pages.fragment_polling import unless_unchanged
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor
from tracking.conversions import goals, offline_import
from tracking.forms import ConversionFile
from tracking.models.conversions import LEAD_GOAL, GoalKind, OfflineImport, OfflineImportError

blueprint = Blueprint("offline_imports", __name__, url_prefix="/conversions/import")

_MAX_ROWS_SHOWN = 20


@blueprint.route("", methods=["GET", "POST"])
def index() -> Any:
    current_actor().require(Permission.LEADS)
    form = ConversionFile()
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        file = form.file.data
        try:
            new_import = offline_import.upload(
                db_session(), current_actor(), filename=file.filename or "", stream=file.stream
            )
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            return idempotent_forms.commit_and_redirect(f"/conversions/import/{new_import.id}")
    page = render_template(
        "pages/tracking/offline_imports.html",
        form=form,
        page=paginate(db_session(), select(OfflineImport), [OfflineImport.id.desc()]),
        most=files.MAX_UPLOAD_BYTES >> 20,
        waited=goals.active_goals(db_session(), GoalKind.EVENT),
    )
    return page, 400 if form.is_submitted() else 200


@blueprint.get("/template.csv")
def template() -> Response:
    """A CSV template: the header and an example row."""
    current_actor().require(Permission.LEADS)
    example_event = next((goal.match for goal in goals.active_goals(db_session(), GoalKind.EVENT)), "purchase")
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["id", "event", "email", "at", "value", "currency", "activity"])
    writer.writerow(["order-1001", example_event, "ann@example.com", "2026-01-31T14:30:00+04:00", "120.00", "EUR", ""])
    return _csv_attachment("conversions.csv", "\ufeff" + buffer.getvalue())


@blueprint.get("/<int:import_id>")
def show(import_id: int) -> str:
    return _render_import(import_id, "offline_import")


@blueprint.get("/<int:import_id>/progress")
def progress(import_id: int) -> Response:
    return unless_unchanged(_render_import(import_id, "_offline_import"))


def _render_import(import_id: int, page: str) -> str:
    current_actor().require(Permission.LEADS)
    import_job = offline_import.get_import(db_session(), import_id)
    return render_template(
        f"pages/tracking/{page}.html",
        found=import_job,
        refused=[
            (one, _rejection_reason(one))
            for one in offline_import.rejected_rows(db_session(), import_job, _MAX_ROWS_SHOWN)
        ],
        lead=LEAD_GOAL,
    )


@blueprint.get("/<int:import_id>/refused.csv")
def refused(import_id: int) -> Response:
    current_actor().require(Permission.EXPORT)
    import_job = offline_import.get_import(db_session(), import_id)
    pieces = offline_import.rejected_rows_csv(
        current_actor(), import_job, _rejection_reason, (_("Row"), _("Field"), _("Reason"))
    )
    response = Response(stream_with_context(piece.encode() for piece in pieces), mimetype="text/csv")
    return _as_attachment(response, f"refused-{import_id}.csv")


def _rejection_reason(rejected_row: OfflineImportError) -> str:
    return error_text(ValidationProblem(rejected_row.message, params=rejected_row.params))


def _csv_attachment(name: str, text: str) -> Response:
    return _as_attachment(Response(text, mimetype="text/csv"), name)


def _as_attachment(response: Response, name: str) -> Response:
    response.headers.set("Content-Disposition", "attachment", filename=name)
    response.headers["Cache-Control"] = "no-store"
    return response
