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
from campaigns.planning.recipients import contacts_of, size_of
from campaigns.planning.state_machine import AlreadyLaunched
from tests.conftest import FrozenClock
from tests.factories import (
    make_activity,
    make_campaign,
    make_contact,
    make_list,
    make_message,
    make_organisation,
    make_person,
)


@pytest.fixture
def actor(session: Session) -> Actor:
    make_organisation(session)
    return Actor.of(make_person(session))


@pytest.fixture
def mailing(session: Session) -> Activity:
    make_organisation(session)
    some = make_list(session, make_contact(session), make_contact(session))
    return make_activity(session, message_id=make_message(session).id, list_id=some.id, everybody=False)


def pass_preflight(session: Session, activity: Activity, *, passed: bool = True) -> None:
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


def test_a_mailing_is_frozen_and_lives(session: Session, actor: Actor, mailing: Activity, frozen: FrozenClock) -> None:
    pass_preflight(session, mailing)
    launch.launch(session, actor, mailing)
    assert (mailing.status, mailing.launched_at, mailing.due_at) == (ActivityStatus.LIVE, frozen.at, frozen.at)
    version = session.get_one(MessageVersion, mailing.email.version_id)
    assert version.message_id == mailing.email.message_id
    assert mailing.campaign.status is CampaignStatus.ACTIVE


def test_the_second_click_is_a_conflict(session: Session, actor: Actor, mailing: Activity) -> None:
    pass_preflight(session, mailing)
    launch.launch(session, actor, mailing)
    with pytest.raises(AlreadyLaunched, match="already launched"):
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


def take_everybody(session: Session, activity: Activity) -> None:
    activity.email.everybody, activity.email.list_id = True, None


@pytest.mark.parametrize("change", [change_message, change_subject, add_member, remove_member, take_everybody])
def test_a_preflight_of_something_else_does_not_count(
    session: Session, actor: Actor, mailing: Activity, change: Callable[[Session, Activity], None]
) -> None:
    pass_preflight(session, mailing)
    change(session, mailing)
    session.flush()
    with pytest.raises(Conflict, match="run it again"):
        launch.launch(session, actor, mailing)
    assert mailing.status is ActivityStatus.APPROVED
    assert mailing.campaign.status is CampaignStatus.PLANNED


def test_no_preflight_or_a_failed_one(session: Session, actor: Actor, mailing: Activity) -> None:
    with pytest.raises(Conflict, match="Run the preflight first"):
        launch.launch(session, actor, mailing)
    pass_preflight(session, mailing)
    pass_preflight(session, mailing, passed=False)
    with pytest.raises(Conflict, match="found errors"):
        launch.launch(session, actor, mailing)


def test_message_and_audience_are_asked_for(session: Session, actor: Actor) -> None:
    activity = make_activity(session, everybody=False)
    with pytest.raises(ValidationFailed) as caught:
        launch.launch(session, actor, activity)
    assert {problem.field for problem in caught.value.problems} == {"message_id", "list_id"}


def test_what_was_launched_is_settled(session: Session, actor: Actor, mailing: Activity) -> None:
    pass_preflight(session, mailing)
    launch.launch(session, actor, mailing, at=clock.now() + timedelta(hours=1))
    with pytest.raises(ValidationFailed) as caught:
        activities.update_activity(session, actor, mailing, list_id=None, everybody=True, message_id=None)
    assert {problem.field for problem in caught.value.problems} == {"list_id", "everybody", "message_id"}
    activities.update_activity(session, actor, mailing, notes="Costs are in.")
    activities.reopen(session, actor, mailing)
    assert (mailing.status, mailing.due_at, mailing.email.version_id) == (ActivityStatus.DRAFT, None, None)
    activities.update_activity(session, actor, mailing, list_id=None, everybody=True)


def test_a_change_after_the_approval_takes_it_back(session: Session, actor: Actor, mailing: Activity) -> None:
    activities.update_activity(session, actor, mailing, title="Other words")
    assert mailing.status == ActivityStatus.APPROVED
    activities.update_activity(session, actor, mailing, message_id=make_message(session).id)
    assert mailing.status.value == "draft"


def test_nothing_is_launched_in_a_paused_campaign(session: Session, actor: Actor) -> None:
    for status in (CampaignStatus.PAUSED, CampaignStatus.FINISHED, CampaignStatus.CANCELLED):
        activity = make_activity(session, make_campaign(session, status=status), channel=Channel.ADS, everybody=False)
        with pytest.raises(Conflict, match="paused or over"):
            launch.launch(session, actor, activity)


