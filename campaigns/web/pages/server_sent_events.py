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

ASIDE = "kampania.aside"
"""Set in a request's WSGI environment when the server runs a streamed response in a thread of its own."""
MOST = 50
"""Streams per process. Further clients poll with a timer."""
LIFETIME = 300.0
"""Seconds after which a stream ends and the browser opens the next one, which checks permissions again."""
HEARTBEAT = 15.0
"""Maximum seconds without an event: so the page detects a proxy that buffers its stream, and the server a closed
connection.
"""
TURN = 1.0
_BEGIN = b"retry: 2000\nevent: here\ndata:\n\n"
_STILL = b"event: here\ndata:\n\n"

Versions = Callable[[Session, Collection[int]], Mapping[int, str]]
"""Returns the current versions of objects by id; deleted objects are missing."""
Subject = tuple[Versions, int]
Standing = tuple[int, int, str]
"""A user's id, session epoch and role: a stream ends when one of them changes."""


def stream(versions: Versions, number: int) -> Response:
    """A response that sends the signed-in user an event for every new version, or 204.

    The caller has checked the permission for the page.
    """
    if ASIDE not in request.environ or watch.full:
        return Response(status=204)
    told = EventStream(
        watch, (versions, number), _standing(current_user.person), request.headers.get("Last-Event-ID", "")
    )
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would wait for a full buffer
    return Response(told, content_type="text/event-stream; charset=utf-8", headers=headers)


class ChangePoller:
    """The streams of one process, and the polled versions of the objects that they observe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.versions: Mapping[Subject, str | None] = {}
        """Results of the last poll; None for deleted objects."""
        self.standing: Mapping[int, Standing | None] = {}
        self.ended = threading.Event()
        self._news = threading.Condition()
        self._streams: set[EventStream] = set()
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        return len(self._streams) >= MOST or self.ended.is_set()

    def join(self, one: "EventStream") -> bool:
        """Add a stream; False when there are too many."""
        with self._news:
            if self.full:
                return False
            self._streams.add(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_looking, name="changes", daemon=True)
                self._thread.start()
        return True

    def leave(self, one: "EventStream") -> None:
        with self._news:
            self._streams.discard(one)

    def wait(self, seconds: float) -> None:
        """Block until something may have changed, or for this many seconds."""
        with self._news:
            self._news.wait(seconds)

    def look(self) -> None:
        """Query the versions of all observed objects, and wake the streams."""
        with self._news:
            subjects, people = {one.subject for one in self._streams}, {one.person[0] for one in self._streams}
        try:
            with db.reading() as session:
                versions, standing = _versions(session, subjects), _standings(session, people)
        # Database unavailable: pages report that themselves, and the next iteration tries again.
        except SQLAlchemyError:
            return
        with self._news:
            self.versions, self.standing = versions, standing
            self._news.notify_all()

    def end(self) -> None:
        """Let all streams end, because the process is about to stop."""
        self.ended.set()

    def _keep_looking(self) -> None:
        while not self.ended.is_set():
            self.look()
            self.ended.wait(TURN)
            with self._news:
                if not self._streams:
                    self._thread = None
                    return
        with self._news:
            self._news.notify_all()


watch = ChangePoller()


@dataclass(eq=False)
class EventStream:
    """The event stream of one browser; the WSGI server iterates over it."""

    watch: ChangePoller
    subject: Subject
    person: Standing
    version: str
    """The last version that this browser knows; '' for none."""
    _began: float | None = None
    _spoke: float = field(default=0.0)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._began is None:
            self._began = self.watch.now()
            return self._say(_BEGIN) if self.watch.join(self) else self._stop()
        while True:
            left = min(self._spoke + HEARTBEAT, self._began + LIFETIME) - self.watch.now()
            if self._over():
                return self._stop()
            if self._is_new():
                return self._say(f"id: {self.version}\nevent: changed\ndata:\n\n".encode())
            if left <= 0:
                return self._say(_STILL)
            self.watch.wait(left)

    def close(self) -> None:
        self.watch.leave(self)

    def _say(self, words: bytes) -> bytes:
        self._spoke = self.watch.now()
        return words

    def _stop(self) -> bytes:
        self.close()
        raise StopIteration

    def _over(self) -> bool:
        watch, mine = self.watch, self.person
        return (
            watch.ended.is_set()
            or watch.now() >= (self._began or 0.0) + LIFETIME
            or watch.versions.get(self.subject, self.version) is None
            or watch.standing.get(mine[0], mine) != mine
        )

    def _is_new(self) -> bool:
        before, self.version = self.version, self.watch.versions.get(self.subject) or self.version
        return before not in ("", self.version)


def _versions(session: Session, subjects: Collection[Subject]) -> dict[Subject, str | None]:
    """The current version of each subject, None for deleted ones; one query per kind of object."""
    kinds: dict[Versions, list[int]] = defaultdict(list)
    for versions, number in subjects:
        kinds[versions].append(number)
    answers = {versions: versions(session, numbers) for versions, numbers in kinds.items()}
    return {(versions, number): answers[versions].get(number) for versions, number in subjects}


def _standings(session: Session, people: Collection[int]) -> dict[int, Standing | None]:
    found = session.scalars(select(User).where(User.id.in_(people), User.locked_at.is_(None)))
    standing = {person.id: _standing(person) for person in found}
    return {number: standing.get(number) for number in people}


def _standing(person: User) -> Standing:
    return person.id, person.session_epoch, person.role.value
