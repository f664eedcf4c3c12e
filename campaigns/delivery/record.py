"""What became of a batch, written in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, or_, update
from sqlalchemy.orm import Session

from campaigns.accounts.actor import CLOCK
from campaigns.audience.models import SuppressionReason
from campaigns.audience.suppression import suppress
from campaigns.delivery.answers import Fate, Outcome
from campaigns.delivery.backoff import next_try
from campaigns.delivery.compose import Addressed
from campaigns.delivery.models import Send, SendState
from campaigns.errors import Invalid


@dataclass(frozen=True, slots=True)
class Result:
    """One send's outcome and when it was known."""

    send: Addressed
    outcome: Outcome
    at: datetime


_STATES: Mapping[Fate, SendState] = {
    Fate.SENT: SendState.SENT,
    Fate.DEAD: SendState.BOUNCED,
    Fate.REFUSED: SendState.BOUNCED,
    Fate.OURS: SendState.HELD,
    Fate.LATER: SendState.DEFERRED,
    Fate.LOST: SendState.DEFERRED,
    Fate.UNKNOWN: SendState.UNKNOWN,
    Fate.BROKEN: SendState.FAILED,
}


def record(session: Session, batch: str, results: list[Result]) -> None:
    """Give each send of ``batch`` its state, and suppress the addresses that don't exist.

    A send that was taken over meanwhile is corrected only while it is unknown: we were there.
    """
    if not results:
        return
    table = Send.__table__
    row = (
        update(table)  # type: ignore[arg-type]
        .where(table.c.id == bindparam("send_id"), table.c.claimed_by == bindparam("batch"))
        .where(or_(table.c.state == SendState.SENDING, table.c.state == SendState.UNKNOWN))
        .values({name: bindparam(f"new_{name}") for name in _COLUMNS})
    )
    session.connection().execute(row, [_values(result) | {"batch": batch} for result in results])
    for result in results:
        if result.outcome.fate is Fate.DEAD:
            _suppress(session, result)


def _suppress(session: Session, result: Result) -> None:
    try:
        suppress(session, CLOCK, result.send.address, SuppressionReason.BOUNCED, result.outcome.reply)
    except Invalid:  # An address that our own rules refuse by now is in nobody's way.
        pass


_COLUMNS = ("state", "attempts", "reply", "due_at", "sent_at", "bounced_at", "lease_until")


def _values(result: Result) -> dict[str, Any]:
    send, at = result.send, result.at
    state = _STATES[result.outcome.fate]
    attempts = send.attempts + 1
    due_at = next_try(attempts, at) if state is SendState.DEFERRED else None
    if state is SendState.DEFERRED and due_at is None:
        state = SendState.FAILED  # tried for two days
    return {
        "send_id": send.id,
        "new_state": state,
        "new_attempts": attempts,
        "new_reply": result.outcome.reply[:500],
        "new_due_at": due_at,
        "new_sent_at": at if state is SendState.SENT else None,
        "new_bounced_at": at if state is SendState.BOUNCED else None,
        "new_lease_until": None,
    }
