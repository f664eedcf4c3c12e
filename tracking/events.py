"""Questions to the log."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from campaigns.delivery.models import Send
from tracking import screening
from tracking.models import Event, UserAgent


def of_send(session: Session, send_id: int, limit: int = 200) -> Sequence[Event]:
    """What happened with one send, oldest first."""
    return _events(session, Event.send_id == send_id, limit=limit, newest_first=False)


def of_contact(session: Session, contact_id: int, limit: int = 50, before: datetime | None = None) -> Sequence[Event]:
    """What one person did, newest first; ``before`` goes on from the last one seen."""
    sends = select(Send.id).where(Send.contact_id == contact_id)
    earlier = [] if before is None else [Event.at < before]
    return _events(session, Event.send_id.in_(sends), *earlier, limit=limit)


def of_activity(session: Session, activity_id: int, limit: int = 50, before: datetime | None = None) -> Sequence[Event]:
    """The newest events of an activity, also those that carry no person."""
    earlier = [] if before is None else [Event.at < before]
    return _events(session, Event.activity_id == activity_id, *earlier, limit=limit)


def _events(session: Session, *where: ColumnElement[bool], limit: int, newest_first: bool = True) -> Sequence[Event]:
    order = (Event.at.desc(), Event.id.desc()) if newest_first else (Event.at, Event.id)
    return session.scalars(select(Event).where(*where).order_by(*order).limit(limit)).all()


def user_agent(session: Session, event: Event) -> str:
    """How the program that asked called itself."""
    return session.scalar(select(UserAgent.text).where(UserAgent.id == event.user_agent_id)) or ""


def why(event: Event) -> list[screening.Spoken]:
    """Each rule that spoke about an event: its sentence (a msgid) and its weight."""
    return screening.why(event.reasons)
