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
from tracking.models.attribution import (
    SUM_EXPRESSIONS,
    SUM_TABLE_KEYS,
    ConversionAttribution,
    DailyAttribution,
    TotalAttribution,
    key_expressions,
)
from tracking.models.conversions import AttributionCredit, AttributionModel, Conversion, ConversionTouchpoint

_CHUNK_SIZE = 500


def recompute(session: Session, conversion_ids: Collection[int]) -> None:
    """Recompute the ledger rows of these conversions from their touchpoints and credit."""
    ids = sorted(conversion_ids)
    if ids:
        session.flush()
    for start in range(0, len(ids), _CHUNK_SIZE):
        _recompute_chunk(session.connection(), ids[start : start + _CHUNK_SIZE])


def _recompute_chunk(connection: Connection, ids: Collection[int]) -> None:
    connection.execute(delete(ConversionAttribution).where(ConversionAttribution.conversion_id.in_(ids)))
    connection.execute(_insert_for_ids(), {"ids": list(ids)})


@event.listens_for(Activity, "after_update")
def _on_channel_change(_mapper: object, connection: Connection, activity: Activity) -> None:
    """Recompute the ledger rows of an activity's conversions when its channel changes.

    A mapper event, because the planning package is a lower layer and must not import tracking.
    """
    if not inspect(activity).attrs.channel.history.has_changes():
        return
    touched_conversions = (
        select(ConversionTouchpoint.conversion_id).where(ConversionTouchpoint.activity_id == activity.id).distinct()
    )
    ids = sorted(connection.scalars(touched_conversions))
    for start in range(0, len(ids), _CHUNK_SIZE):
        _recompute_chunk(connection, ids[start : start + _CHUNK_SIZE])


def rebuild(connection: Connection) -> None:
    """Delete and recompute every ledger row and total."""
    connection.execute(delete(ConversionAttribution))
    for sums in (TotalAttribution, DailyAttribution):
        connection.execute(delete(sums))
    connection.execute(_insert_from(_expected_rows(None)))


def repair(connection: Connection, mismatched_keys: Collection[tuple[Any, ...]]) -> None:
    """Recompute the rows and totals with these keys, as returned by ``find_mismatches``."""
    conversion_ids = sorted({key[-1] for key in mismatched_keys if key[0] == ConversionAttribution.__tablename__})
    if conversion_ids:
        _recompute_chunk(connection, conversion_ids)
    for activity_id in sorted({key[1] for key in mismatched_keys}):
        rebuild_totals(connection, activity_id)


def rebuild_totals(connection: Connection, activity_id: int | None = None) -> None:
    """Recompute the daily and all-time totals from the ledger rows, of one activity or of all."""
    condition = "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"
    sums = ", ".join(f"sum({sql.format(row='')})" for sql in SUM_EXPRESSIONS.values())
    for table, names in SUM_TABLE_KEYS.items():
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE {condition}")  # noqa: S608
        key = ", ".join(key_expressions(table, connection.dialect.name))
        connection.exec_driver_sql(
            f"INSERT INTO {table} ({', '.join(names)}, shard, {', '.join(SUM_EXPRESSIONS)})"  # noqa: S608
            f" SELECT {key}, 0, {sums} FROM conversion_attributions WHERE {condition} GROUP BY {key} ORDER BY {key}"
        )


@cache
def _insert_for_ids() -> Insert:
    return _insert_from(_expected_rows(bindparam("ids", expanding=True)))


def _insert_from(rows: Select[Any]) -> Insert:
    table = ConversionAttribution.__table__
    return insert(table).from_select([column.name for column in table.columns], rows)  # type: ignore[arg-type]


def find_mismatches(connection: Connection, activity_id: int | None = None) -> list[tuple[tuple[Any, ...], Any, Any]]:
    """Compare ledger rows and totals with their sources, for one activity or for all.

    Returns (key, stored values, expected values) of every row that differs; a missing row is None. The
    key starts with the table's name.
    """
    stored_query: Select[Any] = select(*ConversionAttribution.__table__.columns)
    expected_query = _expected_rows(None)
    if activity_id is not None:
        stored_query = stored_query.where(ConversionAttribution.activity_id == activity_id)
        expected_query = _expected_rows(
            select(Conversion.id)
            .where(Conversion.activity_id == activity_id)
            .union(
                select(AttributionCredit.conversion_id).where(AttributionCredit.activity_id == activity_id),
                select(ConversionTouchpoint.conversion_id).where(ConversionTouchpoint.activity_id == activity_id),
            )
        )
    stored = {tuple(row[:3]): tuple(row[3:]) for row in connection.execute(stored_query)}
    expected = {
        tuple(row[:3]): tuple(row[3:])
        for row in connection.execute(expected_query)
        if activity_id is None or row[0] == activity_id
    }
    return [
        *(
            (("conversion_attributions", *key), stored.get(key), expected.get(key))
            for key in sorted(stored.keys() | expected.keys())
            if stored.get(key) != expected.get(key)
        ),
        *_find_total_mismatches(connection, activity_id),
    ]


