"""How fast a relay may be fed, and which domains are to be left alone for a while."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from redis import Redis, RedisError

from campaigns import config

_LOT = 0.25
"""Seconds' worth of mails that a worker takes from the shared bucket at once: few questions, fair shares."""
_AWAY = 10.0  # seconds to count alone when the bucket can't be reached

# KEYS[1]: when the bucket is next full, in seconds; ARGV: mails a second, how many are wanted.
# Answers how many may go now, and after how many seconds to ask again when none may.
_TAKE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local rate, wanted = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local room = math.floor((now + math.max(1 / rate, 0.25) - full) * rate + 0.000001)
if room < 1 then return {0, tostring(full - now - math.max(0, 0.25 - 1 / rate))} end
local given = math.min(room, wanted)
redis.call('SET', KEYS[1], string.format('%.6f', full + given / rate), 'EX', math.ceil(given / rate) + 60)
return {given, '0'}
"""


class Bucket:
    """Mails a second to one relay, of all workers that share a broker; of this process alone without one."""

    def __init__(self, name: str, per_second: float, ask: "Callable[[int], tuple[int, float]] | None" = None) -> None:
        self._name, self._rate = name, per_second
        self._ask = ask or self._shared
        self._pocket = 0

    def wait(self) -> float:
        """0 when a mail may go now, and it counts as gone; else seconds after which to ask again."""
        if not self._rate:
            return 0.0
        if not self._pocket:
            self._pocket, pause = self._ask(max(1, int(self._rate * _LOT)))
            if not self._pocket:
                return max(pause, 0.005)
        self._pocket -= 1
        return 0.0

    def _shared(self, wanted: int) -> tuple[int, float]:
        broker = _broker()
        if broker is not None:
            try:
                given, pause = broker.eval(_TAKE, 1, f"kampania:rate:{self._name}", str(self._rate), str(wanted))
                return int(given), float(pause)
            except RedisError:
                _lose_broker()
        return _alone(self._name, self._rate, wanted)


_full: dict[str, float] = {}


def _alone(name: str, rate: float, wanted: int) -> tuple[int, float]:
    """The same bucket in this process."""
    now, size = time.monotonic(), max(1 / rate, _LOT)
    full = max(_full.get(name, 0.0), now)
    room = int((now + size - full) * rate + 1e-6)
    if room < 1:
        return 0, full - now - size + 1 / rate
    given = min(room, wanted)
    _full[name] = full + given / rate
    return given, 0.0


_known: tuple[str, "Redis | None", float] | None = None


def _broker() -> "Redis | None":
    global _known
    settings = config.settings()
    if _known is not None and _known[0] == settings.redis_url and (_known[1] or time.monotonic() < _known[2]):
        return _known[1]
    if settings.embedded_broker and not settings.broker_socket.exists():
        _lose_broker()
        return None
    url = f"unix://{settings.broker_socket}" if settings.embedded_broker else settings.redis_url
    _known = (settings.redis_url, Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5), 0.0)
    return _known[1]


def _lose_broker() -> None:
    global _known
    _known = (config.settings().redis_url, None, time.monotonic() + _AWAY)


@dataclass(slots=True)
class _Brake:
    troubles: int = 0
    openings: int = 0
    until: float = 0.0


class Brakes:
    """Recipient domains that answer "later" too often are left alone, longer each time; nobody's
    attempts are used up by that. Each worker process learns by itself."""

    BURST = 10
    """So many in a row, none taken between them."""
    _PAUSES = (10, 30, 60, 300, 900)  # seconds

    def __init__(self) -> None:
        self._domains: dict[str, _Brake] = {}

    def left_alone(self, domain: str) -> timedelta | None:
        """How much longer the domain is to be left alone, or None."""
        brake = self._domains.get(domain)
        if brake is None or brake.until <= (now := time.monotonic()):
            return None
        return timedelta(seconds=brake.until - now)

    def later(self, domain: str) -> None:
        """It asked for patience."""
        brake = self._domains.setdefault(domain, _Brake())
        brake.troubles += 1
        if brake.troubles >= self.BURST and self.left_alone(domain) is None:
            brake.until = time.monotonic() + self._PAUSES[min(brake.openings, len(self._PAUSES) - 1)]
            brake.openings += 1
            brake.troubles = self.BURST - 1  # Afterwards one mail asks; one more "later" closes it again.

    def well(self, domain: str) -> None:
        """It took a mail."""
        if self._domains:
            self._domains.pop(domain, None)


brakes = Brakes()
