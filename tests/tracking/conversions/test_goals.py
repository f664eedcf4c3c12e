"""Tests of goals, goal matching, reported events and exchange rates."""

from datetime import UTC, date, timedelta
from decimal import Decimal

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts import api_keys
from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.accounts.models import AuditLogEntry
from campaigns.audience.models import Contact
from campaigns.errors import Forbidden, NotFound, ValidationFailed
from campaigns.leads import leads
from campaigns.leads.models import LeadStage
from campaigns.planning.models import Activity
from campaigns.web.security.api_auth import MAX_BODY_BYTES
from tests.conftest import FrozenClock
from tests.factories import make_activity, make_campaign, make_contact, make_organisation
from tests.tracking.conversions.test_attribution import add_submission
from tests.tracking.fixtures import make_mailing
from tracking.collector import collector
from tracking.conversions import currency as conversions_currency
from tracking.conversions import event_intake, goal_matching, goals
from tracking.conversions.event_intake import EventReport, report_event
from tracking.jobs import lead_conversions
from tracking.models.conversions import AttributionCredit, Conversion, CustomEvent, Goal, GoalKind


def make_goal(session: Session, kind: GoalKind = GoalKind.EVENT, match: str = "purchase", **rest: object) -> Goal:
    make_organisation(session)
    given = {"key": match.strip("/*") or "goal", "name": "Purchase", "once": False, **rest}
    return goals.create_goal(session, SYSTEM, kind=kind, match=match, **given)  # type: ignore[arg-type]


def report(session: Session, **fields: object) -> CustomEvent:
    given: dict[str, object] = {"external_id": "order-1", "name": "purchase", **fields}
    return report_event(session, SYSTEM, EventReport(**given))[0]  # type: ignore[arg-type]


def match_goals() -> int:
    with db.transaction() as session:
        return goal_matching.match_due(session)


def stored_conversions() -> list[Conversion]:
    with db.read_only_session() as session:
        return list(session.scalars(select(Conversion).order_by(Conversion.id)))


