"""Attribution ledger: one derived row per conversion and activity, so that pages need no joins.

Its rows are recomputed in the transaction that changes conversions, touchpoints or credit, and are
deleted with their conversion. Database triggers keep the daily and all-time totals. ``find_mismatches``
compares rows and totals with their sources, ``repair`` recomputes what differs.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Float,
    Insert,
    Integer,
    Select,
    bindparam,
    case,
    cast,
    delete,
    event,
    func,
    insert,
    inspect,
    literal,
    null,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from campaigns.db import MoneyType
from campaigns.planning.models import Activity
from tracking.models.attribution import SUMMED, SUMS, ConversionAttribution, DailyAttribution, TotalAttribution, key_of
from tracking.models.conversions import AttributionCredit, AttributionModel, Conversion, ConversionTouchpoint

_MOST_AT_ONCE = 500


def write(session: Session, conversion_ids: Collection[int]) -> None:
    """Recompute the ledger rows of these conversions from their touchpoints and credit."""
    ids = sorted(conversion_ids)
    if ids:
        session.flush()
    for start in range(0, len(ids), _MOST_AT_ONCE):
        _write(session.connection(), ids[start : start + _MOST_AT_ONCE])


def _write(connection: Connection, ids: Collection[int]) -> None:
    connection.execute(delete(ConversionAttribution).where(ConversionAttribution.conversion_id.in_(ids)))
    connection.execute(_of_some(), {"ids": list(ids)})


@event.listens_for(Activity, "after_update")
def _follow_channel(_mapper: object, connection: Connection, activity: Activity) -> None:
    """Recompute the ledger rows of an activity's conversions when its channel changes.

    A mapper event, because the planning package is a lower layer and must not import tracking.
    """
    if not inspect(activity).attrs.channel.history.has_changes():
        return
    touched = (
        select(ConversionTouchpoint.conversion_id).where(ConversionTouchpoint.activity_id == activity.id).distinct()
    )
    ids = sorted(connection.scalars(touched))
    for start in range(0, len(ids), _MOST_AT_ONCE):
        _write(connection, ids[start : start + _MOST_AT_ONCE])


def fill(connection: Connection) -> None:
    """Delete and recompute every ledger row and total."""
    connection.execute(delete(ConversionAttribution))
    for sums in (TotalAttribution, DailyAttribution):
        connection.execute(delete(sums))
    connection.execute(_into(_earned(None)))


def mend(connection: Connection, wrong: Collection[tuple[Any, ...]]) -> None:
    """Recompute the rows and totals with these keys, as returned by ``find_mismatches``."""
    rows = sorted({key[-1] for key in wrong if key[0] == ConversionAttribution.__tablename__})
    if rows:
        _write(connection, rows)
    for activity_id in sorted({key[1] for key in wrong}):
        sum_anew(connection, activity_id)


def sum_anew(connection: Connection, activity_id: int | None = None) -> None:
    """Recompute the daily and all-time totals from the ledger rows, of one activity or of all."""
    only = "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"
    sums = ", ".join(f"sum({sql.format(row='')})" for sql in SUMS.values())
    for table, names in SUMMED.items():
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE {only}")  # noqa: S608
        key = ", ".join(key_of(table, connection.dialect.name))
        connection.exec_driver_sql(
            f"INSERT INTO {table} ({', '.join(names)}, shard, {', '.join(SUMS)})"  # noqa: S608
            f" SELECT {key}, 0, {sums} FROM conversion_attributions WHERE {only} GROUP BY {key} ORDER BY {key}"
        )


@cache
def _of_some() -> Insert:
    return _into(_earned(bindparam("ids", expanding=True)))


def _into(rows: Select[Any]) -> Insert:
    table = ConversionAttribution.__table__
    return insert(table).from_select([column.name for column in table.columns], rows)  # type: ignore[arg-type]


def compare(connection: Connection, activity_id: int | None = None) -> list[tuple[tuple[Any, ...], Any, Any]]:
    """Compare ledger rows and totals with their sources, for one activity or for all.

    Returns (key, stored values, expected values) of every row that differs; a missing row is None. The
    key starts with the table's name.
    """
    kept: Select[Any] = select(*ConversionAttribution.__table__.columns)
    counted = _earned(None)
    if activity_id is not None:
        kept = kept.where(ConversionAttribution.activity_id == activity_id)
        counted = _earned(
            select(Conversion.id)
            .where(Conversion.activity_id == activity_id)
            .union(
                select(AttributionCredit.conversion_id).where(AttributionCredit.activity_id == activity_id),
                select(ConversionTouchpoint.conversion_id).where(ConversionTouchpoint.activity_id == activity_id),
            )
        )
    stand = {tuple(row[:3]): tuple(row[3:]) for row in connection.execute(kept)}
    wanted = {
        tuple(row[:3]): tuple(row[3:])
        for row in connection.execute(counted)
        if activity_id is None or row[0] == activity_id
    }
    return [
        *(
            (("conversion_attributions", *key), stand.get(key), wanted.get(key))
            for key in sorted(stand.keys() | wanted.keys())
            if stand.get(key) != wanted.get(key)
        ),
        *_compare_sums(connection, activity_id),
    ]


def _compare_sums(connection: Connection, activity_id: int | None) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    for table, names in SUMMED.items():
        stand = _sums(connection, table, names, SUMS, activity_id)
        of_rows = [sql.format(row="") for sql in SUMS.values()]
        wanted = _sums(
            connection, "conversion_attributions", key_of(table, connection.dialect.name), of_rows, activity_id
        )
        for key in sorted(stand.keys() | wanted.keys()):
            if stand.get(key) != wanted.get(key):
                yield (table, *key), stand.get(key), wanted.get(key)


def _sums(
    connection: Connection, table: str, key: Sequence[str], columns: Iterable[str], activity_id: int | None
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    only = "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"
    by = ", ".join(key)
    rows = connection.exec_driver_sql(
        f"SELECT {by}, {', '.join(f'sum({column})' for column in columns)} FROM {table}"  # noqa: S608
        f" WHERE {only} GROUP BY {by}"
    )
    return {tuple(row[: len(key)]): tuple(row[len(key) :]) for row in rows if any(row[len(key) :])}


def _earned(ids: Any) -> Select[Any]:
    """SELECT of the expected ledger rows, of all conversions (``ids`` is None) or of some.

    The union of three parts, grouped by activity and conversion: the conversion's own activity, the
    credit under each model, and the touchpoints. ``of_channel`` and ``of_campaign`` are 1 for the first
    touchpoint of a channel or campaign, so that their sums count each conversion once.
    """

    def of(column: Any) -> list[Any]:
        return [] if ids is None else [column.in_(ids)]

    nothing, none = literal(0, Integer), cast(literal(0.0, Float), Float)
    own = select(
        Conversion.id.label("conversion_id"),
        Conversion.activity_id.label("activity_id"),
        literal(1, Integer).label("own"),
        none.label("first"),
        none.label("last"),
        nothing.label("touched"),
        nothing.label("of_channel"),
        nothing.label("of_campaign"),
    ).where(Conversion.activity_id.is_not(None), *of(Conversion.id))
    shares = (
        case((AttributionCredit.model == model, cast(AttributionCredit.share, Float)), else_=none)
        for model in (AttributionModel.FIRST_TOUCH, AttributionModel.LAST_TOUCH)
    )
    credited = select(
        AttributionCredit.conversion_id, AttributionCredit.activity_id, nothing, *shares, nothing, nothing, nothing
    ).where(*of(AttributionCredit.conversion_id))
    touch = (
        ConversionTouchpoint.conversion_id,
        ConversionTouchpoint.activity_id,
        Activity.campaign_id,
        Activity.channel,
    )
    touched = (
        select(*touch, func.min(ConversionTouchpoint.position).label("place"))
        .join(Activity, Activity.id == ConversionTouchpoint.activity_id)
        .where(ConversionTouchpoint.settling.is_(False), *of(ConversionTouchpoint.conversion_id))
        .group_by(*touch)
        .subquery()
    )
    together = (touched.c.conversion_id, touched.c.campaign_id)
    firsts = (
        case((func.row_number().over(partition_by=of_them, order_by=touched.c.place) == 1, 1), else_=0)
        for of_them in ((*together, touched.c.channel), together)
    )
    touches = select(touched.c.conversion_id, touched.c.activity_id, nothing, none, none, literal(1, Integer), *firsts)
    parts = union_all(own, credited, touches).subquery()
    p, value = parts.c, Conversion.value
    sums = {name: func.max(p[name]) for name in ("own", "touched", "of_channel", "of_campaign")}
    first, last = func.sum(p.first), func.sum(p.last)
    return (
        select(
            p.activity_id,
            Conversion.at,
            p.conversion_id,
            sums["own"],
            case((sums["own"] == 1, value), else_=cast(null(), MoneyType)).label("value"),
            first.label("first"),
            _part(first, value).label("first_value"),
            last.label("last"),
            _part(last, value).label("last_value"),
            sums["touched"],
            sums["of_channel"],
            sums["of_campaign"],
        )
        .join(Conversion, Conversion.id == p.conversion_id)
        .group_by(p.activity_id, Conversion.at, p.conversion_id, value)
    )


def _part(share: Any, value: Any) -> Any:
    """SQL for share × value; NULL when the share is 0."""
    return case((share > 0, cast(cast(value, Float) * share, MoneyType)), else_=cast(null(), MoneyType))
