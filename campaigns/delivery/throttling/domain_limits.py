"""Rate and concurrency limits per mailbox provider: list, create, update and delete.

Owners configure them; all workers together keep to them (:mod:`campaigns.delivery.worker.provider_pacing`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import idna
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.delivery.models import DomainLimit
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

PROVIDERS: dict[str, tuple[str, ...]] = {
    "Gmail": ("gmail.com", "googlemail.com"),
    "Microsoft": ("outlook.com", "hotmail.com", "live.com", "msn.com"),
    "Yahoo": ("yahoo.com", "ymail.com", "rocketmail.com", "aol.com"),
    "Apple": ("icloud.com", "me.com", "mac.com"),
    "GMX & WEB.DE": ("gmx.de", "gmx.net", "gmx.com", "web.de"),
    "Mail.ru": ("mail.ru", "inbox.ru", "list.ru", "bk.ru"),
    "Yandex": ("yandex.ru", "yandex.com", "ya.ru"),
}
"""Provider → domains, offered as presets without limits: each provider publishes its own."""
_DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_MAX_DOMAINS = 100


@dataclass(frozen=True, slots=True)
class DomainLimitInput:
    """The values of a limit as entered. 0 means no limit."""

    name: str
    domains: Sequence[str]
    per_second: float = 0.0
    at_once: int = 0
    active: bool = True


def limit_of(session: Session, limit_id: int) -> DomainLimit:
    """The limit with this id. Raises NotFound."""
    limit = session.get(DomainLimit, limit_id)
    if limit is None:
        raise NotFound(N_("There is no such limit."))
    return limit


def list_limits(session: Session, actor: Actor) -> list[DomainLimit]:
    """All limits, ordered by name."""
    actor.require(Permission.SETTINGS)
    return list(session.scalars(select(DomainLimit).order_by(DomainLimit.name, DomainLimit.id)))


def create_limit(session: Session, actor: Actor, values: DomainLimitInput) -> DomainLimit:
    """Create a limit; workers apply it from their next run on. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    limit = DomainLimit(created_at=clock.now())
    _apply_values(session, limit, values)
    session.add(limit)
    session.flush()
    audit.record(session, actor, "create", "domain limit", limit.id, **_audit_detail(limit))
    return limit


def update_limit(session: Session, actor: Actor, limit: DomainLimit, values: DomainLimitInput) -> None:
    """Change a limit. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    _apply_values(session, limit, values)
    audit.record(session, actor, "update", "domain limit", limit.id, **_audit_detail(limit))


def delete_limit(session: Session, actor: Actor, limit: DomainLimit) -> None:
    actor.require(Permission.SETTINGS)
    audit.record(session, actor, "delete", "domain limit", limit.id, **_audit_detail(limit))
    session.delete(limit)


def _audit_detail(limit: DomainLimit) -> dict[str, object]:
    return {"name": limit.name, "per_second": limit.per_second, "at_once": limit.at_once, "active": limit.active}


def _apply_values(session: Session, limit: DomainLimit, values: DomainLimitInput) -> None:
    domains = sorted({_to_ascii(domain) for domain in values.domains})
    problems = _validate(values, domains)
    others = select(DomainLimit).where(DomainLimit.id != (limit.id or 0))
    taken = {domain for other in session.scalars(others) for domain in other.domains} & set(domains)
    if taken:
        message = N_("%(domain)s has a limit already.")
        problems.append(ValidationProblem(message, "domains", params={"domain": min(taken)}))
    if problems:
        raise ValidationFailed(problems)
    limit.name, limit.domains = values.name, domains
    limit.per_second, limit.at_once, limit.active = values.per_second, values.at_once, values.active


def _to_ascii(domain: str) -> str:
    try:
        return domain.lower() if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        return domain


def _validate(values: DomainLimitInput, domains: Sequence[str]) -> list[ValidationProblem]:
    problems = []
    if not 0 < len(values.name) <= 200:
        problems.append(ValidationProblem(N_("Give it a name."), "name"))
    invalid = [domain for domain in domains if not _DOMAIN.fullmatch(domain)]
    if invalid or not 0 < len(domains) <= _MAX_DOMAINS:
        problems.append(ValidationProblem(N_("One domain name on each line, like example.org."), "domains"))
    for field_, maximum in (("per_second", 100_000), ("at_once", 1_000)):
        if not 0 <= getattr(values, field_) <= maximum:
            problems.append(
                ValidationProblem(N_("From %(low)s to %(high)s."), field_, params={"low": 0, "high": maximum})
            )
    return problems
