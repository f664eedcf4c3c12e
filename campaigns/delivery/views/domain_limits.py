"""Settings pages of domain limits (rate and concurrency per mailbox provider)."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns.accounts.actor import Permission
from campaigns.delivery.models import DomainLimit
from campaigns.delivery.throttling import domain_limits
from campaigns.delivery.throttling.domain_limits import PROVIDERS
from campaigns.delivery.throttling.forms import DomainLimitForm
from campaigns.errors import ValidationFailed
from campaigns.web.pages.error_pages import add_form_problems
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("domain_limits", __name__, url_prefix="/relays/domains")


@blueprint.get("")
def index() -> Any:
    rows = domain_limits.list_limits(db_session(), current_actor())
    limited_domains = {domain for row in rows for domain in row.domains}
    offered = {name: domains for name, domains in PROVIDERS.items() if not limited_domains & set(domains)}
    return render_template("pages/delivery/domain_limits.html", limits=rows, offered=offered)


@blueprint.route("/new", methods=["GET", "POST"])
def enter() -> Any:
    current_actor().require(Permission.SETTINGS)
    form = DomainLimitForm()
    provider = request.args.get("provider", "")
    if request.method == "GET" and provider in PROVIDERS:
        form.name.data, form.domains.data = provider, "\n".join(PROVIDERS[provider])
    return _save_and_render(form, None)


@blueprint.route("/<int:limit_id>", methods=["GET", "POST"])
def limit(limit_id: int) -> Any:
    current_actor().require(Permission.SETTINGS)
    row = domain_limits.limit_of(db_session(), limit_id)
    form = DomainLimitForm(obj=row)
    if request.method == "GET":
        form.domains.data = "\n".join(row.domains)
    return _save_and_render(form, row)


def _save_and_render(form: DomainLimitForm, row: DomainLimit | None) -> Any:
    session = db_session()
    if form.validate_on_submit():
        try:
            if row is None:
                domain_limits.create_limit(session, current_actor(), form.limit_input)
            else:
                domain_limits.update_limit(session, current_actor(), row, form.limit_input)
            session.commit()
        except ValidationFailed as error:
            session.rollback()
            add_form_problems(form, error)
        else:
            flash(_("%(name)s is saved.", name=form.limit_input.name), "success")
            return redirect("/relays/domains", 303)
    return render_template("pages/delivery/domain_limit.html", form=form, limit=row), 400 if form.errors else 200


@blueprint.post("/<int:limit_id>/removal")
def removal(limit_id: int) -> Any:
    current_actor().require(Permission.SETTINGS)
    row = domain_limits.limit_of(db_session(), limit_id)
    domain_limits.delete_limit(db_session(), current_actor(), row)
    db_session().commit()
    flash(_("%(name)s is taken out.", name=row.name), "success")
    return redirect("/relays/domains", 303)
