"""Skipping of sends whose recipient may not be mailed any more.

Consent and suppression can change between expansion and sending, so they are checked again for queued and claimed
sends.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import case, literal, select, update
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.audience.models import Contact
from campaigns.delivery.models import Send, SendState
from campaigns.delivery.queue.expansion import skip_reason
from campaigns.delivery.transactional import service
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity


def refusal_sql(built_in: str | None, address: Any = Send.address) -> Any:
    """SQL: why a mail of an activity of this kind (``built_in``, None for a launch) to a Contact may not be sent.

    '' when it may. ``address`` is the column of the recipient's address. Test and system mail is never refused, because
    the recipient asked for it.
    """
    return {None: skip_reason(), "api": service.api_skip_reason(address)}.get(built_in, literal(""))


def skip_refused(session: Session, ids: Collection[int]) -> set[int]:
    """Skip the claimed sends among ``ids`` whose contact may not be mailed any more. Returns their ids."""
    reasons = find_refused(session, ids)
    for reason in set(reasons.values()):
        skip_sends(session, [send_id for send_id, send_reason in reasons.items() if send_reason == reason], reason)
    return set(reasons)


def find_refused(session: Session, ids: Collection[int]) -> dict[int, str]:
    """Send id → SkipReason, for the sends among ``ids`` whose contact may not be mailed any more."""
    reason = case(
        (Activity.built_in.is_(None), refusal_sql(None)), (Activity.built_in == "api", refusal_sql("api")), else_=""
    )
    query = (
        select(Send.id, reason.label("why"))
        .select_from(Send)
        .outerjoin(Contact, Contact.id == Send.contact_id)  # An erased contact has no row and no consent.
        .outerjoin(OutboxMail, OutboxMail.id == Send.outbox_id)
        .outerjoin(Activity, Activity.id == Send.activity_id)  # Always matches; makes SQLite start with the ids.
        .where(db.in_ids(session, Send.id, ids))
        .subquery()
    )
    return dict(session.execute(select(query).where(query.c.why != "")).all()) if ids else {}


def skip_sends(session: Session, ids: Collection[int], reason: str, state: SendState = SendState.SENDING) -> None:
    """Set the sends among ``ids`` that are in ``state`` to skipped, with this reason."""
    if ids:
        session.execute(
            update(Send)
            .where(db.in_ids(session, Send.id, ids), Send.state == state)
            .values(state=SendState.SKIPPED, reason=reason, claimed_by=None, lease_until=None, due_at=None)
            .execution_options(synchronize_session=False)
        )
