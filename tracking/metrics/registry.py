"""Registry of metrics: one definition each, shared by pages, tables, exports and the API.

A metric is either a count taken from :class:`tracking.metrics.counts.ActivityCounts` or the quotient of two other
metrics, so every rate can be shown with its numerator and denominator. Rates are computed here and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from campaigns.i18n import N_
from tracking.metrics.counts import ActivityCounts, HitCounts, MailCounts, VisitCounts

Number = int | float | Decimal
CENT = Decimal("0.01")


class Unit(StrEnum):
    """The unit of a metric's value; a rate is a fraction of 1."""

    COUNT = "count"
    SHARE = "share"  # a count that may be fractional, as credit is split
    RATE = "rate"
    MONEY = "money"
    SECONDS = "seconds"

    @property
    def label(self) -> str:
        return {
            self.COUNT: N_("A number"),
            self.SHARE: N_("A number; shares are possible"),
            self.RATE: N_("A share of a whole, in per cent"),
            self.MONEY: N_("Money, in the organisation's currency"),
            self.SECONDS: N_("Seconds"),
        }[self]


@dataclass(frozen=True, slots=True)
class Metric:
    """The definition of a number, with texts that let a reader verify it.

    ``label``, ``formula``, ``dedupe`` (what counts once), ``source`` and ``window`` are msgids. Exactly one of
    ``count`` and the pair ``numerator``, ``denominator`` (keys of the registry) is set.
    """

    key: str
    label: str
    unit: Unit
    formula: str
    dedupe: str
    source: str
    window: str
    count: Callable[[ActivityCounts], Number | None] | None = None
    numerator: str = ""
    denominator: str = ""
    fallback_denominator: str = ""
    """Key of the denominator to use while ``denominator`` is not measured."""

    def denominator_key(self, counts: ActivityCounts) -> str:
        """Return the key of the denominator that applies to these counts."""
        if self.fallback_denominator and METRICS[self.denominator].value(counts) is None:
            return self.fallback_denominator
        return self.denominator

    def value(self, counts: ActivityCounts) -> Number | None:
        """Return the value (rates 0–1), or None when it is not measured or the denominator is 0."""
        if self.count is not None:
            return self.count(counts)
        part, whole = METRICS[self.numerator].value(counts), METRICS[self.denominator_key(counts)].value(counts)
        if part is None or not whole:
            return None
        if self.unit is Unit.MONEY:
            return Decimal(part) / Decimal(whole)
        return float(part) / float(whole)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric's value for given counts, with the values of its numerator and denominator."""

    metric: Metric
    value: Number | None
    numerator: "MetricValue | None" = None
    denominator: "MetricValue | None" = None


METRICS: dict[str, Metric] = {}

CHOSEN_PERIOD = N_("The period that was chosen; without one the whole life of the campaign, up to now.")
EACH_HIT = N_("None: every hit counts.")
EACH_RECIPIENT = N_("Each recipient of a mail counts once, however often.")
SENDS = N_("One row per recipient, with its state (sends).")
MILESTONES = N_("First human open and first human click kept with each send; a click implies an open.")
COUNTERS = N_("Counters of 15 minutes over the event log (rollups).")
VISITS = N_("Counters of 15 minutes over web visits that the page script reported.")
EACH_VISIT = N_("Each visit counts once; 30 minutes without a sign begin a new one.")
EACH_VISITOR = N_("Each visitor counts once, for the activity that brought their first visit of the campaign.")
LEADS = N_("The campaign's leads.")
COSTS = N_("The costs entered for the activities.")


def reading(key: str, counts: ActivityCounts) -> MetricValue:
    """Compute the metric ``key`` and, recursively, its numerator and denominator."""
    metric = METRICS[key]
    return MetricValue(
        metric,
        metric.value(counts),
        reading(metric.numerator, counts) if metric.numerator else None,
        reading(metric.denominator_key(counts), counts) if metric.denominator else None,
    )


def _add_count(
    key: str,
    label: str,
    count: Callable[[ActivityCounts], Number | None],
    formula: str,
    *,
    dedupe: str,
    source: str,
    unit: Unit = Unit.COUNT,
    window: str = CHOSEN_PERIOD,
) -> None:
    METRICS[key] = Metric(key, label, unit, formula, dedupe, source, window, count=count)


