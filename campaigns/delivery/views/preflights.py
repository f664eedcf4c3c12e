"""Pages of the preflight: findings, excluded contacts, preview per recipient, and link check."""

from typing import Any

from flask import Blueprint, redirect, render_template, request

from campaigns import db
from campaigns.accounts.actor import Permission
from campaigns.accounts.organisation import organisation
from campaigns.audience.models import Contact
from campaigns.content import versions
from campaigns.content.merge_fields import sample_fields
from campaigns.content.models import Message
from campaigns.content.rendering.links import personalise_url
from campaigns.delivery.domains.dns_check import CheckStatus
from campaigns.delivery.preflight import exclusions, link_check
from campaigns.delivery.preflight import run as preflight_run
from campaigns.delivery.views.page_data import email_activity
from campaigns.errors import Conflict, KampaniaError, ValidationProblem
from campaigns.i18n import N_
from campaigns.planning.models import Activity
from campaigns.planning.recipients import select_audience
from campaigns.web.i18n.formatting import number, translated
from campaigns.web.pages.error_pages import problem_text
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("preflights", __name__, url_prefix="/activities/<int:activity_id>/preflight")

PART_LABELS = {
    "message": N_("Message"),
    "subject": N_("Subject"),
    "preheader": N_("Preheader"),
    "mjml": N_("Content"),
    "language": N_("Language"),
    "from_name": N_("Sender's name"),
    "from_email": N_("Sender's address"),
    "reply_to": N_("Reply address"),
    "audience": N_("Audience"),
}
_link_checker = link_check.LinkChecker()


@blueprint.get("")
def page(activity_id: int) -> Any:
    session = db_session()
    activity = email_activity(session, activity_id)
    standing = preflight_run.preflight_status(session, activity)
    template = "_preflight" if request.headers.get("HX-Request") else "preflight"
    return render_template(
        f"pages/delivery/{template}.html",
        activity=activity,
        standing=standing,
        findings=[_finding_row(each) for each in (standing.preflight.findings if standing.preflight else ())],
        named=reason_label,
        changed=[translated(PART_LABELS[name]) for name in standing.changed if name in PART_LABELS],
        State=CheckStatus,
        whole=template == "preflight",
    )


def _finding_row(finding: dict[str, Any]) -> tuple[str, str, str]:
    """(Level, translated sentence, reason that lists the contacts it is about or '')."""
    params = {name: number(each) if type(each) is int else each for name, each in finding["params"].items()}
    problem = ValidationProblem(finding["message"], finding["field"], finding["line"], params=params)
    return finding["level"], problem_text(problem), params.get("people", "")


def reason_label(reason_name: str) -> str:
    """Label of an exclusion reason in the reader's language."""
    sentence, what = exclusions.label_msgids(reason_name)
    return translated(sentence) % {"what": translated(what)}


@blueprint.post("")
def run(activity_id: int) -> Any:
    current_actor().require(Permission.PLAN)
    with db.read_only_session() as reader:  # Reads the whole audience: without the write lock.
        preflight = preflight_run.evaluate(reader, current_actor(), email_activity(reader, activity_id))
    session = db_session()
    preflight_run.save(session, current_actor(), preflight)
    session.commit()
    back = "/preflight" if request.form.get("whole") else "#launch"
    return redirect(f"/activities/{activity_id}{back}", 303)


@blueprint.get("/people")
def people(activity_id: int) -> Any:
    session = db_session()
    activity = email_activity(session, activity_id, Permission.PERSONAL)
    reason_name = request.args.get("why", exclusions.MAILABLE)
    return render_template(
        "pages/delivery/people.html",
        activity=activity,
        why=reason_name,
        title=reason_label(reason_name),
        page=paginate(session, exclusions.contacts_query(session, activity, reason_name), [Contact.id]),
        standing=preflight_run.preflight_status(session, activity),
    )


@blueprint.get("/preview")
def preview(activity_id: int) -> Any:
    """The mail as a contact of the audience gets it (``contact``, searched by address prefix ``q``).

    With ``contact=empty``: as a contact without any values gets it.
    """
    session = db_session()
    activity = email_activity(session, activity_id, Permission.PERSONAL)
    search = request.args.get("q", "").strip()[:254]
    contact_arg = request.args.get("contact", "")
    chosen = None
    if contact_arg.isascii() and contact_arg.isdigit() and len(contact_arg) < 19:
        chosen = session.scalars(select_audience(activity).where(Contact.id == int(contact_arg))).one_or_none()
    suggestions = select_audience(activity)
    if search:
        suggestions = suggestions.where(Contact.email >= search.lower(), Contact.email < f"{search.lower()}\U0010ffff")
    message = session.get(Message, activity.email.message_id) if activity.email.message_id is not None else None
    recipient = chosen or _empty_contact(contact_arg)
    return render_template(
        "pages/delivery/preview.html",
        activity=activity,
        message=message,
        chosen=chosen,
        empty=contact_arg == "empty",
        search=search,
        nearby=list(session.scalars(suggestions.order_by(Contact.email if search else Contact.id).limit(8))),
        shown=_render_preview(message, recipient) if message is not None and recipient is not None else None,
        organisation=organisation(session),
    )


def _empty_contact(contact_arg: str) -> Contact | None:
    return (
        Contact(email="somebody@example.com", first_name="", last_name="", attributes={})
        if contact_arg == "empty"
        else None
    )


def _render_preview(message: Message, contact: Contact) -> Any:
    session = db_session()
    try:
        fields = sample_fields(message.language, organisation(session), contact)
        return versions.preview(versions.compile_message(session, message), fields)
    except KampaniaError:
        return None


@blueprint.post("/links")
def links(activity_id: int) -> Any:
    """Check each link of the mail once. The result is shown, not stored."""
    current_actor().require(Permission.PLAN)
    with db.read_only_session() as session:
        activity = email_activity(session, activity_id)
        urls = _link_urls(session, activity)
    results = _link_checker.check_all([url for url, _label in urls])  # No transaction is open during the requests.
    labels = dict(urls)
    activity = email_activity(db_session(), activity_id)
    return render_template(
        "pages/delivery/links.html",
        activity=activity,
        answers=[(answer, labels[answer.url]) for answer in results],
        left=max(0, len(labels) - link_check.MAX_LINKS),
    )


def _link_urls(session: Any, activity: Activity) -> list[tuple[str, str]]:
    message = session.get(Message, activity.email.message_id) if activity.email.message_id is not None else None
    if message is None:
        raise Conflict(N_("Choose a message first."))
    compiled = versions.compile_message(session, message)
    fields = sample_fields(message.language, organisation(session))
    return [(personalise_url(link.url, fields), link.label) for link in compiled.built.links]
