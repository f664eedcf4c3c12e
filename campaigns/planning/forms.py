"""Forms for campaigns, activities, short links and launches. Services validate; forms parse and offer choices."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import (
    BooleanField,
    ColorField,
    DateField,
    DateTimeLocalField,
    DecimalField,
    SelectField,
    StringField,
    TextAreaField,
    TimeField,
    URLField,
)
from wtforms.validators import DataRequired, Optional, ValidationError

from campaigns.audience.models import ContactList
from campaigns.content.models import Message
from campaigns.i18n import N_
from campaigns.planning.activities import ActivityInput
from campaigns.planning.campaigns import CampaignInput
from campaigns.planning.models import Activity, Campaign, Channel, Objective
from campaigns.web.i18n.formatting import timezone, translated, weekdays
from campaigns.web.pages.edit_conflicts import VersionedForm
from campaigns.web.pages.form_choices import CheckboxesField, choices, enum_choices, user_choices

COLOURS = ("#206bc4", "#ae3ec9", "#d63939", "#f76707", "#f59f00", "#2fb344", "#0ca678", "#17a2b8")
"""Default colours of new campaigns, used in turn so that neighbours in a list differ."""

URL_LABELS = {
    Channel.SOCIAL: N_("Address of the post"),
    Channel.SEARCH: N_("Page to be found"),
    Channel.ADS: N_("Page the ad leads to"),
    Channel.CONTENT: N_("Address of the article"),
    Channel.VIDEO: N_("Address of the video"),
    Channel.WEB: N_("Address of the page"),
    Channel.EVENT: N_("Page of the event"),
}


def _parse_int(text: str | None) -> int | None:
    return int(text) if text else None


class CampaignForm(VersionedForm):
    name = StringField(_l("Name"), [DataRequired()], render_kw={"maxlength": 200})
    objective = SelectField(_l("Objective"))
    owner_id = SelectField(_l("Owner"), coerce=str)
    starts_on = DateField(_l("From"), [Optional()])
    ends_on = DateField(_l("Until"), [Optional()])
    budget = DecimalField(_l("Budget"), [Optional()], places=2, render_kw={"min": "0", "step": "0.01"})
    colour = ColorField(_l("Colour"))
    description = TextAreaField(_l("Description"), render_kw={"rows": 4})

    def fill_choices(self, session: Session, campaign: Campaign | None) -> None:
        """Fill the select fields' choices."""
        self.objective.choices = enum_choices(Objective)
        self.owner_id.choices = user_choices(
            session, campaign.owner_id if campaign else None, translated(N_("Nobody yet"))
        )

    def to_input(self) -> CampaignInput:
        return {
            "name": self.name.data or "",
            "objective": Objective(self.objective.data),
            "owner_id": _parse_int(self.owner_id.data),
            "starts_on": self.starts_on.data,
            "ends_on": self.ends_on.data,
            "budget": self.budget.data,
            "colour": self.colour.data or "",
            "description": self.description.data or "",
        }


class ActivityForm(VersionedForm):
    title = StringField(_l("Title"), [DataRequired()], render_kw={"maxlength": 200})
    owner_id = SelectField(_l("Owner"), coerce=str)
    starts_on = DateField(_l("From"), [Optional()])
    ends_on = DateField(_l("Until"), [Optional()])
    cost = DecimalField(_l("Cost"), [Optional()], places=2, render_kw={"min": "0", "step": "0.01"})
    url = URLField(_l("Address"), render_kw={"maxlength": 2000, "placeholder": "https://"})
    notes = TextAreaField(_l("Notes"), render_kw={"rows": 4})

    def fill_choices(self, session: Session, channel: Channel, activity: Activity | None) -> None:
        """Fill the select fields' choices, and label the URL field for the channel."""
        self.owner_id.choices = user_choices(
            session, activity.owner_id if activity else None, translated(N_("Nobody yet"))
        )
        self.url.label.text = translated(URL_LABELS.get(channel, N_("Address")))

    def to_input(self, channel: Channel) -> ActivityInput:
        return {
            "channel": channel,
            "title": self.title.data or "",
            "owner_id": _parse_int(self.owner_id.data),
            "starts_on": self.starts_on.data,
            "ends_on": self.ends_on.data,
            "cost": self.cost.data,
            "url": self.url.data or "",
            "notes": self.notes.data or "",
        }