def _add_ratio(
    key: str,
    label: str,
    numerator: str,
    denominator: str,
    formula: str,
    *,
    dedupe: str,
    unit: Unit = Unit.RATE,
    fallback_denominator: str = "",
) -> None:
    numerator_metric = METRICS[numerator]
    METRICS[key] = Metric(
        key,
        label,
        unit,
        formula,
        dedupe,
        numerator_metric.source,
        numerator_metric.window,
        numerator=numerator,
        denominator=denominator,
        fallback_denominator=fallback_denominator,
    )


def _add_mail_count(
    key: str, label: str, count: Callable[[MailCounts], int], formula: str, *, source: str = SENDS
) -> None:
    _add_count(
        key,
        label,
        lambda counts: None if counts.mails is None else count(counts.mails),
        formula,
        dedupe=EACH_RECIPIENT,
        source=source,
    )


def _add_hit_count(
    key: str,
    label: str,
    select_hits: Callable[[ActivityCounts], HitCounts | None],
    select_number: Callable[[HitCounts], int],
    formula: str,
) -> None:
    def count(counts: ActivityCounts) -> int | None:
        hits = select_hits(counts)
        return None if hits is None else select_number(hits)

    _add_count(key, label, count, formula, dedupe=EACH_HIT, source=COUNTERS)


_add_mail_count(
    "audience", N_("Audience"), lambda m: m.audience, N_("Everybody whom the launches were for: all states together.")
)
_add_mail_count("waiting", N_("Waiting"), lambda m: m.waiting, N_("Queued, being sent, deferred or held."))
_add_mail_count(
    "sent", N_("Sent"), lambda m: m.delivered + m.returned, N_("Accepted by the relay, bounced afterwards or not.")
)
_add_mail_count("delivered", N_("Delivered"), lambda m: m.delivered, N_("Sent − bounced. A late bounce lowers it."))
_add_mail_count(
    "bounced",
    N_("Bounced"),
    lambda m: m.returned + m.refused,
    N_("Refused at once, or sent back after being accepted."),
)
_add_mail_count(
    "refused", N_("Refused at once"), lambda m: m.refused, N_("Bounced before the relay accepted the mail.")
)
_add_mail_count(
    "hard_bounces",
    N_("Hard bounces"),
    lambda m: m.hard,
    N_("Bounced because the address or its domain does not exist."),
)
_add_mail_count(
    "soft_bounces",
    N_("Soft bounces"),
    lambda m: m.soft,
    N_("Bounced for a reason that may pass: full, switched off, unreachable, or not said."),
)
_add_mail_count(
    "blocked",
    N_("Blocked by policy"),
    lambda m: m.blocked,
    N_("Bounced because of us or the content (5.7.x), never because of the recipient."),
)
_add_mail_count(
    "complainers",
    N_("Complained"),
    lambda m: m.complainers,
    N_("Delivered mails whose recipient reported them as junk, as far as mailbox providers tell."),
)
_add_mail_count(
    "answered",
    N_("Delivered or bounced"),
    lambda m: m.delivered + m.returned + m.refused,
    N_("Delivered + bounced: mails whose fate is known."),
)
_add_mail_count(
    "unknown", N_("Unknown"), lambda m: m.unknown, N_("The connection broke before the answer; never resent by itself.")
)
_add_mail_count(
    "skipped", N_("Left out"), lambda m: m.skipped, N_("In the audience, but suppressed or without consent to mail.")
)
_add_mail_count(
    "failed", N_("Failed"), lambda m: m.failed + m.cancelled, N_("Could not be sent by us, or was cancelled.")
)
_add_mail_count(
    "trackable",
    N_("Trackable recipients"),
    lambda m: m.trackable,
    N_("Delivered to people who allow opens and clicks to be measured. Rates count these only."),
)
_add_mail_count(
    "openers",
    N_("Openers"),
    lambda m: m.openers,
    N_("Trackable recipients with a human open; a human click without a loaded picture counts as an open."),
    source=MILESTONES,
)
_add_mail_count(
    "clickers", N_("Clickers"), lambda m: m.clickers, N_("Trackable recipients with a human click."), source=MILESTONES
)
_add_mail_count(
    "unsubscribers",
    N_("Unsubscribed"),
    lambda m: m.unsubscribers,
    N_("Delivered mails whose recipient unsubscribed from it."),
)

