"""Choices of select fields.

WTForms 3.3 deprecates (value, label) tuples in favour of ``SelectChoice``, which its published types don't know yet;
only this module deals with that.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session
from wtforms import SelectMultipleField
from wtforms.fields import choices as wtforms_choices
from wtforms.widgets import CheckboxInput, ListWidget

from campaigns.accounts.models import User
from campaigns.web.i18n.formatting import translated


class CheckboxesField(SelectMultipleField):
    """A multiple choice, displayed as checkboxes."""

    widget = ListWidget(prefix_label=False)
    option_widget = CheckboxInput()


def choices(pairs: Iterable[tuple[object, str]]) -> Any:
    """Choices from (value, label) pairs, for ``field.choices`` or ``SelectField(choices=…)``."""
    return [wtforms_choices.SelectChoice(str(value), label) for value, label in pairs]  # type: ignore[attr-defined]


def enum_choices(enum: type[StrEnum]) -> Any:
    """The members of an enum with their translated labels; within a request only."""
    return choices((member.value, translated(member.label)) for member in enum)  # type: ignore[attr-defined]


def user_choices(session: Session, chosen: int | None, empty_label: str) -> Any:
    """An empty choice with ``empty_label``, then all users who may sign in, and ``chosen`` even if locked since."""
    people = select(User.id, User.name).where(or_(User.locked_at.is_(None), User.id == chosen))
    return choices([("", empty_label), *session.execute(people.order_by(User.name, User.id))])
