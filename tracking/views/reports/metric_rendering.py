"""HTML rendering of metric values, as functions of the template global ``metric_html``.

These are functions instead of Jinja macros, because a page renders hundreds of values.
"""

from collections.abc import Iterable
from functools import lru_cache

from markupsafe import Markup, escape

from campaigns.i18n import N_
from campaigns.web.i18n import formatting
from campaigns.web.i18n.formatting import language, said
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.registry import METRICS, Metric, MetricValue, Number, Unit, reading


def amount(unit: str, number: Number | None) -> str:
    """Format a number by its unit, in the reader's language; None gives the formatter's placeholder."""
    if unit == Unit.RATE:
        return formatting.percent(number)
    if unit == Unit.MONEY:
        return formatting.money(number)
    if unit == Unit.SECONDS and number is not None:
        return said(N_("%(number)s s")) % {"number": formatting.number(round(float(number), 1))}
    return formatting.number(number)


def value(reading: MetricValue) -> Markup:
    """The formatted number, or a dash titled "Not measured"."""
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
    """The fraction of a rate, e.g. "214 openers ÷ 1,893 trackable recipients"; empty for other metrics."""
    part, whole = reading.numerator, reading.denominator
    if part is None or whole is None:
        return Markup()
    return _base(part, whole)


def _base(part: MetricValue, whole: MetricValue) -> Markup:
    # Joined from escaped parts, without Markup.format: a page renders hundreds of these.
    words = f"{value(part)} {escape(_lower(part.metric))} ÷ {value(whole)} {escape(_lower(whole.metric))}"
    return Markup(words)  # noqa: S704


def _lower(metric: Metric) -> str:
    return said(metric.label).lower()


def divides(reading: MetricValue) -> bool:
    """Whether numerator and denominator were measured; true also for a denominator of 0."""
    part, whole = reading.numerator, reading.denominator
    return part is not None and whole is not None and part.value is not None and whole.value is not None


def cell(reading: MetricValue) -> Markup:
    """A table cell with the value, and below a rate its numerator and denominator."""
    under = ""
    if reading.numerator is not None and reading.denominator is not None and reading.value is not None:
        under = f'<span class="cell-base">{value(reading.numerator)} ÷ {value(reading.denominator)}</span>'
    return Markup(f'<td class="text-end numeric">{value(reading)}{under}</td>')  # noqa: S704


def figures(keys: Iterable[str], counts: ActivityCounts) -> Markup:
    """The ``<dt>``/``<dd>`` entries of a campaign's metrics; below a rate its numerator and denominator."""
    return Markup("").join(_figure(reading(key, counts)) for key in keys)


def _figure(read: MetricValue) -> Markup:
    under = ""
    part, whole = read.numerator, read.denominator
    if part is not None and whole is not None and read.value is not None:
        under = f'<dd class="tile-base numeric" title="{_base(part, whole)}">{value(part)} ÷ {value(whole)}</dd>'
    head = f'<div class="figure-{read.metric.key}"><dt>{escape(said(read.metric.label))}</dt>'
    return Markup(f'{head}<dd class="numeric">{value(read)}</dd>{under}</div>')  # noqa: S704


def defined(metric: Metric) -> tuple[Markup, Markup]:
    """The constant rows of a metric's explanation: those above its numbers, and those below."""
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
    """Definition list entries of all metrics: label, formula, deduplication and source."""
    return _glossary(language())


@lru_cache(maxsize=8)
def _glossary(_language: str) -> Markup:
    line = Markup('<div><dt>{}</dt><dd>{} <span class="text-secondary">{} {}</span></dd></div>')
    return Markup().join(
        line.format(said(one.label), said(one.formula), said(one.dedupe), said(one.source)) for one in METRICS.values()
    )