def test_a_scheduled_launch_begins_when_due(session: Session, actor: Actor, frozen: FrozenClock) -> None:
    activity = make_activity(session, channel=Channel.SOCIAL, everybody=False)
    due = frozen.at + timedelta(hours=1)
    launch.launch(session, actor, activity, at=due)
    assert (activity.status, activity.due_at, activity.launched_at) == (ActivityStatus.SCHEDULED, due, None)
    assert launch.begin_due(session) == []
    frozen.at = due
    assert launch.due_launches(session) == [activity.id]
    assert launch.begin_due(session) == [activity.id]
    assert (activity.status, activity.launched_at) == (ActivityStatus.LIVE, due)
    assert launch.begin_due(session) == []


def test_a_paused_schedule_waits_again(session: Session, actor: Actor, frozen: FrozenClock) -> None:
    activity = make_activity(session, channel=Channel.SOCIAL, everybody=False)
    launch.launch(session, actor, activity, at=frozen.at + timedelta(hours=1))
    launch.pause(session, actor, activity)
    frozen.at += timedelta(hours=2)
    assert launch.begin_due(session) == []
    launch.resume(session, actor, activity)
    assert activity.status is ActivityStatus.SCHEDULED
    assert launch.begin_due(session) == [activity.id]


def test_a_time_that_has_passed_means_now(session: Session, actor: Actor, frozen: FrozenClock) -> None:
    activity = make_activity(session, channel=Channel.SOCIAL, everybody=False)
    with pytest.raises(ValueError, match="naive"):
        launch.launch(session, actor, activity, at=frozen.at.replace(tzinfo=None))
    launch.launch(session, actor, activity, at=frozen.at - timedelta(days=1))
    assert activity.status is ActivityStatus.LIVE


def test_the_audience(session: Session, mailing: Activity) -> None:
    outside = make_contact(session)
    assert len(session.scalars(contacts_of(mailing)).all()) == size_of(session, mailing) == 2
    mailing.email.everybody, mailing.email.list_id = True, None
    assert outside in session.scalars(contacts_of(mailing)).all()
    assert size_of(session, mailing) == 3
    mailing.email.everybody = False
    assert session.scalars(contacts_of(mailing)).all() == []
    assert size_of(session, mailing) == 0


def race(count: int, act: Callable[[int], None]) -> None:
    barrier = Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        act(number)

    threads = [Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_clicks_at_once_launch_once(database: Engine) -> None:
    with db.transaction() as session:
        make_organisation(session)
        actor = Actor.of(make_person(session))
        some = make_list(session, make_contact(session))
        mailing = make_activity(session, message_id=make_message(session).id, list_id=some.id, everybody=False)
        pass_preflight(session, mailing)
    outcomes: list[str] = []

    def click(_number: int) -> None:
        try:
            with db.transaction() as mine:
                launch.launch(mine, actor, mine.get_one(Activity, mailing.id))
            outcomes.append("launched")
        except AlreadyLaunched:
            outcomes.append("already")

    race(3, click)
    assert sorted(outcomes) == ["already", "already", "launched"]
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(MessageVersion)) == 1
        launches = select(func.count()).where(
            AuditLogEntry.action == "launch", AuditLogEntry.subject_kind == "activity"
        )
        assert session.scalar(launches) == 1


def test_a_launch_and_a_pause_at_once_leave_nothing_running(database: Engine) -> None:
    """In either order, no activity stays live in a paused campaign."""
    with db.transaction() as session:
        actor = Actor.of(make_person(session))
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

    race(2, act)
    with db.reading() as session:
        assert session.get_one(Campaign, campaign.id).status is CampaignStatus.PAUSED
        assert session.get_one(Activity, activity.id).status in (ActivityStatus.PAUSED, ActivityStatus.APPROVED)


def test_two_ticks_begin_once(database: Engine) -> None:
    with db.transaction() as session:
        make_activity(session, status=ActivityStatus.SCHEDULED, due_at=clock.now(), everybody=False)
    begun: list[int] = []

    def tick(_number: int) -> None:
        with db.transaction() as mine:
            begun.extend(launch.begin_due(mine))

    race(2, tick)
    assert len(begun) == 1


def test_the_house_s_own_activities(session: Session) -> None:
    test, system = system_activities.activity(session, "test"), system_activities.activity(session, "system")
    assert system_activities.activity(session, "test") is test
    assert test.campaign is system.campaign
    assert (test.status, test.built_in, test.campaign.built_in) == (ActivityStatus.LIVE, "test", True)


def test_the_house_s_own_are_made_once(database: Engine) -> None:
    ids: list[int] = []

    def ask(_number: int) -> None:
        with db.transaction() as mine:
            ids.append(system_activities.activity(mine, "test").id)

    race(3, ask)
    assert len(ids) == 3
    assert len(set(ids)) == 1
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(Campaign)) == 1
