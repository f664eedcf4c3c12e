"""What relays answered, counted as it is written down: a page about a million mails reads some dozen rows."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import case, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns.delivery.answers import Fate, Outcome
from campaigns.delivery.models import RelayAnswer

_VARYING = re.compile(r"<?[^\s<>@]+@[^\s<>@]+>?|\b(?=\w*\d)\w{6,}\b|\b\d{2,3}(?:\.\d{1,3}){3}\b")
_KINDS = 20
"""Different answers that one batch may bring; what goes beyond is counted together."""


class Result(Protocol):
    """One mail's outcome."""

    @property
    def outcome(self) -> Outcome: ...
    @property
    def at(self) -> datetime: ...


@dataclass(slots=True)
class _Tally:
    number: int
    example: str
    first_at: datetime
    last_at: datetime


def note(session: Session, activity_id: int, results: Iterable[Result]) -> None:
    """Add a batch's answers to the counts, in the transaction that records it."""
    tallies: dict[tuple[str, str, str], _Tally] = {}
    for result in results:
        key = _key(result.outcome, len(tallies))
        tally = tallies.get(key)
        if tally is None:
            tallies[key] = _Tally(1, result.outcome.reply if key[2] else "", result.at, result.at)
        else:
            tally.number += 1
            if result.at > tally.last_at:
                tally.last_at = result.at
    if tallies:
        session.execute(_added(session, activity_id, tallies))


def _key(outcome: Outcome, kinds: int) -> tuple[str, str, str]:
    if outcome.fate is Fate.SENT:
        return outcome.relay, outcome.fate, ""
    return outcome.relay, outcome.fate, alike(outcome.reply)[:200] if kinds < _KINDS else "…"


def _added(session: Session, activity_id: int, tallies: dict[tuple[str, str, str], _Tally]) -> Any:
    on_postgres = session.get_bind().dialect.name == "postgresql"
    part = func.pg_backend_pid().op("&")(255) if on_postgres else literal(0)
    rows = [
        {
            "activity_id": activity_id, "relay": relay, "fate": Fate(fate), "words": words, "part": part,
            "number": tally.number, "example": tally.example[:500], "first_at": tally.first_at,
            "last_at": tally.last_at,
        }
        # In one order, so that two transactions never wait for each other.
        for (relay, fate, words), tally in sorted(tallies.items(), key=lambda item: item[0])
    ]  # fmt: skip
    was = RelayAnswer
    added = (postgresql.insert if on_postgres else sqlite.insert)(RelayAnswer).values(rows)
    return added.on_conflict_do_update(
        index_elements=["activity_id", "relay", "fate", "words", "part"],
        set_={
            "number": was.number + added.excluded.number,
            "example": added.excluded.example,
            "first_at": case((added.excluded.first_at < was.first_at, added.excluded.first_at), else_=was.first_at),
            "last_at": case((added.excluded.last_at > was.last_at, added.excluded.last_at), else_=was.last_at),
        },
    )


def alike(reply: str) -> str:
    """A relay's answer without what differs from mail to mail: addresses, queue ids, networks."""
    return _VARYING.sub("…", reply)


@dataclass(frozen=True, slots=True)
class Answer:
    """Answers that are alike, of all relays together."""

    fate: Fate
    words: str
    example: str
    number: int
    first_at: datetime
    last_at: datetime


def answers(session: Session, activity_id: int, most: int = 20) -> Sequence[Answer]:
    """What relays answered where a mail was not simply taken, the most frequent first."""
    number = func.sum(RelayAnswer.number)
    asked = (
        select(
            RelayAnswer.fate, RelayAnswer.words, func.max(RelayAnswer.example), number,
            func.min(RelayAnswer.first_at), func.max(RelayAnswer.last_at),
        )
        .where(RelayAnswer.activity_id == activity_id, RelayAnswer.fate != Fate.SENT)
        .group_by(RelayAnswer.fate, RelayAnswer.words)
        .order_by(number.desc(), RelayAnswer.words)
        .limit(most)
    )  # fmt: skip
    return [
        Answer(fate, words, example, int(n), first, last)
        for fate, words, example, n, first, last in session.execute(asked)
    ]


@dataclass(frozen=True, slots=True)
class Carried:
    """What one relay did for an activity. ``others`` are answers other than "taken" and "later"."""

    relay: str
    taken: int
    later: int
    others: int


def by_relay(session: Session, activity_id: int) -> Sequence[Carried]:
    """Each relay that was asked, the busiest first."""
    asked = (
        select(RelayAnswer.relay, RelayAnswer.fate, func.sum(RelayAnswer.number))
        .where(RelayAnswer.activity_id == activity_id, RelayAnswer.relay != "")
        .group_by(RelayAnswer.relay, RelayAnswer.fate)
    )
    found: dict[str, dict[Fate, int]] = {}
    for relay, fate, number in session.execute(asked):
        found.setdefault(relay, {})[fate] = int(number)
    told = [
        Carried(
            relay,
            fates.pop(Fate.SENT, 0),
            fates.pop(Fate.LATER, 0) + fates.pop(Fate.LOST, 0),
            sum(fates.values()),
        )
        for relay, fates in found.items()
    ]
    return sorted(told, key=lambda each: (-each.taken, each.relay))
