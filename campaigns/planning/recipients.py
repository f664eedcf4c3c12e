"""Who an e-mail activity is for."""

from sqlalchemy import Select, false, func, select
from sqlalchemy.orm import Session

from campaigns.audience.models import Contact, ListMember
from campaigns.planning.models import Activity


def contacts_of(activity: Activity) -> Select[Contact]:
    """The contacts of the activity's audience, consent and suppression not looked at.

    Unordered, each contact once: expansion adds its own order and limits.
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


def size_of(session: Session, activity: Activity) -> int:
    """How many contacts the audience has."""
    return _fingerprint(session, activity)[0]


def fingerprint(session: Session, activity: Activity) -> str:
    """A text that changes whenever somebody joins or leaves the audience.

    Names and attributes of its contacts may change without changing it, and so may consent and
    suppression, which are read again when sending.
    """
    kind = "everybody" if activity.email.everybody else f"list {activity.email.list_id}"
    return f"{kind}: {', '.join(map(str, _fingerprint(session, activity)))}"


def _fingerprint(session: Session, activity: Activity) -> tuple[int, object, object]:
    if activity.email.everybody:
        count, latest = session.execute(select(func.count(), func.max(Contact.id)).select_from(Contact)).one()
        return count, latest, None
    members = select(func.count(), func.max(ListMember.added_at), func.max(ListMember.contact_id)).where(
        ListMember.list_id == activity.email.list_id
    )
    count, added, latest = session.execute(members).one()
    return count, added, latest
