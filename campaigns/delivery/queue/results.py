"""Bulk update of a batch's sends with their results, in one transaction.

One UPDATE per batch takes its values as a JSON array (SQLite) or as arrays (PostgreSQL), instead of one UPDATE per row.
CPU per mail: ``tests/benchmarks/composing`` (record).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.models import SuppressionReason
from campaigns.audience.suppression import suppress
from campaigns.delivery.bounces.effects import smtp_refusals
from campaigns.delivery.mime.compose import SendRef
from campaigns.delivery.models import SendState
from campaigns.delivery.relays.retry_schedule import next_try
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus
from campaigns.errors import ValidationFailed


@dataclass(slots=True)
class SendResult:
    """The result of one send."""

    send: SendRef
    outcome: DeliveryResult
    at: int
    """When the result was known, in microseconds since 1970. Most results never need a datetime object."""


_STATES: Mapping[DeliveryStatus, SendState] = {
    DeliveryStatus.SENT: SendState.SENT,
    DeliveryStatus.NO_SUCH_RECIPIENT: SendState.BOUNCED,
    DeliveryStatus.REJECTED: SendState.BOUNCED,
    DeliveryStatus.SENDER_REJECTED: SendState.HELD,
    DeliveryStatus.DEFERRED: SendState.DEFERRED,
    DeliveryStatus.CONNECTION_LOST: SendState.DEFERRED,
    DeliveryStatus.UNKNOWN: SendState.UNKNOWN,
    DeliveryStatus.NOT_COMPOSABLE: SendState.FAILED,
}


def record(session: Session, batch: str, results: list[SendResult]) -> None:
    """Write the state of each send of ``batch``, and suppress addresses that do not exist.

    A send that was taken over meanwhile is updated only while it is unknown: this worker knows its result.
    """
    if not results:
        return
    taken = [result for result in results if result.outcome.status is DeliveryStatus.SENT]
    _write(session, batch, _TAKEN, [_taken(result) for result in taken])
    if len(taken) == len(results):
        return
    _write(
        session,
        batch,
        _OTHERS,
        [_values(result) for result in results if result.outcome.status is not DeliveryStatus.SENT],
    )
    refused = [
        result
        for result in results
        if result.outcome.status in (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED)
    ]
    for result in refused:
        if result.outcome.status is DeliveryStatus.NO_SUCH_RECIPIENT:
            _suppress(session, result)
    smtp_refusals.note(session, [(each.send, each.outcome, db.from_micros(each.at)) for each in refused])


def _suppress(session: Session, result: SendResult) -> None:
    try:
        suppress(session, SYSTEM, result.send.address, SuppressionReason.BOUNCED, result.outcome.reply)
    except ValidationFailed:  # The address fails the present validation rules: no mail goes to it anyway.
        pass


_SQLITE = """
    UPDATE sends SET {sets}, lease_until = NULL
    FROM json_each(:rows) AS r
    WHERE sends.id = r.value ->> 0 AND claimed_by = :batch AND state IN ('sending', 'unknown')
    """
# The CASE hides the condition from the planner. It estimates that no row has this batch name, and would then join each
# row of the batch with each element of the arrays in a nested loop.
_POSTGRES = """
    UPDATE sends SET {sets}, lease_until = NULL
    FROM unnest({arrays}) AS r ({columns})
    WHERE sends.id = r.id
      AND CASE WHEN claimed_by = :batch AND sends.state IN ('sending', 'unknown') THEN true ELSE false END
    """


class _BulkUpdate:
    """One UPDATE of many sends by id, per dialect.

    ``columns``: name → SQL type of the values given per row, the id first. ``sets``: the SET clause, with ``{name}``
    for a row's value.
    """

    def __init__(self, columns: Mapping[str, str], sets: str) -> None:
        self.columns = columns
        each = {name: f"r.value ->> {place}" for place, name in enumerate(columns)}
        self.sqlite = text(_SQLITE.format(sets=sets.format(**each)))
        arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns.items())
        each = {name: f"r.{name}" for name in columns}
        self.postgres = text(_POSTGRES.format(sets=sets.format(**each), arrays=arrays, columns=", ".join(columns)))


_TAKEN = _BulkUpdate(
    {"id": "bigint", "reply": "varchar", "at": "timestamptz"},
    "state = 'sent', attempts = attempts + 1, reply = {reply}, due_at = NULL, sent_at = {at}, bounced_at = NULL",
)
"""For accepted mails, the usual case: fewer values per row."""
_OTHERS = _BulkUpdate(
    {
        "id": "bigint",
        "state": "varchar",
        "reason": "varchar",
        "attempts": "bigint",
        "reply": "varchar",
        "due_at": "timestamptz",
        "bounced_at": "timestamptz",
    },
    "state = {state}, reason = COALESCE({reason}, sends.reason), attempts = {attempts}, reply = {reply},"
    " due_at = {due_at}, sent_at = NULL, bounced_at = {bounced_at}",
)


def _write(session: Session, batch: str, what: _BulkUpdate, rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    if session.get_bind().dialect.name == "sqlite":
        session.connection().execute(what.sqlite, {"rows": json.dumps(rows), "batch": batch})
        return
    columns = dict(zip(what.columns, map(list, zip(*rows, strict=True)), strict=True))
    for name, kind in what.columns.items():
        if kind == "timestamptz":
            columns[name] = [None if at is None else db.from_micros(at) for at in columns[name]]
    session.connection().execute(what.postgres, {"batch": batch, **columns})


def _taken(result: SendResult) -> tuple[int, str, int]:
    return result.send.id, result.outcome.reply[:500], result.at


def _values(result: SendResult) -> tuple[Any, ...]:
    """A row of _OTHER: the values in the order of its columns, instants in microseconds."""
    send, at = result.send, result.at
    state = _STATES[result.outcome.status]
    attempts = send.attempts + 1
    due_at = next_try(attempts, db.from_micros(at)) if state is SendState.DEFERRED else None
    if state is SendState.DEFERRED and due_at is None:
        state = SendState.FAILED  # the retry schedule (two days) is used up
    due = None if due_at is None else db.to_micros(due_at)
    reason = smtp_refusals.finding(result.outcome).value if state is SendState.BOUNCED else None
    bounced = at if state is SendState.BOUNCED else None
    return send.id, state.value, reason, attempts, result.outcome.reply[:500], due, bounced
