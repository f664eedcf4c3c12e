"""Tests of launching activities: preconditions, frozen fields, schedules and concurrent requests."""

from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.actor import Actor
from campaigns.accounts.models import AuditLogEntry
from campaigns.audience.models import ListMember
from campaigns.content.models import Message, MessageVersion
from campaigns.errors import Conflict, ValidationFailed
from campaigns.planning import activities, campaigns, launch, system_activities
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus, Channel, Preflight
from campaigns.planning.recipients import audience_size, select_audience
from campaigns.planning.state_machine import LaunchConflict
from tests.conftest import FrozenClock
from tests.factories import (
    make_activity,
    make_campaign,
    make_contact,
    make_list,
    make_message,
    make_organisation,
    make_user,
)


@pytest.fixture
def actor(session: Session) -> Actor:
    make_organisation(session)
    return Actor.of_user(make_user(session))


@pytest.fixture
def mailing(session: Session) -> Activity:
    make_organisation(session)
    some = make_list(session, make_contact(session), make_contact(session))
    return make_activity(session, message_id=make_message(session).id, list_id=some.id, everybody=False)


def make_preflight(session: Session, activity: Activity, *, passed: bool = True) -> None:
    session.add(
        Preflight(
            activity_id=activity.id,
            subject_hash=launch.subject_hash(session, activity),
            passed=passed,
            findings=[],
            audience={"total": 2, "mailable": 2},
            created_at=clock.now(),
        )
    )
    session.flush()


def test_launch_freezes_message_and_goes_live(
    session: Session, actor: Actor, mailing: Activity, frozen: FrozenClock
) -> None:
    make_preflight(session, mailing)
    launch.launch(session, actor, mailing)
    assert (mailing.status, mailing.launched_at, mailing.due_at) == (ActivityStatus.LIVE, frozen.at, frozen.at)
    version = session.get_one(MessageVersion, mailing.email.version_id)
    assert version.message_id == mailing.email.message_id
    assert mailing.campaign.status is CampaignStatus.ACTIVE


def test_second_launch_is_a_conflict(session: Session, actor: Actor, mailing: Activity) -> None:
    make_preflight(session, mailing)
    launch.launch(session, actor, mailing)
    with pytest.raises(LaunchConflict, match="already launched"):
        launch.launch(session, actor, mailing)


def change_message(session: Session, activity: Activity) -> None:
    session.get_one(Message, activity.email.message_id).mjml += " "


def change_subject(session: Session, activity: Activity) -> None:
    session.get_one(Message, activity.email.message_id).subject = "Else"


def add_member(session: Session, activity: Activity) -> None:
    contact = make_contact(session)
    session.add(ListMember(list_id=activity.email.list_id, contact_id=contact.id, added_at=clock.now()))


def remove_member(session: Session, activity: Activity) -> None:
    session.delete(session.scalars(select(ListMember).where(ListMember.list_id == activity.email.list_id)).first())


def switch_to_everybody(session: Session, activity: Activity) -> None:
    activity.email.everybody, activity.email.list_id = True, None


@pytest.mark.parametrize("change", [change_message, change_subject, add_member, remove_member, switch_to_everybody])
def test_outdated_preflight_blocks_launch(
    session: Session, actor: Actor, mailing: Activity, change: Callable[[Session, Activity], None]
) -> None:
    make_preflight(session, mailing)
    change(session, mailing)
    session.flush()
    with pytest.raises(Conflict, match="run it again"):
        launch.launch(session, actor, mailing)
    assert mailing.status is ActivityStatus.APPROVED
    assert mailing.campaign.status is CampaignStatus.PLANNED


def test_missing_or_failed_preflight_blocks_launch(session: Session, actor: Actor, mailing: Activity) -> None:
    with pytest.raises(Conflict, match="Run the preflight first"):
        launch.launch(session, actor, mailing)
    make_preflight(session, mailing)
    make_preflight(session, mailing, passed=False)
    with pytest.raises(Conflict, match="found errors"):
        launch.launch(session, actor, mailing)


def test_launch_requires_message_and_audience(session: Session, actor: Actor) -> None:
    activity = make_activity(session, everybody=False)
    with pytest.raises(ValidationFailed) as caught:
        launch.launch(session, actor, activity)
    assert {problem.field for problem in caught.value.problems} == {"message_id", "list_id"}


def test_launched_fields_cannot_change(session: Session, actor: Actor, mailing: Activity) -> None:
    make_preflight(session, mailing)
    launch.launch(session, actor, mailing, at=clock.now() + timedelta(hours=1))
    with pytest.raises(ValidationFailed) as caught:
        activities.update_activity(session, actor, mailing, list_id=None, everybody=True, message_id=None)
    assert {problem.field for problem in caught.value.problems} == {"list_id", "everybody", "message_id"}
    activities.update_activity(session, actor, mailing, notes="Costs are in.")
    activities.reopen(session, actor, mailing)
    assert (mailing.status, mailing.due_at, mailing.email.version_id) == (ActivityStatus.DRAFT, None, None)
    activities.update_activity(session, actor, mailing, list_id=None, everybody=True)


def test_change_after_approval_reverts_to_draft(session: Session, actor: Actor, mailing: Activity) -> None:
    activities.update_activity(session, actor, mailing, title="Other words")
    assert mailing.status == ActivityStatus.APPROVED
    activities.update_activity(session, actor, mailing, message_id=make_message(session).id)
    assert mailing.status.value == "draft"


def test_no_launch_in_paused_or_closed_campaign(session: Session, actor: Actor) -> None:
    for status in (CampaignStatus.PAUSED, CampaignStatus.FINISHED, CampaignStatus.CANCELLED):
        activity = make_activity(session, make_campaign(session, status=status), channel=Channel.ADS, everybody=False)
        with pytest.raises(Conflict, match="paused or over"):
            launch.launch(session, actor, activity)


