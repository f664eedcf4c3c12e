"""Selection of language and time zone, and the template filters that format numbers and dates.

Babel's Persian locale writes Gregorian dates in Latin digits; Persian readers expect Jalali dates and Persian digits.
So dates go through persiantools and every digit through :func:`digits`.
"""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import babel.dates
import babel.numbers
from babel import Locale
from flask import Flask, g, has_request_context, request
from flask_babel import Babel, get_locale, get_translations
from flask_login import current_user
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from persiantools.jdatetime import JalaliDate

from campaigns import clock
from campaigns.web.security.authentication import current_organisation

TRANSLATIONS = Path(__file__).parents[1] / "translations"
LANGUAGES = {"en": "English", "fa": "فارسی"}
NO_VALUE = "–"
_PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
_MONTHS = (
    "فروردین",
    "اردیبهشت",
    "خرداد",
    "تیر",
    "مرداد",
    "شهریور",
    "مهر",
    "آبان",
    "آذر",
    "دی",
    "بهمن",
    "اسفند",
)


def select_language() -> str:
    """The page's fixed language (``g.language``), else the user's, else the organisation's, else the browser's."""
    if not has_request_context():
        return "en"
    forced = g.get("language")
    if forced in LANGUAGES:
        return str(forced)
    if current_user.is_authenticated and current_user.person.language in LANGUAGES:
        return str(current_user.person.language)
    organisation = current_organisation()
    if organisation is not None and organisation.language in LANGUAGES:
        return organisation.language
    return request.accept_languages.best_match(list(LANGUAGES), "en") or "en"


def find_zone(name: str | None) -> ZoneInfo | None:
    """The time zone of this name; None when it is empty or unknown."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def select_timezone() -> str:
    if not has_request_context():
        return "UTC"
    if current_user.is_authenticated and find_zone(current_user.person.timezone):
        return str(current_user.person.timezone)
    organisation = current_organisation()
    return organisation.timezone if organisation is not None and find_zone(organisation.timezone) else "UTC"


def language() -> str:
    """The language of this page: "en" or "fa"."""
    try:
        # Called about a thousand times per page: reads flask-babel's cached locale directly.
        return str(g._flask_babel.babel_locale.language)
    except (AttributeError, RuntimeError):
        locale = get_locale()
        return locale.language if locale else "en"


def timezone() -> ZoneInfo:
    """The time zone of this page's reader."""
    return find_zone(select_timezone()) or ZoneInfo("UTC")


def direction() -> str:
    return "rtl" if Locale(language()).text_direction == "rtl" else "ltr"


def digits(text: str) -> str:
    """``text`` with the digits of the page's language."""
    return _localise_digits(language(), text)


def number(value: int | float | Decimal | None, places: int | None = None) -> str:
    """1,234 or 1,234.5 in the page's digits; None is a dash. ``places`` fixes the decimals."""
    if value is None:
        return NO_VALUE
    return _decimal(value or 0, places, language())  # Not -0.0: it equals 0 and is formatted differently.


@lru_cache(maxsize=8_192)
def _decimal(value: int | float | Decimal, places: int | None, language: str) -> str:
    pattern = "#,##0.##" if places is None else "#,##0." + "0" * places if places else "#,##0"
    return _localise_digits(
        language, babel.numbers.format_decimal(value, pattern, language, numbering_system=_numbering_system(language))
    )


def _localise_digits(language: str, text: str) -> str:
    return text.translate(_PERSIAN_DIGITS) if language == "fa" else text


def _numbering_system(language: str) -> str:
    """The numbering system for Babel: Arabic separators for Persian. Babel leaves the digits Latin."""
    return "arabext" if language == "fa" else "latn"


def ngettext(singular: str, plural: str, num: int, **variables: Any) -> str:
    """The plural form for ``num``, with ``%(num)s`` in the page's digits."""
    return str(get_translations().ungettext(singular, plural, num)) % {"num": number(num), **variables}


_markup_cache: dict[tuple[str, str], Markup] = {}
"""Translated messages of the templates by (language, msgid)."""
_MARKUP_CACHE_SIZE = 20_000


def translated_markup(text: str) -> Markup:
    """A msgid of the templates in the page's language, placeholders unfilled. Cached: a page has about a thousand."""
    key = (language(), text)
    markup = _markup_cache.get(key)
    if markup is None:
        markup = Markup(str(get_translations().ugettext(text)))  # noqa: S704
        if len(_markup_cache) < _MARKUP_CACHE_SIZE:
            _markup_cache[key] = markup
    return markup


@pass_context
def _template_gettext(context: Context, text: str, /, **variables: Any) -> str:
    """A template's ``_("…")``; filled-in values are escaped."""
    markup = translated_markup(text)
    if not context.eval_ctx.autoescape:
        return str(markup) % variables
    return markup % variables if variables or "%" in markup else markup