class EmailActivityForm(ActivityForm):
    """An activity form with message, audience and send window."""

    message_id = SelectField(_l("Message"), coerce=str)
    list_id = SelectField(_l("Audience"), coerce=str)
    window_days = CheckboxesField(_l("Only on"), [Optional()])
    window_from = TimeField(_l("Not before"), [Optional()])
    window_until = TimeField(_l("Not after"), [Optional()])
    stop_after = DateTimeLocalField(_l("Stop sending at"), [Optional()])

    EVERYBODY = "everybody"

    def fill_choices(self, session: Session, channel: Channel, activity: Activity | None) -> None:
        super().fill_choices(session, channel, activity)
        self.message_id.choices = choices([("", translated(N_("None yet"))), *_id_name_pairs(session, Message)])
        self.window_days.choices = choices(zip("1234567", weekdays(), strict=True))
        self.list_id.choices = choices(
            [
                ("", translated(N_("None yet"))),
                (self.EVERYBODY, translated(N_("Everybody"))),
                *_id_name_pairs(session, ContactList),
            ]
        )

    def to_input(self, channel: Channel) -> ActivityInput:
        everybody = self.list_id.data == self.EVERYBODY
        fields = super().to_input(channel)
        fields["message_id"] = _parse_int(self.message_id.data)
        fields["everybody"] = everybody
        fields["list_id"] = None if everybody else _parse_int(self.list_id.data)
        fields["window_days"] = "".join(sorted(self.window_days.data or []))
        fields["window_from"], fields["window_until"] = self.window_from.data, self.window_until.data
        fields["stop_after"] = _to_utc(self.stop_after.data)
        return fields

    def validate_stop_after(self, field: DateTimeLocalField) -> None:
        _check_local_time(field)


def _check_local_time(field: DateTimeLocalField) -> None:
    if field.data and not 2000 <= field.data.year <= 9000:
        raise ValidationError  # Near datetime.min and datetime.max, conversion to UTC overflows.
    if field.data and _is_skipped(field.data):
        raise ValidationError(translated(N_("Clocks are put forward over this time. Choose one before or after.")))


def _is_skipped(local: datetime) -> bool:
    """Whether the local time does not exist because a DST change skips it."""
    aware = local.replace(tzinfo=timezone())
    return aware.astimezone(UTC).astimezone(timezone()).replace(tzinfo=None) != local


def _to_utc(local: datetime | None) -> datetime | None:
    """The UTC instant of a local time in the user's zone; the earlier one when the time occurs twice."""
    return local.replace(tzinfo=timezone(), fold=0).astimezone(UTC) if local else None


def _id_name_pairs(session: Session, model: type[Message] | type[ContactList]) -> Sequence[Any]:
    return session.execute(select(model.id, model.name).order_by(model.name, model.id)).all()


def build_activity_form(
    session: Session, channel: Channel, activity: Activity | None = None, *, use_submitted: bool = True
) -> ActivityForm:
    """The form for an activity of ``channel``, filled from ``activity`` and then from the submitted data.

    With ``use_submitted`` false the submitted data is ignored.
    """
    kind = EmailActivityForm if channel is Channel.EMAIL else ActivityForm
    values = activity_values(activity) if activity else None
    form = kind(data=values) if use_submitted else kind(formdata=None, data=values)
    form.fill_choices(session, channel, activity)
    return form


def activity_values(activity: Activity) -> dict[str, Any]:
    """Form data of the activity, by field name; instants become local times in the user's zone."""
    names = ("revision", "title", "starts_on", "ends_on", "cost", "url", "notes")
    values = {name: getattr(activity, name) for name in names} | {"owner_id": str(activity.owner_id or "")}
    email = activity.email_details
    if email is None:
        return values
    return values | {
        "window_days": list(email.window_days),
        "window_from": email.window_from,
        "window_until": email.window_until,
        "stop_after": email.stop_after and email.stop_after.astimezone(timezone()).replace(tzinfo=None),
        "message_id": str(email.message_id or ""),
        "list_id": EmailActivityForm.EVERYBODY if email.everybody else str(email.list_id or ""),
    }


def campaign_values(campaign: Campaign) -> dict[str, Any]:
    """Form data of the campaign, by field name."""
    names = ("revision", "name", "starts_on", "ends_on", "budget", "colour", "description")
    return {name: getattr(campaign, name) for name in names} | {
        "objective": campaign.objective.value,
        "owner_id": str(campaign.owner_id or ""),
    }


class LinkForm(FlaskForm):  # type: ignore[misc]
    """Form of a short link."""

    label = StringField(_l("Name"), [DataRequired()], render_kw={"maxlength": 200})
    url = URLField(_l("Leads to"), [DataRequired()], render_kw={"maxlength": 2000, "placeholder": "https://"})


class LaunchForm(FlaskForm):  # type: ignore[misc]
    """Launch now, or at a local time in the user's time zone."""

    at = DateTimeLocalField(_l("Launch at"), [Optional()])
    later = BooleanField()

    def validate_at(self, field: DateTimeLocalField) -> None:
        _check_local_time(field)

    def launch_at(self) -> datetime | None:
        """The chosen launch time in UTC; the earlier one when the local time occurs twice; None for now."""
        return _to_utc(self.at.data)

    @property
    def is_ambiguous(self) -> bool:
        """Whether the chosen local time occurs twice because clocks are put back."""
        if not self.at.data:
            return False
        aware = self.at.data.replace(tzinfo=timezone())
        return bool(aware.replace(fold=0).utcoffset() != aware.replace(fold=1).utcoffset())
