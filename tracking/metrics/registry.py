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
    otherwise: str = ""
    """Key of the denominator to use while ``denominator`` is not measured."""

    def divisor(self, counts: ActivityCounts) -> str:
        """Return the key of the denominator that applies to these counts."""
        if self.otherwise and METRICS[self.denominator].value(counts) is None:
            return self.otherwise
        return self.denominator

    def value(self, counts: ActivityCounts) -> Number | None:
        """Return the value (rates 0–1), or None when it is not measured or the denominator is 0."""
        if self.count is not None:
            return self.count(counts)
        part, whole = METRICS[self.numerator].value(counts), METRICS[self.divisor(counts)].value(counts)
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

ALWAYS = N_("The period that was chosen; without one the whole life of the campaign, up to now.")
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
        reading(metric.divisor(counts), counts) if metric.denominator else None,
    )


def _counted(
    key: str,
    label: str,
    count: Callable[[ActivityCounts], Number | None],
    formula: str,
    *,
    dedupe: str,
    source: str,
    unit: Unit = Unit.COUNT,
    window: str = ALWAYS,
) -> None:
    METRICS[key] = Metric(key, label, unit, formula, dedupe, source, window, count=count)


def _divided(
    key: str,
    label: str,
    numerator: str,
    denominator: str,
    formula: str,
    *,
    dedupe: str,
    unit: Unit = Unit.RATE,
    otherwise: str = "",
) -> None:
    above = METRICS[numerator]
    METRICS[key] = Metric(
        key,
        label,
        unit,
        formula,
        dedupe,
        above.source,
        above.window,
        numerator=numerator,
        denominator=denominator,
        otherwise=otherwise,
    )


def _mail(key: str, label: str, count: Callable[[MailCounts], int], formula: str, *, source: str = SENDS) -> None:
    _counted(
        key,
        label,
        lambda counts: None if counts.mails is None else count(counts.mails),
        formula,
        dedupe=EACH_RECIPIENT,
        source=source,
    )


def _hits(
    key: str,
    label: str,
    of: Callable[[ActivityCounts], HitCounts | None],
    who: Callable[[HitCounts], int],
    formula: str,
) -> None:
    def count(counts: ActivityCounts) -> int | None:
        hits = of(counts)
        return None if hits is None else who(hits)

    _counted(key, label, count, formula, dedupe=EACH_HIT, source=COUNTERS)


_mail(
    "audience", N_("Audience"), lambda m: m.audience, N_("Everybody whom the launches were for: all states together.")
)
_mail("waiting", N_("Waiting"), lambda m: m.waiting, N_("Queued, being sent, deferred or held."))
_mail("sent", N_("Sent"), lambda m: m.delivered + m.returned, N_("Accepted by the relay, bounced afterwards or not."))
_mail("delivered", N_("Delivered"), lambda m: m.delivered, N_("Sent − bounced. A late bounce lowers it."))
_mail(
    "bounced",
    N_("Bounced"),
    lambda m: m.returned + m.refused,
    N_("Refused at once, or sent back after being accepted."),
)
_mail("refused", N_("Refused at once"), lambda m: m.refused, N_("Bounced before the relay accepted the mail."))
_mail(
    "hard_bounces",
    N_("Hard bounces"),
    lambda m: m.hard,
    N_("Bounced because the address or its domain does not exist."),
)
_mail(
    "soft_bounces",
    N_("Soft bounces"),
    lambda m: m.soft,
    N_("Bounced for a reason that may pass: full, switched off, unreachable, or not said."),
)
_mail(
    "blocked",
    N_("Blocked by policy"),
    lambda m: m.blocked,
    N_("Bounced because of us or the content (5.7.x), never because of the recipient."),
)
_mail(
    "complainers",
    N_("Complained"),
    lambda m: m.complainers,
    N_("Delivered mails whose recipient reported them as junk, as far as mailbox providers tell."),
)
_mail(
    "answered",
    N_("Delivered or bounced"),
    lambda m: m.delivered + m.returned + m.refused,
    N_("Delivered + bounced: mails whose fate is known."),
)
_mail(
    "unknown", N_("Unknown"), lambda m: m.unknown, N_("The connection broke before the answer; never resent by itself.")
)
_mail("skipped", N_("Left out"), lambda m: m.skipped, N_("In the audience, but suppressed or without consent to mail."))
_mail("failed", N_("Failed"), lambda m: m.failed + m.cancelled, N_("Could not be sent by us, or was cancelled."))
_mail(
    "trackable",
    N_("Trackable recipients"),
    lambda m: m.trackable,
    N_("Delivered to people who allow opens and clicks to be measured. Rates count these only."),
)
_mail(
    "openers",
    N_("Openers"),
    lambda m: m.openers,
    N_("Trackable recipients with a human open; a human click without a loaded picture counts as an open."),
    source=MILESTONES,
)
_mail(
    "clickers", N_("Clickers"), lambda m: m.clickers, N_("Trackable recipients with a human click."), source=MILESTONES
)
_mail(
    "unsubscribers",
    N_("Unsubscribed"),
    lambda m: m.unsubscribers,
    N_("Delivered mails whose recipient unsubscribed from it."),
)

