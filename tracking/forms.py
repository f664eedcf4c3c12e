"""Web forms for goals, exchange rates, offline conversion files and trial runs.

Forms parse input and offer choices; the service functions validate the rules of the domain.
"""

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import BooleanField, DateField, DecimalField, RadioField, SelectField, StringField
from wtforms.validators import DataRequired, InputRequired, Optional, ValidationError

from campaigns.capture.models import Form
from campaigns.i18n import N_
from campaigns.leads.models import LeadStage
from campaigns.planning.models import Activity, Campaign
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.form_choices import choices, enum_choices
from tracking.counters.periods import is_plausible_range
from tracking.models.conversions import GoalKind

_MAX_CHOICES = 500


def _parse_id(text: object) -> int | None:
    return int(str(text)) if str(text).isdecimal() and len(str(text)) < 18 else None


class GoalChange(FlaskForm):  # type: ignore[misc]
    """The fields of a goal that can still be edited once it exists."""

    name = StringField(_l("Name"), [DataRequired()], render_kw={"maxlength": 200})
    value = DecimalField(
        _l("Value of one conversion"),
        [Optional()],
        places=2,
        description=_l("When the report names none, in your own currency. Leave it empty to count without a value."),
        render_kw={"min": "0", "step": "0.01"},
    )
    active = BooleanField(_l("Count from now on"), default=True)


class GoalForm(FlaskForm):  # type: ignore[misc]
    """A new goal. Of ``event``, ``page``, ``form`` and ``stage`` only the field of the chosen kind counts."""

    name = StringField(_l("Name"), [DataRequired()], render_kw={"maxlength": 200})
    key = StringField(
        _l("Key"),
        [DataRequired()],
        description=_l("What programs and files call it: small letters, digits, - and _. It never changes."),
        render_kw={"maxlength": 40, "dir": "ltr", "autocapitalize": "off", "spellcheck": "false"},
    )
    kind = RadioField(_l("What reaches it?"), default=GoalKind.EVENT.value)
    event = StringField(
        _l("Name of the event"),
        description=_l("As the page, the program or the file reports it, for example purchase."),
        render_kw={"maxlength": 80, "dir": "ltr"},
    )
    page = StringField(
        _l("Path of the page"),
        description=_l("Like /thanks or /shop/*, where * stands for anything."),
        render_kw={"maxlength": 300, "dir": "ltr", "placeholder": "/thanks"},
    )
    form = SelectField(_l("Form"), validate_choice=False)
    stage = SelectField(_l("Stage of the lead"), validate_choice=False)
    campaign_id = SelectField(_l("Whose conversions count?"), coerce=_parse_id, validate_choice=False)
    since = DateField(
        _l("Counts from"),
        [Optional()],
        description=_l("Empty: from now on. An earlier day takes in what programs and files report of the past."),
    )
    once = BooleanField(_l("Each contact reaches it at most once"))
    value = DecimalField(
        _l("Value of one conversion"),
        [Optional()],
        places=2,
        description=_l("When the report names none, in your own currency. Leave it empty to count without a value."),
        render_kw={"min": "0", "step": "0.01"},
    )

    def fill_choices(self, session: Session) -> "GoalForm":
        """Fill the select fields and return the form: at most 500 campaigns and 500 forms, newest first."""
        campaigns = select(Campaign.id, Campaign.name).where(Campaign.built_in.is_(False))
        forms = select(Activity.id, Activity.title).join(Form, Form.activity_id == Activity.id)
        self.kind.choices = enum_choices(GoalKind)
        self.stage.choices = choices(
            (one.value, translated(one.label)) for one in LeadStage if one is not LeadStage.NEW
        )
        self.form.choices = choices(
            [
                ("", translated(N_("Choose a form"))),
                *session.execute(forms.order_by(Activity.id.desc()).limit(_MAX_CHOICES)),
            ]
        )
        self.campaign_id.choices = choices(
            [
                ("", translated(N_("Every campaign's"))),
                *session.execute(campaigns.order_by(Campaign.id.desc()).limit(_MAX_CHOICES)),
            ]
        )
        return self

    @property
    def is_event_goal(self) -> bool:
        return bool(self.kind.data == GoalKind.EVENT.value)

    @property
    def match_value(self) -> str:
        """The value of the field that belongs to the chosen kind: event name, page path, form id or stage."""
        return str(self[GoalKind(self.kind.data).value].data or "")


class RateForm(FlaskForm):  # type: ignore[misc]
    """An exchange rate: the value of one unit of a currency in the organisation's currency, from a day on."""

    currency = SelectField(_l("Currency"), validate_choice=False)
    valid_from = DateField(_l("From this day on"), [InputRequired()])
    rate = StringField(
        _l("Worth in your own currency"),
        [DataRequired()],
        description=_l("Of one unit, for example 0.34."),
        render_kw={"inputmode": "decimal", "maxlength": 30, "dir": "ltr"},
    )


class ConversionFile(FlaskForm):  # type: ignore[misc]
    file = FileField(_l("CSV file"), [FileRequired(_l("Choose a file."))], render_kw={"accept": ".csv,text/csv"})


class TrialForm(FlaskForm):  # type: ignore[misc]
    """A range of days in the organisation's time zone, both included."""

    since = DateField(_l("From"), [InputRequired()])
    until = DateField(_l("To"), [InputRequired()])

    def validate_until(self, field: DateField) -> None:
        first, last = self.since.data, field.data
        if first and last and first <= last and not is_plausible_range(first, last):
            raise ValidationError(_l("At most ten years, and none before 1990 or after 2200."))
