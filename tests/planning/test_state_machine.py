"""Tests of the state machines: every transition from every status is allowed exactly where the table says so."""

from itertools import product

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import PUBLIC, Actor
from campaigns.accounts.models import AuditLogEntry
from campaigns.errors import Conflict, Forbidden, NotFound
from campaigns.planning import activities, campaigns, launch
from campaigns.planning.models import ActivityStatus, CampaignStatus, Channel
from campaigns.planning.state_machine import (
    ACTIVITY_TRANSITIONS,
    CAMPAIGN_TRANSITIONS,
    Transition,
    apply_transition,
    available_transitions,
)
from tests.factories import make_activity, make_campaign, make_user

# Written out independently of the product's table, so that a mistake there is found.
ALLOWED = {
    ("submit", "draft"): "review",
    ("approve", "draft"): "approved",
    ("approve", "review"): "approved",
    ("reopen", "review"): "draft",
    ("reopen", "approved"): "draft",
    ("reopen", "scheduled"): "draft",
    ("launch", "draft"): "live",
    ("launch", "approved"): "live",
    ("pause", "scheduled"): "paused",
    ("pause", "live"): "paused",
    ("resume", "paused"): "live",
    ("finish", "live"): "finished",
    ("finish", "paused"): "finished",
    **{("cancel", status): "cancelled" for status in ("draft", "review", "approved", "scheduled", "live", "paused")},
}
ALLOWED_CAMPAIGN = {
    ("launch", "planned"): "active",
    ("pause", "active"): "paused",
    ("resume", "paused"): "active",
    ("finish", "active"): "finished",
    ("finish", "paused"): "finished",
    ("cancel", "planned"): "cancelled",
    ("cancel", "active"): "cancelled",
    ("cancel", "paused"): "cancelled",
}
ACTIVITY_SERVICES = {
    "submit": activities.submit,
    "approve": activities.approve,
    "reopen": activities.reopen,
    "launch": launch.launch,
    "pause": launch.pause,
    "resume": launch.resume,
    "finish": launch.finish,
    "cancel": launch.cancel,
}
CAMPAIGN_SERVICES = {
    "launch": campaigns.launch_campaign,
    "pause": campaigns.pause_campaign,
    "resume": campaigns.resume_campaign,
    "finish": campaigns.finish_campaign,
    "cancel": campaigns.cancel_campaign,
}


@pytest.fixture
def actor(session: Session) -> Actor:
    return Actor.of_user(make_user(session))


@pytest.mark.parametrize("verb", list(ACTIVITY_SERVICES))
def test_activity_transitions(session: Session, actor: Actor, verb: str) -> None:
    for status in ActivityStatus:
        activity = make_activity(session, channel=Channel.SOCIAL, everybody=False, status=status)
        expected = ALLOWED.get((verb, status.value))
        assert (Transition(verb) in available_transitions(activity)) == (expected is not None)
        if expected is None:
            with pytest.raises(Conflict):
                ACTIVITY_SERVICES[verb](session, actor, activity)
            assert activity.status is status
        else:
            ACTIVITY_SERVICES[verb](session, actor, activity)
            assert activity.status.value == expected
            session.flush()
            audit_entries = select(AuditLogEntry.actor_id).where(
                AuditLogEntry.subject_kind == "activity",
                AuditLogEntry.subject_id == str(activity.id),
                AuditLogEntry.action == verb,
            )
            assert session.scalars(audit_entries).all() == [actor.id]


@pytest.mark.parametrize("verb", list(CAMPAIGN_SERVICES))
def test_campaign_transitions(session: Session, actor: Actor, verb: str) -> None:
    for status in CampaignStatus:
        campaign = make_campaign(session, status=status)
        expected = ALLOWED_CAMPAIGN.get((verb, status.value))
        assert (Transition(verb) in available_transitions(campaign)) == (expected is not None)
        if expected is None:
            with pytest.raises(Conflict):
                CAMPAIGN_SERVICES[verb](session, actor, campaign)
            assert campaign.status is status
        else:
            CAMPAIGN_SERVICES[verb](session, actor, campaign)
            assert campaign.status.value == expected


