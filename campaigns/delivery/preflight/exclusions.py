"""Exclusions of an audience: who would not be mailed and why, as counts and as contacts.

A reason is ``mailable``, a SkipReason, ``suppressed.<SuppressionReason>`` or ``withdrawn``; these add up to the
audience. ``bounced_before`` and ``lacks.<merge field>`` are subsets of ``mailable``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, String, case, cast, exists, func, literal, null, or_, select
from sqlalchemy.orm import Session

from campaigns.accounts.organisation import organisation
from campaigns.audience.models import ConsentEntry, ConsentPurpose, Contact, Suppression, SuppressionReason
from campaigns.db import UtcDateTime
from campaigns.delivery.models import Send, SendState, SkipReason
from campaigns.delivery.queue.expansion import skip_reason
from campaigns.delivery.sends import frequency_cap
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.planning.models import Activity, Channel
from campaigns.planning.recipients import contacts_of

MAILABLE = "mailable"
WITHDRAWN = "withdrawn"
BOUNCED_BEFORE = "bounced_before"
LACKS = "lacks."
_SUPPRESSED = f"{SkipReason.SUPPRESSED.value}."
_COLUMNS: Mapping[str, Any] = {
    "email": Contact.email,
    "first_name": Contact.first_name,
    "last_name": Contact.last_name,
    "language": Contact.language,
}


@dataclass(frozen=True, slots=True)
class ExclusionCounts:
    """Contacts of an audience per reason, and mailable contacts without a value per merge field."""

    audience: Mapping[str, int]
    """``total``, ``mailable`` and the reasons; ``mailable`` and the reasons add up to ``total``."""
    lacking: Mapping[str, int]
    """Merge field → contacts without a value, for fields that some lack."""


def count(session: Session, activity: Activity, fields: Sequence[str] = ()) -> ExclusionCounts:
    """Count the audience in one scan, by reason and by missing value of ``fields``."""
    lacks = [case((_lacks(field), 1), else_=0).label(f"lacks_{n}") for n, field in enumerate(fields)]
    people = (
        contacts_of(activity)
        .with_only_columns(
            Contact.id.label("id"), Contact.email.label("email"), _reason(session).label("reason"), *lacks
        )
        .cte("people")
        # Otherwise SQLite evaluates the reason once for each reference below.
        .prefix_with("MATERIALIZED")
    )
    why = _in_detail(people.c).label("why")
    sums = [func.sum(people.c[f"lacks_{n}"]) for n in range(len(fields))]
    rows = session.execute(select(why, func.count(), *sums).group_by(why)).all()
    found = {row[0] or MAILABLE: row for row in rows}
    counts = {name: int(row[1]) for name, row in sorted(found.items())}
    empty = found[MAILABLE][2:] if MAILABLE in found else [0] * len(fields)
    return ExclusionCounts(
        {"total": sum(counts.values()), MAILABLE: counts.pop(MAILABLE, 0), **counts},
        {field: int(number) for field, number in zip(fields, empty, strict=True) if number},
    )


def _reason(session: Session) -> Any:
    """SQL: the SkipReason of a Contact if it were mailed now, '' when none. The cap comes last, as in sending."""
    capped = frequency_cap.capped_sql(organisation(session))
    reason = skip_reason()
    return reason if capped is None else case((reason != "", reason), (capped, SkipReason.CAPPED.value), else_="")


def _in_detail(people: Any) -> Any:
    """SQL: the reason, with suppressions split by SuppressionReason and consent split into missing and withdrawn."""
    suppression = select(cast(Suppression.reason, String)).where(Suppression.address == people.email).scalar_subquery()
    return case(
        (people.reason == SkipReason.SUPPRESSED.value, literal(_SUPPRESSED) + suppression),
        (
            people.reason == SkipReason.NO_CONSENT.value,
            case((_answered(people.id), literal(WITHDRAWN)), else_=literal(SkipReason.NO_CONSENT.value)),
        ),
        else_=people.reason,
    )


def _answered(contact_id: Any) -> Any:
    """SQL: whether the contact has any entry in the email consent log. Without consent that means it was withdrawn."""
    return exists().where(ConsentEntry.contact_id == contact_id, ConsentEntry.purpose == ConsentPurpose.EMAIL)


def _lacks(field: str) -> Any:
    """SQL: whether a Contact has no value, or only spaces, for the merge field ``contact.<key>``."""
    key = field.removeprefix("contact.")
    value = _COLUMNS[key] if key in _COLUMNS else Contact.attributes[key].as_string()
    return or_(value.is_(None), func.trim(value) == "")


def people(session: Session, activity: Activity, why: str) -> Select[*tuple[Any, ...]]:
    """SELECT of (Contact, since, detail) for a reason, not ordered yet.

    ``since`` is when the reason began (NULL when unknown), ``detail`` a text, '' when there is none. Raises NotFound
    for an unknown reason.
    """
    mine, reason = contacts_of(activity), _reason(session)
    nothing = null().cast(UtcDateTime()).label("since"), literal("").label("detail")
    if why.startswith(_SUPPRESSED) and why.removeprefix(_SUPPRESSED) in set(SuppressionReason):
        return (
            mine.join(Suppression, Suppression.address == Contact.email)
            .where(Suppression.reason == SuppressionReason(why.removeprefix(_SUPPRESSED)))
            .with_only_columns(Contact, Suppression.at.label("since"), Suppression.detail.label("detail"))
        )
    if why == WITHDRAWN:
        left = mine.where(_answered(Contact.id), reason == SkipReason.NO_CONSENT.value)
        return left.with_only_columns(Contact, _last("at").label("since"), _last("source").label("detail"))
    if why == SkipReason.NO_CONSENT.value:
        left = mine.where(~_answered(Contact.id), reason == why)
        return left.with_only_columns(Contact, Contact.created_at.label("since"), Contact.source.label("detail"))
    if why == BOUNCED_BEFORE:
        return mine.where(reason == "", Contact.id.in_(_bounced())).with_only_columns(Contact, *nothing)
    if why == MAILABLE or why.startswith(LACKS):
        lacking = [_lacks(why.removeprefix(LACKS))] if why.startswith(LACKS) else []
        return mine.where(reason == "", *lacking).with_only_columns(Contact, *nothing)
    if why in set(SkipReason):
        return mine.where(reason == why).with_only_columns(Contact, *nothing)
    raise NotFound(N_("There is no such list."))


def _last(column: str) -> Any:
    """SQL: a column of the Contact's newest email consent entry."""
    newest = select(getattr(ConsentEntry, column)).where(
        ConsentEntry.contact_id == Contact.id, ConsentEntry.purpose == ConsentPurpose.EMAIL
    )
    ordered = newest.order_by(ConsentEntry.at.desc(), ConsentEntry.id.desc()).limit(1)
    return ordered.correlate(Contact).scalar_subquery()


