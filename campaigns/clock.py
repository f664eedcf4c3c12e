"""One clock, injectable, in UTC; and the scale by which a demo shortens waiting."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from campaigns import config


def _system() -> datetime:
    return datetime.now(UTC)


_source: Callable[[], datetime] = _system


def now() -> datetime:
    """The current instant, always aware and in UTC."""
    return _source()


def scaled(seconds: float) -> timedelta:
    """A waiting time of ``seconds`` divided by ``TIME_SCALE`` (1 in real life, 60 in the demo)."""
    return timedelta(seconds=seconds / config.settings().time_scale)


@contextmanager
def use(source: Callable[[], datetime]) -> Iterator[None]:
    """Let ``now()`` ask ``source`` within the block; for tests and simulations."""
    global _source
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before