_hits(
    "opens",
    N_("Human opens"),
    lambda c: c.opens,
    lambda h: h.human,
    N_("Pictures loaded by people, repeated ones included."),
)
_hits(
    "opens_settling",
    N_("Opens settling"),
    lambda c: c.opens,
    lambda h: h.settling,
    N_("Not known yet: labelled within minutes."),
)
_hits(
    "opens_machine",
    N_("Machine opens"),
    lambda c: c.opens,
    lambda h: h.machine + h.scanner,
    N_("Prefetched by mail clients and proxies, or scanned."),
)
_hits("opens_unknown", N_("Unclear opens"), lambda c: c.opens, lambda h: h.unknown, N_("No rule could tell."))
_hits(
    "clicks",
    N_("Human clicks"),
    lambda c: c.clicks,
    lambda h: h.human,
    N_("Tracked links followed by people, repeated ones included."),
)
_hits(
    "clicks_settling",
    N_("Clicks settling"),
    lambda c: c.clicks,
    lambda h: h.settling,
    N_("Not known yet: labelled within minutes."),
)
_hits(
    "clicks_machine",
    N_("Machine clicks"),
    lambda c: c.clicks,
    lambda h: h.machine + h.scanner,
    N_("Followed by security gateways and link checkers."),
)
_hits("clicks_unknown", N_("Unclear clicks"), lambda c: c.clicks, lambda h: h.unknown, N_("No rule could tell."))
_hits(
    "views", N_("Landing-page views"), lambda c: c.views, lambda h: h.human, N_("Hosted landing pages shown to people.")
)
_hits(
    "views_settling",
    N_("Views settling"),
    lambda c: c.views,
    lambda h: h.settling,
    N_("Not known yet: labelled within minutes."),
)
_hits(
    "views_machine",
    N_("Machine views"),
    lambda c: c.views,
    lambda h: h.machine + h.scanner,
    N_("Landing pages fetched by programs."),
)


def _visits(
    key: str,
    label: str,
    of: Callable[[VisitCounts], int],
    formula: str,
    dedupe: str = EACH_VISIT,
    *,
    unit: Unit = Unit.COUNT,
) -> None:
    _counted(
        key,
        label,
        lambda counts: None if counts.visits is None else of(counts.visits),
        formula,
        dedupe=dedupe,
        source=VISITS,
        unit=unit,
    )


