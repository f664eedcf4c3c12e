"""Writing of the audit log."""

from typing import Any

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import Actor
from campaigns.accounts.models import AuditLogEntry


def record(session: Session, actor: Actor, verb: str, subject_kind: str, subject_id: object, **detail: Any) -> None:
    """Add an entry that ``actor`` did ``verb`` to a subject, in the caller's transaction."""
    session.add(
        AuditLogEntry(
            at=clock.now(),
            actor_kind=actor.kind.value,
            actor_id=actor.id,
            actor_name=actor.name,
            action=verb,
            subject_kind=subject_kind,
            subject_id=str(subject_id),
            detail=detail,
        )
    )
