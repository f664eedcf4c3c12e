"""How fast a provider's domains may be mailed: entered by an owner, kept by all workers together."""

import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import idna
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.delivery.models import DomainLimit
from campaigns.delivery.throttle import ConcurrencyLimit, TokenBucket
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.language import N_

if TYPE_CHECKING:
    from campaigns.delivery.batches import Batch

PROVIDERS: dict[str, tuple[str, ...]] = {
    "Gmail": ("gmail.com", "googlemail.com"),
    "Microsoft": ("outlook.com", "hotmail.com", "live.com", "msn.com"),
    "Yahoo": ("yahoo.com", "ymail.com", "rocketmail.com", "aol.com"),
    "Apple": ("icloud.com", "me.com", "mac.com"),
    "GMX & WEB.DE": ("gmx.de", "gmx.net", "gmx.com", "web.de"),
    "Mail.ru": ("mail.ru", "inbox.ru", "list.ru", "bk.ru"),
    "Yandex": ("yandex.ru", "yandex.com", "ya.ru"),
}
"""Offered by name, without any limit: each provider says of itself what it bears."""
_DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_MOST = 100
_LONGEST = 3600.0  # seconds; a limit that is lifted is noticed by then
HOLD = 2.0
"""Seconds' worth of mails that a worker keeps in hand for a domain; the others get another hour."""


_line: dict[str, float] = {}
"""By limit when the last one sent back has its turn; each process keeps its own."""


@dataclass(slots=True)
class ProviderPacer:
    """One provider's limit while a worker sends, and who of it stands aside."""

    name: str
    per_second: float
    bucket: TokenBucket
    places: ConcurrencyLimit
    aside: "deque[tuple[Batch, int]]" = field(default_factory=deque)
    """(batch, position), first come first."""

    @property
    def full(self) -> bool:
        """Whether as many stand aside as will be sent soon."""
        return len(self.aside) >= max(self.per_second * HOLD, 1) if self.per_second else len(self.aside) >= _MOST

    def pause(self) -> float:
        """0 when a mail may go now, and it counts as gone; else seconds to wait."""
        wait = self.bucket.wait()
        if wait:
            return wait
        if self.places.enter():
            return 0.0
        self.bucket.put_back()
        return 0.2

    def turn(self) -> float:
        """Seconds to wait for one of many: a little longer than the one before."""
        if not self.per_second:
            return HOLD
        now = time.monotonic()
        _line[self.name] = max(_line.get(self.name, 0.0), now + HOLD) + 1 / self.per_second
        return min(_line[self.name] - now, _LONGEST)


def limited(session: Session) -> dict[str, ProviderPacer]:
    """By domain what holds for it; nothing for domains without a limit."""
    found: dict[str, ProviderPacer] = {}
    for row in session.scalars(select(DomainLimit).where(DomainLimit.active.is_(True)).order_by(DomainLimit.id)):
        if row.per_second or row.at_once:
            name = f"domains:{row.id}"
            one = ProviderPacer(
                name, row.per_second, TokenBucket(name, row.per_second), ConcurrencyLimit(name, row.at_once)
            )
            found |= {domain: one for domain in row.domains if domain not in found}
    return found


@dataclass(frozen=True, slots=True)
class DomainLimitInput:
    """What a person enters."""

    name: str
    domains: Sequence[str]
    per_second: float = 0.0
    at_once: int = 0
    active: bool = True


def limit_of(session: Session, limit_id: int) -> DomainLimit:
    """Raises NotFound."""
    found = session.get(DomainLimit, limit_id)
    if found is None:
        raise NotFound(N_("There is no such limit."))
    return found


def listed(session: Session, actor: Actor) -> list[DomainLimit]:
    actor.require(Permission.SETTINGS)
    return list(session.scalars(select(DomainLimit).order_by(DomainLimit.name, DomainLimit.id)))


def enter(session: Session, actor: Actor, words: DomainLimitInput) -> DomainLimit:
    """A new limit, kept from the next slice on. Raises Invalid."""
    actor.require(Permission.SETTINGS)
    limit = DomainLimit(created_at=clock.now())
    _write(session, limit, words)
    session.add(limit)
    session.flush()
    audit.record(session, actor, "enter", "domain limit", limit.id, **_said(limit))
    return limit


def change(session: Session, actor: Actor, limit: DomainLimit, words: DomainLimitInput) -> None:
    """Raises Invalid."""
    actor.require(Permission.SETTINGS)
    _write(session, limit, words)
    audit.record(session, actor, "change", "domain limit", limit.id, **_said(limit))


def take_out(session: Session, actor: Actor, limit: DomainLimit) -> None:
    actor.require(Permission.SETTINGS)
    audit.record(session, actor, "take out", "domain limit", limit.id, **_said(limit))
    session.delete(limit)


def _said(limit: DomainLimit) -> dict[str, object]:
    return {"name": limit.name, "per_second": limit.per_second, "at_once": limit.at_once, "active": limit.active}


def _write(session: Session, limit: DomainLimit, words: DomainLimitInput) -> None:
    domains = sorted({_ascii(domain) for domain in words.domains})
    problems = _problems(words, domains)
    others = select(DomainLimit).where(DomainLimit.id != (limit.id or 0))
    taken = {domain for other in session.scalars(others) for domain in other.domains} & set(domains)
    if taken:
        found = N_("%(domain)s has a limit already.")
        problems.append(ValidationProblem(found, "domains", params={"domain": min(taken)}))
    if problems:
        raise ValidationFailed(problems)
    limit.name, limit.domains = words.name, domains
    limit.per_second, limit.at_once, limit.active = words.per_second, words.at_once, words.active


def _ascii(domain: str) -> str:
    try:
        return domain.lower() if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        return domain


def _problems(words: DomainLimitInput, domains: Sequence[str]) -> list[ValidationProblem]:
    found = []
    if not 0 < len(words.name) <= 200:
        found.append(ValidationProblem(N_("Give it a name."), "name"))
    strange = [domain for domain in domains if not _DOMAIN.fullmatch(domain)]
    if strange or not 0 < len(domains) <= _MOST:
        found.append(ValidationProblem(N_("One domain name on each line, like example.org."), "domains"))
    for field_, most in (("per_second", 100_000), ("at_once", 1_000)):
        if not 0 <= getattr(words, field_) <= most:
            found.append(ValidationProblem(N_("From %(low)s to %(high)s."), field_, params={"low": 0, "high": most}))
    return found
