"""Settings of bounce intake (bounce domain, webhooks, mailbox) and the status of each source."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, config
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.organisation import organisation
from campaigns.delivery.bounces.intake.webhook_endpoint import SEALED
from campaigns.delivery.bounces.models import (
    FOR_A_LOOK,
    FeedbackCount,
    FeedbackSource,
    FeedbackType,
    InboundMessage,
    Mailbox,
    Webhook,
)
from campaigns.delivery.bounces.webhooks import sendgrid, ses
from campaigns.delivery.mime.headers import ascii_domain
from campaigns.delivery.relays.service import is_host, is_private
from campaigns.delivery.smtp.address import TlsMode, is_loopback
from campaigns.encryption import seal
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_MAILBOX = 1
MAILBOX_SEALED = "mailbox"


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Counts of one source's messages by type, and the time of the last one."""

    counts: Mapping[FeedbackType, int]
    last_at: datetime | None

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def standings(session: Session) -> dict[FeedbackSource, SourceStatus]:
    """Return the status of each source that has received messages."""
    found: dict[FeedbackSource, dict[FeedbackType, int]] = {}
    last: dict[FeedbackSource, datetime] = {}
    for row in session.scalars(select(FeedbackCount)):
        found.setdefault(row.source, {})[row.feedback_type] = row.count
        last[row.source] = max(row.last_at, last.get(row.source, row.last_at))
    return {way: SourceStatus(counts, last[way]) for way, counts in found.items()}


def for_a_look(session: Session, limit: int = 50) -> Sequence[InboundMessage]:
    """Return messages that were unreadable or not attributed to a send, newest first."""
    asked = select(InboundMessage).where(InboundMessage.feedback_type.in_(FOR_A_LOOK), InboundMessage.raw.is_not(None))
    return session.scalars(asked.order_by(InboundMessage.id.desc()).limit(limit)).all()


def set_domain(session: Session, actor: Actor, domain: str) -> None:
    """Set the bounce domain; empty: each sender's own domain. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    domain = domain.strip().lower().rstrip(".")
    if domain:
        try:
            domain = ascii_domain(f"x@{domain}").removeprefix("x@")
        except ValueError as error:
            raise ValidationFailed(ValidationProblem(N_("This is not a domain."), "bounce_domain")) from error
        if "." not in domain:
            raise ValidationFailed(ValidationProblem(N_("This is not a domain."), "bounce_domain"))
    organisation(session).bounce_domain = domain or None
    audit.record(session, actor, "update", "bounce domain", 1, domain=domain)


def set_webhook(session: Session, actor: Actor, way: FeedbackSource, secret: str, topics: str, *, active: bool) -> None:
    """Set a provider's webhook secret and topics; an empty secret keeps the current one. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    row = session.get(Webhook, way) or Webhook(source=way, secret="", topics={}, changed_at=clock.now())
    arns = topics.split()
    secret = secret.strip()
    if way is FeedbackSource.SES:
        if any(ses.ARN.fullmatch(arn) is None for arn in arns) or len(arns) > 20:
            raise ValidationFailed(
                ValidationProblem(N_("A topic's ARN looks like arn:aws:sns:eu-west-1:123456789012:name."), "topics")
            )
        row.topics = {arn: row.topics.get(arn, "") for arn in arns}
    elif not secret and not row.secret:
        raise ValidationFailed(ValidationProblem(N_("Without it no call can be checked."), "secret"))
    if secret:
        _check_secret(way, secret)
        row.secret = seal(secret, SEALED)
    row.active, row.changed_at = active, clock.now()
    session.add(row)
    audit.record(session, actor, "update", "bounce webhook", way.value, active=active, topics=arns)


