"""Shares of clicks over the links of a mail, and the mail painted with them."""

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
from campaigns.planning.activities import activity_of
from campaigns.planning.models import Activity
from tracking.metrics.performance import LinkRow, link_clicks
from tracking.metrics.registry import METRICS, Number, share

STEPS = ("#fff3bf", "#ffd43b", "#ff922b", "#f76707", "#e03131")
"""From few clicks to many; every one bears dark or white text by its side, so colour says nothing alone."""
_PLACE = "https://link.invalid/{}"


@dataclass(frozen=True, slots=True)
class LinkHeat:
    """One link, its clicks, its share of all clicks of the mail, and its step of colour (None: no click)."""

    line: LinkRow
    clicks: Number
    share: float | None
    step: int | None


@dataclass(frozen=True, slots=True)
class ClickMap:
    activity: Activity
    key: str
    links: Sequence[LinkHeat]
    clicks: Number


def warmth(session: Session, actor: Actor, activity_id: int, key: str = "clicks") -> ClickMap:
    """The clicks of a launched mail by link, counted by the metric ``key``. Raises NotFound."""
    lines = link_clicks(session, actor, activity_id)
    activity = activity_of(session, activity_id)
    if activity.email_details is None or activity.email_details.version_id is None:
        raise NotFound(N_("This activity sent no mail that could be looked at."))
    counted = [(line, METRICS[key].value(line.counts) or 0) for line in lines]
    most = max((clicks for _, clicks in counted), default=0)
    total = sum(int(clicks) for _, clicks in counted)
    return ClickMap(
        activity,
        key,
        [LinkHeat(line, clicks, share(clicks, total), _step(clicks, most)) for line, clicks in counted],
        total,
    )


def painted(session: Session, found: ClickMap) -> str:
    """The mail as an invented reader sees it, each link with its share of the clicks; nothing in it leads anywhere."""
    version = session.get_one(MessageVersion, found.activity.email.version_id)
    house = organisation(session)
    names = merge_fields.sample_fields(version.language, house, None, merge_fields.invented_attributes(session))
    places = {warm.line.number: _PLACE.format(warm.line.number) for warm in found.links}
    html = renderer.render(version, names, renderer.MergeUrls(places, None, "https://link.invalid/")).html
    if not html.strip():  # A mail of text alone.
        return ""
    tree = lxml.html.document_fromstring(html)
    by_place = {_PLACE.format(warm.line.number): warm for warm in found.links}
    for anchor in tree.iter("a"):
        warm = by_place.get(anchor.get("href", ""))
        anchor.attrib.pop("href", None)
        if warm is not None:
            _paint(anchor, warm)
    return str(lxml.html.tostring(tree, encoding="unicode", doctype="<!doctype html>"))


def _paint(anchor: lxml.html.HtmlElement, warm: LinkHeat) -> None:
    colour = "#868e96" if warm.step is None else STEPS[warm.step]
    anchor.set("style", f"{anchor.get('style', '')};outline:3px solid {colour};outline-offset:2px")
    badge = anchor.makeelement(
        "span",
        {
            "style": f"background:{colour};color:{'#fff' if warm.step == len(STEPS) - 1 else '#000'};border-radius:3px;"
            "font:bold 12px/1.4 sans-serif;margin:0 4px;padding:1px 5px;text-decoration:none;white-space:nowrap",
        },
    )
    badge.text = f"{warm.line.number}: {warm.share or 0:.1%}"
    anchor.append(badge)


def _step(clicks: Number, most: Number) -> int | None:
    part = share(clicks, most)
    return None if not part else min(int(part * len(STEPS)), len(STEPS) - 1)
