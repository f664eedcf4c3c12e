"""Idempotent intake of custom events reported by the API and by CSV files.

An event is identified by the reporter's ``external_id``; reporting it again changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience import contacts, suppression
from campaigns.audience.addresses import normalise
from campaigns.audience.models import SuppressionReason
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.planning.models import Activity
from tracking.conversions import currency
from tracking.conversions.goals import EVENT_NAME
from tracking.models.conversions import Conversion, CustomEvent

_CLOCK_SKEW = timedelta(minutes=5)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
MAX_ID_LENGTH = 64
MAX_EVENTS_PER_REQUEST = 500
_MAX_DETAIL_ENTRIES = 20


@dataclass(frozen=True, slots=True)
class EventReport:
    """A reported event before validation: each field holds the value from the JSON body or CSV row."""

    external_id: object
    name: object
    email: object = None
    at: object = None
    value: object = None
    currency: object = None
    activity_id: object = None
    detail: Mapping[str, object] = field(default_factory=dict)


def report_event(session: Session, actor: Actor, report: EventReport) -> tuple[CustomEvent, bool]:
    """Store a reported event; return it and whether it is new.

    The scheduler's tick matches it with goals later. A second report of the same ``external_id`` returns
    the stored event unchanged. Raises ValidationFailed with one problem for each invalid field.
    """
    actor.require(Permission.LEADS)
    event = _validated_event(session, report)
    existing = session.scalar(select(CustomEvent).where(CustomEvent.external_id == event.external_id))
    if existing is not None:
        return existing, False
    event.contact_id = _find_or_create_contact(session, actor, str(report.email or ""))
    try:
        with session.begin_nested():
            session.add(event)
    except IntegrityError:  # A concurrent request stored the same external id.
        return session.scalars(select(CustomEvent).where(CustomEvent.external_id == event.external_id)).one(), False
    return event, True


def withdraw_event(session: Session, actor: Actor, external_id: str) -> CustomEvent:
    """Delete a reported event and its conversions, e.g. after a cancelled order or a test.

    Writes an entry to the audit log. Raises NotFound.
    """
    actor.require(Permission.LEADS)
    event = session.scalar(select(CustomEvent).where(CustomEvent.external_id == _namespaced_id(external_id)))
    if event is None:
        raise NotFound(N_("No event was reported under this id."))
    conversions = session.scalars(select(Conversion).where(Conversion.external_id.like(f"%:event:{event.id}"))).all()
    for conversion in conversions:
        session.delete(conversion)
    audit.record(
        session,
        actor,
        "withdraw",
        "event",
        event.id,
        name=event.name,
        external_id=external_id,
        amount=str(event.amount or ""),
        currency=event.currency,
        conversions=len(conversions),
    )
    session.delete(event)
    session.flush()
    return event


def _namespaced_id(external_id: str) -> str:
    """The id with a prefix that keeps it apart from the ids of events reported by the page script."""
    return f"reported:{external_id}"


def _validated_event(session: Session, report: EventReport) -> CustomEvent:
    problems: list[ValidationProblem] = []

    def parse_field(parser: object, name: str) -> object:
        try:
            return parser(getattr(report, name), name)  # type: ignore[operator]
        except ValidationFailed as error:
            problems.extend(error.problems)
            return None

    event = CustomEvent(
        external_id=_namespaced_id(str(parse_field(_parse_id, "external_id"))),
        name=str(parse_field(_parse_name, "name")),
        at=parse_field(_parse_time, "at"),
        amount=parse_field(currency.parse_amount, "value"),
        currency=parse_field(currency.parse_currency, "currency") or "",
        activity_id=parse_field(lambda value, name: _parse_activity(session, value, name), "activity_id"),
        detail=parse_field(_parse_detail, "detail") or {},
        processed=False,
    )
    parse_field(_parse_email, "email")
    if event.currency and event.amount is None and not problems:
        problems.append(ValidationProblem(N_("A currency says nothing without a value."), field="currency"))
    if problems:
        raise ValidationFailed(problems)
    return event


def _parse_id(value: object, field: str) -> str:
    text = str(value if value is not None else "").strip()
    if not text or len(text) > MAX_ID_LENGTH or not text.isprintable():
        raise ValidationFailed(
            ValidationProblem(N_("An id of yours, of 1 to %(most)s characters."), field, params={"most": MAX_ID_LENGTH})
        )
    return text


def _parse_name(value: object, field: str) -> str:
    text = str(value or "").strip()
    if not EVENT_NAME.fullmatch(text):
        raise ValidationFailed(ValidationProblem(N_("An event's name has letters, digits and . : _ - only."), field))
    return text


def _parse_time(value: object, field: str) -> datetime:
    now = clock.now()
    if value is None or value == "":
        return now
    try:
        at = datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise ValidationFailed(ValidationProblem(N_("A moment like 2026-11-22T14:30:00+04:00."), field)) from None
    try:
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        at = _EARLIEST - _CLOCK_SKEW
    if not _EARLIEST <= at <= now + _CLOCK_SKEW:
        raise ValidationFailed(ValidationProblem(N_("This moment is in the future, or too long ago."), field))
    return min(at, now)


def _parse_activity(session: Session, value: object, field: str) -> int | None:
    if value is None or value == "":
        return None
    text = str(value)
    activity = session.get(Activity, int(text)) if text.isdecimal() and text.isascii() and len(text) < 18 else None
    if activity is None or activity.built_in:
        raise ValidationFailed(ValidationProblem(N_("There is no such activity."), field))
    return activity.id


def _parse_detail(value: object, field: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > _MAX_DETAIL_ENTRIES:
        raise ValidationFailed(
            ValidationProblem(N_("At most %(most)s names with values."), field, params={"most": _MAX_DETAIL_ENTRIES})
        )
    return {str(name)[:40]: str(text)[:200] for name, text in value.items()}


def _parse_email(value: object, field: str) -> str:
    try:
        return normalise(str(value)) if value else ""
    except ValidationFailed as error:
        raise ValidationFailed(
            [ValidationProblem(one.message, field, params=one.params) for one in error.problems]
        ) from None


def _find_or_create_contact(session: Session, actor: Actor, email: str) -> int | None:
    """Id of the contact with this address, created if needed.

    None without an address, and for an erased address: erasure must not be undone by a report.
    """
    if not email:
        return None
    address = normalise(email)
    if suppression.reason_for(session, address) is SuppressionReason.ERASED:
        return None
    contact, _ = contacts.upsert_contact(session, actor, email=address, source="api")
    return contact.id
