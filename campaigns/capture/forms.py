"""WTForms of the landing page editor."""

import re
import unicodedata
from typing import Any

from flask_babel import lazy_gettext as _l
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import (
    BooleanField,
    FieldList,
    FormField,
    SelectField,
    StringField,
    TextAreaField,
)
from wtforms import Form as PlainForm
from wtforms.validators import DataRequired

from campaigns.audience.models import ContactList
from campaigns.capture.form_editing import CONTACT_COLUMNS, FormInput, FormQuestion, questions_of
from campaigns.capture.languages import LANGUAGES
from campaigns.capture.models import DoubleOptInMode, Form
from campaigns.i18n import N_
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.edit_conflicts import VersionedForm
from campaigns.web.pages.form_choices import choices, enum_choices

MIN_QUESTION_ROWS = 6


class QuestionForm(PlainForm):
    """One question; rows without a label are ignored."""

    kind = SelectField(_l("Save as"), default="", coerce=str)
    key = StringField(_l("Short name"), render_kw={"maxlength": 50})
    label = StringField(_l("Question"), render_kw={"maxlength": 200})
    required = BooleanField(_l("Required"))

    def filled(self, row: int) -> FormQuestion:
        label = (self.label.data or "").strip()
        if self.kind.data in CONTACT_COLUMNS:
            return FormQuestion(str(self.kind.data), label, bool(self.required.data))
        key = (self.key.data or "").strip() or _attribute_key(label) or f"answer_{row}"
        return FormQuestion(f"attributes.{key}", label, bool(self.required.data))


def _attribute_key(label: str) -> str:
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    return re.sub(r"^[^a-z]+", "", re.sub(r"[^a-z0-9]+", "_", plain)).strip("_")[:50]


class LandingPageForm(VersionedForm):
    title = StringField(_l("Title"), [DataRequired()], render_kw={"maxlength": 200})
    intro = TextAreaField(_l("Introduction"), render_kw={"rows": 4})
    questions = FieldList(FormField(QuestionForm))
    button = StringField(_l("Words on the button"), [DataRequired()], render_kw={"maxlength": 80})
    thanks = TextAreaField(_l("Thanks"), render_kw={"rows": 2})
    consent_wording = TextAreaField(_l("Wording of the consent"), render_kw={"rows": 2})
    tracking_wording = TextAreaField(_l("Wording of the consent to measuring"), render_kw={"rows": 2})
    double_opt_in = SelectField(_l("Confirm by mail"), default=DoubleOptInMode.RETURNING.value)
    slug = StringField(_l("Address"), render_kw={"maxlength": 80, "dir": "ltr"})
    language = SelectField(_l("Language"), choices=())
    list_id = SelectField(_l("List"), coerce=str)
    notify_owner = BooleanField(_l("Write to the activity's owner about each new lead"))
    open = BooleanField(_l("Open: the form can be filled in"))

    def offer(self, session: Session) -> None:
        """Fill the choices and append empty question rows."""
        lists = session.execute(select(ContactList.id, ContactList.name).order_by(ContactList.name)).all()
        self.list_id.choices = choices([("", translated(N_("No list"))), *lists])
        self.double_opt_in.choices = enum_choices(DoubleOptInMode)
        self.language.choices = choices(LANGUAGES.items())
        while len(self.questions) < MIN_QUESTION_ROWS:
            self.questions.append_entry()
        for row in self.questions:
            row.form.kind.choices = choices(
                [
                    ("", translated(N_("An answer"))),
                    ("first_name", translated(N_("First name"))),
                    ("last_name", translated(N_("Last name"))),
                ]
            )

    def filled(self) -> FormInput:
        rows = [row.form for row in self.questions if (row.form.label.data or "").strip()]
        return {
            "title": self.title.data or "",
            "intro": self.intro.data or "",
            "fields": [row.filled(number) for number, row in enumerate(rows, 1)],
            "button": self.button.data or "",
            "thanks": self.thanks.data or "",
            "consent_wording": self.consent_wording.data or "",
            "tracking_wording": self.tracking_wording.data or "",
            "double_opt_in": DoubleOptInMode(self.double_opt_in.data),
            "slug": self.slug.data or "",
            "language": self.language.data or "en",
            "list_id": int(self.list_id.data) if self.list_id.data else None,
            "notify_owner": bool(self.notify_owner.data),
            "open": bool(self.open.data),
        }


def form_values(form: Form) -> dict[str, Any]:
    """Return the stored form as initial values of :class:`LandingPageForm`."""
    names = (
        "revision",
        "title",
        "intro",
        "button",
        "thanks",
        "consent_wording",
        "tracking_wording",
        "slug",
        "language",
        "notify_owner",
        "open",
    )
    questions = [
        {
            "kind": one.name if one.name in CONTACT_COLUMNS else "",
            "key": one.name.removeprefix("attributes.") if one.name not in CONTACT_COLUMNS else "",
            "label": one.label,
            "required": one.required,
        }
        for one in questions_of(form)
    ]
    return {name: getattr(form, name) for name in names} | {
        "double_opt_in": form.double_opt_in.value,
        "list_id": str(form.list_id or ""),
        "questions": questions,
    }
