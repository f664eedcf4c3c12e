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
from campaigns.content.mjml.compiler import LARGE_MAIL, LARGEST_MAIL, MessageDraft
from campaigns.content.mjml.diagnostics import Diagnostic, errors
from campaigns.content.models import Message
from campaigns.content.starter_templates import STARTERS, StarterTemplate, starter
from campaigns.content.versions import CompileResult
from campaigns.errors import ValidationFailed
from campaigns.optimistic_lock import EditConflict
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.edit_conflicts import clash
from campaigns.web.pages.error_pages import problem_text, put_problems, say
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session, let_others_write, only_reads
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("content", __name__)

PREVIEW_POLICY = (
    "default-src 'none'; img-src https: http:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
_DARK = re.compile(r"\(\s*prefers-color-scheme\s*:\s*dark\s*\)")
_LIGHT = re.compile(r"\(\s*prefers-color-scheme\s*:\s*light\s*\)")


def _planner() -> Actor:
    who = actor()
    who.require(Permission.PLAN)
    return who


@blueprint.get("/messages")
def index() -> Any:
    actor().require(Permission.VIEW)
    stmt = select(Message).options(defer(Message.mjml))
    page = page_of(db_session(), stmt, [Message.updated_at.desc(), Message.id.desc()])
    return render_template("pages/content/messages.html", page=page, language_names=messages.LANGUAGES)


@blueprint.get("/messages/new")
def new_message() -> Any:
    _planner()
    return render_template("pages/content/new.html", starters=STARTERS, language_names=messages.LANGUAGES)


@blueprint.post("/messages/new")
def create() -> Any:
    who, session = _planner(), db_session()
    if there := idempotent_forms.already():
        return there
    key = request.form.get("starter", "")
    begun: StarterTemplate | None = starter(key) if key else None
    label = translated(begun.name) if begun else _("Blank message")
    name = request.form.get("name", "").strip() or label
    message = messages.create_message(session, who, name=name, starter=key or None)
    return idempotent_forms.made(url_for("content.editor", message_id=message.id))


@blueprint.get("/messages/starters/<key>/preview")
def starter_preview(key: str) -> Any:
    actor().require(Permission.VIEW)
    session = db_session()
    return _shown(_compiled(starter(key).draft), starter(key).language, None, session)


@blueprint.route("/messages/<int:message_id>", methods=["GET", "POST"])
def editor(message_id: int) -> Any:
    who, session = _planner(), db_session()
    message = messages.message_of(session, message_id)
    form = MessageForm(obj=message)
    status, clashing = 200, None
    if form.validate_on_submit():
        try:
            messages.update_message(session, who, message, revision=form.seen(message), **form.values())
        except ValidationFailed as error:
            session.rollback()
            put_problems(form, error)
            status = 400
        except EditConflict:
            session.rollback()
            session.refresh(message)
            status, clashing = 409, clash(form, MessageForm(formdata=None, obj=message), message)
        else:
            session.commit()
            flash(_("Saved."), "success")
            return redirect(url_for("content.editor", message_id=message.id), 303)
    return render_template(
        "pages/content/editor.html",
        message=message,
        form=form,
        clash=clashing,
        contacts=merge_fields.sample_contacts(session) if who.may(Permission.PERSONAL) else [],
        organisation=organisation(session),
        address=current_user.person.email,
        **_examined(_draft(form)),
    ), status


@blueprint.post("/messages/<int:message_id>/check")
@only_reads
def check(message_id: int) -> Any:
    """Findings for the text in the editor, saved or not."""
    _planner()
    message = messages.message_of(db_session(), message_id)
    return render_template("pages/content/_findings.html", message=message, **_examined(_draft(MessageForm())))


@blueprint.route("/messages/<int:message_id>/preview", methods=["GET", "POST"])
@only_reads
def preview(message_id: int) -> Any:
    """Document of the preview frame: the saved message by GET, the editor's unsaved content by POST."""
    actor().require(Permission.PLAN if request.method == "POST" else Permission.VIEW)
    session = db_session()
    message = messages.message_of(session, message_id)
    draft = _draft(MessageForm()) if request.method == "POST" else versions.draft_of(message)
    contact = _sample(request.values.get("contact", ""))
    return _shown(_compiled(draft), draft.language, contact, session)


@blueprint.post("/messages/<int:message_id>/duplicate")
def duplicate(message_id: int) -> Any:
    who, session = _planner(), db_session()
    if there := idempotent_forms.already():
        return there
    message = messages.message_of(session, message_id)
    copy = messages.duplicate_message(session, who, message, _("Copy of %(name)s", name=message.name))
    flash(_("This is the copy."), "success")
    return idempotent_forms.made(url_for("content.editor", message_id=copy.id))


def _draft(form: MessageForm) -> MessageDraft:
    values = form.values()
    language = values["language"] if values["language"] in messages.LANGUAGES else "en"
    mjml = values["mjml"].replace("\r\n", "\n").replace("\r", "\n")
    return MessageDraft(values["subject"], values["preheader"], mjml, language)


def _compiled(draft: MessageDraft) -> CompileResult:
    session = db_session()
    known = merge_fields.known_fields(session, versions.wanted_fields(draft))
    house = organisation(session)
    let_others_write()
    return versions.compiled(draft, house, known)


def _examined(draft: MessageDraft) -> dict[str, Any]:
    session = db_session()
    found = _compiled(draft)
    return {
        "known": merge_fields.known_fields(session),
        "findings": sorted(found.findings, key=_order),
        "wrong": len(errors(found.findings)),
        "links": found.built.links,
        "size": found.size,
        "large": LARGE_MAIL,
        "largest": LARGEST_MAIL,
        "say": say,
    }


def _order(finding: Diagnostic) -> tuple[bool, int, int]:
    return finding.level.value != "error", finding.line or 0, finding.column or 0


def _sample(text: str) -> Contact | None:
    """The contact selected for the preview; ``empty`` selects one with nothing but an address."""
    if text == "empty":
        return Contact(email="somebody@example.com", first_name="", last_name="", attributes={})
    if not (text.isascii() and text.isdigit() and len(text) < 19) or not actor().may(Permission.PERSONAL):
        return None
    return db_session().get(Contact, int(text))


def _shown(found: CompileResult, language: str, contact: Contact | None, session: Any) -> Response:
    if errors(found.findings):
        page = render_template(
            "pages/content/unrenderable.html", findings=sorted(found.findings, key=_order), problem_text=problem_text
        )
        return _framed(Response(page))
    attributes = None if contact else merge_fields.invented_attributes(session)
    merged = versions.preview(found, merge_fields.sample_fields(language, organisation(session), contact, attributes))
    if request.values.get("part") == "text":
        page = render_template("pages/content/plain.html", text=merged.text, language=language)
        return _framed(Response(page))
    return _framed(Response(_in_light(merged.html, dark=request.values.get("part") == "dark")))


def _in_light(html: str, *, dark: bool) -> str:
    """Replace colour scheme queries, so that the mail looks as in a dark or light inbox in any browser."""
    always, never = "(min-width: 0px)", "(max-width: 0px)"
    html = _DARK.sub(always if dark else never, html)
    html = _LIGHT.sub(never if dark else always, html)
    return html.replace("<head>", '<head><base target="_blank">', 1)


def _framed(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = PREVIEW_POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