_add_hit_count(
    "opens",
    N_("Human opens"),
    lambda c: c.opens,
    lambda h: h.human,
    N_("Pictures loaded by people, repeated ones included."),
)
_add_hit_count(
    "opens_settling",
    N_("Opens settling"),
    lambda c: c.opens,
    lambda h: h.settling,
    N_("Not known yet: labelled within minutes."),
)
_add_hit_count(
    "opens_machine",
    N_("Machine opens"),
    lambda c: c.opens,
    lambda h: h.machine + h.scanner,
    N_("Prefetched by mail clients and proxies, or scanned."),
)
_add_hit_count("opens_unknown", N_("Unclear opens"), lambda c: c.opens, lambda h: h.unknown, N_("No rule could tell."))
_add_hit_count(
    "clicks",
    N_("Human clicks"),
    lambda c: c.clicks,
    lambda h: h.human,
    N_("Tracked links followed by people, repeated ones included."),
)
_add_hit_count(
    "clicks_settling",
    N_("Clicks settling"),
    lambda c: c.clicks,
    lambda h: h.settling,
    N_("Not known yet: labelled within minutes."),
)
_add_hit_count(
    "clicks_machine",
    N_("Machine clicks"),
    lambda c: c.clicks,
    lambda h: h.machine + h.scanner,
    N_("Followed by security gateways and link checkers."),
)
_add_hit_count(
    "clicks_unknown", N_("Unclear clicks"), lambda c: c.clicks, lambda h: h.unknown, N_("No rule could tell.")
)
_add_hit_count(
    "views", N_("Landing-page views"), lambda c: c.views, lambda h: h.human, N_("Hosted landing pages shown to people.")
)
_add_hit_count(
    "views_settling",
    N_("Views settling"),
    lambda c: c.views,
    lambda h: h.settling,
    N_("Not known yet: labelled within minutes."),
)
_add_hit_count(
    "views_machine",
    N_("Machine views"),
    lambda c: c.views,
    lambda h: h.machine + h.scanner,
    N_("Landing pages fetched by programs."),
)


def _add_visit_count(
    key: str,
    label: str,
    count: Callable[[VisitCounts], int],
    formula: str,
    dedupe: str = EACH_VISIT,
    *,
    unit: Unit = Unit.COUNT,
) -> None:
    _add_count(
        key,
        label,
        lambda counts: None if counts.visits is None else count(counts.visits),
        formula,
        dedupe=dedupe,
        source=VISITS,
        unit=unit,
    )


_add_visit_count(
    "visits", N_("Visits"), lambda v: v.visits, N_("Human web visits that the campaign's activities brought.")
)
_add_visit_count(
    "visitors", N_("Visitors"), lambda v: v.visitors, N_("People who came to the web by the campaign."), EACH_VISITOR
)
_add_visit_count(
    "engaged_visits",
    N_("Engaged visits"),
    lambda v: v.engaged,
    N_("Visits of more than 10 active seconds, of two pages or more, or with a conversion."),
)
_add_visit_count(
    "unengaged_visits",
    N_("Visits that bounced"),
    lambda v: v.visits - v.engaged,
    N_("Visits − engaged visits."),
)
_add_visit_count(
    "active_seconds",
    N_("Active time"),
    lambda v: v.active_seconds,
    N_("Seconds in which the tab was seen and in use, of all visits together."),
    unit=Unit.SECONDS,
)
_add_visit_count("pages_seen", N_("Pages seen"), lambda v: v.pages, N_("Pages shown in these visits."))
_add_visit_count("new_visitors", N_("New visitors"), lambda v: v.new, N_("Visits of people never seen before."))

