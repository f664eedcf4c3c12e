"""Mails requested through the API: one message to one recipient, once per idempotency key.

The request is stored in an outbox row beside the send: its kind says whether the mail is transactional, its context
holds the fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import String, and_, case, cast, exists, func, literal, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import SYSTEM, Actor, Permission
from campaigns.audience import consent
from campaigns.audience.addresses import normalise
from campaigns.audience.contacts import ATTRIBUTE_KEY, MAX_ATTRIBUTE_LENGTH, MAX_ATTRIBUTES
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact, Suppression
from campaigns.content.models import Message, MessageVersion
from campaigns.content.versions import freeze
from campaigns.delivery.models import Send, SkipReason
from campaigns.delivery.transactional import enqueue
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.outbox import TRANSACTIONAL, OutboxMail
from campaigns.planning import system_activities

_NOT_TRANSACTIONAL = "message"
_MAX_KEY_LENGTH = 64


@dataclass(frozen=True, slots=True)
class TransactionalMailRequest:
    """An API request. ``message`` is an id or a name; ``fields`` override the contact's merge fields."""

    external_id: str
    message: int | str
    to: str
    fields: Mapping[str, str] = field(default_factory=dict)
    transactional: bool = False


def request_mail(session: Session, actor: Actor, mail_request: TransactionalMailRequest) -> tuple[Send, bool]:
    """Queue the mail. Returns (send, whether it is new); the same ``external_id`` again returns the first send.

    Raises ValidationFailed, and Conflict when the ``external_id`` was used for another message or recipient.
    Suppression, and consent unless transactional, are checked later, just before sending.
    """
    actor.require(Permission.LAUNCH)
    _validate(mail_request)
    message, address = find_message(session, mail_request.message), _parse_recipient(mail_request.to)
    existing = _find_send(session, mail_request.external_id)
    if existing is not None:
        version = session.get(MessageVersion, existing.version_id)
        if existing.address != address or version is None or version.message_id != message.id:
            raise Conflict(N_("This external_id stands for another mail already."))
        return existing, False
    version = freeze(session, SYSTEM, message)
    mail = OutboxMail(
        kind=TRANSACTIONAL if mail_request.transactional else _NOT_TRANSACTIONAL,
        address=address,
        language=message.language,
        context={"fields": dict(mail_request.fields)},
        created_at=clock.now(),
        sent_at=clock.now(),
    )
    session.add(mail)
    session.flush()
    send = enqueue.enqueue_send(
        session,
        "api",
        address,
        mail_request.external_id,
        version_id=version.id,
        outbox_id=mail.id,
        contact_id=session.scalar(select(Contact.id).where(Contact.email == address)),
        recipient_key=f"e:{mail_request.external_id}",
    )
    if send.outbox_id != mail.id:  # A concurrent request with the same external_id was faster.
        session.delete(mail)
        return send, False
    audit.record(session, actor, "request mail", "message", message.id, send=str(send.id))
    return send, True


def find_message(session: Session, id_or_name: int | str) -> Message:
    """The message with this id or name. Raises ValidationFailed if there is none, or several of this name."""
    condition = Message.id == id_or_name if isinstance(id_or_name, int) else Message.name == id_or_name
    messages = session.scalars(select(Message).where(condition).limit(2)).all()
    if not messages:
        raise ValidationFailed(ValidationProblem(N_("There is no such message."), "message"))
    if len(messages) > 1:
        raise ValidationFailed(ValidationProblem(N_("Several messages have this name: give its number."), "message"))
    return messages[0]


def get_requested_send(session: Session, send_id: int) -> Send:
    """A send that was requested through the API. Raises NotFound for any other id."""
    send = session.get(Send, send_id)
    if send is None or send.activity_id != system_activities.get_or_create(session, "api").id:
        raise NotFound(N_("There is no such mail."))
    return send


def _find_send(session: Session, external_id: str) -> Send | None:
    activity = system_activities.get_or_create(session, "api")
    return session.scalars(
        select(Send).where(
            Send.activity_id == activity.id, Send.recipient_key == f"e:{external_id}", Send.occasion == external_id
        )
    ).one_or_none()


def _parse_recipient(text: str) -> str:
    try:
        return normalise(text)
    except ValidationFailed as error:
        raise ValidationFailed([replace(each, field="to") for each in error.problems]) from error


def _validate(mail_request: TransactionalMailRequest) -> None:
    problems = []
    if not 0 < len(mail_request.external_id) <= _MAX_KEY_LENGTH or not mail_request.external_id.isprintable():
        problems.append(
            ValidationProblem(N_("1 to %(most)s characters."), "external_id", params={"most": _MAX_KEY_LENGTH})
        )
    if len(mail_request.fields) > MAX_ATTRIBUTES:
        problems.append(ValidationProblem(N_("At most %(most)s of them."), "fields", params={"most": MAX_ATTRIBUTES}))
    for name, value in mail_request.fields.items():
        if not ATTRIBUTE_KEY.fullmatch(name) or len(value) > MAX_ATTRIBUTE_LENGTH:
            message = N_("Names are like first_name, values have at most %(most)s characters.")
            problems.append(ValidationProblem(message, f"fields.{name[:60]}", params={"most": MAX_ATTRIBUTE_LENGTH}))
    if problems:
        raise ValidationFailed(problems)


def api_skip_reason(address: Any = Send.address) -> Any:
    """SQL expression: the SkipReason for which an API mail to ``address`` must not be sent, '' when it may be.

    The query must join the send's OutboxMail row and a contact for the consent level.
    """
    consent_level = func.coalesce(
        cast(consent.current_level_sql(ConsentPurpose.EMAIL), String), ConsentLevel.NONE.value
    )
    return case(
        (exists().where(Suppression.address == address), literal(SkipReason.SUPPRESSED.value)),
        (
            and_(OutboxMail.kind != TRANSACTIONAL, consent_level != ConsentLevel.FULL.value),
            literal(SkipReason.NO_CONSENT.value),
        ),
        else_=literal(""),
    )
