"""Audience of an e-mail activity: query, size and fingerprint."""

from sqlalchemy import Select, false, func, select
from sqlalchemy.orm import Session

from campaigns.audience.models import Contact, ListMember
from campaigns.planning.models import Activity


def select_audience(activity: Activity) -> Select[Contact]:
    """A SELECT of the contacts in the activity's audience, each once and unordered.

    Consent and suppression are not applied. Expansion adds its own order and limit.
    """
    if activity.email.everybody:
        return select(Contact)
    if activity.email.list_id is None:
        return select(Contact).where(false())
    return (
        select(Contact)
        .join(ListMember, ListMember.contact_id == Contact.id)
        .where(ListMember.list_id == activity.email.list_id)
    )


def audience_size(session: Session, activity: Activity) -> int:
    """Number of contacts in the audience, before consent and suppression."""
    return _audience_state(session, activity)[0]


def audience_fingerprint(session: Session, activity: Activity) -> str:
    """A string that changes whenever a contact joins or leaves the audience.

    Changes of names, attributes, consent and suppression do not change it; they are read again when sending.
    """
    kind = "everybody" if activity.email.everybody else f"list {activity.email.list_id}"
    return f"{kind}: {', '.join(map(str, _audience_state(session, activity)))}"


def _audience_state(session: Session, activity: Activity) -> tuple[int, object, object]:
    """(number of contacts, newest contact id or membership time, newest member's id or None)."""
    if activity.email.everybody:
        count, latest = session.execute(select(func.count(), func.max(Contact.id)).select_from(Contact)).one()
        return count, latest, None
    members = select(func.count(), func.max(ListMember.added_at), func.max(ListMember.contact_id)).where(
        ListMember.list_id == activity.email.list_id
    )
    count, added, latest = session.execute(members).one()
    return count, added, latest
