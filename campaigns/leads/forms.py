"""WTForms of the lead pages."""

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import EmailField, SelectField, StringField, TextAreaField
from wtforms.validators import DataRequired

from campaigns.i18n import N_
from campaigns.leads.models import Lead, LeadStage
from campaigns.planning.models import Activity, Campaign
from campaigns.planning.state_machine import CLOSED_CAMPAIGN_STATUSES
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.form_choices import choices, enum_choices, user_choices

MAX_ACTIVITIES = 500


class LeadForm(FlaskForm):  # type: ignore[misc]
    """A lead entered by hand."""

    email = EmailField(_l("E-mail address"), [DataRequired()], render_kw={"maxlength": 254})
    first_name = StringField(_l("First name"), render_kw={"maxlength": 100})
    last_name = StringField(_l("Last name"), render_kw={"maxlength": 100})
    activity_id = SelectField(_l("What brought them"), [DataRequired()], coerce=str)
    owner_id = SelectField(_l("Who looks after them"), coerce=str)
    notes = TextAreaField(_l("What they asked"), render_kw={"rows": 4})

    def offer(self, session: Session, selected_id: int | None) -> None:
        """Fill the choices: activities of open campaigns, newest campaign first, and the activity ``selected_id``."""
        rows = session.execute(
            select(Activity.id, Campaign.name, Activity.title)
            .join(Campaign, Campaign.id == Activity.campaign_id)
            .where(~Campaign.built_in, Campaign.status.not_in(CLOSED_CAMPAIGN_STATUSES) | (Activity.id == selected_id))
            .order_by(Campaign.id.desc(), Activity.id)
            .limit(MAX_ACTIVITIES)
        ).all()
        labels = [(key, f"{campaign} – {title}") for key, campaign, title in rows]
        self.activity_id.choices = choices([("", translated(N_("Choose an activity"))), *labels])
        self.owner_id.choices = user_choices(session, None, translated(N_("Nobody yet")))


class StageForm(FlaskForm):  # type: ignore[misc]
    stage = SelectField(_l("Stage"))

    def offer(self) -> None:
        self.stage.choices = enum_choices(LeadStage)


class OwnerForm(FlaskForm):  # type: ignore[misc]
    owner_id = SelectField(_l("Owner"), coerce=str)

    def offer(self, session: Session, lead: Lead) -> None:
        self.owner_id.choices = user_choices(session, lead.owner_id, translated(N_("Nobody yet")))


class NotesForm(FlaskForm):  # type: ignore[misc]
    notes = TextAreaField(_l("Notes"), render_kw={"rows": 5})
