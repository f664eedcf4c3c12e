"""Server-sent events that notify open pages of changes.

An event only says that an object has a new version; pages fetch the content from their own URLs. One thread per
process polls the versions of all observed objects once a second, whatever the number of streams. Streams run in their
own threads (:mod:`campaigns.web.wsgi_server`) and don't block request threads. Where the server has no streams, or
too many, the response is 204, which makes a browser stop reconnecting: the page then polls with a timer.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from flask import Response, request
from flask_login import current_user
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.models import User

OWN_THREAD = "kampania.own_thread"
"""Set in a request's WSGI environment when the server runs a streamed response in a thread of its own."""
MAX_STREAMS = 50
"""Streams per process. Further clients poll with a timer."""
LIFETIME = 300.0
"""Seconds after which a stream ends and the browser opens the next one, which checks permissions again."""
HEARTBEAT = 15.0
"""Maximum seconds without an event: so the page detects a proxy that buffers its stream, and the server a closed
connection.
"""
POLL_INTERVAL = 1.0
_FIRST_EVENT = b"retry: 2000\nevent: heartbeat\ndata:\n\n"
_HEARTBEAT_EVENT = b"event: heartbeat\ndata:\n\n"

Versions = Callable[[Session, Collection[int]], Mapping[int, str]]
"""Returns the current versions of objects by id; deleted objects are missing."""
Subject = tuple[Versions, int]
UserState = tuple[int, int, str]
"""A user's id, session epoch and role: a stream ends when one of them changes."""


def stream_response(versions: Versions, number: int) -> Response:
    """A response that sends the signed-in user an event for every new version, or 204.

    The caller has checked the permission for the page.
    """
    if OWN_THREAD not in request.environ or change_poller.is_full:
        return Response(status=204)
    event_stream = EventStream(
        change_poller, (versions, number), _user_state(current_user.person), request.headers.get("Last-Event-ID", "")
    )
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would wait for a full buffer
    return Response(event_stream, content_type="text/event-stream; charset=utf-8", headers=headers)


class ChangePoller:
    """The streams of one process, and the polled versions of the objects that they observe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.versions: Mapping[Subject, str | None] = {}
        """Results of the last poll; None for deleted objects."""
        self.user_states: Mapping[int, UserState | None] = {}
        self.stopped = threading.Event()
        self._changed = threading.Condition()
        self._streams: set[EventStream] = set()
        self._thread: threading.Thread | None = None

    @property
    def is_full(self) -> bool:
        return len(self._streams) >= MAX_STREAMS or self.stopped.is_set()

    def add_stream(self, stream: "EventStream") -> bool:
        """Add a stream; False when there are too many."""
        with self._changed:
            if self.is_full:
                return False
            self._streams.add(stream)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="changes", daemon=True)
                self._thread.start()
        return True

    def remove_stream(self, stream: "EventStream") -> None:
        with self._changed:
            self._streams.discard(stream)

    def wait(self, seconds: float) -> None:
        """Block until something may have changed, or for this many seconds."""
        with self._changed:
            self._changed.wait(seconds)

    def poll(self) -> None:
        """Query the versions of all observed objects, and wake the streams."""
        with self._changed:
            subjects, user_ids = {one.subject for one in self._streams}, {one.user_state[0] for one in self._streams}
        try:
            with db.read_only_session() as session:
                versions, user_states = _load_versions(session, subjects), _load_user_states(session, user_ids)
        # Database unavailable: pages report that themselves, and the next iteration tries again.
        except SQLAlchemyError:
            return
        with self._changed:
            self.versions, self.user_states = versions, user_states
            self._changed.notify_all()

    def stop(self) -> None:
        """Let all streams end, because the process is about to stop."""
        self.stopped.set()

    def _run(self) -> None:
        while not self.stopped.is_set():
            self.poll()
            self.stopped.wait(POLL_INTERVAL)
            with self._changed:
                if not self._streams:
                    self._thread = None
                    return
        with self._changed:
            self._changed.notify_all()


change_poller = ChangePoller()


@dataclass(eq=False)
class EventStream:
    """The event stream of one browser; the WSGI server iterates over it."""

    poller: ChangePoller
    subject: Subject
    user_state: UserState
    version: str
    """The last version that this browser knows; '' for none."""
    _started_at: float | None = None
    _last_sent_at: float = field(default=0.0)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._started_at is None:
            self._started_at = self.poller.now()
            return self._send(_FIRST_EVENT) if self.poller.add_stream(self) else self._stop()
        while True:
            left = min(self._last_sent_at + HEARTBEAT, self._started_at + LIFETIME) - self.poller.now()
            if self._is_over():
                return self._stop()
            if self._has_new_version():
                return self._send(f"id: {self.version}\nevent: changed\ndata:\n\n".encode())
            if left <= 0:
                return self._send(_HEARTBEAT_EVENT)
            self.poller.wait(left)

    def close(self) -> None:
        self.poller.remove_stream(self)

    def _send(self, event: bytes) -> bytes:
        self._last_sent_at = self.poller.now()
        return event

    def _stop(self) -> bytes:
        self.close()
        raise StopIteration

    def _is_over(self) -> bool:
        poller, user_state = self.poller, self.user_state
        return (
            poller.stopped.is_set()
            or poller.now() >= (self._started_at or 0.0) + LIFETIME
            or poller.versions.get(self.subject, self.version) is None
            or poller.user_states.get(user_state[0], user_state) != user_state
        )

    def _has_new_version(self) -> bool:
        before, self.version = self.version, self.poller.versions.get(self.subject) or self.version
        return before not in ("", self.version)


def _load_versions(session: Session, subjects: Collection[Subject]) -> dict[Subject, str | None]:
    """The current version of each subject, None for deleted ones; one query per kind of object."""
    kinds: dict[Versions, list[int]] = defaultdict(list)
    for versions, number in subjects:
        kinds[versions].append(number)
    answers = {versions: versions(session, numbers) for versions, numbers in kinds.items()}
    return {(versions, number): answers[versions].get(number) for versions, number in subjects}


def _load_user_states(session: Session, user_ids: Collection[int]) -> dict[int, UserState | None]:
    users = session.scalars(select(User).where(User.id.in_(user_ids), User.locked_at.is_(None)))
    states = {person.id: _user_state(person) for person in users}
    return {number: states.get(number) for number in user_ids}


def _user_state(person: User) -> UserState:
    return person.id, person.session_epoch, person.role.value