def _bounced() -> Select[*tuple[Any, ...]]:
    """Ids of contacts with a bounced launch send. They are few; the index (activity_id, state, due_at) finds them."""
    mailings = select(Activity.id).where(Activity.channel == Channel.EMAIL, Activity.built_in.is_(None))
    return select(Send.contact_id).where(
        Send.activity_id.in_(mailings), Send.state == SendState.BOUNCED, Send.contact_id.is_not(None)
    )


def bounced_before(session: Session, activity: Activity) -> int:
    """Number of mailable contacts to whom an earlier mail bounced."""
    found = people(session, activity, BOUNCED_BEFORE).with_only_columns(func.count())
    return session.scalar(found) or 0


def label(why: str) -> tuple[str, str]:
    """The label of a reason as two msgids: a sentence with ``%(what)s``, and the value of ``what``."""
    if why.startswith(_SUPPRESSED):
        known = why.removeprefix(_SUPPRESSED)
        return N_("Suppressed: %(what)s"), SuppressionReason(known).label if known in set(SuppressionReason) else known
    if why == WITHDRAWN:
        return "%(what)s", N_("Withdrew consent")
    if why == MAILABLE:
        return "%(what)s", N_("Would receive it")
    if why == BOUNCED_BEFORE:
        return "%(what)s", N_("An earlier mail bounced")
    if why.startswith(LACKS):
        return N_("No value for %(what)s"), why.removeprefix(LACKS)
    return "%(what)s", SkipReason(why).label if why in set(SkipReason) else why
