"""Views of imports: upload, mapping, dry run, progress, result, rejected rows."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, stream_with_context
from flask_babel import gettext as _

from campaigns.accounts.actor import Permission
from campaigns.audience import lists
from campaigns.audience.forms import CsvOptionsForm, MappingForm, UploadForm
from campaigns.audience.imports import files, rejections, service
from campaigns.audience.imports.column_mapping import ATTRIBUTES, TARGETS, attribute_key
from campaigns.audience.imports.csv_reader import DELIMITERS, ENCODINGS
from campaigns.audience.models import ConsentLevel, ContactImport, ImportRejection, ImportState
from campaigns.errors import Conflict, ValidationFailed, ValidationProblem
from campaigns.web.pages.error_pages import put_problems, say
from campaigns.web.pages.fragment_polling import unless_seen
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("imports", __name__, url_prefix="/imports")
_SHOWN_SAMPLES = 3
_SHOWN_REJECTIONS = 20


@blueprint.get("")
def index() -> Any:
    actor().require(Permission.PERSONAL)
    page = page_of(db_session(), service.all_imports(), [ContactImport.id.desc()])
    return render_template("pages/audience/imports.html", page=page)


@blueprint.route("/new", methods=["GET", "POST"])
def new() -> Any:
    actor().require(Permission.AUDIENCE)
    form = UploadForm()
    if form.validate_on_submit():
        if there := idempotent_forms.already():
            return there
        file = form.file.data
        try:
            made = service.upload(db_session(), actor(), filename=file.filename or "", stream=file.stream)
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            return idempotent_forms.made(f"/imports/{made.id}/mapping")
    page = render_template("pages/audience/import_new.html", form=form, most=files.LARGEST >> 20)
    return page, 400 if form.is_submitted() else 200


@blueprint.get("/<int:import_id>")
def show(import_id: int) -> Any:
    actor().require(Permission.PERSONAL)
    found = service.import_of(db_session(), import_id)
    if found.state is ImportState.UPLOADED and not found.error:
        return redirect(f"/imports/{import_id}/mapping", 303)
    return render_template("pages/audience/import.html", **_state_of(found))


@blueprint.get("/<int:import_id>/progress")
def progress(import_id: int) -> Any:
    actor().require(Permission.PERSONAL)
    state = _state_of(service.import_of(db_session(), import_id))
    return unless_seen(render_template("pages/audience/_import.html", **state))


def _state_of(found: ContactImport) -> dict[str, Any]:
    if found.state in (ImportState.DONE, ImportState.FAILED):
        rows = list(rejections.rejections(db_session(), found.id, _SHOWN_REJECTIONS))
        problems = [(one.row_number, one.field, _reason(one)) for one in rows]
    else:
        problems = [
            (one["row"], one["field"], say(ValidationProblem(one["message"], params=one["params"])))
            for one in found.problems
        ]
    return {
        "found": found,
        "problems": problems,
        "list": lists.list_of(db_session(), found.list_id) if found.list_id else None,
        "downloadable": files.path_of(found.content_key).exists(),
    }


def _reason(one: ImportRejection) -> str:
    return say(ValidationProblem(one.message, params=one.params))


@blueprint.get("/<int:import_id>/mapping")
def mapping(import_id: int) -> Any:
    actor().require(Permission.AUDIENCE)
    found = service.import_of(db_session(), import_id)
    if found.state not in (ImportState.UPLOADED, ImportState.CHECKED):
        return redirect(f"/imports/{import_id}", 303)
    return _mapping_page(found, _mapping_form(found), _reading_form(found), found.mapping)


def _mapping_form(found: ContactImport) -> MappingForm:
    form = MappingForm(obj=found)
    return form.offer([(one.id, one.name) for one in lists.all_lists(db_session())])


def _reading_form(found: ContactImport) -> CsvOptionsForm:
    form = CsvOptionsForm(obj=found).offer()
    if not form.is_submitted() or request.endpoint != "audience.imports.reading":
        form.delimiter.data = str(ord(found.delimiter))
    return form


def _mapping_page(found: ContactImport, form: MappingForm, reading: CsvOptionsForm, targets: Sequence[str]) -> str:
    shape = service.shape_of(found)
    columns = [
        {
            "number": number,
            "name": name,
            "target": "attribute" if target.startswith(ATTRIBUTES) else target,
            "key": target.removeprefix(ATTRIBUTES) if target.startswith(ATTRIBUTES) else attribute_key(name, number),
            "samples": [cells[number - 1][:60] for cells in shape.samples[:_SHOWN_SAMPLES]],
        }
        for number, (name, target) in enumerate(zip(shape.columns, targets, strict=False), 1)
    ]
    return render_template(
        "pages/audience/import_mapping.html",
        found=found,
        form=form,
        reading=reading,
        columns=columns,
        targets=TARGETS,
        encoding=ENCODINGS[found.encoding],
        delimiter=DELIMITERS[found.delimiter],
        guessed=found.encoding in ("cp1251", "cp1252"),
    )


@blueprint.post("/<int:import_id>/reading")
def reading(import_id: int) -> Any:
    actor().require(Permission.AUDIENCE)
    found = service.import_of(db_session(), import_id)
    form = _reading_form(found)
    if form.validate_on_submit():
        try:
            service.reread(
                db_session(),
                actor(),
                found,
                encoding=form.encoding.data,
                delimiter=chr(int(form.delimiter.data)),
                has_header=form.has_header.data,
            )
            db_session().commit()
        except ValidationFailed as error:
            flash("; ".join(map(say, error.problems)), "danger")
    return redirect(f"/imports/{import_id}/mapping", 303)


@blueprint.post("/<int:import_id>/mapping")
def configure(import_id: int) -> Any:
    actor().require(Permission.AUDIENCE)
    session = db_session()
    found = service.import_of(session, import_id)
    form = _mapping_form(found)
    targets = _targets(len(found.columns))
    if not form.validate_on_submit():
        return _mapping_page(found, form, _reading_form(found), targets), 400
    try:
        service.configure(
            session,
            actor(),
            found,
            mapping=targets,
            list_id=int(form.list_id.data) if form.list_id.data else None,
            new_list=form.new_list.data or "",
            email_consent=ConsentLevel(form.email_consent.data),
            tracking_consent=ConsentLevel(form.tracking_consent.data),
            consent_wording=form.consent_wording.data or "",
            consent_source=form.consent_source.data or "",
        )
        service.check(session, actor(), found)
        session.commit()
    except ValidationFailed as error:
        session.rollback()
        put_problems(form, _under_their_names(error))
        return _mapping_page(found, form, _reading_form(found), targets), 400
    return redirect(f"/imports/{import_id}", 303)


def _targets(width: int) -> list[str]:
    """The mapping as submitted in the inputs ``target-1``, ``key-1``, …"""
    chosen = []
    for number in range(1, width + 1):
        target = request.form.get(f"target-{number}", "")
        chosen.append(ATTRIBUTES + request.form.get(f"key-{number}", "").strip() if target == "attribute" else target)
    return chosen


def _under_their_names(error: ValidationFailed) -> ValidationFailed:
    return ValidationFailed(
        [
            ValidationProblem(one.message, field="new_list" if one.field == "name" else one.field, params=one.params)
            for one in error.problems
        ]
    )


@blueprint.post("/<int:import_id>/start")
def start(import_id: int) -> Any:
    try:
        service.start(db_session(), actor(), service.import_of(db_session(), import_id))
        db_session().commit()
    except Conflict as error:
        flash(say(error), "warning")
    return redirect(f"/imports/{import_id}", 303)


@blueprint.get("/<int:import_id>/rejected.csv")
def rejected_rows(import_id: int) -> Any:
    found = service.import_of(db_session(), import_id)
    words = (_("Row"), _("Reason"))
    pieces = rejections.rejected_csv(actor(), found, _reason, words)
    response = Response(stream_with_context(piece.encode() for piece in pieces), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename=f"rejected-{import_id}.csv")
    response.headers["Cache-Control"] = "no-store"
    return response
