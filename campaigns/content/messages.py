"""Service functions that create, update and copy messages."""

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.addresses import normalise
from campaigns.content.mjml.validator import MAX_SOURCE_BYTES
from campaigns.content.models import Message
from campaigns.content.starter_templates import starter as starter_of
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.optimistic_lock import bump_revision

LANGUAGES = {
    "en": N_("English"),
    "fr": N_("French"),
    "ka": N_("Georgian"),
    "az": N_("Azerbaijani"),
    "ru": N_("Russian"),
    "fa": N_("Persian"),
}
MAX_LENGTHS = {"name": 200, "subject": 500, "preheader": 500, "from_name": 200}
BLANK_MJML = """<mjml>
  <mj-body>
    <mj-section>
      <mj-column>
        <mj-text>Hello {{ contact.first_name|default("there") }},</mj-text>
      </mj-column>
    </mj-section>
  </mj-body>
</mjml>
"""


def message_of(session: Session, message_id: int) -> Message:
    """Return the message. Raises NotFound."""
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound(N_("There is no such message."))
    return message


def create_message(
    session: Session,
    actor: Actor,
    *,
    name: str,
    starter: str | None = None,
    subject: str = "",
    preheader: str = "",
    mjml: str | None = None,
    language: str = "",
    from_name: str = "",
    from_email: str = "",
    reply_to: str = "",
) -> Message:
    """Create a message, optionally from a starter template; explicit values override the template's.

    Raises ValidationFailed, and NotFound for an unknown starter.
    """
    actor.require(Permission.PLAN)
    template = starter_of(starter) if starter else None
    values = _clean_values(
        name=name,
        subject=subject or (template.subject if template else ""),
        preheader=preheader or (template.preheader if template else ""),
        mjml=mjml if mjml is not None else template.mjml if template else BLANK_MJML,
        language=language or (template.language if template else "en"),
        from_name=from_name,
        from_email=from_email,
        reply_to=reply_to,
    )
    now = clock.now()
    message = Message(**values, revision=1, created_at=now, updated_at=now)
    session.add(message)
    session.flush()
    audit.record(session, actor, "create", "message", message.id, name=message.name)
    return message


def update_message(
    session: Session,
    actor: Actor,
    message: Message,
    *,
    revision: int | None = None,
    name: str,
    subject: str,
    preheader: str,
    mjml: str,
    language: str,
    from_name: str = "",
    from_email: str = "",
    reply_to: str = "",
) -> Message:
    """Replace a message's values. Drafts may be incomplete; only values that cannot be stored are refused.

    Raises ValidationFailed, and EditConflict when somebody else saved the message after ``revision`` was read.
    """
    actor.require(Permission.PLAN)
    values = _clean_values(
        name=name,
        subject=subject,
        preheader=preheader,
        mjml=mjml,
        language=language,
        from_name=from_name,
        from_email=from_email,
        reply_to=reply_to,
    )
    for field, value in values.items():
        setattr(message, field, value)
    message.updated_at = clock.now()
    bump_revision(session, message, revision)
    session.flush()
    audit.record(session, actor, "update", "message", message.id, revision=message.revision)
    return message


def duplicate_message(session: Session, actor: Actor, message: Message, name: str) -> Message:
    """Create a copy with another name."""
    return create_message(
        session,
        actor,
        name=name[: MAX_LENGTHS["name"]],
        subject=message.subject,
        preheader=message.preheader,
        mjml=message.mjml,
        language=message.language,
        from_name=message.from_name,
        from_email=message.from_email,
        reply_to=message.reply_to,
    )


def _clean_values(**given: str) -> dict[str, str]:
    """Return the values as stored. Raises ValidationFailed with every problem found."""
    values = {field: value if field == "mjml" else value.strip() for field, value in given.items()}
    values["mjml"] = values["mjml"].replace("\r\n", "\n").replace("\r", "\n")
    problems = []
    if not values["name"]:
        problems.append(ValidationProblem(N_("Give the message a name."), "name"))
    for field, longest in MAX_LENGTHS.items():
        if len(values[field]) > longest:
            problems.append(
                ValidationProblem(N_("At most %(longest)s characters."), field, params={"longest": longest})
            )
    for field, value in values.items():
        has_line_breaks = field != "mjml" and ("\n" in value or "\r" in value)
        if "\x00" in value or has_line_breaks or any("\ud800" <= character <= "\udfff" for character in value):
            problems.append(ValidationProblem(N_("Line breaks and control characters are not possible here."), field))
    if len(values["mjml"].encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
        size = MAX_SOURCE_BYTES // 1024
        problems.append(ValidationProblem(N_("The MJML is larger than %(size)s KB."), "mjml", params={"size": size}))
    if values["language"] not in LANGUAGES:
        problems.append(ValidationProblem(N_("Choose one of the languages."), "language"))
    for field in ("from_email", "reply_to"):
        try:
            values[field] = normalise(values[field]) if values[field] else ""
        except ValidationFailed as error:
            problems += [ValidationProblem(problem.message, field, params=problem.params) for problem in error.problems]
    if problems:
        raise ValidationFailed(problems)
    return values
