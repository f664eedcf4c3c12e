"""HTML rendering of metric values, as functions of the template global ``metric_html``.

These are functions instead of Jinja macros, because a page renders hundreds of values.
"""

from collections.abc import Iterable
from functools import lru_cache

from markupsafe import Markup, escape

from campaigns.i18n import N_
from campaigns.web.i18n import formatting
from campaigns.web.i18n.formatting import language, translated_markup
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.registry import METRICS, Metric, MetricValue, Number, Unit, reading


def amount(unit: str, number: Number | None) -> str:
    """Format a number by its unit, in the reader's language; None gives the formatter's placeholder."""
    if unit == Unit.RATE:
        return formatting.percent(number)
    if unit == Unit.MONEY:
        return formatting.money(number)
    if unit == Unit.SECONDS and number is not None:
        return translated_markup(N_("%(number)s s")) % {"number": formatting.number(round(float(number), 1))}
    return formatting.number(number)


def value(measured: MetricValue) -> Markup:
    """The formatted number, or a dash titled "Not measured"."""
    if measured.value is None:
        return _not_measured(language())
    return escape(amount(measured.metric.unit, measured.value))


@lru_cache(maxsize=8)
def _not_measured(_language: str) -> Markup:
    return Markup(
        '<span class="unmeasured" title="{}"><span aria-hidden="true">–</span>'
        '<span class="visually-hidden">{}</span></span>'
    ).format(translated_markup(N_("Not measured")), translated_markup(N_("not measured")))


def base(measured: MetricValue) -> Markup:
    """The fraction of a rate, e.g. "214 openers ÷ 1,893 trackable recipients"; empty for other metrics."""
    part, whole = measured.numerator, measured.denominator
    if part is None or whole is None:
        return Markup()
    return _fraction(part, whole)


def _fraction(part: MetricValue, whole: MetricValue) -> Markup:
    # Joined from escaped parts, without Markup.format: a page renders hundreds of these.
    text = f"{value(part)} {escape(_lower_label(part.metric))} ÷ {value(whole)} {escape(_lower_label(whole.metric))}"
    return Markup(text)  # noqa: S704


def _lower_label(metric: Metric) -> str:
    return translated_markup(metric.label).lower()


def has_fraction(measured: MetricValue) -> bool:
    """Whether numerator and denominator were measured; true also for a denominator of 0."""
    part, whole = measured.numerator, measured.denominator
    return part is not None and whole is not None and part.value is not None and whole.value is not None


def cell(measured: MetricValue) -> Markup:
    """A table cell with the value, and below a rate its numerator and denominator."""
    under = ""
    if measured.numerator is not None and measured.denominator is not None and measured.value is not None:
        under = f'<span class="cell-base">{value(measured.numerator)} ÷ {value(measured.denominator)}</span>'
    return Markup(f'<td class="text-end numeric">{value(measured)}{under}</td>')  # noqa: S704


def figures(keys: Iterable[str], counts: ActivityCounts) -> Markup:
    """The ``<dt>``/``<dd>`` entries of a campaign's metrics; below a rate its numerator and denominator."""
    return Markup("").join(_figure(reading(key, counts)) for key in keys)


def _figure(measured: MetricValue) -> Markup:
    under = ""
    part, whole = measured.numerator, measured.denominator
    if part is not None and whole is not None and measured.value is not None:
        under = f'<dd class="tile-base numeric" title="{_fraction(part, whole)}">{value(part)} ÷ {value(whole)}</dd>'
    head = f'<div class="figure-{measured.metric.key}"><dt>{escape(translated_markup(measured.metric.label))}</dt>'
    return Markup(f'{head}<dd class="numeric">{value(measured)}</dd>{under}</div>')  # noqa: S704


def definition_rows(metric: Metric) -> tuple[Markup, Markup]:
    """The constant rows of a metric's explanation: those above its numbers, and those below."""
    return _definition_rows(metric.key, language())


@lru_cache(maxsize=512)
def _definition_rows(key: str, _language: str) -> tuple[Markup, Markup]:
    metric = METRICS[key]
    after = (
        (N_("Unit"), metric.unit.label),
        (N_("Counted once"), metric.dedupe),
        (N_("Window"), metric.window),
        (N_("Source"), metric.source),
    )
    return _definition_row(N_("Formula"), metric.formula), Markup().join(_definition_row(*one) for one in after)


def _definition_row(name: str, text: str) -> Markup:
    return Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(translated_markup(name), translated_markup(text))


def glossary() -> Markup:
    """Definition list entries of all metrics: label, formula, deduplication and source."""
    return _glossary(language())


@lru_cache(maxsize=8)
def _glossary(_language: str) -> Markup:
    line = Markup('<div><dt>{}</dt><dd>{} <span class="text-secondary">{} {}</span></dd></div>')
    return Markup().join(
        line.format(
            translated_markup(one.label),
            translated_markup(one.formula),
            translated_markup(one.dedupe),
            translated_markup(one.source),
        )
        for one in METRICS.values()
    )
