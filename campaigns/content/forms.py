"""WTForms of the message pages."""

from typing import Any

from wtforms import SelectField, StringField, TextAreaField

from campaigns.content.messages import LANGUAGES, MAX_LENGTHS
from campaigns.i18n import N_
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.edit_conflicts import VersionedForm
from campaigns.web.pages.form_choices import choices


class MessageForm(VersionedForm):
    """The message editor. The service functions validate; their problems are attached to these fields."""

    name = StringField(N_("Name"), render_kw={"maxlength": MAX_LENGTHS["name"], "required": True})
    subject = StringField(N_("Subject"), render_kw={"maxlength": MAX_LENGTHS["subject"], "dir": "auto"})
    preheader = StringField(
        N_("Preheader"),
        description=N_("The words that inboxes show behind the subject."),
        render_kw={"maxlength": MAX_LENGTHS["preheader"], "dir": "auto"},
    )
    language = SelectField(N_("Language"))
    from_name = StringField(N_("Sender's name"), render_kw={"maxlength": MAX_LENGTHS["from_name"], "dir": "auto"})
    from_email = StringField(N_("Sender's address"), render_kw={"type": "email", "dir": "ltr"})
    reply_to = StringField(N_("Answers go to"), render_kw={"type": "email", "dir": "ltr"})
    mjml = TextAreaField(
        N_("MJML"),
        render_kw={"rows": 26, "wrap": "off", "spellcheck": "false", "dir": "ltr", "autocapitalize": "off"},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.language.choices = choices((key, translated(label)) for key, label in LANGUAGES.items())

    def values(self) -> dict[str, str]:
        """Return the input as keyword arguments of :func:`campaigns.content.messages.update_message`."""
        return {field.name: field.data or "" for field in self if field.name not in ("csrf_token", "revision")}
