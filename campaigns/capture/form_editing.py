"""Service functions for an activity's landing page form: create, update, look up."""

import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.contacts import ATTRIBUTE_KEY
from campaigns.audience.models import ContactList
from campaigns.capture.languages import LANGUAGES
from campaigns.capture.models import DoubleOptInMode, Form
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.optimistic_lock import bump_revision

MAX_QUESTIONS = 20
MAX_LENGTHS = {
    "title": 200,
    "button": 80,
    "intro": 20_000,
    "thanks": 20_000,
    "consent_wording": 5_000,
    "tracking_wording": 5_000,
}
MAX_LABEL_LENGTH = 200
CONTACT_COLUMNS = ("first_name", "last_name")
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,78}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class FormQuestion:
    """One question of a form, besides the e-mail address."""

    name: str
    """``first_name``, ``last_name`` or ``attributes.<key>``."""
    label: str
    required: bool = False

    @property
    def key(self) -> str:
        """Name of the input in the page's HTML."""
        return self.name.replace(".", "-")


class FormInput(TypedDict, total=False):
    """Editable fields of a form; an update changes only the given ones."""

    slug: str
    language: str
    title: str
    intro: str
    button: str
    thanks: str
    fields: Sequence[FormQuestion]
    consent_wording: str
    tracking_wording: str
    double_opt_in: DoubleOptInMode
    list_id: int | None
    notify_owner: bool
    open: bool


def form_of(session: Session, activity_id: int) -> Form | None:
    """Return the activity's form; None if it has none."""
    return session.scalars(select(Form).where(Form.activity_id == activity_id)).one_or_none()


def form_by_slug(session: Session, slug: str) -> Form:
    """Return the form at ``/f/<slug>``. Raises NotFound."""
    form = session.scalars(select(Form).where(Form.slug == slug)).one_or_none()
    if form is None:
        raise NotFound(N_("There is no such page."))
    return form


def questions_of(form: Form) -> list[FormQuestion]:
    """Return the form's questions."""
    return [FormQuestion(str(row["name"]), str(row["label"]), bool(row.get("required"))) for row in form.fields]


def create_form(
    session: Session, actor: Actor, *, campaign_id: int, activity_id: int, **fields: Unpack[FormInput]
) -> Form:
    """Create the activity's form. ``title`` is required; the slug is generated from it unless given.

    Raises ValidationFailed, also when the activity has a form already or the slug is taken.
    """
    actor.require(Permission.PLAN)
    form = Form(
        campaign_id=campaign_id,
        activity_id=activity_id,
        slug="",
        language="en",
        title="",
        intro="",
        button="",
        thanks="",
        fields=[],
        consent_wording="",
        tracking_wording="",
        double_opt_in=DoubleOptInMode.RETURNING,
        notify_owner=False,
        open=True,
        created_at=clock.now(),
    )
    if not fields.get("slug", "").strip():
        fields["slug"] = generate_slug(fields.get("title", ""))
    fields.setdefault("button", "Send")
    _apply(session, form, fields)
    _save(session, form)
    audit.record(session, actor, "create", "form", form.id, slug=form.slug)
    return form


def update_form(
    session: Session, actor: Actor, form: Form, *, revision: int | None = None, **fields: Unpack[FormInput]
) -> None:
    """Change the given fields. Raises ValidationFailed, and then nothing is changed.

    Raises EditConflict when somebody else saved the form after ``revision`` was read.
    """
    actor.require(Permission.PLAN)
    before = {key: getattr(form, key) for key in FormInput.__annotations__}
    _apply(session, form, fields)
    changed = sorted(key for key, value in before.items() if getattr(form, key) != value)
    if changed:
        bump_revision(session, form, revision)
        _save(session, form)
        audit.record(session, actor, "update", "form", form.id, changed=changed)


def generate_slug(title: str) -> str:
    """Return a slug from a title, with a random suffix so that it is unused and not guessable."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-")
    return f"{words}-{secrets.token_hex(3)}" if words else secrets.token_hex(6)


def _save(session: Session, form: Form) -> None:
    try:
        with session.begin_nested():
            session.add(form)
    except IntegrityError as error:
        text = str(error.orig)
        if "slug" in text:
            raise ValidationFailed(ValidationProblem(N_("Another form has this address already."), "slug")) from error
        if "activity_id" in text:
            raise ValidationFailed(
                ValidationProblem(N_("This activity has a landing page already."), "title")
            ) from error
        raise


def _apply(session: Session, form: Form, fields: FormInput) -> None:
    values: dict[str, Any] = {key: _strip_text(value) for key, value in fields.items()}
    if "slug" in values:
        values["slug"] = values["slug"].lower()
    questions: Sequence[FormQuestion] = values.pop("fields", None) or ()
    problems = _length_problems(values) + _question_problems(questions)
    if "slug" in values and not _SLUG.match(values["slug"]):
        problems.append(ValidationProblem(N_("Small letters a–z, digits and hyphens only, please."), "slug"))
    if values.get("language", form.language) not in LANGUAGES:
        problems.append(ValidationProblem(N_("This choice does not exist any more."), "language"))
    if values.get("list_id") is not None and session.get(ContactList, values["list_id"]) is None:
        problems.append(ValidationProblem(N_("This choice does not exist any more."), "list_id"))
    if not values.get("title", form.title):
        problems.append(ValidationProblem(N_("Please give it a name."), "title"))
    if not values.get("button", form.button):
        problems.append(ValidationProblem(N_("The button needs a word."), "button"))
    if problems:
        raise ValidationFailed(problems)
    if "fields" in fields:
        values["fields"] = [
            {"name": one.name, "label": one.label.strip(), "required": one.required} for one in questions
        ]
    for key, value in values.items():
        setattr(form, key, value)


def _strip_text(value: object) -> object:
    return value.strip() if isinstance(value, str) and not isinstance(value, DoubleOptInMode) else value


def _length_problems(values: dict[str, Any]) -> list[ValidationProblem]:
    return [
        ValidationProblem(N_("At most %(most)s characters, please."), key, params={"most": most})
        for key, most in MAX_LENGTHS.items()
        if len(values.get(key, "")) > most
    ]


def _question_problems(questions: Sequence[FormQuestion]) -> list[ValidationProblem]:
    problems = []
    if len(questions) > MAX_QUESTIONS:
        problems.append(
            ValidationProblem(N_("At most %(most)s questions, please."), "fields", params={"most": MAX_QUESTIONS})
        )
    seen: set[str] = set()
    for row, question in enumerate(questions, 1):
        column, _, key = question.name.partition(".")
        if not (question.name in CONTACT_COLUMNS or (column == "attributes" and ATTRIBUTE_KEY.fullmatch(key))):
            problems.append(
                ValidationProblem(
                    N_("Question %(row)s: its short name must be like “company_size”."), "fields", params={"row": row}
                )
            )
        if question.name in seen:
            problems.append(ValidationProblem(N_("Question %(row)s is asked twice."), "fields", params={"row": row}))
        seen.add(question.name)
        if not question.label.strip() or len(question.label) > MAX_LABEL_LENGTH:
            problems.append(ValidationProblem(N_("Question %(row)s needs its words."), "fields", params={"row": row}))
    return problems
