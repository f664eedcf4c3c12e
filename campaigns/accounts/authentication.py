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
from campaigns.accounts.validation import normal_email
from campaigns.errors import BadToken, RateLimited
from campaigns.i18n import N_
from campaigns.tokens import Purpose, keyring

WINDOW = timedelta(minutes=15)
FOR_ADDRESS = 8  # from one network, or in one known browser
# low enough against guessing, high enough that a stranger elsewhere can't soon lock the user out
FOR_ADDRESS_ANYWHERE = 60
FOR_NETWORK = 40  # an office shares one address
RESETS = 3
RESET_LIFE = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class LoginRateLimitKeys:
    """Keys of the counters of one login attempt: the typed address and the network that the request came from."""

    address: str
    network: str
    anywhere: str | None
    """None for a browser that has signed in with this address before, so that strangers can't lock it out."""

    @classmethod
    def of(cls, email: str, network: str, device: str = "") -> "LoginRateLimitKeys":
        # The typed address is counted by its keyed hash: the table holds no list of addresses.
        typed = normal_email(email) or email.strip().lower()[:300]
        whose = keyring().keyed_hash(Purpose.PASSWORD, typed)
        if _is_device_of(device, whose):
            return cls("device:" + keyring().keyed_hash(Purpose.DEVICE, device), "network:" + network, None)
        return cls(f"address:{whose}:{network}", "network:" + network, f"anywhere:{whose}")


def device_token(person: User) -> str:
    """Token for the cookie of a browser in which ``person`` has just signed in; it grants no access by itself."""
    whose = keyring().keyed_hash(Purpose.PASSWORD, person.email)
    return keyring().mint(Purpose.DEVICE, bytes.fromhex(whose) + secrets.token_bytes(8))


def _is_device_of(token: str, whose: str) -> bool:
    try:
        return keyring().open(Purpose.DEVICE, token)[:-8].hex() == whose
    except (BadToken, ValueError):
        return False


def knock(session: Session, door: LoginRateLimitKeys) -> None:
    """Count an attempt; the caller commits at once. Raises RateLimited with the time to wait."""
    _count(session, door.address, FOR_ADDRESS)
    if door.anywhere is not None:
        _count(session, door.anywhere, FOR_ADDRESS_ANYWHERE)
    _count(session, door.network, FOR_NETWORK)


def _count(session: Session, key: str, limit: int) -> None:
    now = clock.now()
    if not _raise_count(session, key, limit):
        row = session.scalar(select(LoginAttempt).where(LoginAttempt.key == key))
        if row is not None and row.failures >= limit and row.window_start > now - WINDOW:
            wait = (row.window_start + WINDOW - now).total_seconds()
            raise RateLimited(N_("Too many attempts. Please wait %(minutes)s minutes and try again."), wait)
        try:
            with session.begin_nested():
                session.execute(delete(LoginAttempt).where(LoginAttempt.key == key))
                session.add(LoginAttempt(key=key, window_start=now, failures=1))
        except IntegrityError:  # A concurrent attempt inserted the row first.
            _raise_count(session, key, limit)


def _raise_count(session: Session, key: str, limit: int) -> bool:
    """Add one to the current window by compare-and-swap; False when there is no window or it is full."""
    counted = session.execute(
        update(LoginAttempt)
        .where(
            LoginAttempt.key == key,
            LoginAttempt.window_start > clock.now() - WINDOW,
            LoginAttempt.failures < limit,
        )
        .values(failures=LoginAttempt.failures + 1)
        .returning(LoginAttempt.key)
        .execution_options(synchronize_session=False)
    )
    return counted.first() is not None


def who(session: Session, email: str) -> tuple[User | None, str | None]:
    """The user with this address and the password hash to check; (None, None) when there is none or it is locked."""
    person = users.person_by_email(session, email)
    if person is None or person.locked_at is not None:
        return None, None
    return person, person.password_hash


def welcome(session: Session, person: User, door: LoginRateLimitKeys, password: str) -> None:
    """Record a successful login: clear the address's attempts, renew an outdated hash, write the audit log."""
    session.execute(delete(LoginAttempt).where(LoginAttempt.key.in_([door.address, door.anywhere])))
    if passwords.outdated(person.password_hash):
        person.password_hash = passwords.hashed(password)
    audit.record(session, Actor.of(person), "log in", "user", person.id)


def forget_old(session: Session) -> int:
    """Delete attempts whose window is over and idempotency keys older than 7 days; returns the number of attempts."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.at < clock.now() - timedelta(days=7)))
    old = delete(LoginAttempt).where(LoginAttempt.window_start < clock.now() - WINDOW)
    return len(session.execute(old.returning(LoginAttempt.key)).all())


def ask_reset(session: Session, email: str, network: str) -> None:
    """Mail a reset link when a user has this address. The caller can't observe whether one has."""
    typed = normal_email(email)
    if typed is None:
        return
    try:
        _count(session, "reset:" + keyring().keyed_hash(Purpose.PASSWORD, typed), RESETS)
        _count(session, "reset-network:" + network, FOR_NETWORK)
    except RateLimited:
        return
    person, _ = who(session, typed)
    if person is None:
        return
    link = f"{config.settings().base_url}/password/reset/{reset_token(person)}"
    context = {"name": person.name, "link": link, "hours": int(RESET_LIFE.total_seconds() // 3600)}
    outbox.post(session, "password", person.email, context, person.language or organisation(session).language)


def reset_token(person: User) -> str:
    """Token for setting a new password; invalid once a password was set or the user was locked."""
    payload = person.id.to_bytes(8) + person.session_epoch.to_bytes(4)
    return keyring().mint_expiring(Purpose.PASSWORD, payload, clock.now() + RESET_LIFE)


def whose_reset(session: Session, token: str) -> User:
    """The user who may set a new password with this token. Raises BadToken."""
    payload = keyring().open_expiring(Purpose.PASSWORD, token)
    if len(payload) != 12:
        raise BadToken(N_("This link is incomplete or was changed."))
    person = session.get(User, int.from_bytes(payload[:8]))
    if person is None or person.locked_at is not None or person.session_epoch != int.from_bytes(payload[8:]):
        raise BadToken(N_("This link was used already or is no longer valid. Please ask for a new one."))
    return person
