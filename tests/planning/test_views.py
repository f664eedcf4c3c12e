"""Tests of the campaign and activity pages, by role."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

import pytest
from flask import g
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import db
from campaigns.accounts import audit
from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.audience import consent
from campaigns.audience.models import ConsentLevel, ConsentPurpose
from campaigns.content import versions
from campaigns.content.mjml import subprocess_sandbox
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus, Channel
from tests.factories import (
    make_activity,
    make_campaign,
    make_contact,
    make_form,
    make_list,
    make_message,
    make_organisation,
)

CAMPAIGN_FORM = {
    "name": "Spring",
    "objective": "leads",
    "owner_id": "",
    "starts_on": "2026-12-01",
    "ends_on": "2026-12-31",
    "budget": "1500.50",
    "colour": "#2fb344",
    "description": "Bring people in.",
}


def make_planned_activity(channel: Channel = Channel.SOCIAL, **values: Any) -> tuple[int, int]:
    """Create a campaign with one activity. Returns (campaign id, activity id)."""
    with db.transaction() as session:
        activity = make_activity(session, channel=channel, everybody=channel is Channel.EMAIL, **values)
        return activity.campaign_id, activity.id


def status_of(activity_id: int) -> ActivityStatus:
    with db.read_only_session() as session:
        return session.get_one(Activity, activity_id).status


def test_create_campaign(coordinator_client: FlaskClient) -> None:
    page = coordinator_client.get("/campaigns/new")
    assert page.status_code == 200
    answer = coordinator_client.post("/campaigns/new", data=CAMPAIGN_FORM)
    assert answer.status_code == 303
    with db.read_only_session() as session:
        campaign = session.scalars(select(Campaign)).one()
        assert (campaign.name, campaign.budget, campaign.colour) == ("Spring", Decimal("1500.50"), "#2fb344")
    page = coordinator_client.get(answer.location)
    assert page.status_code == 200
    text = page.get_data(as_text=True)
    assert "No activities yet" in text
    assert f'hx-get="/campaigns/{campaign.id}/summary"' in text
    assert f'href="/campaigns/{campaign.id}/performance"' in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "  "),
        ("name", "x" * 201),
        ("objective", "domination"),
        ("owner_id", "99999"),
        ("owner_id", "me"),
        ("starts_on", "tomorrow"),
        ("ends_on", "2026-11-30"),
        ("budget", "-1"),
        ("budget", "NaN"),
        ("budget", "1e30"),
        ("budget", "1.234"),
        ("colour", "red"),
        ("description", "x" * 20_001),
    ],
)
def test_invalid_campaign_form_keeps_input(coordinator_client: FlaskClient, field: str, value: str) -> None:
    typed = CAMPAIGN_FORM | {"name": "Kept name", "description": "Kept words"} | {field: value}
    answer = coordinator_client.post("/campaigns/new", data=typed)
    assert answer.status_code == 422
    text = answer.get_data(as_text=True)
    assert "invalid-feedback" in text
    assert field == "name" or "Kept name" in text
    assert field == "description" or "Kept words" in text
    with db.read_only_session() as session:
        assert session.scalars(select(Campaign)).all() == []


def test_edit_campaign(coordinator_client: FlaskClient) -> None:
    campaign_id, _ = make_planned_activity()
    page = coordinator_client.get(f"/campaigns/{campaign_id}/edit")
    assert page.status_code == 200
    answer = coordinator_client.post(
        f"/campaigns/{campaign_id}/edit", data=CAMPAIGN_FORM | {"name": "Autumn", "budget": ""}
    )
    assert answer.status_code == 303
    with db.read_only_session() as session:
        campaign = session.get_one(Campaign, campaign_id)
        assert (campaign.name, campaign.budget) == ("Autumn", None)


def test_campaign_page_lists_activities(
    coordinator_client: FlaskClient,
    database: Engine,
    count_queries: Callable[[Engine], AbstractContextManager[list[str]]],
) -> None:
    with db.transaction() as session:
        campaign = make_campaign(session, budget=Decimal(100))
        for channel in Channel:
            make_activity(
                session,
                campaign,
                channel=channel,
                title=f"In {channel}",
                cost=Decimal(30),
                everybody=False,
                url="https://example.org/",
            )
    with count_queries(database) as few:
        page = coordinator_client.get(f"/campaigns/{campaign.id}")
    text = page.get_data(as_text=True)
    assert page.status_code == 200
    assert all(f"In {channel}" in text for channel in Channel)
    assert f"€{30 * len(Channel)}.00" in text
    assert f"Above the budget by €{30 * len(Channel) - 100}.00" in text
    with db.transaction() as session:
        for _ in range(30):
            make_activity(session, session.get_one(Campaign, campaign.id), channel=Channel.SOCIAL, everybody=False)
    with count_queries(database) as many:
        coordinator_client.get(f"/campaigns/{campaign.id}")
    assert len(many) == len(few) <= 6


def test_uncovered_channels_link_to_form(coordinator_client: FlaskClient) -> None:
    campaign_id, _ = make_planned_activity(Channel.SOCIAL)
    text = coordinator_client.get(f"/campaigns/{campaign_id}").get_data(as_text=True)
    assert f"/campaigns/{campaign_id}/activities/new?channel=video" in text
    assert f"/campaigns/{campaign_id}/activities/new?channel=social" not in text


@pytest.mark.parametrize("channel", list(Channel))
def test_create_activity_in_every_channel(coordinator_client: FlaskClient, channel: Channel) -> None:
    with db.transaction() as session:
        campaign = make_campaign(session)
        message, some = make_message(session), make_list(session)
    url = f"/campaigns/{campaign.id}/activities/new"
    assert f"?channel={channel.value}" in coordinator_client.get(url).get_data(as_text=True)
    form = coordinator_client.get(f"{url}?channel={channel.value}").get_data(as_text=True)
    assert ('name="message_id"' in form) == ('name="list_id"' in form) == (channel is Channel.EMAIL)
    answer = coordinator_client.post(
        f"{url}?channel={channel.value}",
        data={
            "title": "First",
            "owner_id": "",
            "starts_on": "2026-12-01",
            "ends_on": "",
            "cost": "10.50",
            "url": "" if channel is Channel.EMAIL else "https://example.org/post",
            "notes": "",
            "message_id": str(message.id),
            "list_id": str(some.id),
        },
    )
    assert answer.status_code == 303, answer.get_data(as_text=True)
    page = coordinator_client.get(answer.location)
    assert page.status_code == 200
    with db.read_only_session() as session:
        made = session.scalars(select(Activity)).one()
        assert (made.channel, made.status, made.cost) == (channel, ActivityStatus.DRAFT, Decimal("10.50"))
        if channel is Channel.EMAIL:
            assert (made.email.message_id, made.email.list_id) == (message.id, some.id)
        else:
            assert made.email_details is None


def test_unknown_channel_shows_choice(coordinator_client: FlaskClient) -> None:
    campaign_id, _ = make_planned_activity()
    page = coordinator_client.get(f"/campaigns/{campaign_id}/activities/new?channel=pigeon")
    assert "In which channel?" in page.get_data(as_text=True)


@pytest.mark.parametrize(
    "wrong",
    [{"url": "javascript:alert(1)"}, {"url": "example.org"}, {"title": ""}, {"cost": "-3"}, {"ends_on": "2026-11-01"}],
)
def test_invalid_activity_form_keeps_input(coordinator_client: FlaskClient, wrong: dict[str, str]) -> None:
    campaign_id, activity_id = make_planned_activity()
    typed = {"title": "Kept", "owner_id": "", "starts_on": "2026-12-01", "notes": "Kept words"} | wrong
    for url in (f"/campaigns/{campaign_id}/activities/new?channel=social", f"/activities/{activity_id}/edit"):
        answer = coordinator_client.post(url, data=typed)
        assert answer.status_code == 422
        assert "Kept words" in answer.get_data(as_text=True)


def test_audience_everybody_survives_edit(coordinator_client: FlaskClient) -> None:
    _, activity_id = make_planned_activity(Channel.EMAIL)
    page = coordinator_client.get(f"/activities/{activity_id}/edit").get_data(as_text=True)
    assert 'selected value="everybody"' in page
    form = {"title": "Mailing", "owner_id": "", "message_id": "", "list_id": "everybody"}
    assert coordinator_client.post(f"/activities/{activity_id}/edit", data=form).status_code == 303
    with db.read_only_session() as session:
        assert session.get_one(Activity, activity_id).email.everybody


def test_email_activity_page(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        message = make_message(session)
        for _ in range(3):
            make_contact(session)
    _, activity_id = make_planned_activity(Channel.EMAIL, message_id=message.id)
    text = coordinator_client.get(f"/activities/{activity_id}").get_data(as_text=True)
    assert f'hx-get="/activities/{activity_id}/preflight"' in text
    assert f'action="/messages/{message.id}/test-mail"' in text
    assert f'src="/messages/{message.id}/preview"' in text
    assert "Launch now to 3 people" in text
    with db.transaction() as session:
        session.get_one(Activity, activity_id).status = ActivityStatus.LIVE
    text = coordinator_client.get(f"/activities/{activity_id}").get_data(as_text=True)
    assert f'hx-get="/activities/{activity_id}/progress/counts"' in text
    assert "Launch now" not in text


def test_activity_page_links_landing_page(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        form = make_form(session)
    text = coordinator_client.get(f"/activities/{form.activity_id}").get_data(as_text=True)
    assert f'href="/f/{form.slug}"' in text


def test_activity_transitions_by_page(coordinator_client: FlaskClient) -> None:
    campaign_id, activity_id = make_planned_activity(status=ActivityStatus.DRAFT)
    for verb, status in [
        ("submit", "review"),
        ("reopen", "draft"),
        ("submit", "review"),
        ("approve", "approved"),
        ("launch", "live"),
        ("pause", "paused"),
        ("resume", "live"),
        ("finish", "finished"),
    ]:
        watched = f"/activities/{activity_id}" + ("/progress" if verb in ("pause", "resume") else "")
        answer = coordinator_client.post(f"/activities/{activity_id}/{verb}", headers={"Referer": f"http://x{watched}"})
        assert (answer.status_code, status_of(activity_id).value) == (303, status), verb
        assert answer.location == watched, "the progress page redirects to itself"
    with db.read_only_session() as session:
        assert session.get_one(Campaign, campaign_id).status is CampaignStatus.ACTIVE
    answer = coordinator_client.post(f"/activities/{activity_id}/pause", follow_redirects=True)
    assert "cannot be paused" in answer.get_data(as_text=True)


def test_second_launch_shows_information(coordinator_client: FlaskClient) -> None:
    _, activity_id = make_planned_activity()
    for text in ("Launched.", "is already launched"):
        page = coordinator_client.post(f"/activities/{activity_id}/launch", follow_redirects=True)
        assert page.status_code == 200
        assert text in page.get_data(as_text=True)
    assert status_of(activity_id) is ActivityStatus.LIVE


def test_email_activity_without_message_is_not_launched(coordinator_client: FlaskClient) -> None:
    _, activity_id = make_planned_activity(Channel.EMAIL)
    page = coordinator_client.post(f"/activities/{activity_id}/launch", follow_redirects=True)
    assert "Choose a message first." in page.get_data(as_text=True)
    assert status_of(activity_id) is ActivityStatus.APPROVED


@pytest.mark.parametrize(
    ("at", "text"),
    [("2099-01-01T10:00", "Scheduled."), ("2001-01-01T10:00", "passed already"), ("soon", "when"), ("", "when")],
)
def test_scheduled_launch(coordinator_client: FlaskClient, at: str, text: str) -> None:
    _, activity_id = make_planned_activity()
    page = coordinator_client.post(
        f"/activities/{activity_id}/launch", data={"later": "y", "at": at}, follow_redirects=True
    )
    assert text in page.get_data(as_text=True)
    expected = ActivityStatus.SCHEDULED if text == "Scheduled." else ActivityStatus.APPROVED
    assert status_of(activity_id) is expected


def test_campaign_transitions_by_page(coordinator_client: FlaskClient) -> None:
    campaign_id, activity_id = make_planned_activity(status=ActivityStatus.LIVE)
    for verb, status, of_activity in [
        ("launch", "active", "live"),
        ("pause", "paused", "paused"),
        ("resume", "active", "live"),
        ("finish", "finished", "finished"),
    ]:
        assert coordinator_client.post(f"/campaigns/{campaign_id}/{verb}").status_code == 303
        with db.read_only_session() as session:
            assert session.get_one(Campaign, campaign_id).status.value == status
        assert status_of(activity_id).value == of_activity
    page = coordinator_client.post(f"/campaigns/{campaign_id}/cancel", follow_redirects=True)
    assert "is over already" in page.get_data(as_text=True)


def test_viewer_has_read_only_access(viewer_client: FlaskClient) -> None:
    campaign_id, activity_id = make_planned_activity()
    for url in (f"/campaigns/{campaign_id}", f"/activities/{activity_id}"):
        page = viewer_client.get(url)
        assert page.status_code == 200
        assert "<form" not in page.get_data(as_text=True).split("<main")[1].split("</main>")[0]
    for url in (
        "/campaigns/new",
        f"/campaigns/{campaign_id}/edit",
        f"/campaigns/{campaign_id}/activities/new",
        f"/activities/{activity_id}/edit",
    ):
        assert viewer_client.get(url).status_code == 403
        assert viewer_client.post(url, data=CAMPAIGN_FORM).status_code == 403
    for verb in ("launch", "pause", "resume", "finish", "cancel"):
        assert viewer_client.post(f"/campaigns/{campaign_id}/{verb}").status_code == 403
        assert viewer_client.post(f"/activities/{activity_id}/{verb}").status_code == 403
    assert status_of(activity_id) is ActivityStatus.APPROVED


def test_anonymous_users_are_redirected_to_sign_in(client: FlaskClient) -> None:
    campaign_id, activity_id = make_planned_activity()
    for url in (f"/campaigns/{campaign_id}", f"/activities/{activity_id}", "/campaigns/new"):
        assert "/sign-in" in client.get(url).location


@pytest.mark.parametrize("url", ["/campaigns/999", "/campaigns/999/edit", "/activities/999", "/activities/999/edit"])
def test_unknown_ids_are_not_found(coordinator_client: FlaskClient, url: str) -> None:
    assert coordinator_client.get(url).status_code == 404


def test_built_in_rows_are_not_found(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        campaign = make_campaign(session, built_in=True)
        activity = make_activity(session, campaign, built_in="test")
    assert coordinator_client.get(f"/campaigns/{campaign.id}").status_code == 404
    assert coordinator_client.get(f"/activities/{activity.id}").status_code == 404
    assert coordinator_client.post(f"/activities/{activity.id}/cancel").status_code == 404


def test_right_to_left_in_persian(coordinator_client: FlaskClient) -> None:
    from campaigns.accounts.models import User

    campaign_id, activity_id = make_planned_activity(cost=Decimal(12))
    with db.transaction() as session:
        for person in session.scalars(select(User)):
            person.language = "fa"
    for url in (f"/campaigns/{campaign_id}", f"/activities/{activity_id}", "/campaigns/new"):
        page = coordinator_client.get(url)
        assert page.status_code == 200
        assert 'dir="rtl"' in page.get_data(as_text=True)


def test_preflight_and_launch(coordinator_client: FlaskClient) -> None:
    """Preflight and launch through the pages, with delivery's real preflight."""
    with db.transaction() as session:
        message, contact = make_message(session, mjml=MJML_WITH_WORDS), make_contact(session)
        audience = make_list(session, contact)
        consent.grant(session, PUBLIC, contact.id, ConsentPurpose.EMAIL, ConsentLevel.FULL, source="test")
    _, activity_id = make_planned_activity(Channel.EMAIL, message_id=message.id, list_id=audience.id)
    with db.transaction() as session:
        session.get_one(Activity, activity_id).email.everybody = False
    assert coordinator_client.post(f"/activities/{activity_id}/preflight").status_code == 303
    page = coordinator_client.post(f"/activities/{activity_id}/launch", follow_redirects=True)
    assert "Launched." in page.get_data(as_text=True)
    assert status_of(activity_id) is ActivityStatus.LIVE
    with db.read_only_session() as session:
        assert session.get_one(Activity, activity_id).email.version_id is not None


