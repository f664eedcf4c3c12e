"""UTM lint: violations, their reasons, and the link to fix."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import Organisation
from campaigns.content.models import Link
from campaigns.planning import links, utm
from campaigns.planning.models import Activity, Campaign, Channel
from tests.conftest import FrozenClock
from tests.factories import make_activity, make_campaign
from tests.tracking.fixtures import make_version
from tests.tracking.page_script_site import HOST, Tab, collect_visits
from tracking.channels import utm_lint
from tracking.endpoints import link_targets
from tracking.models.visits import TrafficSource, Visit

REFERRER = "https://blog.example/"
CASES = [  # Query parameters, referrer, invalid fields, and whether no activity matches.
    ({"utm_source": "facebook", "utm_medium": "social", "utm_campaign": "tea"}, "", [], False),
    ({"utm_source": "Facebook", "utm_medium": "SOCIAL", "utm_campaign": "Tea"}, "", [], False),
    ({"utm_source": "face book", "utm_medium": "social", "utm_campaign": "tea"}, "", ["utm_source"], False),
    ({"utm_source": "facebook", "utm_medium": "smm", "utm_id": "1"}, "", ["utm_medium"], False),
    ({"utm_medium": "social", "utm_id": "1"}, REFERRER, ["utm_source"], False),
    ({"utm_source": "x", "utm_medium": "social"}, "", ["utm_campaign"], False),
    ({"utm_source": "x", "utm_medium": "social", "utm_campaign": "coffee"}, "", [], True),
    ({"utm_source": "x", "utm_medium": "social", "utm_id": "1", "utm_content": "a_b"}, "", ["utm_content"], False),
    ({"gclid": "1"}, "", [], False),
    ({"rdt_cid": "1"}, "", [], False),
    ({}, "https://www.google.com/", [], False),
    ({}, REFERRER, [], False),
    ({}, "", [], False),
]


@pytest.fixture
def campaign(coordinator_client: FlaskClient, frozen: FrozenClock) -> int:
    with db.transaction() as session:
        session.get_one(Organisation, 1).own_hosts = [HOST]
        campaign = make_campaign(session, name="Tea")
        make_activity(session, campaign, channel=Channel.SOCIAL, title="A post", everybody=False)
        made = campaign.id
    link_targets.sync()
    return made


def visit(query: dict[str, str], number: int, referrer: str = "") -> None:
    Tab(f"/?{urlencode(query)}", referrer=referrer, ip=f"198.{number // 200}.{number % 200}.1").report()


def find_violations(campaign: Campaign | None = None) -> list[utm_lint.UtmViolation]:
    with db.read_only_session() as session:
        query, keys = utm_lint.violations_query(SYSTEM, clock.now() - timedelta(days=28), campaign)
        return utm_lint.explain_violations(session, session.execute(query.order_by(*keys)).all())


def test_the_sql_condition_equals_the_rule(campaign: int) -> None:
    for number, (query, referrer, _, _) in enumerate(CASES):
        visit(query, number, referrer)
    assert len(collect_visits()) == len(CASES)
    violations = {
        frozenset(one.values.items()): (list(one.invalid_fields), one.is_unattributed) for one in find_violations()
    }
    expected = {}
    for query, _, faults, lost in CASES:
        if faults or lost:
            expected[frozenset((name, value.lower()) for name, value in query.items())] = faults, lost
            assert utm.rule_violations({name: value.lower() for name, value in query.items()}) == faults
    assert violations == expected
    with db.read_only_session() as session:
        narrowed = [one.values for one in find_violations(session.get_one(Campaign, campaign))]
        kept = session.scalars(select(TrafficSource).join(Visit, Visit.traffic_source_id == TrafficSource.id)).all()
    assert len(kept) == len(CASES)
    of_nobody = {"utm_source": "x", "utm_medium": "social"}
    assert [one.values for one in find_violations() if one.values not in narrowed] in (
        [of_nobody, {**of_nobody, "utm_campaign": "coffee"}],
        [{**of_nobody, "utm_campaign": "coffee"}, of_nobody],
    )


def test_the_link_to_fix_is_named(campaign: int) -> None:
    with db.transaction() as session:
        post = session.scalars(select(Activity)).one()
        ours = links.create_link(session, SYSTEM, post, label="Bio", url=f"https://{HOST}/?utm_medium=insta")
        astray = links.create_link(
            session, SYSTEM, post, label="Poster", url=f"https://{HOST}/?utm_id=99&utm_campaign=x"
        )
        bio, poster = utm.append_query(ours.url, ours.utm), utm.append_query(astray.url, astray.utm)
        version = make_version(session)
        address = f"https://{HOST}/?utm_source=letter&utm_medium=post_office&utm_id={campaign}"
        session.add(Link(version_id=version.id, number=7, url=address, label="Read more"))
        make_activity(session, post.campaign, version_id=version.id, title="A letter", channel=Channel.EMAIL)
    stray = {"utm_source": "blog", "utm_medium": "guest-post", "utm_campaign": "elsewhere"}
    for number, url in enumerate((bio, bio, bio, poster, poster, address)):
        Tab(url.removeprefix(f"https://{HOST}"), ip=f"198.1.{number}.1").report()
    visit(stray, 900, REFERRER)
    visit({"utm_source": "bio-page", "utm_medium": "insta", "utm_id": str(campaign)}, 901)
    collect_visits()
    violations = [(one.visits, one.fix.kind.value, one.fix.name, one.is_unattributed) for one in find_violations()]
    assert violations[:2] == [(3, "short", "Bio", False), (2, "short", "Poster", True)]
    assert sorted(violations[2:]) == [
        (1, "foreign", "bio-page", True),
        (1, "foreign", "blog.example", True),
        (1, "mail", "Read more", True),
    ]
    assert find_violations()[0].rule["utm_medium"] == "social"


def test_the_link_check_page(
    coordinator_client: FlaskClient,
    campaign: int,
    viewer_client: FlaskClient,
    database: Engine,
    count_queries: Callable[[Engine], AbstractContextManager[list[str]]],
) -> None:
    assert "No link to mend" in viewer_client.get(f"/links/check?campaign={campaign}").text
    for number in range(30):
        visit({"utm_source": f"s {number}", "utm_medium": "social", "utm_id": str(campaign)}, number)
    collect_visits()
    with count_queries(database) as queries:
        first = coordinator_client.get(f"/links/check?campaign={campaign}&days=7").text
    assert len(queries) <= 12
    assert first.count("made here") == 25
    assert 'rel="next"' in first
    for strange in ("campaign=x", "campaign=-1", f"campaign={2**70}", "days=3", "after=x", "campaign=%00"):
        assert coordinator_client.get(f"/links/check?{strange}").status_code == 200, strange
    assert coordinator_client.get("/links/check?campaign=77").status_code == 404
