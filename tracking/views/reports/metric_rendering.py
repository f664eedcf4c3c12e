"""How a metric's reading is written: functions, not macros, since a page writes five hundred of them."""

from collections.abc import Iterable
from functools import lru_cache

from markupsafe import Markup, escape

from campaigns.i18n import N_
from campaigns.web.i18n import formatting
from campaigns.web.i18n.formatting import language, said
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.registry import METRICS, Metric, MetricValue, Number, Unit, reading


def amount(unit: str, number: Number | None) -> str:
    """A number as its unit is written."""
    if unit == Unit.RATE:
        return formatting.percent(number)
    if unit == Unit.MONEY:
        return formatting.money(number)
    if unit == Unit.SECONDS and number is not None:
        return said(N_("%(number)s s")) % {"number": formatting.number(round(float(number), 1))}
    return formatting.number(number)


def value(reading: MetricValue) -> Markup:
    """The number, or a dash that says that nothing was measured."""
    if reading.value is None:
        return _unmeasured(language())
    return escape(amount(reading.metric.unit, reading.value))


@lru_cache(maxsize=8)
def _unmeasured(_language: str) -> Markup:
    return Markup(
        '<span class="unmeasured" title="{}"><span aria-hidden="true">–</span>'
        '<span class="visually-hidden">{}</span></span>'
    ).format(said(N_("Not measured")), said(N_("not measured")))


def base(reading: MetricValue) -> Markup:
    """214 openers ÷ 1,893 trackable recipients"""
    part, whole = reading.numerator, reading.denominator
    if part is None or whole is None:
        return Markup()
    return _base(part, whole)


def _base(part: MetricValue, whole: MetricValue) -> Markup:
    # Put together from pieces that are escaped: a page writes hundreds, and filling a pattern costs ten times as much.
    words = f"{value(part)} {escape(_lower(part.metric))} ÷ {value(whole)} {escape(_lower(whole.metric))}"
    return Markup(words)  # noqa: S704


def _lower(metric: Metric) -> str:
    return said(metric.label).lower()


def divides(reading: MetricValue) -> bool:
    """Whether both sides of the division were measured, also when it divides by 0."""
    part, whole = reading.numerator, reading.denominator
    return part is not None and whole is not None and part.value is not None and whole.value is not None


def cell(reading: MetricValue) -> Markup:
    """A table cell: the value, and under a rate what it was divided from."""
    under = ""
    if reading.numerator is not None and reading.denominator is not None and reading.value is not None:
        under = f'<span class="cell-base">{value(reading.numerator)} ÷ {value(reading.denominator)}</span>'
    return Markup(f'<td class="text-end numeric">{value(reading)}{under}</td>')  # noqa: S704


def figures(keys: Iterable[str], counts: ActivityCounts) -> Markup:
    """Metrics of a campaign beside each other, in a list of definitions; under a rate what it was divided from."""
    return Markup("").join(_figure(reading(key, counts)) for key in keys)


def _figure(read: MetricValue) -> Markup:
    under = ""
    part, whole = read.numerator, read.denominator
    if part is not None and whole is not None and read.value is not None:
        under = f'<dd class="tile-base numeric" title="{_base(part, whole)}">{value(part)} ÷ {value(whole)}</dd>'
    head = f'<div class="figure-{read.metric.key}"><dt>{escape(said(read.metric.label))}</dt>'
    return Markup(f'{head}<dd class="numeric">{value(read)}</dd>{under}</div>')  # noqa: S704


def defined(metric: Metric) -> tuple[Markup, Markup]:
    """What stands in a metric's drawer whatever its number is: before the numbers, and after them."""
    return _defined(metric.key, language())


@lru_cache(maxsize=512)
def _defined(key: str, _language: str) -> tuple[Markup, Markup]:
    metric = METRICS[key]
    after = (
        (N_("Unit"), metric.unit.label),
        (N_("Counted once"), metric.dedupe),
        (N_("Window"), metric.window),
        (N_("Source"), metric.source),
    )
    return _line(N_("Formula"), metric.formula), Markup().join(_line(*one) for one in after)


def _line(name: str, words: str) -> Markup:
    return Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(said(name), said(words))


def glossary() -> Markup:
    """Every metric with what it means."""
    return _glossary(language())


@lru_cache(maxsize=8)
def _glossary(_language: str) -> Markup:
    line = Markup('<div><dt>{}</dt><dd>{} <span class="text-secondary">{} {}</span></dd></div>')
    return Markup().join(
        line.format(said(one.label), said(one.formula), said(one.dedupe), said(one.source)) for one in METRICS.values()
    )
