"""Whether the relay can be used. Its outage burns nobody's attempts: their sends just stay due."""

from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.delivery.backoff import relay_pause
from campaigns.delivery.models import Relay
from campaigns.delivery.relay import RelayAddress, relay_address


def usable(session: Session) -> list[RelayAddress]:
    """The relays that may be asked now."""
    return [relay_address()] if may_ask(session) else []


def may_ask(session: Session) -> bool:
    """Whether the relay's pause, if any, is over."""
    relay = session.get(Relay, relay_address().name, populate_existing=True)
    return relay is None or relay.retry_at is None or relay.retry_at <= clock.now()


def trouble(session: Session) -> Relay | None:
    """The relay with what is wrong with it, or None when nothing is."""
    relay = session.get(Relay, relay_address().name)
    return relay if relay is not None and relay.error else None


def note_failure(address: RelayAddress, error: str) -> None:
    """Leave the relay alone for a while."""
    with db.transaction() as session:
        relay = session.get(Relay, address.name, with_for_update=True)
        if relay is None:
            relay = session.merge(Relay(name=address.name, failures=0))
        relay.failures += 1
        relay.error, relay.failed_at = error[:500], clock.now()
        relay.retry_at = clock.now() + relay_pause(relay.failures)


def note_success(address: RelayAddress) -> None:
    """Forget an earlier failure; costs nothing but a look when there was none."""
    with db.reading() as session:
        relay = session.get(Relay, address.name)
        if relay is None or not relay.error:
            return
    with db.transaction() as session:
        relay = session.get(Relay, address.name, with_for_update=True)
        if relay is not None:
            relay.error, relay.failures, relay.retry_at = "", 0, None
