"""Statistics of relay replies per activity.

Replies are counted in the transaction that records a batch, grouped by text without its varying parts. So the pages
read a few counter rows, however many mails were sent.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from sqlalchemy import Insert, case, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.delivery.models import RelayReplyCount
from campaigns.delivery.smtp.replies import DeliveryResult, DeliveryStatus

_VARYING_PARTS = re.compile(r"<?[^\s<>@]+@[^\s<>@]+>?|\b(?=\w*\d)\w{6,}\b|\b\d{2,3}(?:\.\d{1,3}){3}\b")
_MAX_DISTINCT_REPLIES = 20
"""Maximum number of different replies counted per batch; further ones are counted together as "…"."""


class TimedResult(Protocol):
    """The result of one mail: ``outcome``, and ``at_micros`` in microseconds since 1970."""

    @property
    def outcome(self) -> DeliveryResult: ...
    @property
    def at_micros(self) -> int: ...


@dataclass(slots=True)
class _ReplyDelta:
    sample_reply: str
    instants: list[int] = field(default_factory=list)


def count_replies(session: Session, activity_id: int, results: Iterable[TimedResult]) -> None:
    """Add the replies of a batch to the activity's counts, in the caller's transaction."""
    accepted: dict[str, list[int]] = defaultdict(list)
    others: dict[tuple[str, str, str], _ReplyDelta] = {}
    for result in results:
        outcome = result.outcome
        if outcome.status is DeliveryStatus.SENT:
            accepted[outcome.relay].append(result.at_micros)
            continue
        reply = without_varying_parts(outcome.reply)[:200] if len(others) < _MAX_DISTINCT_REPLIES else "…"
        key = outcome.relay, outcome.status, reply
        others.setdefault(key, _ReplyDelta(outcome.reply)).instants.append(result.at_micros)
    deltas = {(relay, DeliveryStatus.SENT, ""): _ReplyDelta("", ats) for relay, ats in accepted.items()} | others
    if deltas:
        rows = [
            {
                "activity_id": activity_id,
                "relay": relay,
                "status": status,
                "reply": reply,
                "count": len(tally.instants),
                "sample_reply": tally.sample_reply[:500],
                "first_at": db.from_micros(min(tally.instants)),
                "last_at": db.from_micros(max(tally.instants)),
            }
            # Sorted, so that concurrent transactions lock rows in the same order and cannot deadlock.
            for (relay, status, reply), tally in sorted(deltas.items(), key=lambda item: item[0])
        ]
        session.connection().execute(_upsert_statement(session.get_bind().dialect.name), rows)


@lru_cache
def _upsert_statement(dialect: str) -> Insert:
    """The upsert that adds one row to the counts. Cached per dialect, so that SQLAlchemy builds it only once."""
    on_postgres = dialect == "postgresql"
    shard = func.pg_backend_pid().op("&")(255) if on_postgres else literal(0)
    table = RelayReplyCount
    statement = (postgresql.insert if on_postgres else sqlite.insert)(RelayReplyCount).values(shard=shard)
    return statement.on_conflict_do_update(
        index_elements=["activity_id", "relay", "status", "reply", "shard"],
        set_={
            "count": table.count + statement.excluded.count,
            "sample_reply": statement.excluded.sample_reply,
            "first_at": case(
                (statement.excluded.first_at < table.first_at, statement.excluded.first_at), else_=table.first_at
            ),
            "last_at": case(
                (statement.excluded.last_at > table.last_at, statement.excluded.last_at), else_=table.last_at
            ),
        },
    )


def without_varying_parts(reply: str) -> str:
    """The reply with the parts that differ between mails (addresses, queue ids, IP addresses) replaced by "…"."""
    return _VARYING_PARTS.sub("…", reply)


@dataclass(frozen=True, slots=True)
class ReplyGroup:
    """Similar replies of all relays together."""

    status: DeliveryStatus
    reply: str
    sample_reply: str
    count: int
    first_at: datetime
    last_at: datetime


def reply_groups(session: Session, activity_id: int, limit: int = 20) -> Sequence[ReplyGroup]:
    """Groups of replies other than acceptance, the most frequent first, at most ``limit``."""
    total = func.sum(RelayReplyCount.count)
    query = (
        select(
            RelayReplyCount.status,
            RelayReplyCount.reply,
            func.max(RelayReplyCount.sample_reply),
            total,
            func.min(RelayReplyCount.first_at),
            func.max(RelayReplyCount.last_at),
        )
        .where(RelayReplyCount.activity_id == activity_id, RelayReplyCount.status != DeliveryStatus.SENT)
        .group_by(RelayReplyCount.status, RelayReplyCount.reply)
        .order_by(total.desc(), RelayReplyCount.reply)
        .limit(limit)
    )
    return [
        ReplyGroup(status, reply, example, int(n), first, last)
        for status, reply, example, n, first, last in session.execute(query)
    ]


@dataclass(frozen=True, slots=True)
class RelayThroughput:
    """Reply counts of one relay for an activity.

    ``taken``: accepted; ``later``: temporary failures and broken connections; ``others``: all other replies.
    """

    relay: str
    taken: int
    later: int
    others: int


def throughput_by_relay(session: Session, activity_id: int) -> Sequence[RelayThroughput]:
    """Reply counts by relay, the relay with the most accepted mails first."""
    query = (
        select(RelayReplyCount.relay, RelayReplyCount.status, func.sum(RelayReplyCount.count))
        .where(RelayReplyCount.activity_id == activity_id, RelayReplyCount.relay != "")
        .group_by(RelayReplyCount.relay, RelayReplyCount.status)
    )
    counts_by_relay: dict[str, dict[DeliveryStatus, int]] = {}
    for relay, status, number in session.execute(query):
        counts_by_relay.setdefault(relay, {})[status] = int(number)
    throughputs = [
        RelayThroughput(
            relay,
            counts.pop(DeliveryStatus.SENT, 0),
            counts.pop(DeliveryStatus.DEFERRED, 0) + counts.pop(DeliveryStatus.CONNECTION_LOST, 0),
            sum(counts.values()),
        )
        for relay, counts in counts_by_relay.items()
    ]
    return sorted(throughputs, key=lambda each: (-each.taken, each.relay))
