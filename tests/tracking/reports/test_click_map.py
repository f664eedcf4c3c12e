"""Tests of the click map: shares and colours per link, human or machine clicks, and the rendered mail."""

import pytest
from sqlalchemy.orm import Session

from campaigns.accounts.actor import SYSTEM
from campaigns.content.models import Link, MessageVersion
from campaigns.errors import NotFound
from campaigns.planning.models import Activity, Channel
from tests import factories
from tests.conftest import NOON
from tracking.models.events import HitKind, HitRollup, TrafficLabel
from tracking.reports import click_map


@pytest.fixture
def mail(session: Session) -> Activity:
    """A mail with five links that have 60, 30, 9, 1 and 0 human clicks; the third also has 50 scanner clicks."""
    factories.make_organisation(session)
    activity = factories.make_activity(session, launched_at=NOON)
    html = "".join(f"<a href='{{{{ links[{number}] }}}}'>Link {number}</a>" for number in range(1, 6))
    version = MessageVersion(
        message_id=factories.make_message(session).id,
        content_hash="h" * 64,
        subject="News",
        preheader="",
        mjml="",
        html=f"<html><body>{html}</body></html>",
        text="",
        language="en",
        from_name="",
        from_email="a@example.org",
        reply_to="",
        created_at=NOON,
    )
    version.links = [Link(number=n, url=f"https://example.org/{n}", label=f"Link {n}") for n in range(1, 6)]
    session.add(version)
    session.flush()
    activity.email.version_id = version.id
    for link, people, scanners in ((1, 60, 0), (2, 30, 0), (3, 9, 50), (4, 1, 0)):
        for label, events in ((TrafficLabel.HUMAN, people), (TrafficLabel.SCANNER, scanners)):
            session.add(
                HitRollup(
                    activity_id=activity.id, bucket=NOON, kind=HitKind.CLICK, link=link, label=label, events=events
                )
            )
    session.flush()
    return activity


def test_share_and_colour_of_each_link(session: Session, mail: Activity) -> None:
    found = click_map.build_click_map(session, SYSTEM, mail.id)
    assert found.clicks == 100
    assert {one.link.number: (one.clicks, one.share, one.step) for one in found.links} == {
        1: (60, 0.6, 4),
        2: (30, 0.3, 2),
        3: (9, 0.09, 0),
        4: (1, 0.01, 0),
        5: (0, 0.0, None),
    }


def test_click_map_of_machine_clicks(session: Session, mail: Activity) -> None:
    found = click_map.build_click_map(session, SYSTEM, mail.id, "clicks_machine")
    assert {one.link.number: (one.clicks, one.step) for one in found.links if one.clicks} == {3: (50, 4)}


def test_rendered_mail_marks_links_with_colour_and_share(session: Session, mail: Activity) -> None:
    html = click_map.render_click_map(session, click_map.build_click_map(session, SYSTEM, mail.id))
    for number, step, share in ((1, click_map.SCALE[4], 60), (2, click_map.SCALE[2], 30), (4, click_map.SCALE[0], 1)):
        of_link = html.split(f">Link {number}<")[0].rsplit("<a", 1)[1]
        assert f"outline:3px solid {step}" in of_link
        assert f"{number}: {share}.0%" in html.split(f">Link {number}<")[1].split("</a>")[0]
    assert "outline:3px solid #868e96" in html.split(">Link 5<")[0].rsplit("<a", 1)[1]
    assert "href" not in html


def test_activity_without_mail_has_no_click_map(session: Session) -> None:
    post = factories.make_activity(session, channel=Channel.SOCIAL, everybody=False)
    with pytest.raises(NotFound):
        click_map.build_click_map(session, SYSTEM, post.id)
