"""Edit conflicts of forms: what somebody else saved while the form was open, beside the user's own input."""

from dataclasses import dataclass
from typing import Any

from flask import request
from flask_babel import gettext as _
from flask_wtf import FlaskForm
from wtforms import BooleanField, FormField, HiddenField, SelectField
from wtforms.fields import FieldList

from campaigns.optimistic_lock import Versioned

_MAX_SHOWN_LENGTH = 300


class VersionedForm(FlaskForm):  # type: ignore[misc]
    """A form that carries the revision of the row that it was opened with."""

    revision = HiddenField()

    def opened_revision(self, row: Versioned) -> int | None:
        """The revision to save against: None when the form carries none, 0 (never valid) when it is malformed."""
        # The user saw the conflict and chose to overwrite.
        if request.form.get("overwrite", "") == str(row.revision):
            return row.revision
        if "revision" not in request.form:
            return None
        text = str(self.revision.data or "").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


@dataclass(frozen=True, slots=True)
class EditConflictView:
    """The saved values beside the submitted ones."""

    revision: int
    """The revision that saving anyway would replace."""
    changes: list[tuple[str, str, str]]
    """(label, saved value, submitted value), only where they differ."""


def edit_conflict_view(submitted: VersionedForm, saved: VersionedForm, row: Versioned) -> EditConflictView:
    """The differences between a submitted form and the same form filled from ``row`` as it is now."""
    pairs = ((field, saved[field.name]) for field in submitted if not isinstance(field, HiddenField))
    shown = [(str(field.label.text), _display_text(saved_field), _display_text(field)) for field, saved_field in pairs]
    return EditConflictView(row.revision, [change for change in shown if change[1] != change[2]])


def _display_text(field: Any) -> str:
    """The field's value as displayed to people."""
    if isinstance(field, BooleanField):
        return str(_("Yes") if field.data else _("No"))
    if isinstance(field, SelectField):
        labels: dict[str, Any] = {str(value): label for value, label, *_rest in field.iter_choices()}
        return str(labels.get(str(field.data), field.data or ""))
    if isinstance(field, FieldList):
        return "; ".join(text for text in map(_display_text, field) if text)
    if isinstance(field, FormField):
        return ", ".join(text for one in field if not isinstance(one, BooleanField) and (text := _display_text(one)))
    text = str(field._value()).replace("\r\n", "\n").strip()  # The text that the input shows: 12.50, not 12.5.
    return text if len(text) <= _MAX_SHOWN_LENGTH else text[:_MAX_SHOWN_LENGTH] + "…"
