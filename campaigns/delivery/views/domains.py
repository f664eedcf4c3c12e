"""Settings pages of sending domains: DKIM keys, DNS records to publish, and the result of the DNS check."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns import clock, db
from campaigns.accounts.actor import Permission
from campaigns.accounts.organisation import organisation
from campaigns.delivery.domains import dkim_keys, dns_check, dns_records
from campaigns.delivery.domains.dns_check import CheckStatus
from campaigns.delivery.models import DomainCheck
from campaigns.delivery.relays import availability
from campaigns.errors import Conflict, ValidationFailed
from campaigns.web.pages.error_pages import error_text
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("domains", __name__, url_prefix="/domains")


@blueprint.get("")
def index() -> Any:
    current_actor().require(Permission.SETTINGS)
    session = db_session()
    keys = dkim_keys.list_keys(session)
    own_domain = organisation(session).sender_email.rpartition("@")[2]
    names = sorted({key.domain for key in keys} | ({own_domain} if own_domain else set()))
    return render_template(
        "pages/delivery/domains.html",
        domains=[(name, [key for key in keys if key.domain == name], session.get(DomainCheck, name)) for name in names],
        record_of=dns_check.txt_record,
        wanted=dns_records.suggest_records,
        hosts=[address.host for address in availability.relay_addresses(session)],
        State=CheckStatus,
        kept_published=dkim_keys.RECORD_RETENTION,
        now=clock.now(),
        own_domain=own_domain,
    )


@blueprint.post("/keys")
def make() -> Any:
    current_actor().require(Permission.SETTINGS)
    return _commit_or_flash(
        lambda: dkim_keys.create_keys(db_session(), current_actor(), request.form.get("domain", "")),
        _("The keys are made: publish their records, then check the domain."),
    )


@blueprint.post("/<domain>/check")
def check(domain: str) -> Any:
    current_actor().require(Permission.SETTINGS)
    with db.read_only_session() as session:
        check_input = dns_check.read_check_input(session, current_actor(), domain)
    result = dns_check.check_domain(check_input)  # No transaction is open during the DNS queries.
    return _commit_or_flash(
        lambda: dns_check.save_report(db_session(), current_actor(), result), _("The domain is checked.")
    )


@blueprint.post("/keys/<int:key_id>/activate")
def activate(key_id: int) -> Any:
    current_actor().require(Permission.SETTINGS)
    key = dkim_keys.get_key(db_session(), key_id)
    return _commit_or_flash(
        lambda: dkim_keys.activate(db_session(), current_actor(), key), _("Mail is signed with this key now.")
    )


@blueprint.post("/keys/<int:key_id>/retire")
def retire(key_id: int) -> Any:
    current_actor().require(Permission.SETTINGS)
    key = dkim_keys.get_key(db_session(), key_id)
    return _commit_or_flash(lambda: dkim_keys.retire(db_session(), current_actor(), key), _("The key is retired."))


def _commit_or_flash(action: Callable[[], object], success: str) -> Any:
    try:
        action()
        db_session().commit()
        flash(success, "success")
    except (Conflict, ValidationFailed) as error:
        db_session().rollback()
        flash(error_text(error), "danger")
    return redirect("/domains", 303)
