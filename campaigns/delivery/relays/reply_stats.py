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

_VARYING = re.compile(r"<?[^\s<>@]+@[^\s<>@]+>?|\b(?=\w*\d)\w{6,}\b|\b\d{2,3}(?:\.\d{1,3}){3}\b")
_KINDS = 20
"""Maximum number of different replies counted per batch; further ones are counted together as "…"."""


class SendResultLike(Protocol):
    """The result of one mail: ``outcome``, and ``at`` in microseconds since the epoch."""

    @property
    def outcome(self) -> DeliveryResult: ...
    @property
    def at(self) -> int: ...


@dataclass(slots=True)
class _ReplyDelta:
    example: str
    ats: list[int] = field(default_factory=list)


def note(session: Session, activity_id: int, results: Iterable[SendResultLike]) -> None:
    """Add the replies of a batch to the activity's counts, in the caller's transaction."""
    taken: dict[str, list[int]] = defaultdict(list)
    others: dict[tuple[str, str, str], _ReplyDelta] = {}
    for result in results:
        outcome = result.outcome
        if outcome.status is DeliveryStatus.SENT:
            taken[outcome.relay].append(result.at)
            continue
        words = alike(outcome.reply)[:200] if len(others) < _KINDS else "…"
        key = outcome.relay, outcome.status, words
        others.setdefault(key, _ReplyDelta(outcome.reply)).ats.append(result.at)
    tallies = {(relay, DeliveryStatus.SENT, ""): _ReplyDelta("", ats) for relay, ats in taken.items()} | others
    if tallies:
        rows = [
            {
                "activity_id": activity_id,
                "relay": relay,
                "status": fate,
                "reply": words,
                "count": len(tally.ats),
                "sample_reply": tally.example[:500],
                "first_at": db.from_micros(min(tally.ats)),
                "last_at": db.from_micros(max(tally.ats)),
            }
            # Sorted, so that concurrent transactions lock rows in the same order and cannot deadlock.
            for (relay, fate, words), tally in sorted(tallies.items(), key=lambda item: item[0])
        ]
        session.connection().execute(_added(session.get_bind().dialect.name), rows)


@lru_cache
def _added(dialect: str) -> Insert:
    """The upsert that adds one row to the counts. Cached per dialect, so that SQLAlchemy builds it only once."""
    on_postgres = dialect == "postgresql"
    part = func.pg_backend_pid().op("&")(255) if on_postgres else literal(0)
    was = RelayReplyCount
    added = (postgresql.insert if on_postgres else sqlite.insert)(RelayReplyCount).values(shard=part)
    return added.on_conflict_do_update(
        index_elements=["activity_id", "relay", "status", "reply", "shard"],
        set_={
            "count": was.count + added.excluded.count,
            "sample_reply": added.excluded.sample_reply,
            "first_at": case((added.excluded.first_at < was.first_at, added.excluded.first_at), else_=was.first_at),
            "last_at": case((added.excluded.last_at > was.last_at, added.excluded.last_at), else_=was.last_at),
        },
    )


def alike(reply: str) -> str:
    """The reply with the parts that differ between mails (addresses, queue ids, IP addresses) replaced by "…"."""
    return _VARYING.sub("…", reply)


@dataclass(frozen=True, slots=True)
class ReplyGroup:
    """Similar replies of all relays together."""

    fate: DeliveryStatus
    words: str
    example: str
    number: int
    first_at: datetime
    last_at: datetime


def answers(session: Session, activity_id: int, most: int = 20) -> Sequence[ReplyGroup]:
    """Groups of replies other than acceptance, the most frequent first, at most ``limit``."""
    number = func.sum(RelayReplyCount.count)
    asked = (
        select(
            RelayReplyCount.status,
            RelayReplyCount.reply,
            func.max(RelayReplyCount.sample_reply),
            number,
            func.min(RelayReplyCount.first_at),
            func.max(RelayReplyCount.last_at),
        )
        .where(RelayReplyCount.activity_id == activity_id, RelayReplyCount.status != DeliveryStatus.SENT)
        .group_by(RelayReplyCount.status, RelayReplyCount.reply)
        .order_by(number.desc(), RelayReplyCount.reply)
        .limit(most)
    )
    return [
        ReplyGroup(fate, words, example, int(n), first, last)
        for fate, words, example, n, first, last in session.execute(asked)
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


def by_relay(session: Session, activity_id: int) -> Sequence[RelayThroughput]:
    """Reply counts by relay, the relay with the most accepted mails first."""
    asked = (
        select(RelayReplyCount.relay, RelayReplyCount.status, func.sum(RelayReplyCount.count))
        .where(RelayReplyCount.activity_id == activity_id, RelayReplyCount.relay != "")
        .group_by(RelayReplyCount.relay, RelayReplyCount.status)
    )
    found: dict[str, dict[DeliveryStatus, int]] = {}
    for relay, fate, number in session.execute(asked):
        found.setdefault(relay, {})[fate] = int(number)
    told = [
        RelayThroughput(
            relay,
            fates.pop(DeliveryStatus.SENT, 0),
            fates.pop(DeliveryStatus.DEFERRED, 0) + fates.pop(DeliveryStatus.CONNECTION_LOST, 0),
            sum(fates.values()),
        )
        for relay, fates in found.items()
    ]
    return sorted(told, key=lambda each: (-each.taken, each.relay))
