"""Validation of fields shared by campaigns and activities.

Each check returns a list of problems, empty when the value is valid.
"""

import re
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.models import User
from campaigns.errors import ValidationProblem
from campaigns.i18n import N_

MAX_NAME_LENGTH = 200
MAX_URL_LENGTH = 2000
MAX_TEXT_LENGTH = 20_000
MAX_AMOUNT = Decimal("999999999999.99")  # Numeric(14, 2)
_COLOUR = re.compile(r"#[0-9a-f]{6}\Z")


def check_name(field: str, text: str) -> list[ValidationProblem]:
    if not text:
        return [ValidationProblem(N_("Please give it a name."), field)]
    if len(text) > MAX_NAME_LENGTH:
        return [ValidationProblem(N_("At most %(most)s characters, please."), field, params={"most": MAX_NAME_LENGTH})]
    return []


def check_text(field: str, text: str) -> list[ValidationProblem]:
    if len(text) > MAX_TEXT_LENGTH:
        return [ValidationProblem(N_("At most %(most)s characters, please."), field, params={"most": MAX_TEXT_LENGTH})]
    return []


def check_period(starts_on: date | None, ends_on: date | None) -> list[ValidationProblem]:
    if starts_on and ends_on and ends_on < starts_on:
        return [ValidationProblem(N_("The end lies before the start."), "ends_on")]
    return []


def check_amount(field: str, amount: Decimal | None) -> list[ValidationProblem]:
    if amount is None:
        return []
    try:
        in_range = amount.is_finite() and 0 <= amount <= MAX_AMOUNT
    except InvalidOperation:
        in_range = False
    if not in_range:
        return [ValidationProblem(N_("Please give an amount of 0 or more."), field)]
    if amount != amount.quantize(Decimal("0.01")):
        return [ValidationProblem(N_("At most two digits after the point, please."), field)]
    return []


def check_colour(text: str) -> list[ValidationProblem]:
    return [] if _COLOUR.match(text) else [ValidationProblem(N_("Please pick a colour."), "colour")]


def check_url(text: str) -> list[ValidationProblem]:
    if not text:
        return []
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", text)
    except ValueError:
        is_valid = False
    if not is_valid or len(text) > MAX_URL_LENGTH:
        return [ValidationProblem(N_("Please give a whole address that begins with https://."), "url")]
    return []


def check_exists(session: Session, model: type[Any], key: int | None, field: str) -> list[ValidationProblem]:
    """A problem when ``key`` is given but no such row exists, for example because it was deleted meanwhile."""
    if key is None or session.get(model, key) is not None:
        return []
    return [ValidationProblem(N_("This choice does not exist any more."), field)]


def check_owner(session: Session, owner_id: int | None) -> list[ValidationProblem]:
    return check_exists(session, User, owner_id, "owner_id")


def check_future(field: str, at: datetime | None) -> list[ValidationProblem]:
    if at is None or at > clock.now():
        return []
    return [ValidationProblem(N_("This moment is over already."), field)]


def check_window(days: str, start: time | None, end: time | None) -> list[ValidationProblem]:
    """Check a send window: ``days`` are sorted distinct digits 1 to 7, and both hours or neither are given."""
    problems = []
    if days != "".join(sorted(set(days) & set("1234567"))):
        problems.append(ValidationProblem(N_("This choice does not exist any more."), "window_days"))
    if (start is None) != (end is None):
        problems.append(
            ValidationProblem(N_("Please give both hours, or neither."), "window_until" if start else "window_from")
        )
    elif start is not None and start == end:
        problems.append(ValidationProblem(N_("The end lies at the start."), "window_until"))
    return problems