def test_begin_is_not_available_to_users(session: Session) -> None:
    activity = make_activity(session, status=ActivityStatus.SCHEDULED)
    assert Transition.BEGIN not in available_transitions(activity)
    assert ACTIVITY_TRANSITIONS[Transition.BEGIN].sources == {ActivityStatus.SCHEDULED}


def test_terminal_statuses_are_final() -> None:
    """The only exception is reopening a finished activity to resend its failed sends."""
    over = {"finished", "cancelled"}
    assert not any(over & step.sources for step in CAMPAIGN_TRANSITIONS.values())
    assert [verb for verb, step in ACTIVITY_TRANSITIONS.items() if over & step.sources] == [Transition.REOPEN_FINISHED]


def test_transition_to_wrong_target_is_an_error(session: Session) -> None:
    with pytest.raises(ValueError):
        apply_transition(session, make_activity(session), Transition.PAUSE, ActivityStatus.FINISHED)


def test_built_in_rows_have_no_transitions(session: Session, actor: Actor) -> None:
    campaign = make_campaign(session, built_in=True, status=CampaignStatus.ACTIVE)
    activity = make_activity(session, campaign, built_in="system", status=ActivityStatus.LIVE)
    for act in ("pause", "finish", "cancel"):
        with pytest.raises(NotFound):
            ACTIVITY_SERVICES[act](session, actor, activity)
        with pytest.raises(NotFound):
            CAMPAIGN_SERVICES[act](session, actor, campaign)


@pytest.mark.parametrize("role", ["viewer", "public"])
def test_transitions_require_permission(session: Session, role: str) -> None:
    actor = PUBLIC if role == "public" else Actor.of_user(make_user(session, role=role))
    activity = make_activity(session)
    for act, thing in [
        *product(ACTIVITY_SERVICES.values(), [activity]),
        *product(CAMPAIGN_SERVICES.values(), [activity.campaign]),
    ]:
        with pytest.raises(Forbidden):
            act(session, actor, thing)  # type: ignore[operator]


def test_campaign_resume_restores_exactly_what_its_pause_stopped(session: Session, actor: Actor) -> None:
    campaign = make_campaign(session, status=CampaignStatus.ACTIVE)
    made = {
        status: make_activity(session, campaign, channel=Channel.SOCIAL, everybody=False, status=status)
        for status in ActivityStatus
    }
    made[ActivityStatus.SCHEDULED].due_at = clock.now()
    campaigns.pause_campaign(session, actor, campaign)
    stopped = {ActivityStatus.LIVE, ActivityStatus.SCHEDULED}
    for before, activity in made.items():
        assert activity.status is (ActivityStatus.PAUSED if before in stopped else before)
        assert activity.paused_with_campaign == (before in stopped)
    with pytest.raises(Conflict, match="whole campaign"):
        launch.resume(session, actor, made[ActivityStatus.LIVE])
    campaigns.resume_campaign(session, actor, campaign)
    assert {before: activity.status for before, activity in made.items()} == {one: one for one in ActivityStatus}
    assert not any(activity.paused_with_campaign for activity in made.values())


@pytest.mark.parametrize(
    ("verb", "running", "waiting"), [("finish", "finished", "cancelled"), ("cancel", "cancelled", "cancelled")]
)
def test_campaign_end_ends_activities(session: Session, actor: Actor, verb: str, running: str, waiting: str) -> None:
    campaign = make_campaign(session, status=CampaignStatus.ACTIVE)
    made = {
        status: make_activity(session, campaign, channel=Channel.SOCIAL, everybody=False, status=status)
        for status in ActivityStatus
    }
    CAMPAIGN_SERVICES[verb](session, actor, campaign)
    for before, activity in made.items():
        over = before.value in ("finished", "cancelled")
        ran = before.value in ("live", "paused")
        assert activity.status.value == (before.value if over else running if ran else waiting)
        assert over or activity.finished_at is not None
    with pytest.raises(Conflict, match="no more activities"):
        activities.create_activity(session, actor, campaign, channel=Channel.ADS, title="Late")
