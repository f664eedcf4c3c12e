"""How fast a relay may be fed, and which domains are to be left alone for a while."""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from campaigns.delivery.throttling import redis_scripts

_LOT = 0.25
"""Seconds' worth of mails that a worker takes from the shared bucket at once: few questions, fair shares."""

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


class TokenBucket:
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

    def put_back(self) -> None:
        """One that counted as gone stays here."""
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
    """The same bucket in this process."""
    now, size = time.monotonic(), max(1 / rate, _LOT)
    full = max(_full.get(name, 0.0), now)
    room = int((now + size - full) * rate + 1e-6)
    if room < 1:
        return 0, full - now - size + 1 / rate
    given = min(room, wanted)
    _full[name] = full + given / rate
    return given, 0.0


# KEYS[1]: who is under way, by when they are forgotten at the latest. ARGV: how many may be, who, for how long.
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
"""Seconds after which a place is free again whose worker died: longer than the wait for a last answer."""


class ConcurrencyLimit:
    """At most so many under way at the same time, of all workers that share a broker."""

    _here: Counter[str] = Counter()

    def __init__(self, name: str, at_once: int) -> None:
        self._name, self._at_once = name, at_once
        self._mine: list[str] = []

    def enter(self) -> bool:
        """Take a place, if there is one."""
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
        """Free a place that was taken here."""
        if self._mine:
            self._here[self._name] -= 1
            redis_scripts.asked(_LEAVE, f"kampania:places:{self._name}", 0, self._mine.pop())


# KEYS[1]: domains by when they are asked again. ARGV: one more of them, and for how long; none when empty.
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
    """Recipient domains that answer "later" too often are left alone, longer each time; nobody's
    attempts are used up by that. What one worker learns the others know within a second."""

    BURST = 10
    """So many in a row, none taken between them."""
    _PAUSES = (10, 30, 60, 300, 900)  # seconds

    def __init__(self) -> None:
        self._domains: dict[str, _DomainState] = {}
        self._asked = 0.0

    @property
    def any(self) -> bool:
        """Whether any domain is known to make trouble; most of the time there is none."""
        if time.monotonic() - self._asked >= _ASK_BRAKES:
            self._share()
        return bool(self._domains)

    def left_alone(self, domain: str) -> timedelta | None:
        """How much longer the domain is to be left alone, or None."""
        if time.monotonic() - self._asked >= _ASK_BRAKES:
            self._share()
        brake = self._domains.get(domain)
        if brake is None or brake.until <= (now := time.monotonic()):
            return None
        return timedelta(seconds=brake.until - now)

    def later(self, domain: str) -> None:
        """It asked for patience."""
        brake = self._domains.setdefault(domain, _DomainState())
        brake.troubles += 1
        if brake.troubles >= self.BURST and self.left_alone(domain) is None:
            pause = self._PAUSES[min(brake.openings, len(self._PAUSES) - 1)]
            brake.until = time.monotonic() + pause
            brake.openings += 1
            brake.troubles = self.BURST - 1  # Afterwards one mail asks; one more "later" closes it again.
            self._share(domain, pause)

    def _share(self, domain: str = "", pause: float = 0.0) -> None:
        """Tell of a domain, and hear of the others'."""
        self._asked = time.monotonic()
        told = iter(redis_scripts.asked(_BRAKES, "kampania:brakes", domain, pause) or ())
        for name, left in zip(told, told, strict=False):
            brake = self._domains.setdefault(_words(name), _DomainState(self.BURST - 1, 1))
            brake.until = max(brake.until, time.monotonic() + float(_words(left)))

    def well(self, domain: str) -> None:
        """It took a mail."""
        if self._domains:
            self._domains.pop(domain, None)


def _words(told: object) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)


brakes = DomainBackoff()
