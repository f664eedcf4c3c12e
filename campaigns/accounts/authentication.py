"""Password authentication with rate limits, and the password reset.

An attempt is counted *before* the password is checked, in a transaction of its own, so that a thousand parallel
guesses can't all pass the limit. Attempts are counted per address and per network.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock, config, outbox
from campaigns.accounts import audit, passwords, users
from campaigns.accounts.actor import Actor
from campaigns.accounts.models import IdempotencyKey, LoginAttempt, User
from campaigns.accounts.organisation import organisation
from campaigns.accounts.validation import normalise_email
from campaigns.errors import InvalidTokenError, RateLimited
from campaigns.i18n import N_
from campaigns.tokens import Purpose, keyring

ATTEMPT_WINDOW = timedelta(minutes=15)
MAX_PER_ADDRESS_AND_NETWORK = 8  # from one network, or in one known browser
# low enough against guessing, high enough that a stranger elsewhere can't soon lock the user out
MAX_PER_ADDRESS = 60
MAX_PER_NETWORK = 40  # an office shares one address
MAX_RESETS = 3
RESET_TOKEN_LIFETIME = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class LoginRateLimitKeys:
    """Keys of the counters of one login attempt: the typed address and the network that the request came from."""

    address: str
    network: str
    any_network: str | None
    """None for a browser that has signed in with this address before, so that strangers can't lock it out."""

    @classmethod
    def for_attempt(cls, email: str, network: str, device: str = "") -> "LoginRateLimitKeys":
        # The typed address is counted by its keyed hash: the table holds no list of addresses.
        typed = normalise_email(email) or email.strip().lower()[:300]
        address_hash = keyring().keyed_hash(Purpose.PASSWORD, typed)
        if _is_device_of(device, address_hash):
            return cls("device:" + keyring().keyed_hash(Purpose.DEVICE, device), "network:" + network, None)
        return cls(f"address:{address_hash}:{network}", "network:" + network, f"anywhere:{address_hash}")


def device_token(person: User) -> str:
    """Token for the cookie of a browser in which ``person`` has just signed in; it grants no access by itself."""
    address_hash = keyring().keyed_hash(Purpose.PASSWORD, person.email)
    return keyring().mint(Purpose.DEVICE, bytes.fromhex(address_hash) + secrets.token_bytes(8))


def _is_device_of(token: str, address_hash: str) -> bool:
    try:
        return keyring().open(Purpose.DEVICE, token)[:-8].hex() == address_hash
    except (InvalidTokenError, ValueError):
        return False


def count_attempt(session: Session, keys: LoginRateLimitKeys) -> None:
    """Count an attempt; the caller commits at once. Raises RateLimited with the time to wait."""
    _count_or_raise(session, keys.address, MAX_PER_ADDRESS_AND_NETWORK)
    if keys.any_network is not None:
        _count_or_raise(session, keys.any_network, MAX_PER_ADDRESS)
    _count_or_raise(session, keys.network, MAX_PER_NETWORK)


def _count_or_raise(session: Session, key: str, limit: int) -> None:
    now = clock.now()
    if not _increment(session, key, limit):
        row = session.scalar(select(LoginAttempt).where(LoginAttempt.key == key))
        if row is not None and row.failures >= limit and row.window_start > now - ATTEMPT_WINDOW:
            wait = (row.window_start + ATTEMPT_WINDOW - now).total_seconds()
            raise RateLimited(N_("Too many attempts. Please wait %(minutes)s minutes and try again."), wait)
        try:
            with session.begin_nested():
                session.execute(delete(LoginAttempt).where(LoginAttempt.key == key))
                session.add(LoginAttempt(key=key, window_start=now, failures=1))
        except IntegrityError:  # A concurrent attempt inserted the row first.
            _increment(session, key, limit)


def _increment(session: Session, key: str, limit: int) -> bool:
    """Add one to the current window by compare-and-swap; False when there is no window or it is full."""
    counted = session.execute(
        update(LoginAttempt)
        .where(
            LoginAttempt.key == key,
            LoginAttempt.window_start > clock.now() - ATTEMPT_WINDOW,
            LoginAttempt.failures < limit,
        )
        .values(failures=LoginAttempt.failures + 1)
        .returning(LoginAttempt.key)
        .execution_options(synchronize_session=False)
    )
    return counted.first() is not None


def user_and_hash(session: Session, email: str) -> tuple[User | None, str | None]:
    """The user with this address and the password hash to check; (None, None) when there is none or it is locked."""
    person = users.user_by_email(session, email)
    if person is None or person.locked_at is not None:
        return None, None
    return person, person.password_hash


def record_login(session: Session, person: User, keys: LoginRateLimitKeys, password: str) -> None:
    """Record a successful login: clear the address's attempts, renew an outdated hash, write the audit log."""
    session.execute(delete(LoginAttempt).where(LoginAttempt.key.in_([keys.address, keys.any_network])))
    if passwords.needs_rehash(person.password_hash):
        person.password_hash = passwords.hash_password(password)
    audit.record(session, Actor.of_user(person), "log in", "user", person.id)


def purge_expired(session: Session) -> int:
    """Delete attempts whose window is over and idempotency keys older than 7 days; returns the number of attempts."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.at < clock.now() - timedelta(days=7)))
    old = delete(LoginAttempt).where(LoginAttempt.window_start < clock.now() - ATTEMPT_WINDOW)
    return len(session.execute(old.returning(LoginAttempt.key)).all())


def request_password_reset(session: Session, email: str, network: str) -> None:
    """Mail a reset link when a user has this address. The caller can't observe whether one has."""
    typed = normalise_email(email)
    if typed is None:
        return
    try:
        _count_or_raise(session, "reset:" + keyring().keyed_hash(Purpose.PASSWORD, typed), MAX_RESETS)
        _count_or_raise(session, "reset-network:" + network, MAX_PER_NETWORK)
    except RateLimited:
        return
    person, _ = user_and_hash(session, typed)
    if person is None:
        return
    link = f"{config.settings().base_url}/password/reset/{reset_token(person)}"
    context = {"name": person.name, "link": link, "hours": int(RESET_TOKEN_LIFETIME.total_seconds() // 3600)}
    outbox.enqueue(session, "password", person.email, context, person.language or organisation(session).language)


def reset_token(person: User) -> str:
    """Token for setting a new password; invalid once a password was set or the user was locked."""
    payload = person.id.to_bytes(8) + person.session_epoch.to_bytes(4)
    return keyring().mint_expiring(Purpose.PASSWORD, payload, clock.now() + RESET_TOKEN_LIFETIME)


def user_of_reset_token(session: Session, token: str) -> User:
    """The user who may set a new password with this token. Raises InvalidTokenError."""
    payload = keyring().open_expiring(Purpose.PASSWORD, token)
    if len(payload) != 12:
        raise InvalidTokenError(N_("This link is incomplete or was changed."))
    person = session.get(User, int.from_bytes(payload[:8]))
    if person is None or person.locked_at is not None or person.session_epoch != int.from_bytes(payload[8:]):
        raise InvalidTokenError(N_("This link was used already or is no longer valid. Please ask for a new one."))
    return person
