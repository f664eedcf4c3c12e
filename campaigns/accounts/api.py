"""Page where owners manage API keys, and the API endpoint that describes the caller's key."""

from datetime import timedelta
from typing import Any

from flask import Blueprint, flash, jsonify, redirect, render_template
from flask_babel import gettext as _
from sqlalchemy import select

from campaigns import clock
from campaigns.accounts import api_keys
from campaigns.accounts.actor import SCOPES, Actor, Permission
from campaigns.accounts.forms import ApiKeyForm
from campaigns.accounts.models import ApiKey, Scope
from campaigns.errors import ValidationFailed
from campaigns.web.pages.error_pages import add_form_problems
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.api_auth import require_any_api_key
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("accounts_api", __name__)


@blueprint.get("/api-keys")
def keys() -> Any:
    current_actor().require(Permission.SETTINGS)
    return _render_page(ApiKeyForm().fill_choices())


@blueprint.post("/api-keys")
def create() -> Any:
    current_actor().require(Permission.SETTINGS)
    form = ApiKeyForm().fill_choices()
    if form.validate_on_submit():
        days = int(form.days.data or 0)
        try:
            _key, text = api_keys.create_key(
                db_session(),
                current_actor(),
                name=form.name.data or "",
                scopes=form.scopes.data or [],
                expires_at=clock.now() + timedelta(days=days) if days else None,
            )
            db_session().commit()
        except ValidationFailed as error:
            add_form_problems(form, error)
        else:
            # No redirect: the key's text exists in this response only.
            return _render_page(ApiKeyForm(formdata=None).fill_choices(), new_key=text)
    return _render_page(form), 400


@blueprint.post("/api-keys/<int:key_id>/revoke")
def revoke(key_id: int) -> Any:
    key = api_keys.revoke_key(db_session(), current_actor(), key_id)
    db_session().commit()
    flash(_("%(name)s does not open anything any more.", name=key.name), "success")
    return redirect("/api-keys", 303)


def _render_page(form: ApiKeyForm, new_key: str = "") -> str:
    page = paginate(db_session(), select(ApiKey), [ApiKey.id.desc()])
    labels = {scope.value: scope.label for scope in Scope}
    return render_template(
        "pages/accounts/api_keys.html", page=page, form=form, new=new_key, labels=labels, now=clock.now()
    )


@blueprint.get("/api/v1/key")
@require_any_api_key
def whoami(actor: Actor) -> Any:
    """The key's name and scopes as JSON."""
    db_session().commit()
    return jsonify(name=actor.name, scopes=[scope.value for scope in Scope if SCOPES[scope] <= actor.permissions])
