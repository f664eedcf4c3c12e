"""Forms of the account pages. They carry input; service functions validate it."""

from zoneinfo import available_timezones

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import EmailField, IntegerField, PasswordField, SelectField, StringField, TextAreaField, TimeField
from wtforms.validators import InputRequired, Optional

from campaigns.accounts.models import Role, Scope
from campaigns.accounts.organisation import COMMON_CURRENCIES
from campaigns.web.i18n.formatting import LANGUAGES, translated
from campaigns.web.pages.edit_conflicts import VersionedForm
from campaigns.web.pages.form_choices import CheckboxesField, choices

_ZONES = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "SystemV/")))
_NEW_PASSWORD_ATTRIBUTES = {"autocomplete": "new-password", "minlength": "10", "maxlength": "200"}
_ZONE_CHOICES = [("UTC", "UTC"), *((zone, zone.replace("_", " ")) for zone in _ZONES)]


def _language_choices() -> list[tuple[str, str]]:
    return list(LANGUAGES.items())


class SetupForm(FlaskForm):  # type: ignore[misc]
    name = StringField(_l("Organisation"), [InputRequired()], render_kw={"autocomplete": "organization"})
    sender_email = EmailField(_l("Sender address"), [InputRequired()])
    language = SelectField(_l("Language"), choices=choices(_language_choices()))
    timezone = SelectField(_l("Time zone"), choices=choices(_ZONE_CHOICES))
    currency = SelectField(_l("Currency"), choices=choices((code, code) for code in COMMON_CURRENCIES))
    owner_name = StringField(_l("Your name"), [InputRequired()], render_kw={"autocomplete": "name"})
    owner_email = EmailField(_l("Your e-mail address"), [InputRequired()], render_kw={"autocomplete": "username"})
    owner_password = PasswordField(_l("Password"), [InputRequired()], render_kw=_NEW_PASSWORD_ATTRIBUTES)


class LoginForm(FlaskForm):  # type: ignore[misc]
    email = EmailField(
        _l("E-mail address"), [InputRequired()], render_kw={"autocomplete": "username", "autofocus": True}
    )
    password = PasswordField(_l("Password"), [InputRequired()], render_kw={"autocomplete": "current-password"})


class ForgotPasswordForm(FlaskForm):  # type: ignore[misc]
    email = EmailField(
        _l("E-mail address"), [InputRequired()], render_kw={"autocomplete": "username", "autofocus": True}
    )


class ResetPasswordForm(FlaskForm):  # type: ignore[misc]
    password = PasswordField(
        _l("New password"), [InputRequired()], render_kw=_NEW_PASSWORD_ATTRIBUTES | {"autofocus": True}
    )


class ProfileForm(FlaskForm):  # type: ignore[misc]
    name = StringField(_l("Name"), [InputRequired()], render_kw={"autocomplete": "name"})
    language = SelectField(_l("Language"))
    timezone = SelectField(_l("Time zone"))

    def fill_choices(self) -> "ProfileForm":
        """Fill the choices; the first one means "as the organisation". Returns the form."""
        organisation_choice = ("", translated("As the organisation"))
        self.language.choices = choices([organisation_choice, *_language_choices()])
        self.timezone.choices = choices([organisation_choice, *_ZONE_CHOICES])
        return self


class PasswordForm(FlaskForm):  # type: ignore[misc]
    current = PasswordField(_l("Present password"), [InputRequired()], render_kw={"autocomplete": "current-password"})
    password = PasswordField(_l("New password"), [InputRequired()], render_kw=_NEW_PASSWORD_ATTRIBUTES)


class UserForm(FlaskForm):  # type: ignore[misc]
    name = StringField(_l("Name"), [InputRequired()], render_kw={"autocomplete": "off"})
    email = EmailField(_l("E-mail address"), [InputRequired()], render_kw={"autocomplete": "off"})
    role = SelectField(_l("Role"), default=Role.COORDINATOR.value)
    password = PasswordField(_l("First password"), [InputRequired()], render_kw=_NEW_PASSWORD_ATTRIBUTES)

    def fill_choices(self) -> "UserForm":
        self.role.choices = choices((role.value, translated(role.label)) for role in Role)
        return self


class OrganisationForm(VersionedForm):
    name = StringField(_l("Organisation"), [InputRequired()])
    sender_name = StringField(_l("Sender name"), [InputRequired()])
    sender_email = EmailField(_l("Sender address"), [InputRequired()])
    postal_address = TextAreaField(_l("Postal address"), render_kw={"rows": "3"})
    own_hosts = TextAreaField(_l("Own hosts"), render_kw={"rows": "3", "dir": "ltr", "spellcheck": "false"})
    language = SelectField(_l("Language"), choices=choices(_language_choices()))
    timezone = SelectField(_l("Time zone"), choices=choices(_ZONE_CHOICES))
    currency = SelectField(_l("Currency"), choices=choices((code, code) for code in COMMON_CURRENCIES))
    quiet_from = TimeField(_l("Quiet from"), [Optional()])
    quiet_until = TimeField(_l("Quiet until"), [Optional()])
    cap_mails = IntegerField(_l("Campaign mails at most"), [Optional()], default=0)
    cap_days = IntegerField(_l("within so many days"), [Optional()], default=7)


class ApiKeyForm(FlaskForm):  # type: ignore[misc]
    name = StringField(_l("Name"), [InputRequired()], render_kw={"autocomplete": "off"})
    scopes = CheckboxesField(_l("What it may do"), [InputRequired()])
    days = SelectField(_l("Ends"), default="365")

    def fill_choices(self) -> "ApiKeyForm":
        self.scopes.choices = choices((scope.value, translated(scope.label)) for scope in Scope)
        self.days.choices = choices(
            [("30", translated("After 30 days")), ("365", translated("After a year")), ("", translated("Never"))]
        )
        return self
