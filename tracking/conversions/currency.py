"""Currency conversion of amounts by manually entered exchange rates.

No rate is estimated: an amount whose currency has no rate on that day has the value NULL, is listed
as unconverted, and is converted when the rate is entered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import cache
from zoneinfo import ZoneInfo

from babel.numbers import list_currencies
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import Organisation
from campaigns.accounts.organisation import organisation
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from tracking.conversions import attribution_ledger
from tracking.models.conversions import Conversion, ExchangeRate

MAX_AMOUNT = Decimal("999999999999.99")
"""The largest value that the NUMERIC(14, 2) money columns hold."""
_CENT = Decimal("0.01")
_MIN_RATE, _MAX_RATE = Decimal("0.00000001"), Decimal(1_000_000_000)


@cache
def currency_codes() -> frozenset[str]:
    """The ISO 4217 codes, withdrawn ones included, as listed by the Unicode CLDR."""
    return frozenset(list_currencies())


def parse_amount(value: object, field: str = "value") -> Decimal | None:
    """Parse an amount from JSON or a file; None for an empty value.

    Raises ValidationFailed when it is not a number from 0 to ``MAX_AMOUNT``.
    """
    if value is None or value == "":
        return None
    try:
        # Through str, since the JSON number 0.1 means one tenth and not the nearest binary fraction.
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite() or not 0 <= amount <= MAX_AMOUNT:
        raise ValidationFailed(
            ValidationProblem(N_("An amount from 0 to %(most)s."), field=field, params={"most": MAX_AMOUNT})
        )
    return amount.quantize(_CENT, ROUND_HALF_EVEN)


def parse_currency(value: object, field: str = "currency") -> str:
    """Parse a currency code; '' for an empty value. Raises ValidationFailed for an unknown code."""
    code = str(value or "").strip().upper()
    if code and code not in currency_codes():
        raise ValidationFailed(
            ValidationProblem(N_("There is no currency of this code (three letters, like EUR)."), field=field)
        )
    return code


def convert_amount(session: Session, amount: Decimal | None, currency: str, at: datetime) -> Decimal | None:
    """Convert an amount to the organisation's currency by the rate valid on the day of ``at``.

    The day is that of the organisation's time zone. None without an amount or without a rate.
    """
    org = organisation(session)
    if amount is None or currency in ("", org.currency):
        return amount
    rate = _rate_on(session, currency, _local_date(org, at))
    return None if rate is None else (amount * rate).quantize(_CENT, ROUND_HALF_EVEN)


def set_rate(session: Session, actor: Actor, *, currency: str, valid_from: date, rate: object) -> int:
    """Store the value of one unit of ``currency`` from a day on, and reconvert its conversions.

    Returns the number of conversions whose value changed. Raises ValidationFailed.
    """
    actor.require(Permission.PLAN)
    code = parse_currency(currency)
    if not code or code == organisation(session).currency:
        raise ValidationFailed(ValidationProblem(N_("Choose a currency other than your own."), field="currency"))
    try:
        factor = Decimal(str(rate).strip())
    except InvalidOperation:
        factor = Decimal(0)
    if not factor.is_finite() or not _MIN_RATE <= factor <= _MAX_RATE:
        raise ValidationFailed(ValidationProblem(N_("A rate is a number above 0."), field="rate"))
    factor = factor.quantize(_MIN_RATE, ROUND_HALF_EVEN)
    session.merge(ExchangeRate(currency=code, valid_from=valid_from, rate=factor))
    session.flush()
    audit.record(session, actor, "set", "exchange rate", code, valid_from=valid_from.isoformat(), rate=str(factor))
    return _reconvert(session, code)


def exchange_rates(session: Session) -> Sequence[ExchangeRate]:
    """All exchange rates, ordered by currency, newest first."""
    return session.scalars(select(ExchangeRate).order_by(ExchangeRate.currency, ExchangeRate.valid_from.desc())).all()


@dataclass(frozen=True, slots=True)
class UnconvertedAmount:
    """The number and total amount of conversions whose currency has no rate yet."""

    currency: str
    conversions: int
    amount: Decimal
    since: datetime


def unconverted_amounts(session: Session) -> list[UnconvertedAmount]:
    """Amounts without a value in the organisation's currency, ordered by currency."""
    query = (
        select(Conversion.currency, func.count(), func.sum(Conversion.amount), func.min(Conversion.at))
        .where(Conversion.value.is_(None), Conversion.amount.is_not(None))
        .group_by(Conversion.currency)
        .order_by(Conversion.currency)
    )
    return [
        UnconvertedAmount(code, number, amount or Decimal(0), at) for code, number, amount, at in session.execute(query)
    ]


def _reconvert(session: Session, currency: str) -> int:
    changed_ids = []
    query = select(Conversion).where(Conversion.currency == currency, Conversion.amount.is_not(None))
    for conversion in session.scalars(query.execution_options(yield_per=1_000)):
        value = convert_amount(session, conversion.amount, currency, conversion.at)
        if value != conversion.value:
            conversion.value = value
            changed_ids.append(conversion.id)
    attribution_ledger.recompute(session, changed_ids)
    return len(changed_ids)


def _rate_on(session: Session, currency: str, day: date) -> Decimal | None:
    query = select(ExchangeRate.rate).where(ExchangeRate.currency == currency)
    return session.scalar(query.where(ExchangeRate.valid_from <= day).order_by(ExchangeRate.valid_from.desc()).limit(1))


def _local_date(org: Organisation, at: datetime) -> date:
    return at.astimezone(ZoneInfo(org.timezone) if org.timezone else UTC).date()
