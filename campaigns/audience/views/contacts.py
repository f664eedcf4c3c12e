"""Views of contacts: list, form, profile, consent, merge, erasure."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns.accounts.actor import Permission
from campaigns.audience import consent, contact_merge, contacts, erasure, lists, queries, suppression
from campaigns.audience.forms import ConsentForm, ContactForm
from campaigns.audience.models import ConsentLevel, Contact
from campaigns.errors import Conflict, ValidationFailed
from campaigns.i18n import N_
from campaigns.web.i18n.formatting import digits, translated
from campaigns.web.pages.error_pages import add_form_problems, error_text
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("contacts", __name__, url_prefix="/contacts")


_MAX_CANDIDATES = 10
"""Candidates shown when searching for the contact to merge with."""


def _parse_id(text: str) -> int:
    """Raise ValueError for ids beyond 64 bits; werkzeug then uses the default value."""
    if int(text) not in range(2**63):
        raise ValueError(text)
    return int(text)


_SOURCES = {
    "hand": N_("by hand"),
    "by hand": N_("by hand"),
    "unsubscribe link": N_("unsubscribe link"),
    "unsubscribe link, taken back": N_("unsubscribe link, taken back"),
}


@blueprint.app_template_filter("source")
def source_text(source: str) -> str:
    """Return a stored source as text: translated for sources that the application wrote, unchanged for typed ones."""
    kind, _space, name = source.partition(" ")
    if kind == "form" and name:
        return str(_("form %(name)s", name=name))
    if kind == "merged" and name.isdecimal():
        return str(
            _("the stricter of two answers, when contact %(number)s was merged into this one", number=digits(name))
        )
    if kind == "send" and name.isdecimal():
        return str(_("send %(number)s", number=digits(name)))
    return translated(_SOURCES.get(source, "")) or source


@blueprint.get("")
def index() -> Any:
    current_actor().require(Permission.PERSONAL)
    search, list_id = request.args.get("q", "")[:200], request.args.get("list", type=_parse_id)
    page = paginate(db_session(), queries.contacts_with_badges(search, list_id), [Contact.id.desc()])
    return render_template(
        "pages/audience/contacts.html", page=page, words=search, list_id=list_id, lists=lists.all_lists(db_session())
    )


@blueprint.route("/new", methods=["GET", "POST"])
def new() -> Any:
    current_actor().require(Permission.AUDIENCE)
    form = ContactForm().offer()
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        try:
            contact = contacts.add_contact(db_session(), current_actor(), **form.values(), source="hand")
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            flash(_("The contact is added."), "success")
            return idempotent_forms.commit_and_redirect(f"/contacts/{contact.id}")
    return _form_page(form, None)


@blueprint.route("/<int:contact_id>/edit", methods=["GET", "POST"])
def edit(contact_id: int) -> Any:
    current_actor().require(Permission.AUDIENCE)
    contact = contacts.contact_of(db_session(), contact_id)
    form = ContactForm(obj=contact).offer(contact)
    if form.validate_on_submit():
        try:
            contacts.update_contact(db_session(), current_actor(), contact_id, **form.values())
            db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            flash(_("The contact is saved."), "success")
            return redirect(f"/contacts/{contact_id}", 303)
    return _form_page(form, contact)


def _form_page(form: ContactForm, contact: Contact | None) -> Any:
    page = render_template("pages/audience/contact_form.html", form=form, contact=contact)
    return page, 400 if form.is_submitted() else 200


@blueprint.get("/<int:contact_id>")
def show(contact_id: int) -> Any:
    current_actor().require(Permission.PERSONAL)
    merged_into = contacts.merged_into(db_session(), contact_id)
    if merged_into is not None:
        return redirect(f"/contacts/{merged_into}", 303)
    return _contact_page(contact_id, ConsentForm().offer())


def _contact_page(contact_id: int, form: ConsentForm) -> str:
    session = db_session()
    contact = contacts.contact_of(session, contact_id)
    return render_template(
        "pages/audience/contact.html",
        contact=contact,
        form=form,
        ledger=consent.history(session, contact_id),
        aliases=contacts.aliases_of(session, contact_id),
        on_lists=lists.lists_of_contact(session, contact_id),
        lists=lists.all_lists(session),
        suppressed=suppression.reason_for(session, contact.email),
    )


@blueprint.post("/<int:contact_id>/consent")
def record_consent(contact_id: int) -> Any:
    current_actor().require(Permission.AUDIENCE)
    form = ConsentForm().offer()
    if not form.validate_on_submit():
        return _contact_page(contact_id, form), 400
    purpose, level = form.purpose_and_level
    try:
        if level is ConsentLevel.NONE:
            consent.withdraw(db_session(), current_actor(), contact_id, purpose, source=form.source.data or "")
        else:
            consent.grant(
                db_session(),
                current_actor(),
                contact_id,
                purpose,
                level,
                source=form.source.data or "",
                wording=form.wording.data or "",
            )
        db_session().commit()
    except Conflict as error:
        form.form_errors.append(error_text(error))
        return _contact_page(contact_id, form), 409
    flash(_("Written into the ledger."), "success")
    return redirect(f"/contacts/{contact_id}", 303)


@blueprint.post("/<int:contact_id>/lists")
def put_on_list(contact_id: int) -> Any:
    contacts.contact_of(db_session(), contact_id)
    lists.add_members(db_session(), current_actor(), request.form.get("list_id", 0, type=_parse_id), [contact_id])
    db_session().commit()
    return redirect(f"/contacts/{contact_id}", 303)


@blueprint.post("/<int:contact_id>/lists/<int:list_id>/remove")
def take_off_list(contact_id: int, list_id: int) -> Any:
    lists.remove_members(db_session(), current_actor(), list_id, [contact_id])
    db_session().commit()
    return redirect(f"/contacts/{contact_id}", 303)


@blueprint.get("/<int:contact_id>/merge")
def merging(contact_id: int) -> Any:
    """Search for the other contact, or the preview of merging the two."""
    current_actor().require(Permission.AUDIENCE)
    session, search = db_session(), request.args.get("q", "")[:200].strip()
    other_id = request.args.get("with", type=_parse_id)
    contact = contacts.contact_of(session, contact_id)
    candidates = queries.contacts_with_badges(search).where(Contact.id != contact_id).order_by(Contact.id.desc())
    return render_template(
        "pages/audience/contact_merge.html",
        contact=contact,
        words=search,
        found=session.execute(candidates.limit(_MAX_CANDIDATES)).all() if search and other_id is None else [],
        union=contact_merge.preview_merge(session, current_actor(), contact_id, other_id)
        if other_id is not None
        else None,
    )


@blueprint.post("/<int:contact_id>/merge")
def merge(contact_id: int) -> Any:
    contact_merge.merge_contacts(db_session(), current_actor(), contact_id, request.form.get("with", 0, type=_parse_id))
    db_session().commit()
    flash(_("The two are one person now."), "success")
    return redirect(f"/contacts/{contact_id}", 303)


@blueprint.post("/<int:contact_id>/erase")
def erase(contact_id: int) -> Any:
    erasure.erase_contact(db_session(), current_actor(), contact_id)
    db_session().commit()
    flash(_("The person is erased. Their address cannot be imported again."), "success")
    return redirect("/contacts", 303)
