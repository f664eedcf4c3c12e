"""A campaign's conversions by goal, with their value and the amounts that lack an exchange rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from tracking.conversions.goals import LEAD_NAME, goal_names
from tracking.counters.periods import Window
from tracking.metrics.queries import within
from tracking.models.conversions import LEAD_GOAL, Conversion


@dataclass(frozen=True, slots=True)
class GoalRow:
    """Conversions of one goal; ``value`` is in the organisation's currency, None when no conversion has a value.

    ``waiting`` lists ``(currency, number of conversions, amount)`` for currencies without an exchange rate.
    """

    key: str
    name: str
    conversions: int
    value: Decimal | None
    without_rate: Sequence[tuple[str, int, Decimal]]

    @property
    def is_lead(self) -> bool:
        return self.key == LEAD_GOAL


def goal_rows(session: Session, campaign_id: int, window: Window) -> list[GoalRow]:
    """Return the goals with conversions in the window, most conversions first, in two queries."""
    lacks_rate = Conversion.value.is_(None) & Conversion.amount.is_not(None)
    rows = session.execute(
        select(
            Conversion.goal,
            Conversion.currency,
            func.count(),
            func.sum(Conversion.value),
            func.sum(case((lacks_rate, 1), else_=0)),
            func.sum(case((lacks_rate, Conversion.amount), else_=None)),
        )
        .where(Conversion.campaign_id == campaign_id, *within(Conversion.at, window))
        .group_by(Conversion.goal, Conversion.currency)
    ).all()
    names = goal_names(session) if any(row[0] != LEAD_GOAL for row in rows) else {LEAD_GOAL: LEAD_NAME}
    rows_by_goal: dict[str, GoalRow] = {}
    for key, currency, number, value, number_without_rate, amount in rows:
        earlier = rows_by_goal.get(key, GoalRow(key, names.get(key, key), 0, None, ()))
        total_value = earlier.value if value is None else (earlier.value or Decimal(0)) + value
        without_rate = (
            [*earlier.without_rate, (currency, int(number_without_rate), amount or Decimal(0))]
            if number_without_rate
            else earlier.without_rate
        )
        rows_by_goal[key] = GoalRow(key, earlier.name, earlier.conversions + number, total_value, without_rate)
    return sorted(rows_by_goal.values(), key=lambda line: (-line.conversions, line.key))
