"""Views of imports: upload, mapping, dry run, progress, result, rejected rows."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, stream_with_context
from flask_babel import gettext as _

from campaigns.accounts.actor import Permission
from campaigns.audience import lists
from campaigns.audience.forms import CsvOptionsForm, MappingForm, UploadForm
from campaigns.audience.imports import files, rejections, service
from campaigns.audience.imports.column_mapping import ATTRIBUTE_PREFIX, TARGETS, attribute_key
from campaigns.audience.imports.csv_reader import DELIMITERS, ENCODINGS
from campaigns.audience.models import ConsentLevel, ContactImport, ImportRejection, ImportState
from campaigns.errors import Conflict, ValidationFailed, ValidationProblem
from campaigns.web.pages.error_pages import add_form_problems, error_text
from campaigns.web.pages.fragment_polling import unless_unchanged
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("imports", __name__, url_prefix="/imports")
_MAX_SAMPLES = 3
_MAX_REJECTIONS = 20


@blueprint.get("")
def index() -> Any:
    current_actor().require(Permission.PERSONAL)
    page = paginate(db_session(), service.all_imports(), [ContactImport.id.desc()])
    return render_template("pages/audience/imports.html", page=page)


@blueprint.route("/new", methods=["GET", "POST"])
def new() -> Any:
    current_actor().require(Permission.AUDIENCE)
    form = UploadForm()
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        file = form.file.data
        try:
            contact_import = service.upload(
                db_session(), current_actor(), filename=file.filename or "", stream=file.stream
            )
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            return idempotent_forms.commit_and_redirect(f"/imports/{contact_import.id}/mapping")
    page = render_template("pages/audience/import_new.html", form=form, most=files.MAX_UPLOAD_BYTES >> 20)
    return page, 400 if form.is_submitted() else 200


@blueprint.get("/<int:import_id>")
def show(import_id: int) -> Any:
    current_actor().require(Permission.PERSONAL)
    contact_import = service.import_of(db_session(), import_id)
    if contact_import.state is ImportState.UPLOADED and not contact_import.error:
        return redirect(f"/imports/{import_id}/mapping", 303)
    return render_template("pages/audience/import.html", **_import_context(contact_import))


@blueprint.get("/<int:import_id>/progress")
def progress(import_id: int) -> Any:
    current_actor().require(Permission.PERSONAL)
    state = _import_context(service.import_of(db_session(), import_id))
    return unless_unchanged(render_template("pages/audience/_import.html", **state))


def _import_context(contact_import: ContactImport) -> dict[str, Any]:
    if contact_import.state in (ImportState.DONE, ImportState.FAILED):
        rows = list(rejections.iter_rejections(db_session(), contact_import.id, _MAX_REJECTIONS))
        problems = [(one.row_number, one.field, _format_rejection(one)) for one in rows]
    else:
        problems = [
            (one["row"], one["field"], error_text(ValidationProblem(one["message"], params=one["params"])))
            for one in contact_import.problems
        ]
    return {
        "found": contact_import,
        "problems": problems,
        "list": lists.list_of(db_session(), contact_import.list_id) if contact_import.list_id else None,
        "downloadable": files.upload_path(contact_import.content_key).exists(),
    }


def _format_rejection(rejection: ImportRejection) -> str:
    return error_text(ValidationProblem(rejection.message, params=rejection.params))


@blueprint.get("/<int:import_id>/mapping")
def mapping(import_id: int) -> Any:
    current_actor().require(Permission.AUDIENCE)
    contact_import = service.import_of(db_session(), import_id)
    if contact_import.state not in (ImportState.UPLOADED, ImportState.CHECKED):
        return redirect(f"/imports/{import_id}", 303)
    return _render_mapping(
        contact_import, _mapping_form(contact_import), _csv_options_form(contact_import), contact_import.mapping
    )


def _mapping_form(contact_import: ContactImport) -> MappingForm:
    form = MappingForm(obj=contact_import)
    return form.offer([(one.id, one.name) for one in lists.all_lists(db_session())])


def _csv_options_form(contact_import: ContactImport) -> CsvOptionsForm:
    form = CsvOptionsForm(obj=contact_import).offer()
    if not form.is_submitted() or request.endpoint != "audience.imports.reading":
        form.delimiter.data = str(ord(contact_import.delimiter))
    return form


def _render_mapping(
    contact_import: ContactImport, form: MappingForm, csv_options: CsvOptionsForm, targets: Sequence[str]
) -> str:
    dialect = service.read_dialect(contact_import)
    columns = [
        {
            "number": number,
            "name": name,
            "target": "attribute" if target.startswith(ATTRIBUTE_PREFIX) else target,
            "key": target.removeprefix(ATTRIBUTE_PREFIX)
            if target.startswith(ATTRIBUTE_PREFIX)
            else attribute_key(name, number),
            "samples": [cells[number - 1][:60] for cells in dialect.samples[:_MAX_SAMPLES]],
        }
        for number, (name, target) in enumerate(zip(dialect.columns, targets, strict=False), 1)
    ]
    return render_template(
        "pages/audience/import_mapping.html",
        found=contact_import,
        form=form,
        reading=csv_options,
        columns=columns,
        targets=TARGETS,
        encoding=ENCODINGS[contact_import.encoding],
        delimiter=DELIMITERS[contact_import.delimiter],
        guessed=contact_import.encoding in ("cp1251", "cp1252"),
    )


@blueprint.post("/<int:import_id>/reading")
def reading(import_id: int) -> Any:
    current_actor().require(Permission.AUDIENCE)
    contact_import = service.import_of(db_session(), import_id)
    form = _csv_options_form(contact_import)
    if form.validate_on_submit():
        try:
            service.update_csv_options(
                db_session(),
                current_actor(),
                contact_import,
                encoding=form.encoding.data,
                delimiter=chr(int(form.delimiter.data)),
                has_header=form.has_header.data,
            )
            db_session().commit()
        except ValidationFailed as error:
            flash("; ".join(map(error_text, error.problems)), "danger")
    return redirect(f"/imports/{import_id}/mapping", 303)


@blueprint.post("/<int:import_id>/mapping")
def configure(import_id: int) -> Any:
    current_actor().require(Permission.AUDIENCE)
    session = db_session()
    contact_import = service.import_of(session, import_id)
    form = _mapping_form(contact_import)
    targets = _submitted_mapping(len(contact_import.columns))
    if not form.validate_on_submit():
        return _render_mapping(contact_import, form, _csv_options_form(contact_import), targets), 400
    try:
        service.configure(
            session,
            current_actor(),
            contact_import,
            mapping=targets,
            list_id=int(form.list_id.data) if form.list_id.data else None,
            new_list=form.new_list.data or "",
            email_consent=ConsentLevel(form.email_consent.data),
            tracking_consent=ConsentLevel(form.tracking_consent.data),
            consent_wording=form.consent_wording.data or "",
            consent_source=form.consent_source.data or "",
        )
        service.request_dry_run(session, current_actor(), contact_import)
        session.commit()
    except ValidationFailed as error:
        session.rollback()
        add_form_problems(form, _rename_problem_fields(error))
        return _render_mapping(contact_import, form, _csv_options_form(contact_import), targets), 400
    return redirect(f"/imports/{import_id}", 303)


def _submitted_mapping(width: int) -> list[str]:
    """The mapping as submitted in the inputs ``target-1``, ``key-1``, …"""
    chosen = []
    for number in range(1, width + 1):
        target = request.form.get(f"target-{number}", "")
        chosen.append(
            ATTRIBUTE_PREFIX + request.form.get(f"key-{number}", "").strip() if target == "attribute" else target
        )
    return chosen


def _rename_problem_fields(error: ValidationFailed) -> ValidationFailed:
    return ValidationFailed(
        [
            ValidationProblem(one.message, field="new_list" if one.field == "name" else one.field, params=one.params)
            for one in error.problems
        ]
    )


@blueprint.post("/<int:import_id>/start")
def start(import_id: int) -> Any:
    try:
        service.request_import(db_session(), current_actor(), service.import_of(db_session(), import_id))
        db_session().commit()
    except Conflict as error:
        flash(error_text(error), "warning")
    return redirect(f"/imports/{import_id}", 303)


@blueprint.get("/<int:import_id>/rejected.csv")
def rejected_rows(import_id: int) -> Any:
    contact_import = service.import_of(db_session(), import_id)
    headings = (_("Row"), _("Reason"))
    pieces = rejections.rejected_csv(current_actor(), contact_import, _format_rejection, headings)
    response = Response(stream_with_context(piece.encode() for piece in pieces), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename=f"rejected-{import_id}.csv")
    response.headers["Cache-Control"] = "no-store"
    return response
