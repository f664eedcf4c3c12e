"""The whole company: where its leads come from, and what its goals brought."""

from datetime import datetime, timedelta

from sqlalchemy import Float, cast, func, select
from sqlalchemy.orm import Session

from campaigns import clock
from tracking.counts import Counts
from tracking.models import Conversion

QUARTER = timedelta(days=90)


def reached(session: Session, since: datetime | None = None, until: datetime | None = None) -> dict[str, Counts]:
    """Conversions and revenue by goal's key; without bounds, of the last 90 days."""
    since = since or clock.now() - QUARTER
    query = (
        select(Conversion.goal, cast(func.count(), Float), func.sum(Conversion.value))
        .where(Conversion.at >= since)
        .group_by(Conversion.goal)
    )
    if until is not None:
        query = query.where(Conversion.at < until)
    return {goal: Counts(conversions=int(number), revenue=value) for goal, number, value in session.execute(query)}
