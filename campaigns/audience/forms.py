"""WTForms of the audience pages. Validation rules live in the service functions."""

from typing import Any
from zoneinfo import available_timezones

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired
from wtforms import BooleanField, EmailField, RadioField, SelectField, StringField, TextAreaField
from wtforms.validators import InputRequired, Length

from campaigns.audience.imports.csv_reader import DELIMITERS, ENCODINGS
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact, SuppressionReason
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.form_choices import choices

_TIMEZONES = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "SystemV/")))


def parse_attributes(text: str) -> dict[str, str]:
    """Parse one ``name = value`` per line. Raises ValidationFailed with the line number."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, equals, value = line.partition("=")
        if not line.strip():
            continue
        if not equals:
            message = N_("Line %(number)s: write name = value.")
            raise ValidationFailed(ValidationProblem(message, field="attributes", params={"number": number}))
        found[key.strip()] = value.strip()
    return found


class ContactForm(FlaskForm):  # type: ignore[misc]
    email = EmailField(_l("E-mail address"), [InputRequired()])
    first_name = StringField(_l("First name"))
    last_name = StringField(_l("Last name"))
    language = StringField(_l("Language"), description=_l("A code such as en, fr, ka, az, ru or fa."))
    timezone = SelectField(_l("Time zone"), validate_choice=False)
    attributes = TextAreaField(
        _l("Further fields"), description=_l("One a line, name = value. A message writes it as {{ contact.name }}.")
    )

    def offer(self, contact: Contact | None = None) -> "ContactForm":
        present = contact.timezone if contact is not None else None
        zones = [*_TIMEZONES, present] if present and present not in _TIMEZONES else _TIMEZONES
        self.timezone.choices = choices([("", translated(N_("Not known"))), *((zone, zone) for zone in zones)])
        if contact is not None and not self.is_submitted():
            self.attributes.data = "\n".join(f"{key} = {value}" for key, value in contact.attributes.items())
        return self

    def values(self) -> dict[str, Any]:
        return {
            "email": self.email.data or "",
            "first_name": self.first_name.data or "",
            "last_name": self.last_name.data or "",
            "language": self.language.data or None,
            "timezone": self.timezone.data or None,
            "attributes": parse_attributes(self.attributes.raw_data[0] if self.attributes.raw_data else ""),
        }


class ConsentForm(FlaskForm):  # type: ignore[misc]
    answer = SelectField(_l("What they allow"))
    source = StringField(
        _l("How we know"),
        [InputRequired(), Length(max=200)],
        description=_l("A call, a letter, a form: where and when."),
    )
    wording = TextAreaField(_l("The words they agreed to"))

    def offer(self) -> "ConsentForm":
        self.answer.choices = choices(
            [
                (f"{ConsentPurpose.EMAIL}:{ConsentLevel.FULL}", translated(N_("To receive e-mail"))),
                (f"{ConsentPurpose.TRACKING}:{ConsentLevel.FULL}", translated(N_("Opens and clicks may be measured"))),
                (
                    f"{ConsentPurpose.TRACKING}:{ConsentLevel.DELIVERABILITY}",
                    translated(N_("Only the date of the last open may be kept")),
                ),
                (f"{ConsentPurpose.EMAIL}:{ConsentLevel.NONE}", translated(N_("To receive no more e-mail"))),
                (f"{ConsentPurpose.TRACKING}:{ConsentLevel.NONE}", translated(N_("No longer to be measured"))),
            ]
        )
        return self

    @property
    def purpose_and_level(self) -> tuple[ConsentPurpose, ConsentLevel]:
        purpose, _, level = self.answer.data.partition(":")
        return ConsentPurpose(purpose), ConsentLevel(level)


class ListForm(FlaskForm):  # type: ignore[misc]
    name = StringField(_l("Name"), [InputRequired()])


class SuppressionForm(FlaskForm):  # type: ignore[misc]
    email = TextAreaField(
        _l("E-mail addresses"),
        [InputRequired()],
        description=_l("One or many, each on its line; at most 1,000 at a time."),
        render_kw={"rows": "4", "dir": "ltr", "spellcheck": "false", "autocomplete": "off"},
    )
    reason = SelectField(
        _l("Reason"),
        default=SuppressionReason.MANUAL.value,
        description=_l("Whoever unsubscribed or complained elsewhere stays out here, too: only they can take it back."),
    )
    detail = StringField(_l("Why"), [Length(max=500)])

    def offer(self) -> "SuppressionForm":
        """Fill the choices. *erased* is left out: it only results from erasing a contact."""
        reasons = [reason for reason in SuppressionReason if reason is not SuppressionReason.ERASED]
        self.reason.choices = choices((reason.value, translated(reason.label)) for reason in reasons)
        return self


class UploadForm(FlaskForm):  # type: ignore[misc]
    file = FileField(
        _l("CSV file"), [FileRequired()], render_kw={"accept": ".csv,.tsv,.txt,text/csv,text/tab-separated-values"}
    )


class CsvOptionsForm(FlaskForm):  # type: ignore[misc]
    encoding = SelectField(_l("Encoding"))
    delimiter = SelectField(_l("Columns are separated by"))
    has_header = BooleanField(_l("The first row names the columns"))

    def offer(self) -> "CsvOptionsForm":
        self.encoding.choices = choices(ENCODINGS.items())
        # Submitted as code point numbers: browsers strip a tab from a submitted value.
        self.delimiter.choices = choices((str(ord(sign)), translated(name)) for sign, name in DELIMITERS.items())
        return self


class MappingForm(FlaskForm):  # type: ignore[misc]
    """Import options; the inputs of the columns are read from the request, since their number depends on the file."""

    list_id = SelectField(_l("Add them to a list"))
    new_list = StringField(_l("or to a new list named"))
    email_consent = RadioField(_l("Did these people agree to receive e-mail?"))
    tracking_consent = RadioField(_l("Did they agree, separately, to have opens and clicks measured?"))
    consent_source = StringField(
        _l("Where and when were they asked?"), description=_l("For example: paper form at the spring fair, May 2026.")
    )
    consent_wording = TextAreaField(_l("What exactly did they agree to?"), description=_l("The words they saw."))

    def offer(self, lists: list[tuple[int, str]]) -> "MappingForm":
        self.list_id.choices = choices([("", translated(N_("No list"))), *lists])
        self.email_consent.choices = choices(
            [
                (ConsentLevel.NONE, translated(N_("No, or I cannot prove it: they will get no e-mail"))),
                (ConsentLevel.FULL, translated(N_("Yes, and I can prove it"))),
            ]
        )
        self.tracking_consent.choices = choices(
            [
                (ConsentLevel.NONE, translated(N_("No: their opens and clicks are not measured"))),
                (ConsentLevel.DELIVERABILITY, translated(N_("Only so that dead addresses can be found"))),
                (ConsentLevel.FULL, translated(N_("Yes"))),
            ]
        )
        return self
