"""Views of suppressions."""

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext as _

from campaigns.accounts.actor import Permission
from campaigns.audience import queries, suppression
from campaigns.audience.forms import SuppressionForm
from campaigns.audience.models import Suppression, SuppressionReason
from campaigns.errors import ValidationFailed
from campaigns.web.i18n.formatting import ngettext
from campaigns.web.pages.error_pages import add_form_problems, problem_text
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("suppressions", __name__, url_prefix="/suppressions")


@blueprint.route("", methods=["GET", "POST"])
def index() -> Any:
    current_actor().require(Permission.PERSONAL)
    form = SuppressionForm().offer()
    if form.validate_on_submit():
        try:
            reason = SuppressionReason(form.reason.data)
            number = suppression.suppress_all(
                db_session(), current_actor(), form.email.data or "", reason, form.detail.data or ""
            )
            db_session().commit()
        except ValidationFailed as error:
            db_session().rollback()
            add_form_problems(form, error)
        else:
            flash(
                ngettext(
                    "%(num)s address is not mailed any more.", "%(num)s addresses are not mailed any more.", number
                ),
                "success",
            )
            return redirect("/suppressions", 303)
    search = request.args.get("q", "")[:254]
    page = paginate(db_session(), queries.suppressions(search), [Suppression.id.desc()])
    body = render_template(
        "pages/audience/suppressions.html", page=page, words=search, form=form, liftable=suppression.LIFTABLE
    )
    return body, 400 if form.is_submitted() else 200


@blueprint.post("/<int:suppression_id>/lift")
def lift(suppression_id: int) -> Any:
    try:
        suppression.lift(db_session(), current_actor(), suppression_id, request.form.get("why", ""))
        db_session().commit()
    except ValidationFailed as error:
        flash("; ".join(map(problem_text, error.problems)), "danger")
    else:
        flash(_("This address can receive e-mail again."), "success")
    return redirect("/suppressions", 303)
