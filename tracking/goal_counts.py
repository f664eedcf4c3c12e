"""A campaign's conversions by goal, with what they are worth, and amounts that wait for an exchange rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tracking.facts import within
from tracking.models import LEAD_GOAL, Conversion, Goal
from tracking.periods import Window


@dataclass(frozen=True, slots=True)
class GoalLine:
    """One goal; ``waiting`` says for each currency without a rate how many conversions and how much."""

    key: str
    name: str
    conversions: int
    value: Decimal | None
    waiting: Sequence[tuple[str, int, Decimal]]

    @property
    def is_lead(self) -> bool:
        return self.key == LEAD_GOAL


def by_goal(session: Session, campaign_id: int, window: Window) -> list[GoalLine]:
    """Goals with conversions in the window, the most reached first, in one query."""
    unvalued = Conversion.value.is_(None) & Conversion.amount.is_not(None)
    rows = session.execute(
        select(
            Conversion.goal, func.max(Goal.name), Conversion.currency, unvalued, func.count(),
            func.sum(Conversion.value), func.sum(Conversion.amount),
        )
        .outerjoin(Goal, Goal.key == Conversion.goal)
        .where(Conversion.campaign_id == campaign_id, *within(Conversion.at, window))
        .group_by(Conversion.goal, Conversion.currency, unvalued)
    )  # fmt: skip
    lines: dict[str, GoalLine] = {}
    for key, name, currency, waits, number, value, amount in rows:
        known = lines.get(key, GoalLine(key, name or key, 0, None, ()))
        worth = known.value if value is None else (known.value or Decimal(0)) + value
        waiting = [*known.waiting, (currency, number, amount or Decimal(0))] if waits else known.waiting
        lines[key] = GoalLine(key, known.name, known.conversions + number, worth, waiting)
    return sorted(lines.values(), key=lambda line: (-line.conversions, line.key))
