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
from campaigns.web.pages.error_pages import say
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor

blueprint = Blueprint("domains", __name__, url_prefix="/domains")


@blueprint.get("")
def index() -> Any:
    actor().require(Permission.SETTINGS)
    session = db_session()
    keys = dkim_keys.all_keys(session)
    ours = organisation(session).sender_email.rpartition("@")[2]
    names = sorted({key.domain for key in keys} | ({ours} if ours else set()))
    return render_template(
        "pages/delivery/domains.html",
        domains=[(name, [key for key in keys if key.domain == name], session.get(DomainCheck, name)) for name in names],
        record_of=dns_check.record_of,
        wanted=dns_records.wanted,
        hosts=[address.host for address in availability.addresses(session)],
        State=CheckStatus,
        kept_published=dkim_keys.KEPT_PUBLISHED,
        now=clock.now(),
        ours=ours,
    )


@blueprint.post("/keys")
def make() -> Any:
    actor().require(Permission.SETTINGS)
    return _tried(
        lambda: dkim_keys.make(db_session(), actor(), request.form.get("domain", "")),
        _("The keys are made: publish their records, then check the domain."),
    )


@blueprint.post("/<domain>/check")
def check(domain: str) -> Any:
    actor().require(Permission.SETTINGS)
    with db.reading() as session:
        question = dns_check.question(session, actor(), domain)
    answer = dns_check.look(question)  # No transaction is open during the DNS queries.
    return _tried(lambda: dns_check.keep(db_session(), actor(), answer), _("The domain is checked."))


@blueprint.post("/keys/<int:key_id>/activate")
def activate(key_id: int) -> Any:
    actor().require(Permission.SETTINGS)
    found = dkim_keys.key_of(db_session(), key_id)
    return _tried(lambda: dkim_keys.activate(db_session(), actor(), found), _("Mail is signed with this key now."))


@blueprint.post("/keys/<int:key_id>/retire")
def retire(key_id: int) -> Any:
    actor().require(Permission.SETTINGS)
    found = dkim_keys.key_of(db_session(), key_id)
    return _tried(lambda: dkim_keys.retire(db_session(), actor(), found), _("The key is retired."))


def _tried(verb: Callable[[], object], done: str) -> Any:
    try:
        verb()
        db_session().commit()
        flash(done, "success")
    except (Conflict, ValidationFailed) as error:
        db_session().rollback()
        flash(say(error), "danger")
    return redirect("/domains", 303)
