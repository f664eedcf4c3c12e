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
from campaigns.content.rendering.links import personalise
from campaigns.delivery.domains.dns_check import CheckStatus
from campaigns.delivery.preflight import exclusions, link_check
from campaigns.delivery.preflight import run as preflight_run
from campaigns.delivery.views.page_data import mailing
from campaigns.errors import Conflict, KampaniaError, ValidationProblem
from campaigns.i18n import N_
from campaigns.planning.models import Activity
from campaigns.planning.recipients import contacts_of
from campaigns.web.i18n.formatting import number, translated
from campaigns.web.pages.error_pages import problem_text
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("preflights", __name__, url_prefix="/activities/<int:activity_id>/preflight")

PARTS = {
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
_asking = link_check.LinkChecker()


@blueprint.get("")
def page(activity_id: int) -> Any:
    session = db_session()
    found = mailing(session, activity_id)
    standing = preflight_run.standing(session, found)
    kind = "_preflight" if request.headers.get("HX-Request") else "preflight"
    return render_template(
        f"pages/delivery/{kind}.html",
        activity=found,
        standing=standing,
        findings=[_words(each) for each in (standing.preflight.findings if standing.preflight else ())],
        named=named,
        changed=[translated(PARTS[name]) for name in standing.changed if name in PARTS],
        State=CheckStatus,
        whole=kind == "preflight",
    )


def _words(finding: dict[str, Any]) -> tuple[str, str, str]:
    """(Level, translated sentence, reason that lists the contacts it is about or '')."""
    params = {name: number(each) if type(each) is int else each for name, each in finding["params"].items()}
    where = ValidationProblem(finding["message"], finding["field"], finding["line"], params=params)
    return finding["level"], problem_text(where), params.get("people", "")


def named(why: str) -> str:
    """Label of an exclusion reason in the reader's language."""
    sentence, what = exclusions.label(why)
    return translated(sentence) % {"what": translated(what)}


@blueprint.post("")
def run(activity_id: int) -> Any:
    actor().require(Permission.PLAN)
    with db.reading() as looking:  # Reads the whole audience: without the write lock.
        found = preflight_run.look(looking, actor(), mailing(looking, activity_id))
    session = db_session()
    preflight_run.keep(session, actor(), found)
    session.commit()
    back = "/preflight" if request.form.get("whole") else "#launch"
    return redirect(f"/activities/{activity_id}{back}", 303)


@blueprint.get("/people")
def people(activity_id: int) -> Any:
    session = db_session()
    found = mailing(session, activity_id, Permission.PERSONAL)
    why = request.args.get("why", exclusions.MAILABLE)
    return render_template(
        "pages/delivery/people.html",
        activity=found,
        why=why,
        title=named(why),
        page=page_of(session, exclusions.people(session, found, why), [Contact.id]),
        standing=preflight_run.standing(session, found),
    )


@blueprint.get("/preview")
def preview(activity_id: int) -> Any:
    """The mail as a contact of the audience gets it (``contact``, searched by address prefix ``q``).

    With ``contact=empty``: as a contact without any values gets it.
    """
    session = db_session()
    found = mailing(session, activity_id, Permission.PERSONAL)
    search = request.args.get("q", "").strip()[:254]
    wanted = request.args.get("contact", "")
    chosen = None
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
        chosen = session.scalars(contacts_of(found).where(Contact.id == int(wanted))).one_or_none()
    nearby = contacts_of(found)
    if search:
        nearby = nearby.where(Contact.email >= search.lower(), Contact.email < f"{search.lower()}\U0010ffff")
    message = session.get(Message, found.email.message_id) if found.email.message_id is not None else None
    somebody = chosen or _nobody(wanted)
    return render_template(
        "pages/delivery/preview.html",
        activity=found,
        message=message,
        chosen=chosen,
        empty=wanted == "empty",
        search=search,
        nearby=list(session.scalars(nearby.order_by(Contact.email if search else Contact.id).limit(8))),
        shown=_shown(message, somebody) if message is not None and somebody is not None else None,
        house=organisation(session),
    )


def _nobody(wanted: str) -> Contact | None:
    return (
        Contact(email="somebody@example.com", first_name="", last_name="", attributes={}) if wanted == "empty" else None
    )


def _shown(message: Message, contact: Contact) -> Any:
    session = db_session()
    try:
        fields = sample_fields(message.language, organisation(session), contact)
        return versions.preview(versions.compile_message(session, message), fields)
    except KampaniaError:
        return None


@blueprint.post("/links")
def links(activity_id: int) -> Any:
    """Check each link of the mail once. The result is shown, not stored."""
    actor().require(Permission.PLAN)
    with db.reading() as session:
        found = mailing(session, activity_id)
        urls = _destinations(session, found)
    answers = _asking.all([url for url, _label in urls])  # No transaction is open during the requests.
    labels = dict(urls)
    found = mailing(db_session(), activity_id)
    return render_template(
        "pages/delivery/links.html",
        activity=found,
        answers=[(answer, labels[answer.url]) for answer in answers],
        left=max(0, len(labels) - link_check.MOST),
    )


def _destinations(session: Any, found: Activity) -> list[tuple[str, str]]:
    message = session.get(Message, found.email.message_id) if found.email.message_id is not None else None
    if message is None:
        raise Conflict(N_("Choose a message first."))
    compiled = versions.compile_message(session, message)
    fields = sample_fields(message.language, organisation(session))
    return [(personalise(link.url, fields), link.label) for link in compiled.built.links]