def test_a_purchase_is_credited_to_the_mail_that_brought_it(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing()
    mailing.click()
    collector.collect_once()
    with db.transaction() as session:
        make_goal(session)
        email = session.get_one(Contact, mailing.contacts[0]).email
        frozen.at += timedelta(minutes=30)
        report(session, email=email.upper(), value="19.90")
    assert (match_goals(), match_goals()) == (1, 0)
    [conversion] = stored_conversions()
    assert (conversion.goal, conversion.activity_id) == ("purchase", mailing.activity_id)
    assert (conversion.value, conversion.contact_id) == (Decimal("19.90"), mailing.contacts[0])
    with db.read_only_session() as session:
        campaign = session.get_one(Activity, mailing.activity_id).campaign_id
        shares = session.scalars(select(AttributionCredit.share)).all()
    assert conversion.campaign_id == campaign
    assert shares == [1.0, 1.0]


def test_conversion_without_touchpoint_has_no_credit(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_goal(session)
        report(session, email="new@example.com", value=5)
        report(session, external_id="order-2")
    match_goals()
    first, second = stored_conversions()
    assert [first.campaign_id, first.activity_id, first.value] == [None, None, 5]
    assert [second.contact_id, second.value] == [None, None]
    with db.read_only_session() as session:
        assert session.scalars(select(AttributionCredit)).all() == []


def test_click_after_conversion_earns_no_credit(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing()
    bought = frozen.at
    with db.transaction() as session:
        make_goal(session)
        email = session.get_one(Contact, mailing.contacts[0]).email
    frozen.at += timedelta(days=1)
    mailing.click()
    collector.collect_once()
    with db.transaction() as session:
        report(session, email=email, at=bought.isoformat())
    match_goals()
    assert [one.activity_id for one in stored_conversions()] == [None]


def test_goals_count_from_their_creation_on(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        report(session, at=(frozen.at - timedelta(days=2)).isoformat())
        make_goal(session)
    match_goals()
    assert stored_conversions() == []


def test_backdated_goal_counts_earlier_events(database: Engine, frozen: FrozenClock) -> None:
    long_ago, lately = frozen.at - timedelta(days=40), frozen.at - timedelta(days=2)
    with db.transaction() as session:
        make_goal(session, key="other")
        for number, at in enumerate((long_ago, lately, frozen.at)):
            report(session, external_id=f"order-{number}", at=at.isoformat())
    match_goals()
    assert [one.goal for one in stored_conversions()] == ["other"]
    with db.transaction() as session:
        make_goal(session, since=frozen.at - timedelta(days=30))
    match_goals()
    with db.transaction() as session:
        report(session, external_id="from a file", at=(lately - timedelta(days=1)).isoformat())
    match_goals()
    assert sorted((one.goal, one.at) for one in stored_conversions()) == [
        ("other", frozen.at),
        ("purchase", lately - timedelta(days=1)),
        ("purchase", lately),
        ("purchase", frozen.at),
    ]


@pytest.mark.parametrize(("kind", "days"), [(GoalKind.EVENT, 1), (GoalKind.PAGE, -1)])
def test_only_event_goals_may_start_in_the_past(
    session: Session, frozen: FrozenClock, kind: GoalKind, days: int
) -> None:
    with pytest.raises(ValidationFailed) as refused:
        make_goal(session, kind, "/thanks" if kind is GoalKind.PAGE else "purchase", since=frozen.at + timedelta(days))
    assert [one.field for one in refused.value.problems] == ["since"]


def test_once_goal_counts_once_per_contact(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_goal(session, once=True)
        for number in range(3):
            report(session, external_id=str(number), email="a@example.com")
        report(session, external_id="b", email="b@example.com")
    assert match_goals() == 4
    assert len(stored_conversions()) == 2


def test_campaign_goal_counts_only_its_campaign(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        ours, theirs = make_activity(session), make_activity(session, campaign=make_campaign(session))
        make_goal(session, campaign_id=ours.campaign_id)
        for activity in (ours, theirs):
            report(session, external_id=str(activity.id), activity_id=activity.id)
        report(session, external_id="none")
        expected = [ours.id]
    match_goals()
    assert [one.activity_id for one in stored_conversions()] == expected


def test_goal_value_is_the_default_amount(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_goal(session, value=Decimal(40))
        report(session)
    match_goals()
    assert [one.value for one in stored_conversions()] == [40]


def test_a_stage_reaches_its_goal_once(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_goal(session, GoalKind.STAGE, "customer")
        activity = make_activity(session)
        lead, _ = leads.open_lead(
            session,
            contact_id=make_contact(session).id,
            campaign_id=activity.campaign_id,
            activity_id=activity.id,
            source="web",
            owner_id=None,
        )
        leads.change_stage(session, SYSTEM, lead, LeadStage.WORKING)
    assert match_goals() == 1
    for stage in (LeadStage.CUSTOMER, LeadStage.WORKING, LeadStage.CUSTOMER):
        with db.transaction() as session:
            leads.change_stage(session, SYSTEM, session.get_one(type(lead), lead.id), stage)
        match_goals()
    with db.transaction() as session:
        lead_conversions.record_due(session)  # The lead itself is another conversion.
    assert sorted(one.goal for one in stored_conversions()) == ["customer", "lead"]


def test_form_goal_counts_in_addition_to_lead(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        activity, contact = make_activity(session), make_contact(session)
        make_goal(session, GoalKind.FORM, str(activity.id), key="demo")
        ids = contact.id, activity.id
    frozen.at += timedelta(minutes=1)
    add_submission(*ids)
    frozen.at += timedelta(minutes=1)
    add_submission(*ids, new=False)
    assert match_goals() == 2
    assert [one.goal for one in stored_conversions()] == ["demo", "demo"]


def test_a_repeated_report_is_the_same_event(session: Session) -> None:
    first = report(session, value=1)
    second, is_new = report_event(session, SYSTEM, EventReport("order-1", "purchase", value=2))
    assert [second.id, is_new, second.amount] == [first.id, False, 1]


def test_withdrawn_event_deletes_its_conversions(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_goal(session)
        report(session, value=7, currency="EUR")
        report(session, external_id="order-2")
    match_goals()
    with db.transaction() as session:
        event_intake.withdraw_event(session, SYSTEM, "order-1")
    with db.read_only_session() as session:
        [entry] = session.scalars(select(AuditLogEntry).where(AuditLogEntry.action == "withdraw"))
        assert entry.detail["conversions"] == 1
    assert len(stored_conversions()) == 1
    with pytest.raises(NotFound), db.transaction() as session:
        event_intake.withdraw_event(session, SYSTEM, "order-1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("external_id", ""),
        ("external_id", "x" * 65),
        ("external_id", "a\nb"),
        ("name", ""),
        ("name", "<b>"),
        ("value", -1),
        ("value", "1e30"),
        ("value", "NaN"),
        ("value", "ten"),
        ("value", True),
        ("value", []),
        ("currency", "EURO"),
        ("currency", "XXZ"),
        ("at", "yesterday"),
        ("at", "2999-01-01"),
        ("at", "1812-01-01"),
        ("at", "0001-01-01T00:00:00+23:00"),
        ("activity_id", 999999),
        ("activity_id", "1; DROP"),
        ("email", "nobody"),
        ("detail", ["a"]),
        ("detail", {str(n): n for n in range(30)}),
    ],
)
def test_invalid_report_names_its_field(session: Session, field: str, value: object) -> None:
    with pytest.raises(ValidationFailed) as error:
        report(session, **{field: value})
    assert [problem.field for problem in error.value.problems] == [field]
    assert session.scalars(select(CustomEvent)).all() == []


def test_public_actor_may_not_report_events(session: Session) -> None:
    with pytest.raises(Forbidden):
        report_event(session, PUBLIC, EventReport("1", "purchase"))


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("key", {"key": "lead"}),
        ("key", {"key": "A B"}),
        ("name", {"name": " "}),
        ("match", {"match": ""}),
        ("match", {"kind": GoalKind.STAGE, "match": "king"}),
        ("match", {"kind": GoalKind.FORM, "match": "0"}),
        ("match", {"kind": GoalKind.PAGE, "match": "https://x/y"}),
        ("match", {"kind": GoalKind.PAGE, "match": "/*" * 9}),
        ("campaign_id", {"campaign_id": 12345}),
        ("value", {"value": Decimal(-1)}),
    ],
)
def test_invalid_goal_names_its_field(session: Session, field: str, given: dict[str, object]) -> None:
    with pytest.raises(ValidationFailed) as error:
        make_goal(session, **{"key": "g", **given})  # type: ignore[arg-type]
    assert [problem.field for problem in error.value.problems] == [field]


@pytest.mark.parametrize(
    ("match", "address", "fits"),
    [
        ("/thanks", "a.example/thanks", True),
        ("/thanks", "a.example/thanks/", True),
        ("/thanks", "a.example/no", False),
        ("/shop/*", "a.example/shop/1/2", True),
        ("/shop/*", "a.example/shopping", False),
        ("/", "a.example/", True),
        ("b.example/x", "a.example/x", False),
        ("b.example/x", "b.example/x", True),
        ("/a[1]", "a.example/a[1]", True),
        ("/a[1]", "a.example/a1", False),
        ("/a?", "a.example/ab", False),
    ],
)
def test_page_patterns(match: str, address: str, fits: bool) -> None:
    assert goals.goal_matches_page(Goal(match=match), address) is fits


def test_foreign_amount_is_converted_when_its_rate_is_entered(database: Engine, frozen: FrozenClock) -> None:
    with db.transaction() as session:
        make_goal(session)
        report(session, value=100, currency="usd")
        report(session, external_id="later", value=100, currency="USD", at=frozen.at.isoformat())
    match_goals()
    assert [one.value for one in stored_conversions()] == [None, None]
    with db.read_only_session() as session:
        [waiting] = conversions_currency.unconverted_amounts(session)
        assert [waiting.currency, waiting.conversions, waiting.amount] == ["USD", 2, 200]
    day = frozen.at.astimezone(UTC).date()
    with db.transaction() as session:
        assert (
            conversions_currency.set_rate(session, SYSTEM, currency="USD", valid_from=day + timedelta(days=2), rate="3")
            == 0
        )
        assert (
            conversions_currency.set_rate(
                session, SYSTEM, currency="USD", valid_from=day - timedelta(days=2), rate="0.87654321"
            )
            == 2
        )
    assert [one.value for one in stored_conversions()] == [Decimal("87.65")] * 2


@pytest.mark.parametrize(
    ("currency", "rate"),
    [("EUR", "1"), ("", "1"), ("QQQ", "1"), ("USD", "0"), ("USD", "-1"), ("USD", "x"), ("USD", "NaN")],
)
def test_invalid_exchange_rates_are_rejected(session: Session, currency: str, rate: str) -> None:
    make_organisation(session)
    with pytest.raises(ValidationFailed):
        conversions_currency.set_rate(session, SYSTEM, currency=currency, valid_from=date(2026, 1, 1), rate=rate)


def test_events_api(database: Engine, client: FlaskClient) -> None:
    with db.transaction() as session:
        make_goal(session)
        _, text = api_keys.create_key(session, SYSTEM, name="Shop", scopes=["events"])
        _, other = api_keys.create_key(session, SYSTEM, name="Board", scopes=["figures"])
    key = {"Authorization": f"Bearer {text}"}
    event = {"external_id": "o1", "name": "purchase", "email": "x@example.com", "value": 12.5, "currency": "EUR"}
    assert client.post("/api/v1/events", json=event, headers=key).status_code == 201
    assert client.post("/api/v1/events", json=event, headers=key).status_code == 200
    assert client.post("/api/v1/events", json=event).status_code == 401
    assert client.post("/api/v1/events", json=event, headers={"Authorization": f"Bearer {other}"}).status_code == 403
    wrong = client.post("/api/v1/events", json=event | {"value": -1, "external_id": "o2"}, headers=key)
    assert (wrong.status_code, wrong.get_json()["error"]["problems"][0]["field"]) == (400, "value")
    several = client.post(
        "/api/v1/events", json={"events": [event, {"external_id": "o3", "name": "x"}, 5]}, headers=key
    )
    assert several.get_json() | {"refused": 0} == {"new": 1, "known": 1, "refused": 0}
    assert [one["row"] for one in several.get_json()["refused"]] == [2]
    assert match_goals() == 2
    assert [one.value for one in stored_conversions()] == [Decimal("12.50")]
    assert client.delete("/api/v1/events/o1", headers=key).status_code == 200
    assert client.delete("/api/v1/events/o1", headers=key).status_code == 404
    assert stored_conversions() == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"external_id": "a\\u0000b"}', b"\xff", b"[" * 100_000, b'{"surprise": 1}']
)
def test_malformed_body_is_rejected(database: Engine, client: FlaskClient, body: bytes) -> None:
    with db.transaction() as session:
        _, text = api_keys.create_key(session, SYSTEM, name="Shop", scopes=["events"])
    answer = client.post("/api/v1/events", data=body, headers={"Authorization": f"Bearer {text}"})
    assert answer.status_code == 400
    assert answer.get_json()["error"]["message"]


def test_oversized_body_is_rejected(database: Engine, client: FlaskClient) -> None:
    with db.transaction() as session:
        _, text = api_keys.create_key(session, SYSTEM, name="Shop", scopes=["events"])
    body = b'{"external_id": "1", "name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    answer = client.post("/api/v1/events", data=body, headers={"Authorization": f"Bearer {text}"})
    assert (answer.status_code, answer.get_json()["error"]["status"]) == (413, 413)
