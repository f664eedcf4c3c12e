"""Rate limits: token bucket per relay or provider, concurrency limit per provider, backoff per recipient domain.

Workers share them through Redis (Lua scripts, which use the server's clock). Without Redis each process keeps its own.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from campaigns.delivery.throttling import redis_scripts

_LOT = 0.25
"""Seconds' worth of tokens that a worker takes from the shared bucket at once: few round trips, fair shares."""

# KEYS[1]: the time at which the bucket is full again, in seconds. ARGV: mails per second, requested tokens.
# Returns the granted tokens and, when none are granted, the seconds after which to try again.
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


class TokenBucket:
    """Token bucket of one relay or provider, shared by all workers through Redis; per process without Redis."""

    def __init__(self, name: str, per_second: float, ask: "Callable[[int], tuple[int, float]] | None" = None) -> None:
        self._name, self._rate = name, per_second
        self._ask = ask or self._shared
        self._pocket = 0

    def wait(self) -> float:
        """Take one token. Returns 0 on success, else the seconds after which to try again."""
        if not self._rate:
            return 0.0
        if not self._pocket:
            self._pocket, pause = self._ask(max(1, int(self._rate * _LOT)))
            if not self._pocket:
                return max(pause, 0.005)
        self._pocket -= 1
        return 0.0

    def put_back(self) -> None:
        """Return one token, for a mail that was not sent."""
        if self._rate:
            self._pocket += 1

    def _shared(self, wanted: int) -> tuple[int, float]:
        answer = redis_scripts.asked(_TAKE, f"kampania:rate:{self._name}", self._rate, wanted)
        if answer is None:
            return _alone(self._name, self._rate, wanted)
        given, pause = map(_words, answer)
        return int(given), float(pause)


_full: dict[str, float] = {}


def _alone(name: str, rate: float, wanted: int) -> tuple[int, float]:
    """The token bucket without Redis. Returns (granted tokens, seconds to wait)."""
    now, size = time.monotonic(), max(1 / rate, _LOT)
    full = max(_full.get(name, 0.0), now)
    room = int((now + size - full) * rate + 1e-6)
    if room < 1:
        return 0, full - now - size + 1 / rate
    given = min(room, wanted)
    _full[name] = full + given / rate
    return given, 0.0


# KEYS[1]: sorted set of slot ids by expiry time. ARGV: maximum number of slots, slot id, seconds until it expires.
_ENTER = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3])) + 60)
return 1
"""
_LEAVE = "return redis.call('ZREM', KEYS[1], ARGV[2])"
_FORGOTTEN = 900.0
"""Seconds after which a dead worker's slot is free again: longer than the timeout for the final dot's reply."""


class ConcurrencyLimit:
    """Maximum number of mails in flight, shared by all workers; per process without Redis. 0 means no limit."""

    _here: Counter[str] = Counter()

    def __init__(self, name: str, at_once: int) -> None:
        self._name, self._at_once = name, at_once
        self._mine: list[str] = []

    def enter(self) -> bool:
        """Take a slot. Returns whether one was free."""
        if not self._at_once:
            return True
        who = secrets.token_hex(8)
        answer = redis_scripts.asked(_ENTER, f"kampania:places:{self._name}", self._at_once, who, _FORGOTTEN)
        if answer is not None and answer != [1]:
            return False
        if answer is None and self._here[self._name] >= self._at_once:
            return False
        self._here[self._name] += 1
        self._mine.append(who)
        return True

    def leave(self) -> None:
        """Free one slot that this object holds, if any."""
        if self._mine:
            self._here[self._name] -= 1
            redis_scripts.asked(_LEAVE, f"kampania:places:{self._name}", 0, self._mine.pop())


# KEYS[1]: sorted set of domains by the end of their pause. ARGV: a domain to add (none when empty), its pause in
# seconds. Returns domain, remaining seconds, domain, remaining seconds …
_BRAKES = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('EXPIRE', KEYS[1], 3600)
end
local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 2, #found, 2 do found[i] = tostring(tonumber(found[i]) - now) end
return found
"""
_ASK_BRAKES = 1.0  # seconds


@dataclass(slots=True)
class _DomainState:
    troubles: int = 0
    openings: int = 0
    until: float = 0.0


class DomainBackoff:
    """Backoff of recipient domains that defer mails. Each further pause is longer; a pause counts no attempt.

    Workers share the pauses through Redis within a second.
    """

    BURST = 10
    """Deferrals in a row, without an accepted mail between them, after which a domain is paused."""
    _PAUSES = (10, 30, 60, 300, 900)  # seconds

    def __init__(self) -> None:
        self._domains: dict[str, _DomainState] = {}
        self._asked = 0.0

    @property
    def any(self) -> bool:
        """Whether any domain has deferrals or a pause. Usually none has, and callers skip the check per mail."""
        if time.monotonic() - self._asked >= _ASK_BRAKES:
            self._share()
        return bool(self._domains)

    def left_alone(self, domain: str) -> timedelta | None:
        """Remaining pause of the domain, or None."""
        if time.monotonic() - self._asked >= _ASK_BRAKES:
            self._share()
        brake = self._domains.get(domain)
        if brake is None or brake.until <= (now := time.monotonic()):
            return None
        return timedelta(seconds=brake.until - now)

    def later(self, domain: str) -> None:
        """Record a deferral by the domain; starts a pause when the threshold is reached."""
        brake = self._domains.setdefault(domain, _DomainState())
        brake.troubles += 1
        if brake.troubles >= self.BURST and self.left_alone(domain) is None:
            pause = self._PAUSES[min(brake.openings, len(self._PAUSES) - 1)]
            brake.until = time.monotonic() + pause
            brake.openings += 1
            brake.troubles = self.BURST - 1  # After the pause one more deferral starts the next one.
            self._share(domain, pause)

    def _share(self, domain: str = "", pause: float = 0.0) -> None:
        """Publish the pause of ``domain``, if given, and read the pauses of all domains."""
        self._asked = time.monotonic()
        told = iter(redis_scripts.asked(_BRAKES, "kampania:brakes", domain, pause) or ())
        for name, left in zip(told, told, strict=False):
            brake = self._domains.setdefault(_words(name), _DomainState(self.BURST - 1, 1))
            brake.until = max(brake.until, time.monotonic() + float(_words(left)))

    def well(self, domain: str) -> None:
        """Record a mail that the domain accepted: its deferrals and pauses are forgotten."""
        if self._domains:
            self._domains.pop(domain, None)


def _words(told: object) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)


brakes = DomainBackoff()
