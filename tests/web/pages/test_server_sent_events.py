"""Event streams: their events and their end, with a fake clock and fake versions."""

from collections.abc import Collection, Mapping

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.models import Role, User
from campaigns.web.pages import server_sent_events
from campaigns.web.pages.server_sent_events import (
    HEARTBEAT,
    LIFETIME,
    MAX_STREAMS,
    ChangePoller,
    EventStream,
    UserState,
)
from tests.factories import make_campaign

VERSION: dict[int, str] = {}
CHANGED, HERE = b"event: changed", b"event: heartbeat"


def versions(_session: Session, numbers: Collection[int]) -> Mapping[int, str]:
    return {number: VERSION[number] for number in numbers if number in VERSION}


class ManualPoller(ChangePoller):
    """A poller that polls only when called, and waits by advancing its clock."""

    def __init__(self) -> None:
        self.at = 1_000.0
        super().__init__(lambda: self.at)
        self._thread = object()  # type: ignore[assignment]  # No thread begins.

    def wait(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def poller(engine: Engine) -> ManualPoller:
    VERSION.clear()
    VERSION[7] = "one"
    return ManualPoller()


def make_stream(poller: ChangePoller, user_state: UserState, seen: str = "") -> EventStream:
    return EventStream(poller, (versions, 7), user_state, seen)


@pytest.fixture
def viewer(app: object) -> UserState:
    with db.read_only_session() as session:
        return server_sent_events._user_state(session.query(User).filter_by(role=Role.VIEWER).one())


def test_a_change_is_sent_once_with_heartbeats_between(poller: ManualPoller, viewer: UserState) -> None:
    events = make_stream(poller, viewer)
    assert next(events) == b"retry: 2000\nevent: heartbeat\ndata:\n\n"
    poller.poll()
    assert next(events).startswith(HERE)
    assert poller.at == 1_000.0 + HEARTBEAT
    VERSION[7] = "two"
    poller.poll()
    assert next(events) == b"id: two\nevent: changed\ndata:\n\n"
    assert next(events).startswith(HERE)


def test_a_reconnecting_client_gets_missed_changes(poller: ManualPoller, viewer: UserState) -> None:
    same, other = make_stream(poller, viewer, "one"), make_stream(poller, viewer, "before")
    next(same), next(other)
    poller.poll()
    assert next(other).startswith(b"id: one\n" + CHANGED)
    assert next(same).startswith(HERE)


def test_a_stream_ends_after_its_lifetime(poller: ManualPoller, viewer: UserState) -> None:
    event_stream = make_stream(poller, viewer)
    events = list(event_stream)
    assert len(events) == LIFETIME / HEARTBEAT
    assert not poller._streams


@pytest.mark.parametrize("what", ["stopped", "gone", "locked", "another role", "signed out everywhere"])
def test_a_stream_ends_when_its_user_loses_access(poller: ManualPoller, viewer: UserState, what: str) -> None:
    events = make_stream(poller, viewer)
    next(events)
    poller.poll()
    next(events)
    if what == "stopped":
        poller.stop()
    elif what == "gone":
        VERSION.clear()
    else:
        with db.transaction() as session:
            person = session.get_one(User, viewer[0])
            if what == "locked":
                person.locked_at = person.created_at
            elif what == "another role":
                person.role = Role.COORDINATOR
            else:
                person.session_epoch += 1
    poller.poll()
    assert list(events) == []


def test_the_number_of_streams_is_limited(poller: ManualPoller, viewer: UserState) -> None:
    within, beyond = [make_stream(poller, viewer) for _ in range(MAX_STREAMS)], make_stream(poller, viewer)
    for one in within:
        next(one)
    assert poller.is_full
    assert list(beyond) == []
    within[0].close()
    assert not poller.is_full


def test_streams_of_the_same_object_share_one_query(poller: ManualPoller, viewer: UserState) -> None:
    for one in [make_stream(poller, viewer) for _ in range(3)]:
        next(one)
    queries: list[Collection[int]] = []

    def counted(_session: Session, numbers: Collection[int]) -> Mapping[int, str]:
        queries.append(list(numbers))
        return {7: "one"}

    for one in poller._streams:
        one.subject = (counted, 7)
    poller.poll()
    assert queries == [[7]]


def test_a_server_without_streams_makes_pages_poll(viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        campaign = make_campaign(session).id
    assert viewer_client.get(f"/campaigns/{campaign}/changes").status_code == 204
    answer = viewer_client.get(
        f"/campaigns/{campaign}/changes", environ_overrides={server_sent_events.OWN_THREAD: True}
    )
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in answer.headers
    assert answer.is_streamed
    answer.close()
    assert viewer_client.get("/campaigns/999/changes").status_code == 404
