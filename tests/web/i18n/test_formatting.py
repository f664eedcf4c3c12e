"""Formatting of numbers, money and dates per language."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from flask import Flask, g, render_template_string
from flask.testing import FlaskClient

from campaigns.web.i18n import formatting
from tests.conftest import NOON, FrozenClock


@pytest.fixture
def english(app: Flask) -> Iterator[None]:
    with app.test_request_context():
        g.language = "en"
        yield


@pytest.fixture
def persian(app: Flask) -> Iterator[None]:
    with app.test_request_context():
        g.language = "fa"
        yield


def test_english_formats(english: None, frozen: FrozenClock) -> None:
    assert [formatting.number(value) for value in (0, 1234567, 1.5, Decimal("2.345"), -3, None)] == [
        "0",
        "1,234,567",
        "1.5",
        "2.34",
        "-3",
        "–",
    ]
    assert formatting.number(1, 2) == "1.00"
    assert formatting.number(1.6, 0) == "2"
    assert formatting.percent(0.12345) == "12.3%"
    assert formatting.percent(1, 0) == "100%"
    assert formatting.percent(None) == "–"
    assert formatting.money(Decimal("1234.5")) == "€1,234.50"
    assert formatting.money(3, "USD") == "$3.00"
    assert formatting.date_text(date(2026, 11, 22)) == "Nov 22, 2026"
    assert formatting.datetime_text(NOON) == "Nov 22, 2026, 12:00"
    assert formatting.ago(NOON - timedelta(minutes=3)) == "3 minutes ago"
    assert formatting.ago(NOON + timedelta(days=2)) == "in 2 days"
    assert formatting.ago(NOON) == "1 second ago"


def test_persian_formats(persian: None, frozen: FrozenClock) -> None:
    assert formatting.number(1234567.5) == "۱٬۲۳۴٬۵۶۷٫۵"
    assert formatting.percent(0.123) == "۱۲٫۳٪"
    assert "۱٬۲۳۴٫۵۰" in formatting.money(Decimal("1234.5"))
    assert formatting.date_text(date(2026, 11, 22)) == "۱ آذر ۱۴۰۵"
    assert formatting.date_text(date(2026, 3, 21)) == "۱ فروردین ۱۴۰۵"
    assert formatting.datetime_text(NOON) == "۱ آذر ۱۴۰۵، ۱۲:۰۰"
    assert formatting.ago(NOON - timedelta(minutes=3)) == "۳ دقیقه پیش"


def test_plurals_use_the_digits_of_the_page(persian: None) -> None:
    assert "۱٬۲۳۴" in formatting.ngettext("%(num)s contact added.", "%(num)s contacts added.", 1234)
    page = render_template_string('{{ ngettext("%(num)s <b>", "%(num)s %(what)s", 1234, what="<i>") }}')
    assert page == "۱٬۲۳۴ &lt;i&gt;"


def test_chart_labels(english: None) -> None:
    assert formatting.chart_label("2026-11-22T10:30:00+00:00") == "Nov 22, 2026, 10:30"
    assert formatting.chart_label("2026-11-22") == "Nov 22, 2026"
    assert formatting.chart_label("2026-campaign") == "2026-campaign"
    assert formatting.chart_label("E-mail") == "E-mail"


def test_an_instant_is_shown_in_the_readers_zone(app: Flask, owner_client: FlaskClient) -> None:
    app.add_url_rule("/_zone", "zone", lambda: formatting.datetime_text(NOON))
    owner_client.post("/me", data={"name": "Nino", "language": "", "timezone": "Asia/Tbilisi"})
    assert owner_client.get("/_zone").get_data(as_text=True) == "Nov 22, 2026, 16:00"


def test_the_language_of_anonymous_visitors(empty_app: Flask) -> None:
    client = empty_app.test_client()
    assert b'lang="fa" dir="rtl"' in client.get("/setup", headers={"Accept-Language": "fa-IR,fa;q=0.9"}).data
    assert b'lang="en" dir="ltr"' in client.get("/setup", headers={"Accept-Language": "tlh"}).data


def test_an_early_date_is_not_jalali(persian: None) -> None:
    assert formatting.date_text(datetime(600, 1, 1, tzinfo=UTC))
