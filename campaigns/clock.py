"""The injectable UTC clock, and the time scale that shortens waits in the demo."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from campaigns import config


def _system_now() -> datetime:
    return datetime.now(UTC)


_source: Callable[[], datetime] = _system_now
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    """The current instant, timezone-aware, in UTC."""
    return _source()


def now_micros() -> int:
    """The current instant as microseconds since 1970-01-01 UTC, computed without building a datetime."""
    return time.time_ns() // 1000 if _source is _system_now else (_source() - _EPOCH) // _MICROSECOND


def monotonic() -> float:
    """Monotonic seconds for limits and waits within this process: the system time may be set back."""
    return time.monotonic() if _source is _system_now else (_source() - _EPOCH).total_seconds()


def scaled(seconds: float) -> timedelta:
    """A wait of ``seconds`` divided by ``TIME_SCALE`` (1 in production, 60 in the demo)."""
    return timedelta(seconds=seconds / config.settings().time_scale)


@contextmanager
def override(source: Callable[[], datetime]) -> Iterator[None]:
    """Make ``now()`` return ``source()`` within the block; for tests and simulations."""
    global _source
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before