def _find_total_mismatches(
    connection: Connection, activity_id: int | None
) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    for table, names in SUM_TABLE_KEYS.items():
        stored = _read_sums(connection, table, names, SUM_EXPRESSIONS, activity_id)
        source_columns = [sql.format(row="") for sql in SUM_EXPRESSIONS.values()]
        expected = _read_sums(
            connection,
            "conversion_attributions",
            key_expressions(table, connection.dialect.name),
            source_columns,
            activity_id,
        )
        for key in sorted(stored.keys() | expected.keys()):
            if stored.get(key) != expected.get(key):
                yield (table, *key), stored.get(key), expected.get(key)


def _read_sums(
    connection: Connection, table: str, key: Sequence[str], columns: Iterable[str], activity_id: int | None
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    condition = "1 = 1" if activity_id is None else f"activity_id = {activity_id:d}"
    key_columns = ", ".join(key)
    rows = connection.exec_driver_sql(
        f"SELECT {key_columns}, {', '.join(f'sum({column})' for column in columns)} FROM {table}"  # noqa: S608
        f" WHERE {condition} GROUP BY {key_columns}"
    )
    return {tuple(row[: len(key)]): tuple(row[len(key) :]) for row in rows if any(row[len(key) :])}


def _expected_rows(ids: Any) -> Select[Any]:
    """SELECT of the expected ledger rows, of all conversions (``ids`` is None) or of some.

    The union of three parts, grouped by activity and conversion: the conversion's own activity, the
    credit under each model, and the touchpoints. ``of_channel`` and ``of_campaign`` are 1 for the first
    touchpoint of a channel or campaign, so that their sums count each conversion once.
    """

    def id_filter(column: Any) -> list[Any]:
        return [] if ids is None else [column.in_(ids)]

    zero, zero_share = literal(0, Integer), cast(literal(0.0, Float), Float)
    own = select(
        Conversion.id.label("conversion_id"),
        Conversion.activity_id.label("activity_id"),
        literal(1, Integer).label("own"),
        zero_share.label("first"),
        zero_share.label("last"),
        zero.label("touched"),
        zero.label("of_channel"),
        zero.label("of_campaign"),
    ).where(Conversion.activity_id.is_not(None), *id_filter(Conversion.id))
    shares = (
        case((AttributionCredit.model == model, cast(AttributionCredit.share, Float)), else_=zero_share)
        for model in (AttributionModel.FIRST_TOUCH, AttributionModel.LAST_TOUCH)
    )
    credited = select(
        AttributionCredit.conversion_id, AttributionCredit.activity_id, zero, *shares, zero, zero, zero
    ).where(*id_filter(AttributionCredit.conversion_id))
    touch = (
        ConversionTouchpoint.conversion_id,
        ConversionTouchpoint.activity_id,
        Activity.campaign_id,
        Activity.channel,
    )
    touched = (
        select(*touch, func.min(ConversionTouchpoint.position).label("place"))
        .join(Activity, Activity.id == ConversionTouchpoint.activity_id)
        .where(ConversionTouchpoint.settling.is_(False), *id_filter(ConversionTouchpoint.conversion_id))
        .group_by(*touch)
        .subquery()
    )
    by_campaign = (touched.c.conversion_id, touched.c.campaign_id)
    is_first = (
        case((func.row_number().over(partition_by=of_them, order_by=touched.c.place) == 1, 1), else_=0)
        for of_them in ((*by_campaign, touched.c.channel), by_campaign)
    )
    touches = select(
        touched.c.conversion_id, touched.c.activity_id, zero, zero_share, zero_share, literal(1, Integer), *is_first
    )
    parts = union_all(own, credited, touches).subquery()
    part, value = parts.c, Conversion.value
    sums = {name: func.max(part[name]) for name in ("own", "touched", "of_channel", "of_campaign")}
    first, last = func.sum(part.first), func.sum(part.last)
    return (
        select(
            part.activity_id,
            Conversion.at,
            part.conversion_id,
            sums["own"],
            case((sums["own"] == 1, value), else_=cast(null(), MoneyType)).label("value"),
            first.label("first"),
            _share_of_value(first, value).label("first_value"),
            last.label("last"),
            _share_of_value(last, value).label("last_value"),
            sums["touched"],
            sums["of_channel"],
            sums["of_campaign"],
        )
        .join(Conversion, Conversion.id == part.conversion_id)
        .group_by(part.activity_id, Conversion.at, part.conversion_id, value)
    )


def _share_of_value(share: Any, value: Any) -> Any:
    """SQL for share × value; NULL when the share is 0."""
    return case((share > 0, cast(cast(value, Float) * share, MoneyType)), else_=cast(null(), MoneyType))