@pass_context
def _template_ngettext(context: Context, singular: str, plural: str, num: int, **variables: Any) -> str:
    """A template's ``ngettext``; filled-in values are escaped."""
    message = str(get_translations().ungettext(singular, plural, num))
    values = {"num": number(num), **variables}
    return Markup(message) % values if context.eval_ctx.autoescape else message % values  # noqa: S704


def percent(value: float | Decimal | None, places: int = 1) -> str:
    """A ratio as a percentage: 0.123 is 12.3 %; None (no denominator) is a dash."""
    if value is None:
        return NO_VALUE
    return _percent(value or 0, places, language())


@lru_cache(maxsize=2_048)
def _percent(value: float | Decimal, places: int, language: str) -> str:
    pattern = "#,##0." + "0" * places + "%" if places else "#,##0%"
    text = babel.numbers.format_percent(value, pattern, language, numbering_system=_numbering_system(language))
    return _localise_digits(language, text.replace("%", "٪") if language == "fa" else text)


def money(value: Decimal | int | float | None, currency: str | None = None) -> str:
    """An amount in ``currency``, by default the organisation's; None is a dash."""
    if value is None:
        return NO_VALUE
    if currency is None:
        organisation = current_organisation()
        currency = organisation.currency if organisation is not None else "EUR"
    return _money(value or 0, currency, language())


@lru_cache(maxsize=2_048)
def _money(value: Decimal | int | float, currency: str, language: str) -> str:
    text = babel.numbers.format_currency(value, currency, locale=language, numbering_system=_numbering_system(language))
    return _localise_digits(language, text)


def _local(value: datetime) -> datetime:
    return value.astimezone(timezone()) if value.tzinfo else value


def date_text(value: date | datetime | None) -> str:
    """A date in the reader's format and time zone; Jalali for Persian."""
    if value is None:
        return NO_VALUE
    return _date(_local(value).date() if isinstance(value, datetime) else value, language())


@lru_cache(maxsize=2_048)
def _date(day: date, language: str) -> str:
    if language == "fa" and day.year >= 622:
        jalali = JalaliDate(day)  # type: ignore[no-untyped-call]
        return _localise_digits(language, f"{jalali.day} {_MONTHS[jalali.month - 1]} {jalali.year}")
    return babel.dates.format_date(day, "medium", locale=language)


def time_text(value: datetime | time | None) -> str:
    if value is None:
        return NO_VALUE
    if isinstance(value, datetime):
        value = _local(value).time()
    return digits(value.strftime("%H:%M"))


def datetime_text(value: datetime | None) -> str:
    """Date and time to the minute, in the reader's time zone."""
    if value is None:
        return NO_VALUE
    return f"{date_text(value)}{list_separator()}{time_text(value)}"


def list_separator() -> str:
    """The separator of list items in the reader's language."""
    return "، " if language() == "fa" else ", "


def weekdays() -> list[str]:
    """Abbreviated weekday names in the reader's language, Monday first."""
    names = babel.dates.get_day_names("abbreviated", locale=language())
    return [names[day] for day in range(7)]


def weekdays_text(numbers: str) -> str:
    """Weekday names for a string of digits, 1 for Monday."""
    return list_separator().join(weekdays()[int(number) - 1] for number in numbers)


def ago(value: datetime | None) -> str:
    """ "3 minutes ago", "in 2 days"; None is a dash."""
    if value is None:
        return NO_VALUE
    distance: timedelta = value - clock.now()
    if abs(distance) < timedelta(seconds=1):
        distance = timedelta(seconds=-1)
    return digits(babel.dates.format_timedelta(distance, add_direction=True, locale=language()))


def chart_label(value: Any) -> str:
    """An ISO instant or date as a formatted date; any other label only with localised digits."""
    text = str(value)
    try:
        at = datetime.fromisoformat(text) if len(text) >= 10 and text[4] == "-" else None
    except ValueError:
        at = None
    if at is None:
        return digits(text)
    if len(text) == 10:
        return date_text(at.date())
    return datetime_text(at if at.tzinfo else at.replace(tzinfo=UTC))


def translated(text: Any) -> str:
    """The translation of ``text``, placeholders unfilled; "" stays ""."""
    return str(get_translations().ugettext(str(text))) if text else ""


def init(app: Flask) -> None:
    app.config["BABEL_TRANSLATION_DIRECTORIES"] = str(TRANSLATIONS)
    Babel(app, locale_selector=select_language, timezone_selector=select_timezone)
    app.jinja_env.globals.update(ngettext=_template_ngettext, gettext=_template_gettext, _=_template_gettext)
    app.jinja_env.filters.update(
        number=number,
        percent=percent,
        money=money,
        date=date_text,
        time=time_text,
        datetime=datetime_text,
        weekdays=weekdays_text,
        ago=ago,
        digits=digits,
        chart_label=chart_label,
    )
    app.jinja_env.globals.update(
        comma=list_separator,
        language=language,
        direction=direction,
        timezone=timezone,
        translated=translated,
        languages=lambda: list(LANGUAGES.items()),
    )