def test_launch_compiles_outside_transaction(coordinator_client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with db.transaction() as session:
        message, contact = make_message(session, mjml=MJML_WITH_WORDS), make_contact(session)
        consent.grant(session, PUBLIC, contact.id, ConsentPurpose.EMAIL, ConsentLevel.FULL, source="test")
    _, activity_id = make_planned_activity(Channel.EMAIL, message_id=message.id)
    assert coordinator_client.post(f"/activities/{activity_id}/preflight").status_code == 303
    in_transaction, real = [], subprocess_sandbox.run_in_sandbox

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        in_transaction.append("db_session" in g and g.db_session.in_transaction())
        return dict(real(question))

    versions._compile_cached.cache_clear()  # As in another process, or after the entry was evicted.
    monkeypatch.setattr(subprocess_sandbox, "run_in_sandbox", ask)
    page = coordinator_client.post(f"/activities/{activity_id}/launch", follow_redirects=True)
    assert "Launched." in page.text
    assert in_transaction == [False]


MJML_WITH_WORDS = """<mjml><mj-body><mj-section><mj-column>
<mj-text>Good day. See <a href="https://example.org/">our offer</a>.</mj-text>
</mj-column></mj-section></mj-body></mjml>"""


def test_history_shows_actor_and_action(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        activity = make_activity(session)
        audit.record(session, SYSTEM, "pause", "activity", activity.id, before="live", at="2026-01-02T03:04:05+00:00")
        paths = [f"/activities/{activity.id}", f"/campaigns/{activity.campaign_id}"]
    for path in paths:
        page = coordinator_client.get(path).get_data(as_text=True)
        assert "the clock" in page
        assert "paused" in page
        assert "2026-01-02T03" not in page
        assert "the clock" not in viewer_client.get(path).get_data(as_text=True)


@pytest.mark.parametrize(
    ("local", "text"),
    [
        ("2027-03-28T02:30", "Clocks are put forward"),
        ("2027-10-31T02:30", "for the first of the two times"),
        ("2027-10-31T12:30", "Scheduled."),
    ],
)
def test_launch_at_skipped_or_ambiguous_time(coordinator_client: FlaskClient, local: str, text: str) -> None:
    with db.transaction() as session:
        make_organisation(session).timezone = "Europe/Paris"
    _, activity_id = make_planned_activity()
    answer = coordinator_client.post(
        f"/activities/{activity_id}/launch", data={"later": "y", "at": local}, follow_redirects=True
    )
    assert text in answer.get_data(as_text=True)
