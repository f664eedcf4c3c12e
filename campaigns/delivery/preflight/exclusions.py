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
from campaigns.planning.recipients import select_audience

MAILABLE = "mailable"
WITHDRAWN = "withdrawn"
BOUNCED_BEFORE = "bounced_before"
LACKS_PREFIX = "lacks."
_SUPPRESSED_PREFIX = f"{SkipReason.SUPPRESSED.value}."
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
    missing_values: Mapping[str, int]
    """Merge field → contacts without a value, for fields that some lack."""


def count(session: Session, activity: Activity, fields: Sequence[str] = ()) -> ExclusionCounts:
    """Count the audience in one scan, by reason and by missing value of ``fields``."""
    missing_columns = [case((_lacks_value(field), 1), else_=0).label(f"lacks_{n}") for n, field in enumerate(fields)]
    audience = (
        select_audience(activity)
        .with_only_columns(
            Contact.id.label("id"), Contact.email.label("email"), _reason_sql(session).label("reason"), *missing_columns
        )
        .cte("people")
        # Otherwise SQLite evaluates the reason once for each reference below.
        .prefix_with("MATERIALIZED")
    )
    detailed_reason = _detailed_reason_sql(audience.c).label("why")
    sums = [func.sum(audience.c[f"lacks_{n}"]) for n in range(len(fields))]
    rows = session.execute(select(detailed_reason, func.count(), *sums).group_by(detailed_reason)).all()
    row_by_reason = {row[0] or MAILABLE: row for row in rows}
    counts = {name: int(row[1]) for name, row in sorted(row_by_reason.items())}
    missing_sums = row_by_reason[MAILABLE][2:] if MAILABLE in row_by_reason else [0] * len(fields)
    return ExclusionCounts(
        {"total": sum(counts.values()), MAILABLE: counts.pop(MAILABLE, 0), **counts},
        {field: int(number) for field, number in zip(fields, missing_sums, strict=True) if number},
    )


def _reason_sql(session: Session) -> Any:
    """SQL: the SkipReason of a Contact if it were mailed now, '' when none. The cap comes last, as in sending."""
    capped = frequency_cap.capped_sql(organisation(session))
    reason = skip_reason()
    return reason if capped is None else case((reason != "", reason), (capped, SkipReason.CAPPED.value), else_="")


def _detailed_reason_sql(people: Any) -> Any:
    """SQL: the reason, with suppressions split by SuppressionReason and consent split into missing and withdrawn."""
    suppression = select(cast(Suppression.reason, String)).where(Suppression.address == people.email).scalar_subquery()
    return case(
        (people.reason == SkipReason.SUPPRESSED.value, literal(_SUPPRESSED_PREFIX) + suppression),
        (
            people.reason == SkipReason.NO_CONSENT.value,
            case((_has_consent_entry(people.id), literal(WITHDRAWN)), else_=literal(SkipReason.NO_CONSENT.value)),
        ),
        else_=people.reason,
    )


def _has_consent_entry(contact_id: Any) -> Any:
    """SQL: whether the contact has any entry in the email consent log. Without consent that means it was withdrawn."""
    return exists().where(ConsentEntry.contact_id == contact_id, ConsentEntry.purpose == ConsentPurpose.EMAIL)


def _lacks_value(field: str) -> Any:
    """SQL: whether a Contact has no value, or only spaces, for the merge field ``contact.<key>``."""
    key = field.removeprefix("contact.")
    value = _COLUMNS[key] if key in _COLUMNS else Contact.attributes[key].as_string()
    return or_(value.is_(None), func.trim(value) == "")


