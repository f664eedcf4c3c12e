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
from campaigns.accounts.organisation import USUAL_CURRENCIES, organisation
from campaigns.errors import ValidationFailed
from campaigns.leads.models import LeadStage
from campaigns.planning.models import Campaign
from campaigns.web.i18n.formatting import ngettext
from campaigns.web.pages.error_pages import put_problems
from campaigns.web.pages.form_choices import choices
from campaigns.web.pages.pagination import page_of
from campaigns.web.request_session import db_session
from campaigns.web.security import idempotent_forms
from campaigns.web.security.current_actor import actor
from tracking.conversions import currency, goals
from tracking.counters.periods import midnight
from tracking.forms import GoalChange, GoalForm, RateForm
from tracking.metrics import overview
from tracking.metrics.registry import reading
from tracking.models.conversions import LEAD_GOAL, Goal, GoalKind
from tracking.reports.timezone import our_zone

blueprint = Blueprint("goals", __name__, url_prefix="/goals")


@blueprint.get("")
def index() -> Any:
    actor().require(Permission.VIEW)
    wanted = select(Goal, Campaign.name).outerjoin(Campaign, Campaign.id == Goal.campaign_id)
    page = page_of(db_session(), wanted, [Goal.id.desc()])
    return render_template(
        "pages/tracking/goals.html",
        page=page,
        reached=overview.reached(db_session()),
        lead=LEAD_GOAL,
        reading=reading,
        waiting=currency.unvalued(db_session()),
        titles=goals.form_titles(db_session(), [goal for goal, _name in page.items]),
        stages=LeadStage,
    )


@blueprint.route("/new", methods=["GET", "POST"])
def new() -> Any:
    actor().require(Permission.PLAN)
    form = GoalForm().offer(db_session())
    if form.validate_on_submit():
        if there := idempotent_forms.already():
            return there
        try:
            goals.create_goal(
                db_session(),
                actor(),
                key=form.key.data or "",
                name=form.name.data or "",
                kind=GoalKind(form.kind.data),
                match=form.match,
                campaign_id=form.campaign_id.data,
                once=bool(form.once.data),
                value=form.value.data,
                since=midnight(form.since.data, our_zone()) if form.since.data and form.of_events else None,
            )
        except ValidationFailed as error:
            put_problems(form, _at_their_fields(error, str(form.kind.data)))
        else:
            flash(_("The goal is made."), "success")
            return idempotent_forms.made("/goals")
    return render_template("pages/tracking/goal_new.html", form=form), 400 if form.is_submitted() else 200


@blueprint.route("/<int:goal_id>", methods=["GET", "POST"])
def change(goal_id: int) -> Any:
    actor().require(Permission.PLAN)
    goal = goals.goal_of(db_session(), goal_id)
    form = GoalChange(obj=goal)
    if form.validate_on_submit():
        try:
            goals.change_goal(
                db_session(),
                actor(),
                goal,
                name=form.name.data or "",
                value=form.value.data,
                active=bool(form.active.data),
            )
            db_session().commit()
        except ValidationFailed as error:
            db_session().rollback()
            put_problems(form, error)
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


def _at_their_fields(error: ValidationFailed, kind: str) -> ValidationFailed:
    """Move the problems of ``match`` to the form field of the goal's kind, where it was entered."""
    return ValidationFailed([replace(one, field=kind) if one.field == "match" else one for one in error.problems])


def _currencies(ours: str, waiting: Sequence[str]) -> Any:
    """Choices of foreign currencies: those with unconverted amounts, the common ones, then the others by name."""
    locale = get_locale()
    names: Mapping[str, str] = {} if locale is None else locale.currencies
    others = sorted(currency.currencies(), key=lambda code: (code not in names, names.get(code, code).casefold()))
    codes = dict.fromkeys([*waiting, *USUAL_CURRENCIES, *others])
    return choices((code, f"{code} – {names.get(code, code)}") for code in codes if code != ours)


@blueprint.route("/rates", methods=["GET", "POST"])
def rates() -> Any:
    actor().require(Permission.PLAN if request.method == "POST" else Permission.VIEW)
    ours, waiting = organisation(db_session()), currency.unvalued(db_session())
    form = RateForm()
    form.currency.choices = _currencies(ours.currency, [one.currency for one in waiting])
    if form.validate_on_submit():
        try:
            changed = currency.set_rate(
                db_session(),
                actor(),
                currency=form.currency.data or "",
                valid_from=form.valid_from.data or clock.now().date(),
                rate=form.rate.data,
            )
            db_session().commit()
        except ValidationFailed as error:
            db_session().rollback()
            put_problems(form, error)
        else:
            said = ngettext("%(num)s conversion has a new value.", "%(num)s conversions have a new value.", changed)
            flash(f"{_('Saved.')} {said}", "success")
            return redirect("/goals/rates", 303)
    page = render_template(
        "pages/tracking/rates.html",
        form=form,
        waiting=waiting,
        rates=currency.rates(db_session()),
        ours=ours.currency,
        today=clock.now().date(),
    )
    return page, 400 if form.is_submitted() else 200
