"""Form of a domain limit. The service validates the values."""

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import BooleanField, FloatField, IntegerField, StringField, TextAreaField
from wtforms.validators import InputRequired, Optional

from campaigns.delivery.throttling.domain_limits import DomainLimitInput


class DomainLimitForm(FlaskForm):  # type: ignore[misc]
    name = StringField(_l("Provider"), [InputRequired()], render_kw={"autocomplete": "off"})
    domains = TextAreaField(
        _l("Domains"), [InputRequired()], render_kw={"rows": "5", "dir": "ltr", "spellcheck": "false"}
    )
    per_second = FloatField(_l("Mails per second"), [Optional()], default=0, description=_l("0 means no limit."))
    at_once = IntegerField(
        _l("Mails at the same time"),
        [Optional()],
        default=0,
        description=_l("So many may be under way to them at once; 0 means no limit."),
    )
    active = BooleanField(_l("In use"), default=True)

    @property
    def limit_input(self) -> DomainLimitInput:
        """The entered values, with domains split at commas and whitespace."""
        return DomainLimitInput(
            name=(self.name.data or "").strip(),
            domains=(self.domains.data or "").replace(",", " ").split(),
            per_second=self.per_second.data or 0.0,
            at_once=self.at_once.data or 0,
            active=bool(self.active.data),
        )
