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
from campaigns.web.pages.fragment_polling import seal, unless_seen
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import actor
from tracking import report_query
from tracking.bots.rules import RULES
from tracking.counters.periods import LAST_DAYS
from tracking.metrics import campaign_list, goal_totals, performance
from tracking.metrics import comparison as metrics_comparison
from tracking.metrics.comparison import FIRST_SCREEN, MAIL_SCREEN, WEB_SCREEN, PeriodQuery
from tracking.metrics.counts import ActivityCounts
from tracking.metrics.performance import ActivityRow, CampaignPerformance, ChannelRow
from tracking.metrics.registry import METRICS, reading
from tracking.metrics.series import TimeSeries, series
from tracking.metrics.versions import campaign_versions
from tracking.models.events import TrafficLabel
from tracking.reports import audience_profile, drilldown, exports
from tracking.reports.timezone import our_zone
from tracking.views.reports import web_visits

blueprint = Blueprint("performance", __name__)

QUICK, SLOW = 2, 30  # seconds between two polls of the figures
_LABELS = {
    report_query.TrafficFilter.HUMAN: (TrafficLabel.HUMAN,),
    report_query.TrafficFilter.MACHINE: (TrafficLabel.MACHINE, TrafficLabel.SCANNER),
    report_query.TrafficFilter.SETTLING: (TrafficLabel.SETTLING,),
}
COMPARED = (
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
    found, question = _found(campaign_id)
    body, far = seal(_figures(found, question)), dict.fromkeys(("visits", "profile"), "")
    if request.args.get("all") == "1":
        far = {"visits": Markup(web_visits.section(campaign_id)), "profile": Markup(profile(campaign_id))}  # noqa: S704
    return render_template(
        "pages/tracking/performance.html",
        found=found,
        figures=Markup(body),  # noqa: S704
        far=far,
        **_asked(question),
    )


@blueprint.get("/campaigns/<int:campaign_id>/performance/figures")
def live(campaign_id: int) -> Response:
    return unless_seen(_figures(*_found(campaign_id)))


@blueprint.get("/campaigns/<int:campaign_id>/changes")
def stream(campaign_id: int) -> Response:
    """Server-sent events that notify open pages of a campaign and its activities of changed figures."""
    actor().require(Permission.VIEW)
    performance.find_campaign(db_session(), campaign_id)
    return server_sent_events.stream(campaign_versions, campaign_id)


@blueprint.get("/campaigns/<int:campaign_id>/summary")
def summary(campaign_id: int) -> Response:
    found = performance.performance(db_session(), actor(), campaign_id)
    return unless_seen(render_template("pages/tracking/_summary.html", found=found, reading=reading, pace=_pace(found)))


@blueprint.get("/campaigns/<int:campaign_id>/performance.csv")
def csv(campaign_id: int) -> Response:
    found, question = _found(campaign_id)
    name = f"campaign-{campaign_id}-{question.period.key}-{clock.now().astimezone(our_zone()):%Y-%m-%d}.csv"
    return Response(
        exports.figures_csv(found),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@blueprint.get("/campaigns/<int:campaign_id>/comparison")
def comparison(campaign_id: int) -> str:
    """Comparison with another campaign, or with another period of the same campaign."""
    session, question, zone = db_session(), report_query.question(), our_zone()
    campaign = performance.find_campaign(session, campaign_id)
    other_id, other_period = request.args.get("with", ""), request.args.get("against", "")
    one = performance.totals(session, actor(), campaign_id, question.asked(zone))
    other = performance.find_campaign(session, int(other_id)) if _is_id(other_id) else None
    against = PeriodQuery(report_query.period_named(other_period), question.cohort) if other_period else question
    two: ActivityCounts | None = None
    if other is not None or other_period:
        two = performance.totals(session, actor(), (other or campaign).id, against.asked(zone))
    choices = session.scalars(
        campaign_list.campaigns_like(actor(), campaign_list.CampaignFilter()).order_by(Campaign.id.desc()).limit(200)
    ).all()
    return render_template(
        "pages/tracking/comparison.html",
        campaign=campaign,
        other=other,
        against=against if other_period else None,
        rows=metrics_comparison.beside([one] if two is None else [one, two], COMPARED),
        choices=choices,
        **_asked(question),
    )


@blueprint.get("/campaigns/<int:campaign_id>/profile")
def profile(campaign_id: int) -> str:
    performance.find_campaign(db_session(), campaign_id)
    found = audience_profile.profile(db_session(), actor(), campaign_id)
    return render_template("pages/tracking/_profile.html", profile=found)


@blueprint.get("/activities/<int:activity_id>/clicks")
def link_clicks(activity_id: int) -> str:
    found = performance.link_clicks(db_session(), actor(), activity_id)
    return render_template("pages/tracking/_link_clicks.html", links=found, reading=reading)


def _found(campaign_id: int) -> tuple[CampaignPerformance, PeriodQuery]:
    question = report_query.question()
    return performance.performance(db_session(), actor(), campaign_id, question.asked(our_zone())), question


def _figures(found: CampaignPerformance, question: PeriodQuery) -> str:
    before = question.before(our_zone())
    earlier = None if before is None else performance.totals(db_session(), actor(), found.campaign.id, before)
    asked = _asked(question)
    chart = _chart(found, asked["who"])
    return render_template(
        "pages/tracking/_figures.html",
        found=found,
        figures=metrics_comparison.figures(found.counts, earlier),
        first_screen=FIRST_SCREEN,
        mail_screen=MAIL_SCREEN,
        web_screen=WEB_SCREEN,
        goals=goal_totals.by_goal(db_session(), found.campaign.id, found.asked.window),
        chart=chart,
        launches=_launches(found, chart),
        lines=_sorted(found.activities),
        channels=_sorted(found.channels),
        reading=reading,
        pace=_pace(found),
        **asked,
    )


def _asked(question: PeriodQuery) -> dict[str, Any]:
    """Template variables of the current query; ``query()`` builds the query string with one value changed."""
    chosen = {
        "period": "" if question.period.whole else question.period.key,
        "dated": "" if question.cohort else "event",
        "who": "" if report_query.who() is report_query.TrafficFilter.HUMAN else report_query.who().value,
        "earns": "" if report_query.earns() is report_query.AttributionChoice.LAST else report_query.earns().value,
        "sort": request.args.get("sort", "") if request.args.get("sort", "").lstrip("-") in METRICS else "",
    }

    def query(**changes: str) -> str:
        return urlencode({name: value for name, value in {**chosen, **changes}.items() if value})

    return {
        "question": question,
        "chosen": chosen,
        "query": query,
        "periods": LAST_DAYS,
        "who": report_query.who(),
        "everybody": list(report_query.TrafficFilter),
        "earns": report_query.earns(),
        "ways_to_earn": list(report_query.AttributionChoice),
        "rules": RULES,
        "parts": drilldown.parts,
        "metric_of": METRICS.__getitem__,
        "before": question.period.before,
    }


def _sorted(lines: Sequence[ActivityRow] | Sequence[ChannelRow]) -> list[Any]:
    """The rows sorted by the metric in ``?sort``, "-" for descending; rows without a value come last."""
    key = request.args.get("sort", "")
    metric = METRICS.get(key.lstrip("-"))
    if metric is None:
        return list(lines)
    known = [line for line in lines if metric.value(line.counts) is not None]
    unknown = [line for line in lines if metric.value(line.counts) is None]
    return sorted(known, key=lambda line: metric.value(line.counts) or 0, reverse=key.startswith("-")) + unknown


def _chart(found: CampaignPerformance, who: report_query.TrafficFilter) -> TimeSeries | None:
    """The time series of the chart; None while it is empty."""
    window = found.asked.window
    first, last = window.since or found.first_at, found.last_at
    if first is None:
        return None
    last = max(at for at in (first, last, found.last_lead_at) if at is not None)
    if found.moving:
        last = clock.now()
    if window.until is not None:
        last = min(last, window.until)
    drawn = series(
        db_session(),
        found.campaign.id,
        our_zone(),
        first,
        last,
        window=window,
        labels=_LABELS[who],
        activities=[line.id for line in found.activities],
    )
    return None if drawn.empty else drawn


def _launches(found: CampaignPerformance, chart: TimeSeries | None) -> list[dict[str, Any]]:
    """The launches in the chart's period, each with the index of its chart interval and its title."""
    if chart is None:
        return []
    launched = [(line.launched_at, line.title) for line in found.activities if line.launched_at is not None]
    return [
        {"at": bisect_right(chart.starts, at) - 1, "name": title}
        for at, title in sorted(launched)
        if at >= chart.starts[0] and (found.asked.window.until is None or at < found.asked.window.until)
    ]


def _pace(found: CampaignPerformance) -> int | None:
    """Seconds until the page polls again; None when the figures are final."""
    if found.over:
        return None
    return QUICK if found.moving else SLOW


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 18
