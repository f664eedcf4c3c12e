"""Settings pages of relays: list with their availability, create, change, test and remove."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template
from flask_babel import gettext as _

from campaigns import db
from campaigns.accounts.actor import Permission
from campaigns.delivery.models import Relay
from campaigns.delivery.relays import availability, connection_test, service
from campaigns.delivery.relays.forms import RelayForm
from campaigns.delivery.smtp.address import relay_from_settings
from campaigns.errors import Conflict, ValidationFailed
from campaigns.i18n import N_
from campaigns.web.pages.error_pages import add_form_problems
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("relays", __name__, url_prefix="/relays")


@blueprint.get("")
def index() -> Any:
    rows = service.list_relays(db_session(), current_actor())
    return render_template(
        "pages/delivery/relays.html",
        relays=[(row, availability.relay_health(db_session(), f"{row.host}:{row.port}")) for row in rows],
        settings_relay=None if any(row.active for row in rows) else relay_from_settings(),
        settings_standing=availability.relay_health(db_session(), relay_from_settings().name),
    )


@blueprint.route("/new", methods=["GET", "POST"])
def enter() -> Any:
    current_actor().require(Permission.SETTINGS)
    form = RelayForm().fill_choices()
    if form.validate_on_submit():
        try:
            relay = service.create_relay(db_session(), current_actor(), form.relay_input)
            db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            flash(_("%(name)s is entered. Try it before the next launch.", name=relay.name), "success")
            return redirect(f"/relays/{relay.id}", 303)
    return _page(None, form)


@blueprint.route("/<int:relay_id>", methods=["GET", "POST"])
def relay(relay_id: int) -> Any:
    current_actor().require(Permission.SETTINGS)
    row = service.get_relay(db_session(), relay_id)
    form = RelayForm(obj=row).fill_choices()
    if form.validate_on_submit():
        try:
            service.update_relay(db_session(), current_actor(), row, form.relay_input)
            db_session().commit()
        except ValidationFailed as error:
            db_session().rollback()
            add_form_problems(form, error)
        else:
            flash(_("%(name)s is saved.", name=row.name), "success")
            return redirect("/relays", 303)
    return _page(row, form)


def _page(row: Relay | None, form: RelayForm, trial: connection_test.ConnectionTest | None = None) -> Any:
    page = render_template("pages/delivery/relay.html", form=form, relay=row, trial=trial)
    return page, 400 if form.errors else 200


@blueprint.post("/<int:relay_id>/trial")
def trial(relay_id: int) -> Any:
    """Test the connection to a relay. The result is shown, not stored: a reload tests again."""
    current_actor().require(Permission.SETTINGS)
    with db.read_only_session() as session:
        address = availability.build_address(service.get_relay(session, relay_id))
    if address is None:
        raise Conflict(N_("Its password cannot be read any more: enter it again."))
    result = connection_test.try_connection(address)
    if not result.error:
        availability.record_success(address)  # Ends the pause of a relay that was down.
    row = service.get_relay(db_session(), relay_id)
    return _page(row, RelayForm(formdata=None, obj=row).fill_choices(), result)


@blueprint.post("/<int:relay_id>/removal")
def removal(relay_id: int) -> Any:
    current_actor().require(Permission.SETTINGS)
    row = service.get_relay(db_session(), relay_id)
    service.delete_relay(db_session(), current_actor(), row)
    db_session().commit()
    flash(_("%(name)s is taken out.", name=row.name), "success")
    return redirect("/relays", 303)