_visits("visits", N_("Visits"), lambda v: v.visits, N_("Human web visits that the campaign's activities brought."))
_visits(
    "visitors", N_("Visitors"), lambda v: v.visitors, N_("People who came to the web by the campaign."), EACH_VISITOR
)
_visits(
    "engaged_visits",
    N_("Engaged visits"),
    lambda v: v.engaged,
    N_("Visits of more than 10 active seconds, of two pages or more, or with a conversion."),
)
_visits(
    "unengaged_visits",
    N_("Visits that bounced"),
    lambda v: v.visits - v.engaged,
    N_("Visits − engaged visits."),
)
_visits(
    "active_seconds",
    N_("Active time"),
    lambda v: v.active_seconds,
    N_("Seconds in which the tab was seen and in use, of all visits together."),
    unit=Unit.SECONDS,
)
_visits("pages_seen", N_("Pages seen"), lambda v: v.pages, N_("Pages shown in these visits."))
_visits("new_visitors", N_("New visitors"), lambda v: v.new, N_("Visits of people never seen before."))

_divided(
    "web_bounce_rate",
    N_("Bounce rate (web)"),
    "unengaged_visits",
    "visits",
    N_("(Visits − engaged visits) ÷ visits."),
    dedupe=EACH_VISIT,
)
_divided(
    "new_visitor_share",
    N_("Share of new visitors"),
    "new_visitors",
    "visits",
    N_("Visits of people never seen before ÷ visits."),
    dedupe=EACH_VISIT,
)
_divided(
    "time_per_visit",
    N_("Time per visit"),
    "active_seconds",
    "visits",
    N_("Active seconds ÷ visits, those that bounced included."),
    dedupe=EACH_VISIT,
    unit=Unit.SECONDS,
)
_divided(
    "time_on_page",
    N_("Time per visitor"),
    "active_seconds",
    "visitors",
    N_("Active seconds ÷ visitors, visits that bounced included."),
    dedupe=EACH_VISITOR,
    unit=Unit.SECONDS,
)

_divided(
    "delivery_rate",
    N_("Delivery rate"),
    "delivered",
    "sent",
    N_("Delivered ÷ sent."),
    dedupe=EACH_RECIPIENT,
)
_divided(
    "open_rate",
    N_("Open rate"),
    "openers",
    "trackable",
    N_("Openers ÷ trackable recipients. Machine opens are shown apart and never counted."),
    dedupe=EACH_RECIPIENT,
)
_divided(
    "click_through_rate",
    N_("Click-through rate"),
    "clickers",
    "trackable",
    N_("Clickers ÷ trackable recipients. Unsubscribe links are not clicks."),
    dedupe=EACH_RECIPIENT,
)
_divided(
    "click_to_open_rate",
    N_("Click-to-open rate"),
    "clickers",
    "openers",
    N_("Clickers ÷ openers: of those who looked, how many went on."),
    dedupe=EACH_RECIPIENT,
)
_divided(
    "bounce_rate",
    N_("Bounce rate"),
    "bounced",
    "answered",
    N_("Bounced ÷ (delivered + bounced)."),
    dedupe=EACH_RECIPIENT,
)
_divided(
    "hard_bounce_rate",
    N_("Hard-bounce rate"),
    "hard_bounces",
    "answered",
    N_("Hard bounces ÷ (delivered + bounced)."),
    dedupe=EACH_RECIPIENT,
)
_divided(
    "soft_bounce_rate",
    N_("Soft-bounce rate"),
    "soft_bounces",
    "answered",
    N_("Soft bounces ÷ (delivered + bounced)."),
    dedupe=EACH_RECIPIENT,
)
_divided(
    "complaint_rate",
    N_("Complaint rate"),
    "complainers",
    "delivered",
    N_("Complained ÷ delivered."),
    dedupe=EACH_RECIPIENT,
)
_divided(
    "unsubscribe_rate",
    N_("Unsubscribe rate"),
    "unsubscribers",
    "delivered",
    N_("Unsubscribed ÷ delivered."),
    dedupe=EACH_RECIPIENT,
)

