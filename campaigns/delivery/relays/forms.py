"""Form of a relay. The service validates; the form only parses."""

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import BooleanField, FloatField, IntegerField, PasswordField, SelectField, StringField
from wtforms.validators import InputRequired, Optional

from campaigns.delivery.relays.service import RelayInput
from campaigns.delivery.smtp.address import TlsMode
from campaigns.web.i18n.formatting import translated
from campaigns.web.pages.form_choices import choices


class RelayForm(FlaskForm):  # type: ignore[misc]
    name = StringField(_l("Name"), [InputRequired()])
    host = StringField(_l("Host"), [InputRequired()], render_kw={"dir": "ltr", "autocomplete": "off"})
    port = IntegerField(_l("Port"), [InputRequired()], default=587)
    tls = SelectField(_l("Encryption"))
    user = StringField(_l("User"), render_kw={"dir": "ltr", "autocomplete": "off"})
    password = PasswordField(_l("Password"), render_kw={"autocomplete": "new-password"})
    connections = IntegerField(
        _l("Connections"), [InputRequired()], default=4, description=_l("At most so many at once in each worker.")
    )
    per_connection = IntegerField(
        _l("Mails per connection"), [Optional()], default=0, description=_l("0 means no limit.")
    )
    per_second = FloatField(
        _l("Mails per second"),
        [Optional()],
        default=0,
        description=_l("Of all workers together; 0 means as fast as the relay takes them."),
    )
    priority = IntegerField(
        _l("Order"),
        [InputRequired()],
        default=1,
        description=_l("The lowest that works is used; the others wait for its failure. Equal ones share the work."),
    )
    active = BooleanField(_l("In use"), default=True)

    def fill_choices(self) -> "RelayForm":
        """Fill the choices of the TLS mode. Returns the form."""
        self.tls.choices = choices(
            (kind.value, translated(kind.label)) for kind in (TlsMode.VERIFY, TlsMode.IMPLICIT, TlsMode.OFF)
        )
        return self

    @property
    def relay_input(self) -> RelayInput:
        """The submitted data as input of the service."""
        return RelayInput(
            name=(self.name.data or "").strip(),
            host=(self.host.data or "").strip().rstrip(".").lower(),
            port=self.port.data or 0,
            tls=TlsMode(self.tls.data),
            user=self.user.data or "",
            password=self.password.data or "",
            connections=self.connections.data or 0,
            per_connection=self.per_connection.data or 0,
            per_second=self.per_second.data or 0.0,
            priority=self.priority.data or 0,
            active=bool(self.active.data),
        )
