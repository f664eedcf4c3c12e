"""A form that was open while somebody else saved: what they changed, and the decision whose words stay."""

from dataclasses import dataclass
from typing import Any

from flask import request
from flask_babel import gettext as _
from flask_wtf import FlaskForm
from wtforms import BooleanField, FormField, HiddenField, SelectField
from wtforms.fields import FieldList

from campaigns.optimistic_lock import Versioned

_LONGEST_SHOWN = 300


class VersionedForm(FlaskForm):  # type: ignore[misc]
    """A form that remembers which revision of a thing it was opened with."""

    revision = HiddenField()

    def seen(self, thing: Versioned) -> int | None:
        """That revision; None when the form says nothing, 0 when it makes no sense."""
        if request.form.get("overwrite", "") == str(thing.revision):  # They saw the conflict and decided.
            return thing.revision
        if "revision" not in request.form:
            return None
        text = str(self.revision.data or "").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


@dataclass(frozen=True, slots=True)
class EditConflictView:
    """What stands now beside what was typed."""

    revision: int
    """The revision that saving anyway would replace."""
    changes: list[tuple[str, str, str]]
    """Label, what is saved, what was typed; only where they differ."""


def clash(typed: VersionedForm, saved: VersionedForm, thing: Versioned) -> EditConflictView:
    """How a form differs from the same form filled from ``thing`` as it is now."""
    pairs = ((field, saved[field.name]) for field in typed if not isinstance(field, HiddenField))
    shown = [(str(field.label.text), _shown(theirs), _shown(field)) for field, theirs in pairs]
    return EditConflictView(thing.revision, [row for row in shown if row[1] != row[2]])


def _shown(field: Any) -> str:
    """What a field holds, in words."""
    if isinstance(field, BooleanField):
        return str(_("Yes") if field.data else _("No"))
    if isinstance(field, SelectField):
        labels: dict[str, Any] = {str(value): label for value, label, *_rest in field.iter_choices()}
        return str(labels.get(str(field.data), field.data or ""))
    if isinstance(field, FieldList):
        return "; ".join(words for words in map(_shown, field) if words)
    if isinstance(field, FormField):
        return ", ".join(words for one in field if not isinstance(one, BooleanField) and (words := _shown(one)))
    text = str(field._value()).replace("\r\n", "\n").strip()  # As its input shows it: 12.50, not 12.5.
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