def _check_secret(way: FeedbackSource, secret: str) -> None:
    if len(secret) > 2000:
        raise ValidationFailed(ValidationProblem(N_("This is too long, or has signs that can't be typed."), "secret"))
    if way is FeedbackSource.SENDGRID:
        try:
            sendgrid.key_of(secret)
        except ValueError as error:
            raise ValidationFailed(
                ValidationProblem(N_("This is not a verification key of SendGrid's."), "secret")
            ) from error
    if way in (FeedbackSource.POSTMARK, FeedbackSource.BREVO) and not re.fullmatch(r"[^:\s]+:\S{12,}", secret):
        raise ValidationFailed(
            ValidationProblem(N_("A name and a password of twelve signs or more, with a colon between."), "secret")
        )


def pending_subscription(session: Session, actor: Actor, arn: str) -> str:
    """Return the SubscribeURL of a topic that awaits confirmation. Raises NotFound."""
    actor.require(Permission.SETTINGS)
    row = session.get(Webhook, FeedbackSource.SES)
    url = row.topics.get(arn, "") if row is not None else ""
    if not url:
        raise NotFound(N_("No such topic waits for an answer."))
    return str(url)


def subscribed(session: Session, actor: Actor, arn: str) -> None:
    """Mark the topic's subscription as confirmed."""
    actor.require(Permission.SETTINGS)
    row = session.get_one(Webhook, FeedbackSource.SES)
    row.topics = {**row.topics, arn: ""}
    audit.record(session, actor, "confirm", "bounce webhook", FeedbackSource.SES.value, topic=arn)


def mailbox(session: Session) -> Mailbox | None:
    return session.get(Mailbox, _MAILBOX)


@dataclass(frozen=True, slots=True)
class MailboxInput:
    """Form values of the mailbox. An empty password keeps the current one."""

    host: str
    port: int
    tls: TlsMode
    user: str
    password: str
    folder: str = "INBOX"
    delete_messages: bool = False
    active: bool = True


def set_mailbox(session: Session, actor: Actor, words: MailboxInput) -> Mailbox:
    """Create or change the mailbox. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    problems = _problems(words)
    if problems:
        raise ValidationFailed(problems)
    row = mailbox(session) or Mailbox(id=_MAILBOX, host=words.host, port=words.port, secret="", uid_validity=0)
    if (row.host, row.port) != (words.host, words.port) and not words.password:
        row.secret = ""  # Otherwise the stored password could be sent to another host.
    if (row.host, row.user, row.folder) != (words.host, words.user, words.folder):
        row.uid_validity, row.last_uid = 0, 0
    for name in ("host", "port", "tls", "user", "folder", "delete_messages", "active"):
        setattr(row, name, getattr(words, name))
    if words.password:
        row.secret = seal(words.password, MAILBOX_SEALED)
    row.error = ""
    session.add(row)
    audit.record(
        session, actor, "update", "bounce mailbox", _MAILBOX, host=f"{words.host}:{words.port}", active=words.active
    )
    return row


def _problems(words: MailboxInput) -> list[ValidationProblem]:
    found = []
    if not is_host(words.host):
        found.append(ValidationProblem(N_("This is no host name or address."), "host"))
    elif not config.settings().private_relays and is_private(words.host):
        found.append(
            ValidationProblem(N_("A private address: whoever runs the house must allow it (PRIVATE_RELAYS)."), "host")
        )
    if not 1 <= words.port <= 65535:
        found.append(ValidationProblem(N_("From %(low)s to %(high)s."), "port", params={"low": 1, "high": 65535}))
    if words.tls is TlsMode.OFF and not is_loopback(words.host):
        found.append(ValidationProblem(N_("Nobody signs in without TLS."), "tls"))
    if not words.user or not all(
        each.isprintable() and len(each) <= 200 for each in (words.user, words.password, words.folder)
    ):
        found.append(ValidationProblem(N_("This is missing, too long, or has signs that can't be typed."), "user"))
    return found


def mailbox_to_try(session: Session, actor: Actor) -> Mailbox:
    """Return the mailbox for a connection test. Raises Conflict when none is configured."""
    actor.require(Permission.SETTINGS)
    found = mailbox(session)
    if found is None:
        raise Conflict(N_("Save the mailbox first."))
    return found
