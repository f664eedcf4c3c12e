"""Event streams: their events and their end, with a fake clock and fake versions."""

from collections.abc import Collection, Mapping

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.models import Role, User
from campaigns.web.pages import server_sent_events
from campaigns.web.pages.server_sent_events import HEARTBEAT, LIFETIME, MOST, ChangePoller, EventStream, Standing
from tests.factories import make_campaign

VERSION: dict[int, str] = {}
CHANGED, HERE = b"event: changed", b"event: here"


def versions(_session: Session, numbers: Collection[int]) -> Mapping[int, str]:
    return {number: VERSION[number] for number in numbers if number in VERSION}


class Still(ChangePoller):
    """A poller that polls only when called, and waits by advancing its clock."""

    def __init__(self) -> None:
        self.at = 1_000.0
        super().__init__(lambda: self.at)
        self._thread = object()  # type: ignore[assignment]  # No thread begins.

    def wait(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def still(engine: Engine) -> Still:
    VERSION.clear()
    VERSION[7] = "one"
    return Still()


def stream(watch: ChangePoller, person: Standing, seen: str = "") -> EventStream:
    return EventStream(watch, (versions, 7), person, seen)


@pytest.fixture
def viewer(app: object) -> Standing:
    with db.reading() as session:
        return server_sent_events._standing(session.query(User).filter_by(role=Role.VIEWER).one())


def test_a_change_is_told_once_and_silence_is_broken(still: Still, viewer: Standing) -> None:
    told = stream(still, viewer)
    assert next(told) == b"retry: 2000\nevent: here\ndata:\n\n"
    still.look()
    assert next(told).startswith(HERE)
    assert still.at == 1_000.0 + HEARTBEAT
    VERSION[7] = "two"
    still.look()
    assert next(told) == b"id: two\nevent: changed\ndata:\n\n"
    assert next(told).startswith(HERE)


def test_who_comes_back_is_told_of_what_was_missed(still: Still, viewer: Standing) -> None:
    same, other = stream(still, viewer, "one"), stream(still, viewer, "before")
    next(same), next(other)
    still.look()
    assert next(other).startswith(b"id: one\n" + CHANGED)
    assert next(same).startswith(HERE)


def test_a_stream_ends_by_itself_and_leaves_its_place(still: Still, viewer: Standing) -> None:
    told = stream(still, viewer)
    said = list(told)
    assert len(said) == LIFETIME / HEARTBEAT
    assert not still._streams


@pytest.mark.parametrize("what", ["stopped", "gone", "locked", "another role", "signed out everywhere"])
def test_a_stream_ends_when_its_reader_may_not_look(still: Still, viewer: Standing, what: str) -> None:
    told = stream(still, viewer)
    next(told)
    still.look()
    next(told)
    if what == "stopped":
        still.end()
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
    still.look()
    assert list(told) == []


def test_no_more_streams_than_there_is_room_for(still: Still, viewer: Standing) -> None:
    within, beyond = [stream(still, viewer) for _ in range(MOST)], stream(still, viewer)
    for one in within:
        next(one)
    assert still.full
    assert list(beyond) == []
    within[0].close()
    assert not still.full


def test_many_who_look_at_one_thing_are_one_question(still: Still, viewer: Standing) -> None:
    for one in [stream(still, viewer) for _ in range(3)]:
        next(one)
    asked: list[Collection[int]] = []

    def counted(_session: Session, numbers: Collection[int]) -> Mapping[int, str]:
        asked.append(list(numbers))
        return {7: "one"}

    for one in still._streams:
        one.subject = (counted, 7)
    still.look()
    assert asked == [[7]]


def test_a_server_without_threads_for_it_says_to_ask_by_the_clock(viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        campaign = make_campaign(session).id
    assert viewer_client.get(f"/campaigns/{campaign}/changes").status_code == 204
    answer = viewer_client.get(f"/campaigns/{campaign}/changes", environ_overrides={server_sent_events.ASIDE: True})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in answer.headers
    assert answer.is_streamed
    answer.close()
    assert viewer_client.get("/campaigns/999/changes").status_code == 404
