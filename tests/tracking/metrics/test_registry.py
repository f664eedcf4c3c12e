"""Tests of the metric registry: definitions, rates computed from sums, and values that are not measured."""

from decimal import Decimal

import pytest

from tracking.metrics.counts import ActivityCounts, HitCounts, MailCounts, add_known, sum_counts
from tracking.metrics.registry import METRICS, Unit, reading

MAILS = MailCounts(
    audience=1000,
    waiting=5,
    delivered=900,
    returned=20,
    refused=10,
    unknown=3,
    skipped=50,
    failed=8,
    cancelled=4,
    trackable=800,
    openers=200,
    clickers=50,
    unsubscribers=9,
)
FULL = ActivityCounts(
    mails=MAILS,
    opens=HitCounts(human=300, settling=7, machine=100, scanner=20, unknown=2),
    clicks=HitCounts(human=70),
    views=HitCounts(human=40),
    leads=10,
    conversions=11,
    first_touch=10.5,
    last_touch=9.5,
    cost=Decimal("500.00"),
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("audience", 1000),
        ("sent", 920),
        ("delivered", 900),
        ("bounced", 30),
        ("trackable", 800),
        ("open_rate", 0.25),
        ("click_through_rate", 0.0625),
        ("click_to_open_rate", 0.25),
        ("bounce_rate", 30 / 930),
        ("unsubscribe_rate", 0.01),
        ("opens_machine", 120),
        ("opens_settling", 7),
        ("lead_conversion_rate", 0.2),
        ("cost_per_lead", Decimal(50)),
        ("roi", None),
        ("revenue", None),
        ("leads_first_touch", 10.5),
        ("views", 40),
    ],
)
def test_metric_values(key: str, value: object) -> None:
    assert METRICS[key].value(FULL) == value


def test_states_add_up_to_the_audience() -> None:
    parts = ("waiting", "delivered", "bounced", "unknown", "skipped", "failed")
    assert sum(METRICS[key].value(FULL) or 0 for key in parts) == METRICS["audience"].value(FULL)


@pytest.mark.parametrize("key", METRICS)
def test_every_metric_is_defined_completely(key: str) -> None:
    metric = METRICS[key]
    assert metric.key == key
    assert all((metric.label, metric.formula, metric.dedupe, metric.source, metric.window))
    if metric.unit is Unit.RATE:
        assert metric.numerator in METRICS
        assert metric.denominator in METRICS


@pytest.mark.parametrize("key", METRICS)
def test_not_measured_is_not_zero_and_nothing_divides_by_zero(key: str) -> None:
    metric = METRICS[key]
    nothing, zeros = (
        metric.value(ActivityCounts()),
        metric.value(ActivityCounts(MailCounts(), HitCounts(), HitCounts(), HitCounts(), cost=Decimal(0))),
    )
    if metric.numerator:
        assert nothing is None
        assert zeros is None
    assert metric.unit is not Unit.RATE or zeros is None


def test_addition_ignores_unmeasured_counts() -> None:
    social = ActivityCounts(leads=2)
    both = sum_counts([social, FULL])
    assert both.mails == MAILS
    assert both.leads == 12
    assert sum_counts([social, social]).mails is None
    assert sum_counts([]) == ActivityCounts()
    assert sum_counts([FULL, social, FULL]) == FULL + social + FULL
    assert add_known(None, Decimal(2)) == 2
    assert (FULL + FULL).cost == Decimal(1000)
    assert METRICS["open_rate"].value(FULL + FULL) == 0.25


def test_reading_includes_numerator_and_denominator() -> None:
    found = reading("open_rate", FULL)
    assert found.numerator is not None
    assert found.denominator is not None
    assert (found.numerator.value, found.denominator.value) == (200, 800)
    assert reading("leads", FULL).denominator is None
