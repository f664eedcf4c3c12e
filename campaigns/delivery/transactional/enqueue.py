"""Queueing of single sends in the built-in activities: test mail, system mail, API mail."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.delivery.models import Send, SendState
from campaigns.planning import system_activities
from campaigns.planning.models import Activity


def enqueue_send(
    session: Session,
    kind: system_activities.SystemActivityKind,
    address: str,
    occasion: str,
    *,
    contact_id: int | None = None,
    version_id: int | None = None,
    outbox_id: int | None = None,
    recipient_key: str = "",
) -> Send:
    """Queue a send in a built-in activity, or return the existing one for the same recipient and occasion.

    ``recipient_key`` replaces the key made from the address, for callers whose occasion alone identifies the send.
    """
    activity = system_activities.get_or_create(session, kind)
    session.execute(select(Activity.id).where(Activity.id == activity.id).with_for_update())  # serialises the numbering
    recipient_key = recipient_key or f"a:{address}"
    existing = session.scalars(
        select(Send).where(
            Send.activity_id == activity.id, Send.recipient_key == recipient_key, Send.occasion == occasion
        )
    ).one_or_none()
    if existing is not None:
        return existing
    last_id = session.scalar(select(func.max(Send.id)).where(Send.activity_id == activity.id)) or activity.id << 32
    send = Send(
        id=last_id + 1,
        activity_id=activity.id,
        contact_id=contact_id,
        address=address,
        recipient_key=recipient_key,
        occasion=occasion,
        version_id=version_id,
        outbox_id=outbox_id,
        state=SendState.QUEUED,
        due_at=clock.now(),
    )
    session.add(send)
    session.flush()
    return send
