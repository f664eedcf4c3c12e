"""Views of messages: list, starter templates, editor, previews."""

import re
from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask_babel import gettext as _
from flask_login import current_user
from sqlalchemy import select
from sqlalchemy.orm import defer

from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.organisation import organisation
from campaigns.audience.models import Contact
from campaigns.content import merge_fields, messages, versions
from campaigns.content.forms import MessageForm
from campaigns.content.mjml.compiler import LARGE_MAIL_BYTES, MAX_MAIL_BYTES, MessageDraft
from campaigns.content.mjml.diagnostics import Diagnostic, errors
from campaigns.content.models import Message
from campaigns.content.starter_templates import STARTERS, StarterTemplate, starter
from campaigns.content.versions import CompileResult
from campaigns.errors import ValidationFailed
from campaigns.optimistic_lock import EditConflict
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.edit_conflicts import edit_conflict_view
from campaigns.web.pages.error_pages import add_form_problems, error_text, problem_text
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session, only_reads, release_write_lock
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("content", __name__)

PREVIEW_POLICY = (
    "default-src 'none'; img-src https: http:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
_DARK = re.compile(r"\(\s*prefers-color-scheme\s*:\s*dark\s*\)")
_LIGHT = re.compile(r"\(\s*prefers-color-scheme\s*:\s*light\s*\)")


def _require_planner() -> Actor:
    actor = current_actor()
    actor.require(Permission.PLAN)
    return actor


@blueprint.get("/messages")
def index() -> Any:
    current_actor().require(Permission.VIEW)
    stmt = select(Message).options(defer(Message.mjml))
    page = paginate(db_session(), stmt, [Message.updated_at.desc(), Message.id.desc()])
    return render_template("pages/content/messages.html", page=page, language_names=messages.LANGUAGES)


@blueprint.get("/messages/new")
def new_message() -> Any:
    _require_planner()
    return render_template("pages/content/message_new.html", starters=STARTERS, language_names=messages.LANGUAGES)


@blueprint.post("/messages/new")
def create() -> Any:
    actor, session = _require_planner(), db_session()
    if earlier_response := idempotent_forms.previous_result():
        return earlier_response
    key = request.form.get("starter", "")
    template: StarterTemplate | None = starter(key) if key else None
    label = translated(template.name) if template else _("Blank message")
    name = request.form.get("name", "").strip() or label
    message = messages.create_message(session, actor, name=name, starter=key or None)
    return idempotent_forms.commit_and_redirect(url_for("content.editor", message_id=message.id))


@blueprint.get("/messages/starters/<key>/preview")
def starter_preview(key: str) -> Any:
    current_actor().require(Permission.VIEW)
    session = db_session()
    return _render_preview(_compile(starter(key).draft), starter(key).language, None, session)


@blueprint.route("/messages/<int:message_id>", methods=["GET", "POST"])
def editor(message_id: int) -> Any:
    actor, session = _require_planner(), db_session()
    message = messages.message_of(session, message_id)
    form = MessageForm(obj=message)
    status, conflict = 200, None
    if form.validate_on_submit():
        try:
            messages.update_message(session, actor, message, revision=form.opened_revision(message), **form.values())
        except ValidationFailed as error:
            session.rollback()
            add_form_problems(form, error)
            status = 400
        except EditConflict:
            session.rollback()
            session.refresh(message)
            status, conflict = 409, edit_conflict_view(form, MessageForm(formdata=None, obj=message), message)
        else:
            session.commit()
            flash(_("Saved."), "success")
            return redirect(url_for("content.editor", message_id=message.id), 303)
    return render_template(
        "pages/content/editor.html",
        message=message,
        form=form,
        conflict=conflict,
        contacts=merge_fields.sample_contacts(session) if actor.may(Permission.PERSONAL) else [],
        organisation=organisation(session),
        address=current_user.person.email,
        **_diagnostics_context(_draft_from_form(form)),
    ), status


@blueprint.post("/messages/<int:message_id>/check")
@only_reads
def check(message_id: int) -> Any:
    """Findings for the text in the editor, saved or not."""
    _require_planner()
    message = messages.message_of(db_session(), message_id)
    return render_template(
        "pages/content/_diagnostics.html", message=message, **_diagnostics_context(_draft_from_form(MessageForm()))
    )


@blueprint.route("/messages/<int:message_id>/preview", methods=["GET", "POST"])
@only_reads
def preview(message_id: int) -> Any:
    """Document of the preview frame: the saved message by GET, the editor's unsaved content by POST."""
    current_actor().require(Permission.PLAN if request.method == "POST" else Permission.VIEW)
    session = db_session()
    message = messages.message_of(session, message_id)
    draft = _draft_from_form(MessageForm()) if request.method == "POST" else versions.draft_of(message)
    contact = _preview_contact(request.values.get("contact", ""))
    return _render_preview(_compile(draft), draft.language, contact, session)


@blueprint.post("/messages/<int:message_id>/duplicate")
def duplicate(message_id: int) -> Any:
    actor, session = _require_planner(), db_session()
    if earlier_response := idempotent_forms.previous_result():
        return earlier_response
    message = messages.message_of(session, message_id)
    copy = messages.duplicate_message(session, actor, message, _("Copy of %(name)s", name=message.name))
    flash(_("This is the copy."), "success")
    return idempotent_forms.commit_and_redirect(url_for("content.editor", message_id=copy.id))


def _draft_from_form(form: MessageForm) -> MessageDraft:
    values = form.values()
    language = values["language"] if values["language"] in messages.LANGUAGES else "en"
    mjml = values["mjml"].replace("\r\n", "\n").replace("\r", "\n")
    return MessageDraft(values["subject"], values["preheader"], mjml, language)


def _compile(draft: MessageDraft) -> CompileResult:
    session = db_session()
    known = merge_fields.known_fields(session, versions.used_fields(draft))
    current_organisation = organisation(session)
    release_write_lock()
    return versions.compile_in_sandbox(draft, current_organisation, known)


def _diagnostics_context(draft: MessageDraft) -> dict[str, Any]:
    session = db_session()
    result = _compile(draft)
    return {
        "known": merge_fields.known_fields(session),
        "findings": sorted(result.findings, key=_sort_key),
        "wrong": len(errors(result.findings)),
        "links": result.built.links,
        "size": result.size,
        "large": LARGE_MAIL_BYTES,
        "largest": MAX_MAIL_BYTES,
        "say": error_text,
    }


def _sort_key(finding: Diagnostic) -> tuple[bool, int, int]:
    return finding.level.value != "error", finding.line or 0, finding.column or 0


def _preview_contact(text: str) -> Contact | None:
    """The contact selected for the preview; ``empty`` selects one with nothing but an address."""
    if text == "empty":
        return Contact(email="somebody@example.com", first_name="", last_name="", attributes={})
    if not (text.isascii() and text.isdigit() and len(text) < 19) or not current_actor().may(Permission.PERSONAL):
        return None
    return db_session().get(Contact, int(text))


def _render_preview(result: CompileResult, language: str, contact: Contact | None, session: Any) -> Response:
    if errors(result.findings):
        page = render_template(
            "pages/content/unrenderable.html",
            findings=sorted(result.findings, key=_sort_key),
            problem_text=problem_text,
        )
        return _with_preview_headers(Response(page))
    attributes = None if contact else merge_fields.sample_attributes(session)
    merged = versions.preview(result, merge_fields.sample_fields(language, organisation(session), contact, attributes))
    if request.values.get("part") == "text":
        page = render_template("pages/content/plain_text.html", text=merged.text, language=language)
        return _with_preview_headers(Response(page))
    return _with_preview_headers(Response(_force_colour_scheme(merged.html, dark=request.values.get("part") == "dark")))


def _force_colour_scheme(html: str, *, dark: bool) -> str:
    """Replace colour scheme queries, so that the mail looks as in a dark or light inbox in any browser."""
    always, never = "(min-width: 0px)", "(max-width: 0px)"
    html = _DARK.sub(always if dark else never, html)
    html = _LIGHT.sub(never if dark else always, html)
    return html.replace("<head>", '<head><base target="_blank">', 1)


def _with_preview_headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = PREVIEW_POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
