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
from campaigns.delivery.bounces.intake.webhook_endpoint import WEBHOOK_SECRET_PURPOSE
from campaigns.delivery.bounces.models import (
    INSPECTABLE_TYPES,
    FeedbackCount,
    FeedbackSource,
    FeedbackType,
    InboundMessage,
    Mailbox,
    Webhook,
)
from campaigns.delivery.bounces.webhooks import sendgrid, ses
from campaigns.delivery.mime.headers import with_ascii_domain
from campaigns.delivery.relays.service import is_host, is_private
from campaigns.delivery.smtp.address import TlsMode, is_loopback
from campaigns.encryption import encrypt
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_MAILBOX_ID = 1
MAILBOX_SECRET_PURPOSE = "mailbox"


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Counts of one source's messages by type, and the time of the last one."""

    counts: Mapping[FeedbackType, int]
    last_at: datetime | None

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def source_statuses(session: Session) -> dict[FeedbackSource, SourceStatus]:
    """Return the status of each source that has received messages."""
    counts_by_source: dict[FeedbackSource, dict[FeedbackType, int]] = {}
    last: dict[FeedbackSource, datetime] = {}
    for row in session.scalars(select(FeedbackCount)):
        counts_by_source.setdefault(row.source, {})[row.feedback_type] = row.count
        last[row.source] = max(row.last_at, last.get(row.source, row.last_at))
    return {source: SourceStatus(counts, last[source]) for source, counts in counts_by_source.items()}


def messages_to_inspect(session: Session, limit: int = 50) -> Sequence[InboundMessage]:
    """Return messages that were unreadable or not attributed to a send, newest first."""
    query = select(InboundMessage).where(
        InboundMessage.feedback_type.in_(INSPECTABLE_TYPES), InboundMessage.raw.is_not(None)
    )
    return session.scalars(query.order_by(InboundMessage.id.desc()).limit(limit)).all()


def set_bounce_domain(session: Session, actor: Actor, domain: str) -> None:
    """Set the bounce domain; empty: each sender's own domain. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    domain = domain.strip().lower().rstrip(".")
    if domain:
        try:
            domain = with_ascii_domain(f"x@{domain}").removeprefix("x@")
        except ValueError as error:
            raise ValidationFailed(ValidationProblem(N_("This is not a domain."), "bounce_domain")) from error
        if "." not in domain:
            raise ValidationFailed(ValidationProblem(N_("This is not a domain."), "bounce_domain"))
    organisation(session).bounce_domain = domain or None
    audit.record(session, actor, "update", "bounce domain", 1, domain=domain)


def set_webhook(
    session: Session, actor: Actor, source: FeedbackSource, secret: str, topics: str, *, active: bool
) -> None:
    """Set a provider's webhook secret and topics; an empty secret keeps the current one. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    row = session.get(Webhook, source) or Webhook(source=source, secret="", topics={}, changed_at=clock.now())
    arns = topics.split()
    secret = secret.strip()
    if source is FeedbackSource.SES:
        if any(ses.ARN.fullmatch(arn) is None for arn in arns) or len(arns) > 20:
            raise ValidationFailed(
                ValidationProblem(N_("A topic's ARN looks like arn:aws:sns:eu-west-1:123456789012:name."), "topics")
            )
        row.topics = {arn: row.topics.get(arn, "") for arn in arns}
    elif not secret and not row.secret:
        raise ValidationFailed(ValidationProblem(N_("Without it no call can be checked."), "secret"))
    if secret:
        _check_secret(source, secret)
        row.secret = encrypt(secret, WEBHOOK_SECRET_PURPOSE)
    row.active, row.changed_at = active, clock.now()
    session.add(row)
    audit.record(session, actor, "update", "bounce webhook", source.value, active=active, topics=arns)


def _check_secret(source: FeedbackSource, secret: str) -> None:
    if len(secret) > 2000:
        raise ValidationFailed(ValidationProblem(N_("This is too long, or has signs that can't be typed."), "secret"))
    if source is FeedbackSource.SENDGRID:
        try:
            sendgrid.parse_public_key(secret)
        except ValueError as error:
            raise ValidationFailed(
                ValidationProblem(N_("This is not a verification key of SendGrid's."), "secret")
            ) from error
    if source in (FeedbackSource.POSTMARK, FeedbackSource.BREVO) and not re.fullmatch(r"[^:\s]+:\S{12,}", secret):
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


def mark_subscribed(session: Session, actor: Actor, arn: str) -> None:
    """Mark the topic's subscription as confirmed."""
    actor.require(Permission.SETTINGS)
    row = session.get_one(Webhook, FeedbackSource.SES)
    row.topics = {**row.topics, arn: ""}
    audit.record(session, actor, "confirm", "bounce webhook", FeedbackSource.SES.value, topic=arn)


def find_mailbox(session: Session) -> Mailbox | None:
    return session.get(Mailbox, _MAILBOX_ID)


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


def set_mailbox(session: Session, actor: Actor, values: MailboxInput) -> Mailbox:
    """Create or change the mailbox. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    problems = _problems(values)
    if problems:
        raise ValidationFailed(problems)
    row = find_mailbox(session) or Mailbox(
        id=_MAILBOX_ID, host=values.host, port=values.port, secret="", uid_validity=0
    )
    if (row.host, row.port) != (values.host, values.port) and not values.password:
        row.secret = ""  # Otherwise the stored password could be sent to another host.
    if (row.host, row.user, row.folder) != (values.host, values.user, values.folder):
        row.uid_validity, row.last_uid = 0, 0
    for name in ("host", "port", "tls", "user", "folder", "delete_messages", "active"):
        setattr(row, name, getattr(values, name))
    if values.password:
        row.secret = encrypt(values.password, MAILBOX_SECRET_PURPOSE)
    row.error = ""
    session.add(row)
    audit.record(
        session,
        actor,
        "update",
        "bounce mailbox",
        _MAILBOX_ID,
        host=f"{values.host}:{values.port}",
        active=values.active,
    )
    return row


def _problems(values: MailboxInput) -> list[ValidationProblem]:
    problems = []
    if not is_host(values.host):
        problems.append(ValidationProblem(N_("This is no host name or address."), "host"))
    elif not config.settings().private_relays and is_private(values.host):
        problems.append(
            ValidationProblem(N_("A private address: whoever runs the house must allow it (PRIVATE_RELAYS)."), "host")
        )
    if not 1 <= values.port <= 65535:
        problems.append(ValidationProblem(N_("From %(low)s to %(high)s."), "port", params={"low": 1, "high": 65535}))
    if values.tls is TlsMode.OFF and not is_loopback(values.host):
        problems.append(ValidationProblem(N_("Nobody signs in without TLS."), "tls"))
    if not values.user or not all(
        each.isprintable() and len(each) <= 200 for each in (values.user, values.password, values.folder)
    ):
        problems.append(ValidationProblem(N_("This is missing, too long, or has signs that can't be typed."), "user"))
    return problems


def mailbox_to_test(session: Session, actor: Actor) -> Mailbox:
    """Return the mailbox for a connection test. Raises Conflict when none is configured."""
    actor.require(Permission.SETTINGS)
    existing = find_mailbox(session)
    if existing is None:
        raise Conflict(N_("Save the mailbox first."))
    return existing
