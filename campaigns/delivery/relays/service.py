"""Relay services: list, create, update, delete. Only owners have the permission."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, config
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.delivery.models import Relay
from campaigns.delivery.relays.availability import SECRET_PURPOSE
from campaigns.delivery.smtp.address import TlsMode, is_loopback
from campaigns.encryption import encrypt
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9][a-z0-9-]{0,62})*", re.I)


@dataclass(frozen=True, slots=True)
class RelayInput:
    """Editable fields of a relay. An empty password keeps the stored one."""

    name: str
    host: str
    port: int
    tls: TlsMode
    user: str = ""
    password: str = ""
    connections: int = 4
    per_connection: int = 0
    per_second: float = 0.0
    priority: int = 1
    active: bool = True


def get_relay(session: Session, relay_id: int) -> Relay:
    """The relay with this id. Raises NotFound."""
    relay = session.get(Relay, relay_id)
    if relay is None:
        raise NotFound(N_("There is no such relay."))
    return relay


def list_relays(session: Session, actor: Actor) -> list[Relay]:
    """All relays by priority."""
    actor.require(Permission.SETTINGS)
    return list(session.scalars(select(Relay).order_by(Relay.priority, Relay.id)))


def create_relay(session: Session, actor: Actor, relay_input: RelayInput) -> Relay:
    """Create a relay; workers use it from their next batch on. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    relay = Relay(created_at=clock.now(), secret="")
    _apply_input(relay, relay_input)
    session.add(relay)
    session.flush()
    audit.record(session, actor, "create", "relay", relay.id, **_audit_details(relay))
    return relay


def update_relay(session: Session, actor: Actor, relay: Relay, relay_input: RelayInput) -> None:
    """Change a relay. Changing host or port without a new password deletes the stored one. Raises ValidationFailed."""
    actor.require(Permission.SETTINGS)
    _apply_input(relay, relay_input)
    audit.record(session, actor, "update", "relay", relay.id, **_audit_details(relay))


def delete_relay(session: Session, actor: Actor, relay: Relay) -> None:
    """Delete the relay with its password."""
    actor.require(Permission.SETTINGS)
    audit.record(session, actor, "delete", "relay", relay.id, **_audit_details(relay))
    session.delete(relay)


def _audit_details(relay: Relay) -> dict[str, str]:
    return {"name": relay.name, "host": f"{relay.host}:{relay.port}", "tls": relay.tls.value}


def _apply_input(relay: Relay, relay_input: RelayInput) -> None:
    problems = _validate(relay_input)
    if problems:
        raise ValidationFailed(problems)
    address_changed = relay.host is not None and (relay.host, relay.port) != (relay_input.host, relay_input.port)
    if address_changed and not relay_input.password:
        # A change of the host requires the password again; otherwise the stored one would be sent to the new host.
        relay.secret = ""
    for name in ("name", "host", "port", "tls", "user", "connections", "per_connection", "per_second", "priority"):
        setattr(relay, name, getattr(relay_input, name))
    relay.active = relay_input.active
    if relay_input.password:
        relay.secret = encrypt(relay_input.password, SECRET_PURPOSE)
    if not relay_input.user:
        relay.secret = ""


def _validate(relay_input: RelayInput) -> list[ValidationProblem]:
    problems = []
    if not relay_input.name.strip():
        problems.append(ValidationProblem(N_("Give it a name."), "name"))
    if not is_host(relay_input.host):
        problems.append(ValidationProblem(N_("This is no host name or address."), "host"))
    elif not config.settings().private_relays and is_private(relay_input.host):
        problems.append(
            ValidationProblem(N_("A private address: whoever runs the house must allow it (PRIVATE_RELAYS)."), "host")
        )
    for field, low, high in (("port", 1, 65535), ("connections", 1, 100), ("priority", 1, 100)):
        if not low <= getattr(relay_input, field) <= high:
            problems.append(
                ValidationProblem(N_("From %(low)s to %(high)s."), field, params={"low": low, "high": high})
            )
    for field in ("per_connection", "per_second"):
        if not 0 <= getattr(relay_input, field) <= 1_000_000:
            problems.append(
                ValidationProblem(N_("From %(low)s to %(high)s."), field, params={"low": 0, "high": 1_000_000})
            )
    if relay_input.user and relay_input.tls is TlsMode.OFF and not is_loopback(relay_input.host):
        problems.append(ValidationProblem(N_("Nobody signs in without TLS."), "tls"))
    if len(relay_input.password) > 500 or not relay_input.password.isprintable() or not relay_input.user.isprintable():
        problems.append(ValidationProblem(N_("This is too long, or has signs that can't be typed."), "password"))
    return problems


def is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True


def is_private(host: str) -> bool:
    """Whether the host is private as far as can be seen without DNS; each connection checks the resolved address."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
