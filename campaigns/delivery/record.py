"""What became of a batch, written in one transaction."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import CLOCK
from campaigns.audience.models import SuppressionReason
from campaigns.audience.suppression import suppress
from campaigns.delivery.answers import Fate, Outcome
from campaigns.delivery.backoff import next_try
from campaigns.delivery.bounces import refusals
from campaigns.delivery.compose import Addressed
from campaigns.delivery.models import SendState
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
    if session.get_bind().dialect.name == "sqlite":
        rows = [{**_values(result, sqlite=True), "batch": batch} for result in results]
        session.connection().exec_driver_sql(_SQLITE, rows)
    else:
        told = json.dumps([_values(result, sqlite=False) for result in results])
        session.execute(_POSTGRES, {"rows": told, "batch": batch})
    for result in results:
        if result.outcome.fate is Fate.DEAD:
            _suppress(session, result)
    refusals.note(session, [(each.send, each.outcome, each.at) for each in results])


def _suppress(session: Session, result: Result) -> None:
    try:
        suppress(session, CLOCK, result.send.address, SuppressionReason.BOUNCED, result.outcome.reply)
    except Invalid:  # An address that our own rules refuse by now is in nobody's way.
        pass


_SQLITE = """
    UPDATE sends SET
      state = :state, attempts = :attempts, reason = COALESCE(:reason, reason), reply = :reply, due_at = :due_at,
      sent_at = :sent_at, bounced_at = :bounced_at, lease_until = NULL
    WHERE id = :id AND claimed_by = :batch AND state IN ('sending', 'unknown')
"""
_POSTGRES = text(
    """
    UPDATE sends SET
      state = r.state, reason = COALESCE(r.reason, sends.reason),
      attempts = r.attempts, reply = r.reply, due_at = r.due_at, sent_at = r.sent_at,
      bounced_at = r.bounced_at, lease_until = NULL
    FROM json_to_recordset(CAST(:rows AS json)) AS r (
      id bigint, state text, reason text, attempts bigint, reply text, due_at timestamptz, sent_at timestamptz,
      bounced_at timestamptz)
    WHERE sends.id = r.id AND sends.claimed_by = :batch AND sends.state IN ('sending', 'unknown')
    """
)
"""One statement a batch, a fiftieth of what one for each row costs; SQLite's is prepared once and run
for each row, which has no way to go."""


def _values(result: Result, sqlite: bool) -> dict[str, Any]:
    send, at = result.send, result.at
    state = _STATES[result.outcome.fate]
    attempts = send.attempts + 1
    due_at = next_try(attempts, at) if state is SendState.DEFERRED else None
    if state is SendState.DEFERRED and due_at is None:
        state = SendState.FAILED  # tried for two days
    known = db.to_micros(at) if sqlite else at.isoformat()
    return {
        "id": send.id,
        "state": state.value,
        "reason": refusals.finding(result.outcome).value if state is SendState.BOUNCED else None,
        "attempts": attempts,
        "reply": result.outcome.reply[:500],
        "due_at": (db.to_micros(due_at) if sqlite else due_at.isoformat()) if due_at else None,
        "sent_at": known if state is SendState.SENT else None,
        "bounced_at": known if state is SendState.BOUNCED else None,
    }
