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
from campaigns.delivery.relays.retry_schedule import next_attempt_at
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus
from campaigns.errors import ValidationFailed


@dataclass(slots=True)
class SendResult:
    """The result of one send."""

    send: SendRef
    outcome: DeliveryResult
    at_micros: int
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


def record_results(session: Session, batch: str, results: list[SendResult]) -> None:
    """Write the state of each send of ``batch``, and suppress addresses that do not exist.

    A send that was taken over meanwhile is updated only while it is unknown: this worker knows its result.
    """
    if not results:
        return
    accepted = [result for result in results if result.outcome.status is DeliveryStatus.SENT]
    _bulk_update(session, batch, _ACCEPTED, [_accepted_row(result) for result in accepted])
    if len(accepted) == len(results):
        return
    _bulk_update(
        session,
        batch,
        _OTHER,
        [_other_row(result) for result in results if result.outcome.status is not DeliveryStatus.SENT],
    )
    bounced = [
        result
        for result in results
        if result.outcome.status in (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED)
    ]
    for result in bounced:
        if result.outcome.status is DeliveryStatus.NO_SUCH_RECIPIENT:
            _suppress(session, result)
    smtp_refusals.record_refusals(
        session, [(each.send, each.outcome, db.from_micros(each.at_micros)) for each in bounced]
    )


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
        expressions = {name: f"r.value ->> {place}" for place, name in enumerate(columns)}
        self.sqlite = text(_SQLITE.format(sets=sets.format(**expressions)))
        arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns.items())
        expressions = {name: f"r.{name}" for name in columns}
        self.postgres = text(
            _POSTGRES.format(sets=sets.format(**expressions), arrays=arrays, columns=", ".join(columns))
        )


_ACCEPTED = _BulkUpdate(
    {"id": "bigint", "reply": "varchar", "at": "timestamptz"},
    "state = 'sent', attempts = attempts + 1, reply = {reply}, due_at = NULL, sent_at = {at}, bounced_at = NULL",
)
"""For accepted mails, the usual case: fewer values per row."""
_OTHER = _BulkUpdate(
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


def _bulk_update(session: Session, batch: str, statement: _BulkUpdate, rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    if session.get_bind().dialect.name == "sqlite":
        session.connection().execute(statement.sqlite, {"rows": json.dumps(rows), "batch": batch})
        return
    columns = dict(zip(statement.columns, map(list, zip(*rows, strict=True)), strict=True))
    for name, kind in statement.columns.items():
        if kind == "timestamptz":
            columns[name] = [None if at is None else db.from_micros(at) for at in columns[name]]
    session.connection().execute(statement.postgres, {"batch": batch, **columns})


def _accepted_row(result: SendResult) -> tuple[int, str, int]:
    return result.send.id, result.outcome.reply[:500], result.at_micros


def _other_row(result: SendResult) -> tuple[Any, ...]:
    """A row of _OTHER: the values in the order of its columns, instants in microseconds."""
    send, at = result.send, result.at_micros
    state = _STATES[result.outcome.status]
    attempts = send.attempts + 1
    due_at = next_attempt_at(attempts, db.from_micros(at)) if state is SendState.DEFERRED else None
    if state is SendState.DEFERRED and due_at is None:
        state = SendState.FAILED  # the retry schedule (two days) is used up
    due_micros = None if due_at is None else db.to_micros(due_at)
    reason = smtp_refusals.feedback_type(result.outcome).value if state is SendState.BOUNCED else None
    bounced_micros = at if state is SendState.BOUNCED else None
    return send.id, state.value, reason, attempts, result.outcome.reply[:500], due_micros, bounced_micros
