"""Availability of relays: which relays are configured, which can be used now, and recorded failures.

An outage of a relay does not count as an attempt of any send; the sends stay due.
"""

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, config, db
from campaigns.delivery.models import Relay, RelayHealth
from campaigns.delivery.relays.retry_schedule import relay_pause
from campaigns.delivery.smtp.address import RelayAddress, relay_from_settings
from campaigns.encryption import decrypt

log = structlog.get_logger()
SECRET_PURPOSE = "relay"
"""Encryption purpose of the relay passwords."""


def usable_relays(session: Session) -> list[RelayAddress]:
    """The relays that are not paused after a failure, by priority."""
    return [address for address in relay_addresses(session) if _is_retry_due(session, address)]


def any_usable(session: Session) -> bool:
    """Whether at least one relay is usable now."""
    return bool(usable_relays(session))


def relay_addresses(session: Session) -> list[RelayAddress]:
    """The active configured relays by priority; without any, the relay of the setting SMTP_URL.

    A configured relay whose password cannot be decrypted is left out.
    """
    active = select(Relay).where(Relay.active.is_(True))
    ordered = active.order_by(Relay.priority, Relay.id).execution_options(populate_existing=True)
    configured = [build_address(row) for row in session.scalars(ordered)]
    return [address for address in configured if address is not None] if configured else [relay_from_settings()]


def build_address(row: Relay) -> RelayAddress | None:
    """The connection parameters of a configured relay; None when its password cannot be decrypted."""
    try:
        password = decrypt(row.secret, SECRET_PURPOSE)
    except ValueError:
        log.warning("relay.password_unreadable", relay=row.name)
        return None
    return RelayAddress(
        row.host,
        row.port,
        row.user,
        password,
        row.tls,
        row.connections,
        row.per_connection,
        row.per_second,
        row.priority,
        public_only=not config.settings().private_relays,
    )


def _is_retry_due(session: Session, address: RelayAddress) -> bool:
    relay = session.get(RelayHealth, address.name, populate_existing=True)
    return relay is None or relay.retry_at is None or relay.retry_at <= clock.now()


def failing_relay(session: Session) -> RelayHealth | None:
    """The health row of the first relay that is failing; None when no relay is."""
    rows = (session.get(RelayHealth, address.name) for address in relay_addresses(session))
    return next((row for row in rows if row is not None and row.error), None)


def relay_health(session: Session, name: str) -> RelayHealth | None:
    """The health row of the relay ``host:port``; None when it never failed."""
    return session.get(RelayHealth, name)


def record_failure(address: RelayAddress, error: str) -> None:
    """Record a failure and pause the relay; the pause grows with consecutive failures. Commits."""
    with db.transaction() as session:
        relay = session.get(RelayHealth, address.name, with_for_update=True)
        if relay is None:
            relay = session.merge(RelayHealth(name=address.name, failures=0))
        relay.failures += 1
        relay.error, relay.failed_at = error[:500], clock.now()
        relay.retry_at = clock.now() + relay_pause(relay.failures)


def record_success(address: RelayAddress) -> None:
    """Clear an earlier failure. Commits; without an earlier failure it only reads."""
    with db.read_only_session() as session:
        relay = session.get(RelayHealth, address.name)
        if relay is None or not relay.error:
            return
    with db.transaction() as session:
        relay = session.get(RelayHealth, address.name, with_for_update=True)
        if relay is not None:
            relay.error, relay.failures, relay.retry_at = "", 0, None