_add_ratio(
    "web_bounce_rate",
    N_("Bounce rate (web)"),
    "unengaged_visits",
    "visits",
    N_("(Visits − engaged visits) ÷ visits."),
    dedupe=EACH_VISIT,
)
_add_ratio(
    "new_visitor_share",
    N_("Share of new visitors"),
    "new_visitors",
    "visits",
    N_("Visits of people never seen before ÷ visits."),
    dedupe=EACH_VISIT,
)
_add_ratio(
    "time_per_visit",
    N_("Time per visit"),
    "active_seconds",
    "visits",
    N_("Active seconds ÷ visits, those that bounced included."),
    dedupe=EACH_VISIT,
    unit=Unit.SECONDS,
)
_add_ratio(
    "time_on_page",
    N_("Time per visitor"),
    "active_seconds",
    "visitors",
    N_("Active seconds ÷ visitors, visits that bounced included."),
    dedupe=EACH_VISITOR,
    unit=Unit.SECONDS,
)

_add_ratio(
    "delivery_rate",
    N_("Delivery rate"),
    "delivered",
    "sent",
    N_("Delivered ÷ sent."),
    dedupe=EACH_RECIPIENT,
)
_add_ratio(
    "open_rate",
    N_("Open rate"),
    "openers",
    "trackable",
    N_("Openers ÷ trackable recipients. Machine opens are shown apart and never counted."),
    dedupe=EACH_RECIPIENT,
)
_add_ratio(
    "click_through_rate",
    N_("Click-through rate"),
    "clickers",
    "trackable",
    N_("Clickers ÷ trackable recipients. Unsubscribe links are not clicks."),
    dedupe=EACH_RECIPIENT,
)
_add_ratio(
    "click_to_open_rate",
    N_("Click-to-open rate"),
    "clickers",
    "openers",
    N_("Clickers ÷ openers: of those who looked, how many went on."),
    dedupe=EACH_RECIPIENT,
)
_add_ratio(
    "bounce_rate",
    N_("Bounce rate"),
    "bounced",
    "answered",
    N_("Bounced ÷ (delivered + bounced)."),
    dedupe=EACH_RECIPIENT,
)
_add_ratio(
    "hard_bounce_rate",
    N_("Hard-bounce rate"),
    "hard_bounces",
    "answered",
    N_("Hard bounces ÷ (delivered + bounced)."),
    dedupe=EACH_RECIPIENT,
)
_add_ratio(
    "soft_bounce_rate",
    N_("Soft-bounce rate"),
    "soft_bounces",
    "answered",
    N_("Soft bounces ÷ (delivered + bounced)."),
    dedupe=EACH_RECIPIENT,
)
_add_ratio(
    "complaint_rate",
    N_("Complaint rate"),
    "complainers",
    "delivered",
    N_("Complained ÷ delivered."),
    dedupe=EACH_RECIPIENT,
)
_add_ratio(
    "unsubscribe_rate",
    N_("Unsubscribe rate"),
    "unsubscribers",
    "delivered",
    N_("Unsubscribed ÷ delivered."),
    dedupe=EACH_RECIPIENT,
)

