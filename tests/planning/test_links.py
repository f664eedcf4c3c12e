"""Tests of short links and link overrides: UTM parameters, redirects, switching off, pages."""

from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.accounts.models import AuditLogEntry
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed
from campaigns.planning import links, utm
from campaigns.planning.models import Activity, Channel, LinkOverride, ShortLink
from tests.factories import make_activity, make_campaign, make_organisation
from tests.tracking.fixtures import make_version


def make_social_activity(session: Session, **values: object) -> Activity:
    make_organisation(session)
    campaign = make_campaign(session, name="Spring Tea 2026!")
    return make_activity(
        session,
        campaign,
        **{"channel": Channel.SOCIAL, "everybody": False, "url": "https://www.instagram.com/acme", **values},
    )


def test_short_link_has_utm_parameters(session: Session) -> None:
    activity = make_social_activity(session)
    one = links.create_link(session, SYSTEM, activity, label="Bio link", url="https://example.org/?a=1#top")
    two = links.create_link(session, SYSTEM, activity, label="Чай", url="https://example.org/?utm_source=mine")
    assert (one.number, two.number) == (1, 2)
    assert one.code != two.code
    assert len(links.short_url(one)) == len("http://localhost/l/") + 8
    target = urlsplit(utm.append_query(one.url, one.utm))
    assert target.fragment == "top"
    assert parse_qs(target.query) == {
        "a": ["1"],
        "utm_source": ["instagram"],
        "utm_medium": ["social"],
        "utm_campaign": ["spring-tea-2026"],
        "utm_id": [str(activity.campaign_id)],
        "utm_content": ["bio-link"],
    }
    assert parse_qs(urlsplit(utm.append_query(two.url, two.utm)).query)["utm_source"] == ["mine"]
    assert parse_qs(two.utm)["utm_content"] == ["чай"]


def test_built_utm_parameters_follow_the_rule(session: Session) -> None:
    for channel in Channel:
        activity = make_activity(session, channel=channel, url="" if channel is Channel.SMS else "https://x.example/A")
        assert utm.rule_violations(utm.build_parameters(activity, "Some LABEL, long " * 20)) == []
    assert utm.rule_violations({"utm_source": "News Letter ", "utm_medium": "Mail", "utm_id": "1"}) == [
        "utm_medium",
        "utm_source",
    ]
    assert utm.rule_violations({"utm_source": "letter", "utm_medium": "email"}) == ["utm_campaign"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "javascript:alert(1)",
        "ftp://example.org/",
        "http://127.0.0.1/",
        "https://u@example.org/",
        "https://example.org/{{ contact.email }}",
        "https://exa mple.org/",
        "http://[::1",
        "https://" + "a" * 2100 + ".org",
    ],
)
def test_only_web_addresses_are_allowed_as_targets(session: Session, url: str) -> None:
    activity = make_social_activity(session)
    with pytest.raises(ValidationFailed):
        links.create_link(session, SYSTEM, activity, label="x", url=url)
    link = links.create_link(session, SYSTEM, activity, label="x", url="http://localhost/f/our-own")
    with pytest.raises(ValidationFailed):
        links.redirect_link(session, SYSTEM, link, url)


def test_no_short_links_for_mail_or_without_permission(session: Session) -> None:
    with pytest.raises(Conflict):
        links.create_link(session, SYSTEM, make_activity(session), label="x", url="https://example.org/")
    with pytest.raises(Forbidden):
        links.create_link(session, PUBLIC, make_social_activity(session), label="x", url="https://example.org/")


def test_every_change_is_audited(session: Session) -> None:
    link = links.create_link(session, SYSTEM, make_social_activity(session), label="Bio", url="https://example.org/")
    links.set_link_active(session, SYSTEM, link, active=False)
    links.set_link_active(session, SYSTEM, link, active=False)
    links.redirect_link(session, SYSTEM, link, "https://example.org/new")
    mail = make_activity(session, version_id=make_version(session).id)
    links.override_mail_link(session, SYSTEM, mail, 2, links.SWITCHED_OFF)
    links.override_mail_link(session, SYSTEM, mail, 2, "https://example.org/else")
    assert session.scalars(select(LinkOverride.url)).all() == ["https://example.org/else"]
    links.override_mail_link(session, SYSTEM, mail, 2, None)
    assert session.scalars(select(LinkOverride)).all() == []
    with pytest.raises(NotFound):
        links.override_mail_link(session, SYSTEM, mail, 9, links.SWITCHED_OFF)
    verbs = session.scalars(select(AuditLogEntry.action).order_by(AuditLogEntry.id)).all()
    assert verbs == ["create", "disable", "redirect", "disable", "redirect", "restore"]


def test_pages(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        activity = make_social_activity(session)
        mail = make_activity(session, version_id=make_version(session).id)
    page = f"/activities/{activity.id}/links"
    made = coordinator_client.post(page, data={"label": "Bio", "url": "https://example.org/"})
    assert made.status_code == 303
    with db.read_only_session() as session:
        link = session.scalars(select(ShortLink)).one()
    shown = coordinator_client.get(page).get_data(as_text=True)
    assert links.short_url(link) in shown
    assert "utm_source=instagram" in shown
    assert coordinator_client.post(page, data={"label": "Bio", "url": "nowhere"}).status_code == 422
    picture = coordinator_client.get(f"{page}/1/qr.svg")
    assert picture.mimetype == "image/svg+xml"
    assert b"<svg" in picture.data
    typed = coordinator_client.get(f"{page}/preview", query_string={"label": "Poster", "url": "https://a.example/"})
    assert "utm_content=poster" in typed.text
    assert coordinator_client.post(f"{page}/1/off").status_code == 303
    assert "switched off" in coordinator_client.get(page).text
    assert viewer_client.post(f"{page}/1/on").status_code == 403
    of_mail = f"/activities/{mail.id}"
    assert coordinator_client.post(f"{of_mail}/mail-links/1/off").status_code == 303
    assert "switched off" in coordinator_client.get(f"{of_mail}/links").text
    coordinator_client.post(f"{of_mail}/mail-links/1/redirect", data={"url": "https://b.example/"})
    assert "https://b.example/" in coordinator_client.get(f"{of_mail}/links").text
    assert "Links of the mail" in coordinator_client.get(of_mail).text
    assert "Link 1" in coordinator_client.get(f"{of_mail}/clicks").text
