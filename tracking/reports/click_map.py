"""Click map of a mail: the share of clicks of each link, and the rendered mail with links marked by it."""

from collections.abc import Sequence
from dataclasses import dataclass

import lxml.html
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor
from campaigns.accounts.organisation import organisation
from campaigns.content import merge_fields
from campaigns.content.models import MessageVersion
from campaigns.content.rendering import renderer
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.planning.activities import get_activity
from campaigns.planning.models import Activity
from tracking.metrics.performance import LinkRow, link_clicks
from tracking.metrics.registry import METRICS, Number, share

SCALE = ("#fff3bf", "#ffd43b", "#ff922b", "#f76707", "#e03131")
"""Colours from few clicks to many. Each link also shows its share as text, so no information depends on colour."""
_PLACEHOLDER_URL = "https://link.invalid/{}"


@dataclass(frozen=True, slots=True)
class LinkHeat:
    """One link with its clicks, its share (0–1) of the mail's clicks and its step on the colour scale.

    ``step`` is an index into the scale, None without a click.
    """

    link: LinkRow
    clicks: Number
    share: float | None
    step: int | None


@dataclass(frozen=True, slots=True)
class ClickMap:
    """The links of one activity's mail; ``clicks`` is their sum, ``key`` the metric that counted them."""

    activity: Activity
    metric_key: str
    links: Sequence[LinkHeat]
    clicks: Number


def build_click_map(session: Session, actor: Actor, activity_id: int, key: str = "clicks") -> ClickMap:
    """Return the clicks of a launched mail by link, counted by the metric ``key``.

    Raises NotFound when there is no such activity, or when it sent no mail.
    """
    lines = link_clicks(session, actor, activity_id)
    activity = get_activity(session, activity_id)
    if activity.email_details is None or activity.email_details.version_id is None:
        raise NotFound(N_("This activity sent no mail that could be looked at."))
    counted = [(line, METRICS[key].value(line.counts) or 0) for line in lines]
    most = max((clicks for _, clicks in counted), default=0)
    total = sum(int(clicks) for _, clicks in counted)
    return ClickMap(
        activity,
        key,
        [LinkHeat(line, clicks, share(clicks, total), _scale_step(clicks, most)) for line, clicks in counted],
        total,
    )


def render_click_map(session: Session, click_map: ClickMap) -> str:
    """Return the mail as HTML, rendered for an invented contact, with each link outlined and labelled with its share.

    Links have no ``href``, so a click in the preview leads nowhere and is not counted. Returns "" for a plain-text
    mail.
    """
    version = session.get_one(MessageVersion, click_map.activity.email.version_id)
    our_organisation = organisation(session)
    merge_values = merge_fields.sample_fields(
        version.language, our_organisation, None, merge_fields.sample_attributes(session)
    )
    urls_by_number = {warm.link.number: _PLACEHOLDER_URL.format(warm.link.number) for warm in click_map.links}
    html = renderer.render(
        version, merge_values, renderer.MergeUrls(urls_by_number, None, "https://link.invalid/")
    ).html
    if not html.strip():  # A plain-text mail.
        return ""
    tree = lxml.html.document_fromstring(html)
    heat_by_url = {_PLACEHOLDER_URL.format(warm.link.number): warm for warm in click_map.links}
    for anchor in tree.iter("a"):
        warm = heat_by_url.get(anchor.get("href", ""))
        anchor.attrib.pop("href", None)
        if warm is not None:
            _mark_link(anchor, warm)
    return str(lxml.html.tostring(tree, encoding="unicode", doctype="<!doctype html>"))


def _mark_link(anchor: lxml.html.HtmlElement, heat: LinkHeat) -> None:
    colour = "#868e96" if heat.step is None else SCALE[heat.step]
    anchor.set("style", f"{anchor.get('style', '')};outline:3px solid {colour};outline-offset:2px")
    badge = anchor.makeelement(
        "span",
        {
            "style": f"background:{colour};color:{'#fff' if heat.step == len(SCALE) - 1 else '#000'};border-radius:3px;"
            "font:bold 12px/1.4 sans-serif;margin:0 4px;padding:1px 5px;text-decoration:none;white-space:nowrap",
        },
    )
    badge.text = f"{heat.link.number}: {heat.share or 0:.1%}"
    anchor.append(badge)


def _scale_step(clicks: Number, most: Number) -> int | None:
    ratio = share(clicks, most)
    return None if not ratio else min(int(ratio * len(SCALE)), len(SCALE) - 1)
