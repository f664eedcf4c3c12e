"""Pages of goals and exchange rates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import get_locale
from flask_babel import gettext as _
from sqlalchemy import select

from campaigns import clock
from campaigns.accounts.actor import Permission
from campaigns.accounts.organisation import COMMON_CURRENCIES, organisation
from campaigns.errors import ValidationFailed
from campaigns.leads.models import LeadStage
from campaigns.planning.models import Campaign
from campaigns.web.i18n.formatting import ngettext
from campaigns.web.pages.error_pages import add_form_problems
from campaigns.web.pages.form_choices import choices
from campaigns.web.pages.pagination import paginate
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import current_actor
from tracking.conversions import currency, goals
from tracking.counters.periods import day_start
from tracking.forms import GoalChange, GoalForm, RateForm
from tracking.metrics import overview
from tracking.metrics.registry import reading
from tracking.models.conversions import LEAD_GOAL, Goal, GoalKind
from tracking.reports.timezone import organisation_zone

blueprint = Blueprint("goals", __name__, url_prefix="/goals")


@blueprint.get("")
def index() -> Any:
    current_actor().require(Permission.VIEW)
    query = select(Goal, Campaign.name).outerjoin(Campaign, Campaign.id == Goal.campaign_id)
    page = paginate(db_session(), query, [Goal.id.desc()])
    return render_template(
        "pages/tracking/goals.html",
        page=page,
        reached=overview.conversions_by_goal(db_session()),
        lead=LEAD_GOAL,
        reading=reading,
        waiting=currency.unconverted_amounts(db_session()),
        titles=goals.form_titles(db_session(), [goal for goal, _name in page.items]),
        stages=LeadStage,
    )


@blueprint.route("/new", methods=["GET", "POST"])
def new() -> Any:
    current_actor().require(Permission.PLAN)
    form = GoalForm().fill_choices(db_session())
    if form.validate_on_submit():
        if earlier_response := idempotent_forms.previous_result():
            return earlier_response
        try:
            goals.create_goal(
                db_session(),
                current_actor(),
                key=form.key.data or "",
                name=form.name.data or "",
                kind=GoalKind(form.kind.data),
                match=form.match_value,
                campaign_id=form.campaign_id.data,
                once=bool(form.once.data),
                value=form.value.data,
                since=day_start(form.since.data, organisation_zone())
                if form.since.data and form.is_event_goal
                else None,
            )
        except ValidationFailed as error:
            add_form_problems(form, _move_match_problems(error, str(form.kind.data)))
        else:
            flash(_("The goal is made."), "success")
            return idempotent_forms.commit_and_redirect("/goals")
    return render_template("pages/tracking/goal_new.html", form=form), 400 if form.is_submitted() else 200


@blueprint.route("/<int:goal_id>", methods=["GET", "POST"])
def change(goal_id: int) -> Any:
    current_actor().require(Permission.PLAN)
    goal = goals.get_goal(db_session(), goal_id)
    form = GoalChange(obj=goal)
    if form.validate_on_submit():
        try:
            goals.change_goal(
                db_session(),
                current_actor(),
                goal,
                name=form.name.data or "",
                value=form.value.data,
                active=bool(form.active.data),
            )
            db_session().commit()
        except ValidationFailed as error:
            db_session().rollback()
            add_form_problems(form, error)
        else:
            flash(_("Saved."), "success")
            return redirect("/goals", 303)
    page = render_template(
        "pages/tracking/goal.html",
        form=form,
        goal=goal,
        titles=goals.form_titles(db_session(), [goal]),
        stages=LeadStage,
    )
    return page, 400 if form.is_submitted() else 200


def _move_match_problems(error: ValidationFailed, kind: str) -> ValidationFailed:
    """Move the problems of ``match`` to the form field of the goal's kind, where it was entered."""
    return ValidationFailed([replace(one, field=kind) if one.field == "match" else one for one in error.problems])


def _currency_choices(own_currency: str, unconverted: Sequence[str]) -> Any:
    """Choices of foreign currencies: those with unconverted amounts, the common ones, then the others by name."""
    locale = get_locale()
    names: Mapping[str, str] = {} if locale is None else locale.currencies
    others = sorted(currency.currency_codes(), key=lambda code: (code not in names, names.get(code, code).casefold()))
    codes = dict.fromkeys([*unconverted, *COMMON_CURRENCIES, *others])
    return choices((code, f"{code} – {names.get(code, code)}") for code in codes if code != own_currency)


@blueprint.route("/rates", methods=["GET", "POST"])
def rates() -> Any:
    current_actor().require(Permission.PLAN if request.method == "POST" else Permission.VIEW)
    org, unconverted = organisation(db_session()), currency.unconverted_amounts(db_session())
    form = RateForm()
    form.currency.choices = _currency_choices(org.currency, [one.currency for one in unconverted])
    if form.validate_on_submit():
        try:
            changed = currency.set_rate(
                db_session(),
                current_actor(),
                currency=form.currency.data or "",
                valid_from=form.valid_from.data or clock.now().date(),
                rate=form.rate.data,
            )
            db_session().commit()
        except ValidationFailed as error:
            db_session().rollback()
            add_form_problems(form, error)
        else:
            message = ngettext("%(num)s conversion has a new value.", "%(num)s conversions have a new value.", changed)
            flash(f"{_('Saved.')} {message}", "success")
            return redirect("/goals/rates", 303)
    page = render_template(
        "pages/tracking/exchange_rates.html",
        form=form,
        waiting=unconverted,
        rates=currency.exchange_rates(db_session()),
        own_currency=org.currency,
        today=clock.now().date(),
    )
    return page, 400 if form.is_submitted() else 200