_counted(
    "leads",
    N_("Leads"),
    lambda c: c.leads,
    N_("New leads, counted for the activity whose form or enquiry brought them."),
    dedupe=N_("One open lead per contact and campaign; sending the form again adds no lead."),
    source=LEADS,
)
_counted(
    "conversions",
    N_("Conversions"),
    lambda c: c.conversions,
    N_("Goals reached; every new lead is one conversion of the goal “lead”."),
    dedupe=N_("One per submission, however often it was posted."),
    source=N_("The campaign's conversions."),
)
TOUCHES = N_("Touches within 90 days before the conversion; without one, the activity whose form was sent.")
CREDIT = N_("Credit of each conversion.")
ADD_UP = N_("The shares of one conversion add up to 1.")
_counted(
    "leads_first_touch",
    N_("Credit, first touch"),
    lambda c: c.first_touch,
    N_("Conversions credited to the activity of the contact's first touch: a click that may have brought them."),
    dedupe=ADD_UP,
    source=CREDIT,
    unit=Unit.SHARE,
    window=TOUCHES,
)
_counted(
    "leads_last_touch",
    N_("Credit, last touch"),
    lambda c: c.last_touch,
    N_("Conversions credited to the activity of the contact's last touch: a click that may have brought them."),
    dedupe=ADD_UP,
    source=CREDIT,
    unit=Unit.SHARE,
    window=TOUCHES,
)
_counted(
    "influenced",
    N_("Influenced conversions"),
    lambda c: c.influenced,
    N_("Conversions with at least one human touch of the campaign, whoever earned them."),
    dedupe=N_("Each conversion counts once; activities don't add up, since one may have touches of several."),
    source=N_("Touches before each conversion."),
    window=N_("Touches within 90 days before the conversion."),
)
_counted(
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
_counted(
    "revenue",
    N_("Revenue"),
    lambda c: c.revenue,
    N_("Sum of the values of conversions, where given. Foreign currencies without an exchange rate wait outside."),
    dedupe=N_("One per conversion."),
    source=N_("The campaign's conversions."),
    unit=Unit.MONEY,
)
_counted(
    "revenue_first_touch",
    N_("Revenue, first touch"),
    lambda c: c.first_touch_revenue,
    N_("Values of conversions by their share of credit for the first touch."),
    dedupe=ADD_UP,
    source=CREDIT,
    unit=Unit.MONEY,
    window=TOUCHES,
)
_counted(
    "revenue_last_touch",
    N_("Revenue, last touch"),
    lambda c: c.last_touch_revenue,
    N_("Values of conversions by their share of credit for the last touch."),
    dedupe=ADD_UP,
    source=CREDIT,
    unit=Unit.MONEY,
    window=TOUCHES,
)
_counted(
    "return",
    N_("Return"),
    lambda c: None if c.revenue is None or c.cost is None else c.revenue - c.cost,
    N_("Revenue − cost."),
    dedupe=N_("One per conversion."),
    source=N_("The campaign's conversions."),
    unit=Unit.MONEY,
)
_divided(
    "lead_conversion_rate",
    N_("Lead-conversion rate"),
    "leads",
    "visitors",
    N_("New leads ÷ visitors of the campaign; for as long as no visits are measured, ÷ recipients with a human click."),
    dedupe=N_("Each lead counts once, and each visitor or recipient."),
    otherwise="clickers",
)
_divided(
    "lead_generation_rate",
    N_("Leads per delivered mail"),
    "leads",
    "delivered",
    N_("New leads ÷ delivered."),
    dedupe=N_("Each lead and each recipient counts once."),
)
_divided(
    "visit_rate",
    N_("Visitors per clicker"),
    "visitors",
    "clickers",
    N_("Visitors ÷ clickers. More than all of them where other channels bring visitors, too."),
    dedupe=EACH_VISITOR,
)
_divided(
    "conversions_per_lead",
    N_("Conversions per lead"),
    "conversions",
    "leads",
    N_("Conversions ÷ new leads."),
    dedupe=N_("Each lead counts once."),
)
_divided(
    "cost_per_lead",
    N_("Cost per lead"),
    "cost",
    "leads",
    N_("Cost ÷ new leads."),
    dedupe=N_("Each lead counts once."),
    unit=Unit.MONEY,
)
_divided(
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
