"""The relay's own no while we send: counted like a bounce that comes later."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from campaigns.delivery.answers import Fate, Outcome
from campaigns.delivery.bounces import recording
from campaigns.delivery.bounces.models import Feedback, Finding, Way
from campaigns.delivery.bounces.verdicts import judge
from campaigns.delivery.models import ERASED


class _Addressed(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def address(self) -> str: ...


def finding(outcome: Outcome) -> Finding:
    """What kind of bounce a refusal is."""
    return Finding.HARD if outcome.fate is Fate.DEAD else judge("", outcome.reply).finding


def note(session: Session, results: Sequence[tuple[_Addressed, Outcome, datetime]]) -> None:
    """Keep the refusals among a batch's results."""
    recording.refused_at_once(
        session,
        [
            _feedback(send, outcome, at)
            for send, outcome, at in results
            if outcome.fate in (Fate.DEAD, Fate.REFUSED) and send.address != ERASED
        ],
    )


def _feedback(send: _Addressed, outcome: Outcome, at: datetime) -> Feedback:
    verdict = judge("", outcome.reply)
    return Feedback(
        send_id=send.id, activity_id=send.id >> 32, address=send.address, finding=finding(outcome),
        status=verdict.status, said=outcome.reply[:500], way=Way.SMTP, key="relay", at=at, spent=False,
    )  # fmt: skip