def contacts_query(session: Session, activity: Activity, reason_name: str) -> Select[*tuple[Any, ...]]:
    """SELECT of (Contact, since, detail) for a reason, not ordered yet.

    ``since`` is when the reason began (NULL when unknown), ``detail`` a text, '' when there is none. Raises NotFound
    for an unknown reason.
    """
    audience, reason = select_audience(activity), _reason_sql(session)
    no_details = null().cast(UtcDateTime()).label("since"), literal("").label("detail")
    if reason_name.startswith(_SUPPRESSED_PREFIX) and reason_name.removeprefix(_SUPPRESSED_PREFIX) in set(
        SuppressionReason
    ):
        return (
            audience.join(Suppression, Suppression.address == Contact.email)
            .where(Suppression.reason == SuppressionReason(reason_name.removeprefix(_SUPPRESSED_PREFIX)))
            .with_only_columns(Contact, Suppression.at.label("since"), Suppression.detail.label("detail"))
        )
    if reason_name == WITHDRAWN:
        matching = audience.where(_has_consent_entry(Contact.id), reason == SkipReason.NO_CONSENT.value)
        return matching.with_only_columns(
            Contact, _last_consent_column("at").label("since"), _last_consent_column("source").label("detail")
        )
    if reason_name == SkipReason.NO_CONSENT.value:
        matching = audience.where(~_has_consent_entry(Contact.id), reason == reason_name)
        return matching.with_only_columns(Contact, Contact.created_at.label("since"), Contact.source.label("detail"))
    if reason_name == BOUNCED_BEFORE:
        return audience.where(reason == "", Contact.id.in_(_bounced_contact_ids())).with_only_columns(
            Contact, *no_details
        )
    if reason_name == MAILABLE or reason_name.startswith(LACKS_PREFIX):
        conditions = (
            [_lacks_value(reason_name.removeprefix(LACKS_PREFIX))] if reason_name.startswith(LACKS_PREFIX) else []
        )
        return audience.where(reason == "", *conditions).with_only_columns(Contact, *no_details)
    if reason_name in set(SkipReason):
        return audience.where(reason == reason_name).with_only_columns(Contact, *no_details)
    raise NotFound(N_("There is no such list."))


def _last_consent_column(column: str) -> Any:
    """SQL: a column of the Contact's newest email consent entry."""
    query = select(getattr(ConsentEntry, column)).where(
        ConsentEntry.contact_id == Contact.id, ConsentEntry.purpose == ConsentPurpose.EMAIL
    )
    ordered = query.order_by(ConsentEntry.at.desc(), ConsentEntry.id.desc()).limit(1)
    return ordered.correlate(Contact).scalar_subquery()


def _bounced_contact_ids() -> Select[*tuple[Any, ...]]:
    """Ids of contacts with a bounced launch send. They are few; the index (activity_id, state, due_at) finds them."""
    mailings = select(Activity.id).where(Activity.channel == Channel.EMAIL, Activity.built_in.is_(None))
    return select(Send.contact_id).where(
        Send.activity_id.in_(mailings), Send.state == SendState.BOUNCED, Send.contact_id.is_not(None)
    )


def count_bounced_before(session: Session, activity: Activity) -> int:
    """Number of mailable contacts to whom an earlier mail bounced."""
    query = contacts_query(session, activity, BOUNCED_BEFORE).with_only_columns(func.count())
    return session.scalar(query) or 0


def label_msgids(reason_name: str) -> tuple[str, str]:
    """The label of a reason as two msgids: a sentence with ``%(what)s``, and the value of ``what``."""
    if reason_name.startswith(_SUPPRESSED_PREFIX):
        suppression_reason = reason_name.removeprefix(_SUPPRESSED_PREFIX)
        return N_("Suppressed: %(what)s"), SuppressionReason(suppression_reason).label if suppression_reason in set(
            SuppressionReason
        ) else suppression_reason
    if reason_name == WITHDRAWN:
        return "%(what)s", N_("Withdrew consent")
    if reason_name == MAILABLE:
        return "%(what)s", N_("Would receive it")
    if reason_name == BOUNCED_BEFORE:
        return "%(what)s", N_("An earlier mail bounced")
    if reason_name.startswith(LACKS_PREFIX):
        return N_("No value for %(what)s"), reason_name.removeprefix(LACKS_PREFIX)
    return "%(what)s", SkipReason(reason_name).label if reason_name in set(SkipReason) else reason_name