def test_scheduled_launch_starts_when_due(session: Session, actor: Actor, frozen: FrozenClock) -> None:
    activity = make_activity(session, channel=Channel.SOCIAL, everybody=False)
    due = frozen.at + timedelta(hours=1)
    launch.launch(session, actor, activity, at=due)
    assert (activity.status, activity.due_at, activity.launched_at) == (ActivityStatus.SCHEDULED, due, None)
    assert launch.begin_due_launches(session) == []
    frozen.at = due
    assert launch.due_launches(session) == [activity.id]
    assert launch.begin_due_launches(session) == [activity.id]
    assert (activity.status, activity.launched_at) == (ActivityStatus.LIVE, due)
    assert launch.begin_due_launches(session) == []


def test_resumed_schedule_starts_when_due(session: Session, actor: Actor, frozen: FrozenClock) -> None:
    activity = make_activity(session, channel=Channel.SOCIAL, everybody=False)
    launch.launch(session, actor, activity, at=frozen.at + timedelta(hours=1))
    launch.pause(session, actor, activity)
    frozen.at += timedelta(hours=2)
    assert launch.begin_due_launches(session) == []
    launch.resume(session, actor, activity)
    assert activity.status is ActivityStatus.SCHEDULED
    assert launch.begin_due_launches(session) == [activity.id]


def test_past_launch_time_means_now(session: Session, actor: Actor, frozen: FrozenClock) -> None:
    activity = make_activity(session, channel=Channel.SOCIAL, everybody=False)
    with pytest.raises(ValueError, match="naive"):
        launch.launch(session, actor, activity, at=frozen.at.replace(tzinfo=None))
    launch.launch(session, actor, activity, at=frozen.at - timedelta(days=1))
    assert activity.status is ActivityStatus.LIVE


def test_audience_query_and_size(session: Session, mailing: Activity) -> None:
    outside = make_contact(session)
    assert len(session.scalars(select_audience(mailing)).all()) == audience_size(session, mailing) == 2
    mailing.email.everybody, mailing.email.list_id = True, None
    assert outside in session.scalars(select_audience(mailing)).all()
    assert audience_size(session, mailing) == 3
    mailing.email.everybody = False
    assert session.scalars(select_audience(mailing)).all() == []
    assert audience_size(session, mailing) == 0


def run_concurrently(count: int, action: Callable[[int], None]) -> None:
    barrier = Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        action(number)

    threads = [Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_concurrent_launches_launch_once(database: Engine) -> None:
    with db.transaction() as session:
        make_organisation(session)
        actor = Actor.of_user(make_user(session))
        some = make_list(session, make_contact(session))
        mailing = make_activity(session, message_id=make_message(session).id, list_id=some.id, everybody=False)
        make_preflight(session, mailing)
    outcomes: list[str] = []

    def click(_number: int) -> None:
        try:
            with db.transaction() as mine:
                launch.launch(mine, actor, mine.get_one(Activity, mailing.id))
            outcomes.append("launched")
        except LaunchConflict:
            outcomes.append("already")

    run_concurrently(3, click)
    assert sorted(outcomes) == ["already", "already", "launched"]
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(MessageVersion)) == 1
        launches = select(func.count()).where(
            AuditLogEntry.action == "launch", AuditLogEntry.subject_kind == "activity"
        )
        assert session.scalar(launches) == 1


def test_concurrent_launch_and_campaign_pause(database: Engine) -> None:
    """In either order, no activity of a paused campaign is live."""
    with db.transaction() as session:
        actor = Actor.of_user(make_user(session))
        campaign = make_campaign(session, status=CampaignStatus.ACTIVE)
        activity = make_activity(session, campaign, channel=Channel.SOCIAL, everybody=False)

    def act(number: int) -> None:
        try:
            with db.transaction() as mine:
                if number:
                    campaigns.pause_campaign(mine, actor, mine.get_one(Campaign, campaign.id))
                else:
                    launch.launch(mine, actor, mine.get_one(Activity, activity.id))
        except Conflict:
            pass

    run_concurrently(2, act)
    with db.read_only_session() as session:
        assert session.get_one(Campaign, campaign.id).status is CampaignStatus.PAUSED
        assert session.get_one(Activity, activity.id).status in (ActivityStatus.PAUSED, ActivityStatus.APPROVED)


def test_concurrent_ticks_start_launch_once(database: Engine) -> None:
    with db.transaction() as session:
        make_activity(session, status=ActivityStatus.SCHEDULED, due_at=clock.now(), everybody=False)
    begun: list[int] = []

    def tick(_number: int) -> None:
        with db.transaction() as mine:
            begun.extend(launch.begin_due_launches(mine))

    run_concurrently(2, tick)
    assert len(begun) == 1


def test_built_in_activities(session: Session) -> None:
    test, system = system_activities.get_or_create(session, "test"), system_activities.get_or_create(session, "system")
    assert system_activities.get_or_create(session, "test") is test
    assert test.campaign is system.campaign
    assert (test.status, test.built_in, test.campaign.built_in) == (ActivityStatus.LIVE, "test", True)


def test_built_in_activities_are_created_once(database: Engine) -> None:
    ids: list[int] = []

    def ask(_number: int) -> None:
        with db.transaction() as mine:
            ids.append(system_activities.get_or_create(mine, "test").id)

    run_concurrently(3, ask)
    assert len(ids) == 3
    assert len(set(ids)) == 1
    with db.read_only_session() as session:
        assert session.scalar(select(func.count()).select_from(Campaign)) == 1
