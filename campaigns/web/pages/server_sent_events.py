"""What changes while somebody looks, told by server-sent events.

A stream says that something is new, never what: pages fetch that by their own addresses. One thread of a process asks
for the versions of all that its streams look at, once a second, however many look. Streams run in threads of their own
(:mod:`campaigns.web.wsgi_server`), so that they keep nobody from answering hits. Where there are none, or too many, the
answer is 204, which tells a browser not to try again: its page asks by the clock, as it does without streams.
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
"""In a request's environment when its answer may stay open: its server gives it a thread of its own."""
MOST = 50
"""Streams of one process. Whoever comes later asks by the clock."""
LIFETIME = 300.0
"""Seconds after which a stream ends and its browser opens the next: who may look is looked at again."""
HEARTBEAT = 15.0
"""Seconds of silence, at most: this is how a page knows that nothing holds its stream up, and we that it is gone."""
TURN = 1.0
_BEGIN = b"retry: 2000\nevent: here\ndata:\n\n"
_STILL = b"event: here\ndata:\n\n"

Versions = Callable[[Session, Collection[int]], Mapping[int, str]]
"""The present versions of things by their numbers; what is not in it is gone."""
Subject = tuple[Versions, int]
Standing = tuple[int, int, str]
"""Somebody's number, epoch and role: a stream ends when these are no longer so."""


def stream(versions: Versions, number: int) -> Response:
    """The answer that tells the signed-in person of every new version, or 204. Its page's permission was checked."""
    if ASIDE not in request.environ or watch.full:
        return Response(status=204)
    told = EventStream(
        watch, (versions, number), _standing(current_user.person), request.headers.get("Last-Event-ID", "")
    )
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would wait for a full buffer
    return Response(told, content_type="text/event-stream; charset=utf-8", headers=headers)


class ChangePoller:
    """The streams of one process, and what they look at."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.versions: Mapping[Subject, str | None] = {}
        """Of what was looked at in the last turn; None of what is gone."""
        self.standing: Mapping[int, Standing | None] = {}
        self.ended = threading.Event()
        self._news = threading.Condition()
        self._streams: set[EventStream] = set()
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        return len(self._streams) >= MOST or self.ended.is_set()

    def join(self, one: "EventStream") -> bool:
        """Whether there was room."""
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
        """Until something may have changed, or so many seconds have passed."""
        with self._news:
            self._news.wait(seconds)

    def look(self) -> None:
        """Ask for the versions of everything that is looked at, and wake whoever may want to know."""
        with self._news:
            subjects, people = {one.subject for one in self._streams}, {one.person[0] for one in self._streams}
        try:
            with db.reading() as session:
                versions, standing = _versions(session, subjects), _standings(session, people)
        except SQLAlchemyError:  # Away: pages that ask say so, and the next turn asks again.
            return
        with self._news:
            self.versions, self.standing = versions, standing
            self._news.notify_all()

    def end(self) -> None:
        """The process is about to stop: no stream keeps it."""
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
    """The events of one browser's stream, as a WSGI server asks for them."""

    watch: ChangePoller
    subject: Subject
    person: Standing
    version: str
    """The last that this browser was told of; '' for none."""
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
    """One question for each kind of thing."""
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
