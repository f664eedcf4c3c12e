"""Performance pages of one campaign: figures, live updates, CSV export, comparison, profile."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup

from campaigns import clock
from campaigns.accounts.actor import Permission
from campaigns.planning.models import Campaign
from campaigns.web.pages import server_sent_events
from campaigns.web.pages.fragment_polling import unless_unchanged, with_version
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor
from tracking import report_query
from tracking.bots.rules import RULES_VERSION
from tracking.counters.periods import LAST_DAYS
from tracking.metrics import campaign_list, goal_totals, performance
from tracking.metrics import comparison as metrics_comparison
from tracking.metrics.comparison import HEADLINE_METRICS, MAIL_METRICS, WEB_METRICS, PeriodQuery
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.performance import ActivityRow, CampaignPerformance, ChannelRow
from tracking.metrics.registry import METRICS, reading
from tracking.metrics.series import TimeSeries, campaign_series
from tracking.metrics.versions import campaign_versions
from tracking.models.events import TrafficLabel
from tracking.reports import audience_profile, drilldown, exports
from tracking.reports.timezone import organisation_zone
from tracking.views.reports import web_visits

blueprint = Blueprint("performance", __name__)

FAST_POLL_SECONDS, SLOW_POLL_SECONDS = 2, 30  # seconds between two polls of the figures
_LABELS = {
    report_query.TrafficFilter.HUMAN: (TrafficLabel.HUMAN,),
    report_query.TrafficFilter.MACHINE: (TrafficLabel.MACHINE, TrafficLabel.SCANNER),
    report_query.TrafficFilter.SETTLING: (TrafficLabel.SETTLING,),
}
COMPARISON_METRICS = (
    "leads",
    "lead_conversion_rate",
    "conversions",
    "revenue",
    "cost",
    "cost_per_lead",
    "roi",
    "audience",
    "delivered",
    "open_rate",
    "click_through_rate",
    "click_to_open_rate",
    "bounce_rate",
    "unsubscribe_rate",
    "visits",
    "visitors",
    "web_bounce_rate",
    "influenced",
)


@blueprint.get("/campaigns/<int:campaign_id>/performance")
def page(campaign_id: int) -> str:
    """The performance page.

    With ``?all=1`` it contains the sections that are otherwise loaded on scrolling, for printing and for
    browsers without JavaScript.
    """
    report, question = _load_performance(campaign_id)
    body, lazy_html = with_version(_render_figures(report, question)), dict.fromkeys(("visits", "profile"), "")
    if request.args.get("all") == "1":
        lazy_html = {"visits": Markup(web_visits.render_section(campaign_id)), "profile": Markup(profile(campaign_id))}  # noqa: S704
    return render_template(
        "pages/tracking/performance.html",
        found=report,
        figures=Markup(body),  # noqa: S704
        far=lazy_html,
        **_query_context(question),
    )


@blueprint.get("/campaigns/<int:campaign_id>/performance/figures")
def live(campaign_id: int) -> Response:
    return unless_unchanged(_render_figures(*_load_performance(campaign_id)))


@blueprint.get("/campaigns/<int:campaign_id>/changes")
def stream(campaign_id: int) -> Response:
    """Server-sent events that notify open pages of a campaign and its activities of changed figures."""
    current_actor().require(Permission.VIEW)
    performance.find_campaign(db_session(), campaign_id)
    return server_sent_events.stream_response(campaign_versions, campaign_id)


@blueprint.get("/campaigns/<int:campaign_id>/summary")
def summary(campaign_id: int) -> Response:
    report = performance.campaign_performance(db_session(), current_actor(), campaign_id)
    return unless_unchanged(
        render_template("pages/tracking/_summary.html", found=report, reading=reading, pace=_poll_seconds(report))
    )


@blueprint.get("/campaigns/<int:campaign_id>/performance.csv")
def csv(campaign_id: int) -> Response:
    report, question = _load_performance(campaign_id)
    name = f"campaign-{campaign_id}-{question.period.key}-{clock.now().astimezone(organisation_zone()):%Y-%m-%d}.csv"
    return Response(
        exports.figures_csv(report),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@blueprint.get("/campaigns/<int:campaign_id>/comparison")
def comparison(campaign_id: int) -> str:
    """Comparison with another campaign, or with another period of the same campaign."""
    session, question, zone = db_session(), report_query.read_period_query(), organisation_zone()
    campaign = performance.find_campaign(session, campaign_id)
    other_id, other_period = request.args.get("with", ""), request.args.get("against", "")
    counts = performance.campaign_totals(session, current_actor(), campaign_id, question.report_query(zone))
    other = performance.find_campaign(session, int(other_id)) if _is_id(other_id) else None
    against = PeriodQuery(report_query.period_for_key(other_period), question.cohort) if other_period else question
    other_counts: ActivityCounts | None = None
    if other is not None or other_period:
        other_counts = performance.campaign_totals(
            session, current_actor(), (other or campaign).id, against.report_query(zone)
        )
    choices = session.scalars(
        campaign_list.campaigns_query(current_actor(), campaign_list.CampaignFilter())
        .order_by(Campaign.id.desc())
        .limit(200)
    ).all()
    return render_template(
        "pages/tracking/comparison.html",
        campaign=campaign,
        other=other,
        against=against if other_period else None,
        rows=metrics_comparison.metric_rows(
            [counts] if other_counts is None else [counts, other_counts], COMPARISON_METRICS
        ),
        choices=choices,
        **_query_context(question),
    )


@blueprint.get("/campaigns/<int:campaign_id>/profile")
def profile(campaign_id: int) -> str:
    performance.find_campaign(db_session(), campaign_id)
    found = audience_profile.build_profile(db_session(), current_actor(), campaign_id)
    return render_template("pages/tracking/_profile.html", profile=found)


@blueprint.get("/activities/<int:activity_id>/clicks")
def link_clicks(activity_id: int) -> str:
    found = performance.link_clicks(db_session(), current_actor(), activity_id)
    return render_template("pages/tracking/_link_clicks.html", links=found, reading=reading)


def _load_performance(campaign_id: int) -> tuple[CampaignPerformance, PeriodQuery]:
    question = report_query.read_period_query()
    return performance.campaign_performance(
        db_session(), current_actor(), campaign_id, question.report_query(organisation_zone())
    ), question


def _render_figures(report: CampaignPerformance, question: PeriodQuery) -> str:
    before = question.previous_report_query(organisation_zone())
    previous_counts = (
        None
        if before is None
        else performance.campaign_totals(db_session(), current_actor(), report.campaign.id, before)
    )
    query_context = _query_context(question)
    chart = _time_series(report, query_context["who"])
    return render_template(
        "pages/tracking/_metrics.html",
        found=report,
        figures=metrics_comparison.compare_metrics(report.counts, previous_counts),
        first_screen=HEADLINE_METRICS,
        mail_screen=MAIL_METRICS,
        web_screen=WEB_METRICS,
        goals=goal_totals.goal_rows(db_session(), report.campaign.id, report.query.window),
        chart=chart,
        launches=_launch_markers(report, chart),
        lines=_sort_rows(report.activities),
        channels=_sort_rows(report.channels),
        reading=reading,
        pace=_poll_seconds(report),
        **query_context,
    )


def _query_context(question: PeriodQuery) -> dict[str, Any]:
    """Template variables of the current query; ``query()`` builds the query string with one value changed."""
    chosen = {
        "period": "" if question.period.is_all_time else question.period.key,
        "dated": "" if question.cohort else "event",
        "who": ""
        if report_query.read_traffic_filter() is report_query.TrafficFilter.HUMAN
        else report_query.read_traffic_filter().value,
        "earns": ""
        if report_query.read_attribution_choice() is report_query.AttributionChoice.LAST
        else report_query.read_attribution_choice().value,
        "sort": request.args.get("sort", "") if request.args.get("sort", "").lstrip("-") in METRICS else "",
    }

    def query(**changes: str) -> str:
        return urlencode({name: value for name, value in {**chosen, **changes}.items() if value})

    return {
        "question": question,
        "chosen": chosen,
        "query": query,
        "periods": LAST_DAYS,
        "who": report_query.read_traffic_filter(),
        "everybody": list(report_query.TrafficFilter),
        "earns": report_query.read_attribution_choice(),
        "ways_to_earn": list(report_query.AttributionChoice),
        "rules": RULES_VERSION,
        "parts": drilldown.metrics_with_rows,
        "metric_of": METRICS.__getitem__,
        "before": question.period.previous,
    }


def _sort_rows(rows: Sequence[ActivityRow] | Sequence[ChannelRow]) -> list[Any]:
    """The rows sorted by the metric in ``?sort``, "-" for descending; rows without a value come last."""
    key = request.args.get("sort", "")
    metric = METRICS.get(key.lstrip("-"))
    if metric is None:
        return list(rows)
    measured = [line for line in rows if metric.value(line.counts) is not None]
    unmeasured = [line for line in rows if metric.value(line.counts) is None]
    return sorted(measured, key=lambda line: metric.value(line.counts) or 0, reverse=key.startswith("-")) + unmeasured


def _time_series(report: CampaignPerformance, traffic: report_query.TrafficFilter) -> TimeSeries | None:
    """The time series of the chart; None while it is empty."""
    window = report.query.window
    first, last = window.since or report.first_at, report.last_at
    if first is None:
        return None
    last = max(at for at in (first, last, report.last_lead_at) if at is not None)
    if report.is_changing:
        last = clock.now()
    if window.until is not None:
        last = min(last, window.until)
    time_series = campaign_series(
        db_session(),
        report.campaign.id,
        organisation_zone(),
        first,
        last,
        window=window,
        labels=_LABELS[traffic],
        activities=[line.id for line in report.activities],
    )
    return None if time_series.is_empty else time_series


def _launch_markers(report: CampaignPerformance, chart: TimeSeries | None) -> list[dict[str, Any]]:
    """The launches in the chart's period, each with the index of its chart interval and its title."""
    if chart is None:
        return []
    launched = [(line.launched_at, line.title) for line in report.activities if line.launched_at is not None]
    return [
        {"at": bisect_right(chart.starts, at) - 1, "name": title}
        for at, title in sorted(launched)
        if at >= chart.starts[0] and (report.query.window.until is None or at < report.query.window.until)
    ]


def _poll_seconds(report: CampaignPerformance) -> int | None:
    """Seconds until the page polls again; None when the figures are final."""
    if report.is_over:
        return None
    return FAST_POLL_SECONDS if report.is_changing else SLOW_POLL_SECONDS


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 18
