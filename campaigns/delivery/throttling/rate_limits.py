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

_GRANT_SECONDS = 0.25
"""Seconds' worth of tokens that a worker takes from the shared bucket at once: few round trips, fair shares."""

# KEYS[1]: the time at which the bucket is full again, in seconds. ARGV: mails per second, requested tokens.
# Returns the granted tokens and, when none are granted, the seconds after which to try again.
_ACQUIRE_TOKENS = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local rate, wanted = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local free = math.floor((now + math.max(1 / rate, 0.25) - full) * rate + 0.000001)
if free < 1 then return {0, tostring(full - now - math.max(0, 0.25 - 1 / rate))} end
local given = math.min(free, wanted)
redis.call('SET', KEYS[1], string.format('%.6f', full + given / rate), 'EX', math.ceil(given / rate) + 60)
return {given, '0'}
"""


class TokenBucket:
    """Token bucket of one relay or provider, shared by all workers through Redis; per process without Redis."""

    def __init__(
        self, name: str, per_second: float, request_tokens: "Callable[[int], tuple[int, float]] | None" = None
    ) -> None:
        self._name, self._rate = name, per_second
        self._request_tokens = request_tokens or self._request_shared
        self._tokens = 0

    def acquire(self) -> float:
        """Take one token. Returns 0 on success, else the seconds after which to try again."""
        if not self._rate:
            return 0.0
        if not self._tokens:
            self._tokens, seconds = self._request_tokens(max(1, int(self._rate * _GRANT_SECONDS)))
            if not self._tokens:
                return max(seconds, 0.005)
        self._tokens -= 1
        return 0.0

    def refund(self) -> None:
        """Return one token, for a mail that was not sent."""
        if self._rate:
            self._tokens += 1

    def _request_shared(self, requested: int) -> tuple[int, float]:
        reply = redis_scripts.run_script(_ACQUIRE_TOKENS, f"kampania:rate:{self._name}", self._rate, requested)
        if reply is None:
            return _request_local(self._name, self._rate, requested)
        granted, seconds = map(_decode, reply)
        return int(granted), float(seconds)


_full_at: dict[str, float] = {}


def _request_local(name: str, rate: float, requested: int) -> tuple[int, float]:
    """The token bucket without Redis. Returns (granted tokens, seconds to wait)."""
    now, size = time.monotonic(), max(1 / rate, _GRANT_SECONDS)
    full = max(_full_at.get(name, 0.0), now)
    available = int((now + size - full) * rate + 1e-6)
    if available < 1:
        return 0, full - now - size + 1 / rate
    granted = min(available, requested)
    _full_at[name] = full + granted / rate
    return granted, 0.0


# KEYS[1]: sorted set of slot ids by expiry time. ARGV: maximum number of slots, slot id, seconds until it expires.
_ACQUIRE_SLOT = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3])) + 60)
return 1
"""
_RELEASE_SLOT = "return redis.call('ZREM', KEYS[1], ARGV[2])"
_SLOT_TTL = 900.0
"""Seconds after which a dead worker's slot is free again: longer than the timeout for the final dot's reply."""


class ConcurrencyLimit:
    """Maximum number of mails in flight, shared by all workers; per process without Redis. 0 means no limit."""

    _local_counts: Counter[str] = Counter()

    def __init__(self, name: str, at_once: int) -> None:
        self._name, self._at_once = name, at_once
        self._slots: list[str] = []

    def acquire(self) -> bool:
        """Take a slot. Returns whether one was free."""
        if not self._at_once:
            return True
        slot_id = secrets.token_hex(8)
        reply = redis_scripts.run_script(
            _ACQUIRE_SLOT, f"kampania:places:{self._name}", self._at_once, slot_id, _SLOT_TTL
        )
        if reply is not None and reply != [1]:
            return False
        if reply is None and self._local_counts[self._name] >= self._at_once:
            return False
        self._local_counts[self._name] += 1
        self._slots.append(slot_id)
        return True

    def release(self) -> None:
        """Free one slot that this object holds, if any."""
        if self._slots:
            self._local_counts[self._name] -= 1
            redis_scripts.run_script(_RELEASE_SLOT, f"kampania:places:{self._name}", 0, self._slots.pop())


# KEYS[1]: sorted set of domains by the end of their pause. ARGV: a domain to add (none when empty), its pause in
# seconds. Returns domain, remaining seconds, domain, remaining seconds …
_SHARE_PAUSES = """
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
_SYNC_INTERVAL = 1.0  # seconds


@dataclass(slots=True)
class _DomainState:
    deferrals: int = 0
    pauses: int = 0
    paused_until: float = 0.0


class DomainBackoff:
    """Backoff of recipient domains that defer mails. Each further pause is longer; a pause counts no attempt.

    Workers share the pauses through Redis within a second.
    """

    THRESHOLD = 10
    """Deferrals in a row, without an accepted mail between them, after which a domain is paused."""
    _PAUSES = (10, 30, 60, 300, 900)  # seconds

    def __init__(self) -> None:
        self._domains: dict[str, _DomainState] = {}
        self._synced_at = 0.0

    @property
    def is_active(self) -> bool:
        """Whether any domain has deferrals or a pause. Usually none has, and callers skip the check per mail."""
        if time.monotonic() - self._synced_at >= _SYNC_INTERVAL:
            self._sync()
        return bool(self._domains)

    def remaining_pause(self, domain: str) -> timedelta | None:
        """Remaining pause of the domain, or None."""
        if time.monotonic() - self._synced_at >= _SYNC_INTERVAL:
            self._sync()
        state = self._domains.get(domain)
        if state is None or state.paused_until <= (now := time.monotonic()):
            return None
        return timedelta(seconds=state.paused_until - now)

    def record_deferral(self, domain: str) -> None:
        """Record a deferral by the domain; starts a pause when the threshold is reached."""
        state = self._domains.setdefault(domain, _DomainState())
        state.deferrals += 1
        if state.deferrals >= self.THRESHOLD and self.remaining_pause(domain) is None:
            pause = self._PAUSES[min(state.pauses, len(self._PAUSES) - 1)]
            state.paused_until = time.monotonic() + pause
            state.pauses += 1
            state.deferrals = self.THRESHOLD - 1  # After the pause one more deferral starts the next one.
            self._sync(domain, pause)

    def _sync(self, domain: str = "", pause: float = 0.0) -> None:
        """Publish the pause of ``domain``, if given, and read the pauses of all domains."""
        self._synced_at = time.monotonic()
        entries = iter(redis_scripts.run_script(_SHARE_PAUSES, "kampania:brakes", domain, pause) or ())
        for name, seconds in zip(entries, entries, strict=False):
            state = self._domains.setdefault(_decode(name), _DomainState(self.THRESHOLD - 1, 1))
            state.paused_until = max(state.paused_until, time.monotonic() + float(_decode(seconds)))

    def record_success(self, domain: str) -> None:
        """Record a mail that the domain accepted: its deferrals and pauses are forgotten."""
        if self._domains:
            self._domains.pop(domain, None)


def _decode(reply: object) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


domain_backoff = DomainBackoff()
