"""Views of contact lists."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns.accounts.actor import Permission
from campaigns.audience import lists, queries
from campaigns.audience.addresses import is_address, normalise
from campaigns.audience.forms import ListForm
from campaigns.audience.models import Contact
from campaigns.errors import ValidationFailed
from campaigns.web.i18n.formatting import ngettext
from campaigns.web.pages.error_pages import add_form_problems, problem_text
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("lists", __name__, url_prefix="/lists")
_MAX_PASTED = 500


@blueprint.route("", methods=["GET", "POST"])
def index() -> Any:
    current_actor().require(Permission.PERSONAL)
    form = ListForm()
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        try:
            contact_list = lists.create_list(db_session(), current_actor(), form.name.data or "")
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            flash(_("The list is there; now add people."), "success")
            return idempotent_forms.commit_and_redirect(f"/lists/{contact_list.id}")
    page = render_template("pages/audience/lists.html", lists=lists.lists_with_sizes(db_session()), form=form)
    return page, 400 if form.is_submitted() else 200


@blueprint.get("/<int:list_id>")
def show(list_id: int) -> Any:
    current_actor().require(Permission.PERSONAL)
    contact_list = lists.list_of(db_session(), list_id)
    search = request.args.get("q", "")[:200]
    page = paginate(db_session(), queries.contacts_with_badges(search, list_id), [Contact.id.desc()])
    return render_template("pages/audience/list.html", list=contact_list, page=page, words=search)


@blueprint.post("/<int:list_id>/name")
def rename(list_id: int) -> Any:
    try:
        lists.rename_list(db_session(), current_actor(), list_id, request.form.get("name", ""))
        db_session().commit()
    except ValidationFailed as error:
        flash("; ".join(map(problem_text, error.problems)), "danger")
    else:
        flash(_("The list has its new name."), "success")
    return redirect(f"/lists/{list_id}", 303)


@blueprint.post("/<int:list_id>/members")
def add(list_id: int) -> Any:
    current_actor().require(Permission.AUDIENCE)
    pasted = request.form.get("addresses", "").replace(",", "\n").replace(";", "\n").split("\n")[:_MAX_PASTED]
    addresses = {normalise(text) for text in pasted if is_address(text)}
    contact_ids = queries.contact_ids_by_address(db_session(), sorted(addresses))
    added = lists.add_members(db_session(), current_actor(), list_id, contact_ids)
    db_session().commit()
    flash(ngettext("%(num)s contact added.", "%(num)s contacts added.", added), "success")
    missing = sum(1 for text in pasted if text.strip()) - len(contact_ids)
    if missing > 0:
        flash(
            ngettext("%(num)s address belongs to no contact.", "%(num)s addresses belong to no contact.", missing),
            "warning",
        )
    return redirect(f"/lists/{list_id}", 303)


@blueprint.post("/<int:list_id>/members/<int:contact_id>/remove")
def remove(list_id: int, contact_id: int) -> Any:
    lists.remove_members(db_session(), current_actor(), list_id, [contact_id])
    db_session().commit()
    return redirect(f"/lists/{list_id}", 303)


@blueprint.post("/<int:list_id>/delete")
def delete(list_id: int) -> Any:
    lists.delete_list(db_session(), current_actor(), list_id)
    db_session().commit()
    flash(_("The list is deleted; its people are still contacts."), "success")
    return redirect("/lists", 303)