_add_count(
    "leads",
    N_("Leads"),
    lambda c: c.leads,
    N_("New leads, counted for the activity whose form or enquiry brought them."),
    dedupe=N_("One open lead per contact and campaign; sending the form again adds no lead."),
    source=LEADS,
)
_add_count(
    "conversions",
    N_("Conversions"),
    lambda c: c.conversions,
    N_("Goals reached; every new lead is one conversion of the goal “lead”."),
    dedupe=N_("One per submission, however often it was posted."),
    source=N_("The campaign's conversions."),
)
TOUCH_WINDOW = N_("Touches within 90 days before the conversion; without one, the activity whose form was sent.")
CREDIT = N_("Credit of each conversion.")
SHARES_ADD_UP = N_("The shares of one conversion add up to 1.")
_add_count(
    "leads_first_touch",
    N_("Credit, first touch"),
    lambda c: c.first_touch,
    N_("Conversions credited to the activity of the contact's first touch: a click that may have brought them."),
    dedupe=SHARES_ADD_UP,
    source=CREDIT,
    unit=Unit.SHARE,
    window=TOUCH_WINDOW,
)
_add_count(
    "leads_last_touch",
    N_("Credit, last touch"),
    lambda c: c.last_touch,
    N_("Conversions credited to the activity of the contact's last touch: a click that may have brought them."),
    dedupe=SHARES_ADD_UP,
    source=CREDIT,
    unit=Unit.SHARE,
    window=TOUCH_WINDOW,
)
_add_count(
    "influenced",
    N_("Influenced conversions"),
    lambda c: c.influenced,
    N_("Conversions with at least one human touch of the campaign, whoever earned them."),
    dedupe=N_("Each conversion counts once; activities don't add up, since one may have touches of several."),
    source=N_("Touches before each conversion."),
    window=N_("Touches within 90 days before the conversion."),
)
_add_count(
    "cost",
    N_("Cost"),
    lambda c: c.cost,
    N_("Sum of the activities' costs, where given."),
    dedupe=N_("None: each activity's cost counts once."),
    source=COSTS,
    unit=Unit.MONEY,
    window=N_(
        "The period that was chosen: each cost is spread evenly over its activity's days, from its start, or its "
        "launch, to its end; all of it falls on the first when no end is known. Without any day it counts for the "
        "whole life only."
    ),
)
_add_count(
    "revenue",
    N_("Revenue"),
    lambda c: c.revenue,
    N_("Sum of the values of conversions, where given. Foreign currencies without an exchange rate wait outside."),
    dedupe=N_("One per conversion."),
    source=N_("The campaign's conversions."),
    unit=Unit.MONEY,
)
_add_count(
    "revenue_first_touch",
    N_("Revenue, first touch"),
    lambda c: c.first_touch_revenue,
    N_("Values of conversions by their share of credit for the first touch."),
    dedupe=SHARES_ADD_UP,
    source=CREDIT,
    unit=Unit.MONEY,
    window=TOUCH_WINDOW,
)
_add_count(
    "revenue_last_touch",
    N_("Revenue, last touch"),
    lambda c: c.last_touch_revenue,
    N_("Values of conversions by their share of credit for the last touch."),
    dedupe=SHARES_ADD_UP,
    source=CREDIT,
    unit=Unit.MONEY,
    window=TOUCH_WINDOW,
)
_add_count(
    "return",
    N_("Return"),
    lambda c: None if c.revenue is None or c.cost is None else c.revenue - c.cost,
    N_("Revenue − cost."),
    dedupe=N_("One per conversion."),
    source=N_("The campaign's conversions."),
    unit=Unit.MONEY,
)
_add_ratio(
    "lead_conversion_rate",
    N_("Lead-conversion rate"),
    "leads",
    "visitors",
    N_("New leads ÷ visitors of the campaign; for as long as no visits are measured, ÷ recipients with a human click."),
    dedupe=N_("Each lead counts once, and each visitor or recipient."),
    fallback_denominator="clickers",
)
_add_ratio(
    "lead_generation_rate",
    N_("Leads per delivered mail"),
    "leads",
    "delivered",
    N_("New leads ÷ delivered."),
    dedupe=N_("Each lead and each recipient counts once."),
)
_add_ratio(
    "visit_rate",
    N_("Visitors per clicker"),
    "visitors",
    "clickers",
    N_("Visitors ÷ clickers. More than all of them where other channels bring visitors, too."),
    dedupe=EACH_VISITOR,
)
_add_ratio(
    "conversions_per_lead",
    N_("Conversions per lead"),
    "conversions",
    "leads",
    N_("Conversions ÷ new leads."),
    dedupe=N_("Each lead counts once."),
)
_add_ratio(
    "cost_per_lead",
    N_("Cost per lead"),
    "cost",
    "leads",
    N_("Cost ÷ new leads."),
    dedupe=N_("Each lead counts once."),
    unit=Unit.MONEY,
)
_add_ratio(
    "roi",
    N_("Return on investment"),
    "return",
    "cost",
    N_("(Revenue − cost) ÷ cost. Needs conversions with a value."),
    dedupe=N_("One per conversion."),
)


def change(now: Number | None, before: Number | None, unit: Unit) -> float | None:
    """Return the change against the earlier value: relative for counts and money (0.5 is +50 %), absolute for rates.

    The difference of two rates is a fraction (0.01 is one percentage point). None when either value is not known, or
    when the earlier value of a count is 0.
    """
    if now is None or before is None:
        return None
    if unit is Unit.RATE:
        return float(now) - float(before)
    return float(now) / float(before) - 1 if before else None


def share(part: Number | None, whole: Number | None) -> float | None:
    """Return ``part / whole`` (0–1) for tables of shares; None when the part is not known or the whole is 0."""
    return float(part) / float(whole) if part is not None and whole else None
