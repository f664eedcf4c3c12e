"""Settings pages of relays: list with their availability, create, change, test and remove."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template
from flask_babel import gettext as _

from campaigns import db
from campaigns.accounts.actor import Permission
from campaigns.delivery.models import Relay
from campaigns.delivery.relays import availability, connection_test, service
from campaigns.delivery.relays.forms import RelayForm
from campaigns.delivery.smtp.address import relay_address
from campaigns.errors import Conflict, ValidationFailed
from campaigns.i18n import N_
from campaigns.web.pages.error_pages import put_problems
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("relays", __name__, url_prefix="/relays")


@blueprint.get("")
def index() -> Any:
    rows = service.listed(db_session(), actor())
    return render_template(
        "pages/delivery/relays.html",
        relays=[(row, availability.standing(db_session(), f"{row.host}:{row.port}")) for row in rows],
        settings_relay=None if any(row.active for row in rows) else relay_address(),
        settings_standing=availability.standing(db_session(), relay_address().name),
    )


@blueprint.route("/new", methods=["GET", "POST"])
def enter() -> Any:
    actor().require(Permission.SETTINGS)
    form = RelayForm().offer()
    if form.validate_on_submit():
        try:
            relay = service.enter(db_session(), actor(), form.words)
            db_session().commit()
        except ValidationFailed as error:
            put_problems(form, error)
        else:
            flash(_("%(name)s is entered. Try it before the next launch.", name=relay.name), "success")
            return redirect(f"/relays/{relay.id}", 303)
    return _page(None, form)


@blueprint.route("/<int:relay_id>", methods=["GET", "POST"])
def relay(relay_id: int) -> Any:
    actor().require(Permission.SETTINGS)
    found = service.relay_of(db_session(), relay_id)
    form = RelayForm(obj=found).offer()
    if form.validate_on_submit():
        try:
            service.change(db_session(), actor(), found, form.words)
            db_session().commit()
        except ValidationFailed as error:
            db_session().rollback()
            put_problems(form, error)
        else:
            flash(_("%(name)s is saved.", name=found.name), "success")
            return redirect("/relays", 303)
    return _page(found, form)


def _page(found: Relay | None, form: RelayForm, trial: connection_test.ConnectionTest | None = None) -> Any:
    page = render_template("pages/delivery/relay.html", form=form, relay=found, trial=trial)
    return page, 400 if form.errors else 200


@blueprint.post("/<int:relay_id>/trial")
def trial(relay_id: int) -> Any:
    """Test the connection to a relay. The result is shown, not stored: a reload tests again."""
    actor().require(Permission.SETTINGS)
    with db.reading() as session:
        address = availability.address_of(service.relay_of(session, relay_id))
    if address is None:
        raise Conflict(N_("Its password cannot be read any more: enter it again."))
    result = connection_test.attempt(address)
    if not result.error:
        availability.note_success(address)  # Ends the pause of a relay that was down.
    found = service.relay_of(db_session(), relay_id)
    return _page(found, RelayForm(formdata=None, obj=found).offer(), result)


@blueprint.post("/<int:relay_id>/removal")
def removal(relay_id: int) -> Any:
    actor().require(Permission.SETTINGS)
    found = service.relay_of(db_session(), relay_id)
    service.take_out(db_session(), actor(), found)
    db_session().commit()
    flash(_("%(name)s is taken out.", name=found.name), "success")
    return redirect("/relays", 303)
