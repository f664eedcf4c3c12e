"""Who is not mailed after all: waiting or claimed, and refused by now."""

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


def refusal(built_in: str | None, address: Any = Send.address) -> Any:
    """Why a Contact's mail of such an activity, to ``address``, is refused; '' when it isn't. Nobody withholds a test
    mail or a system mail from whom it was asked for."""
    return {None: skip_reason(), "api": service.refusal(address)}.get(built_in, literal(""))


def skip_refused(session: Session, ids: Collection[int]) -> set[int]:
    """Turn those of ``ids`` whose contact refuses mail by now into skipped rows; their ids."""
    found = refused(session, ids)
    for reason in set(found.values()):
        skip(session, [send_id for send_id, given in found.items() if given == reason], reason)
    return set(found)


def refused(session: Session, ids: Collection[int]) -> dict[int, str]:
    """Those of ``ids`` whose contact refuses mail by now, and why."""
    why = case((Activity.built_in.is_(None), refusal(None)), (Activity.built_in == "api", refusal("api")), else_="")
    asked = (
        select(Send.id, why.label("why"))
        .select_from(Send)
        .outerjoin(Contact, Contact.id == Send.contact_id)  # an erased one allows nothing
        .outerjoin(OutboxMail, OutboxMail.id == Send.outbox_id)
        .outerjoin(Activity, Activity.id == Send.activity_id)  # It exists; joined so, SQLite begins with the ids.
        .where(db.among(session, Send.id, ids))
        .subquery()
    )
    return dict(session.execute(select(asked).where(asked.c.why != "")).all()) if ids else {}


def skip(session: Session, ids: Collection[int], reason: str, state: SendState = SendState.SENDING) -> None:
    """Let those of ``ids`` that are in ``state`` be skipped for good."""
    if ids:
        session.execute(
            update(Send)
            .where(db.among(session, Send.id, ids), Send.state == state)
            .values(state=SendState.SKIPPED, reason=reason, claimed_by=None, lease_until=None, due_at=None)
            .execution_options(synchronize_session=False)
        )
