"""Keyset pagination: a page of a list costs the same at any depth."""

import base64
import json
from collections import namedtuple
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlencode

from flask import request
from sqlalchemy import ColumnElement, Select, UnaryExpression, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql import operators

Key = ColumnElement[Any] | InstrumentedAttribute[Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows, and the URLs of the adjacent pages (None at the ends)."""

    items: list[Any]
    previous_url: str | None
    next_url: str | None

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def paginate(session: Session, stmt: Select[*tuple[Any, ...]], key_columns: Sequence[Key], *, size: int = 25) -> Page:
    """One page of ``stmt`` in the order of ``key_columns``, at the cursor in the request's ``after`` or ``before``.

    A key column sorts ascending, or descending as ``column.desc()``. Keys are never NULL and unique together. ``stmt``
    has no ORDER BY. Items are what ``stmt`` selects: the entity itself when it selects one thing, else named tuples.
    An invalid cursor gives the first page.
    """
    keys = [(key.element, True) if _is_descending(key) else (key, False) for key in key_columns]
    backwards = "before" in request.args and "after" not in request.args
    cursor = _decode_cursor(request.args.get("before" if backwards else "after"), [key for key, _ in keys])
    if cursor is None:
        backwards = False
    else:
        stmt = stmt.where(_keyset_condition(keys, cursor, backwards))
    item_width = len(stmt.column_descriptions)
    stmt = stmt.add_columns(*(key.label(f"_key_{n}") for n, (key, _) in enumerate(keys)))
    stmt = stmt.order_by(*(key.desc() if descends != backwards else key.asc() for key, descends in keys))
    result = session.execute(stmt.limit(size + 1))
    names = list(result.keys())[:item_width]
    rows = result.all()
    has_more = len(rows) > size
    rows = rows[:size][::-1] if backwards else rows[:size]
    item = namedtuple("item", names, rename=True) if item_width > 1 else None
    return Page(
        items=[item(*row[:item_width]) if item else row[0] for row in rows],
        previous_url=_cursor_url("before", rows[0][item_width:])
        if rows and (has_more if backwards else cursor is not None)
        else None,
        next_url=_cursor_url("after", rows[-1][item_width:]) if rows and (backwards or has_more) else None,
    )


def _is_descending(key: Any) -> bool:
    return isinstance(key, UnaryExpression) and key.modifier is operators.desc_op


def _keyset_condition(keys: Sequence[tuple[Any, bool]], values: Sequence[Any], backwards: bool) -> ColumnElement[bool]:
    """Rows beyond ``values``: (a > x) or (a = x and b > y) …, each comparison in its column's direction."""
    alternatives: list[ColumnElement[bool]] = []
    for n, ((key, descends), value) in enumerate(zip(keys, values, strict=True)):
        same = [earlier == values[m] for m, (earlier, _) in enumerate(keys[:n])]
        alternatives.append(and_(*same, key < value if descends != backwards else key > value))
    return or_(*alternatives)


def _cursor_url(direction: str, values: Sequence[Any]) -> str:
    arguments = [(name, value) for name, value in request.args.items(multi=True) if name not in ("after", "before")]
    return f"{request.path}?{urlencode([*arguments, (direction, _encode_cursor(values))])}"


def _encode_cursor(values: Sequence[Any]) -> str:
    plain = [
        {"t": value.isoformat()}
        if isinstance(value, datetime)
        else {"d": value.isoformat()}
        if isinstance(value, date)
        else value
        if isinstance(value, str | int | float)
        else {"s": str(value)}
        for value in values
    ]
    text = json.dumps(plain, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _decode_cursor(text: str | None, keys: Sequence[Key]) -> list[Any] | None:
    if not text or len(text) > 2000:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(values, list) or len(values) != len(keys):
            return None
        values = [_decode_value(value) for value in values]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return values if all(map(_is_comparable, values, keys)) else None


def _is_comparable(value: Any, key: Key) -> bool:
    """Whether the database can compare the value with the key; otherwise the query would fail."""
    if isinstance(value, str) and any(sign == "\x00" or "\ud800" <= sign <= "\udfff" for sign in value):
        return False
    try:
        python_type = key.type.python_type
    except NotImplementedError:  # An expression without a known type.
        return True
    return type(value) is python_type if python_type in (int, str, date, datetime) else True


def _decode_value(value: Any) -> Any:
    if isinstance(value, dict):
        if "t" in value:
            at = datetime.fromisoformat(value["t"])
            if at.tzinfo is None:
                raise ValueError("naive")
            return at.astimezone(UTC)
        return date.fromisoformat(value["d"]) if "d" in value else str(value["s"])
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a key")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("too large")
    return value
