"""API keys: creation, revocation, and authentication of requests."""

import hmac
import secrets
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import ApiKey, Scope
from campaigns.accounts.validation import FieldValidator
from campaigns.errors import Forbidden, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_KEY_PREFIX = "kmp_"  # A fixed prefix lets secret scanners and people recognise a key.
_LAST_USED_RESOLUTION = timedelta(minutes=10)


def create_key(
    session: Session, actor: Actor, *, name: str, scopes: list[str], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Create a key; returns its row and its text, which is not stored and can't be read again.

    Raises ValidationFailed, naming the field.
    """
    actor.require(Permission.SETTINGS)
    validator = FieldValidator()
    clean_name = validator.name("name", name)
    validator.raise_problems()
    valid_scopes = sorted({scope.value for scope in Scope} & set(scopes))
    if not valid_scopes or len(valid_scopes) != len(set(scopes)):
        raise ValidationFailed(ValidationProblem(N_("Choose what the key may do."), field="scopes"))
    if expires_at is not None and expires_at <= clock.now():
        raise ValidationFailed(ValidationProblem(N_("This moment is over already."), field="expires_at"))
    prefix = secrets.token_hex(5)
    text = f"{_KEY_PREFIX}{prefix}_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        name=clean_name,
        prefix=prefix,
        digest=_digest(text),
        scopes=valid_scopes,
        created_at=clock.now(),
        created_by=actor.name,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    audit.record(session, actor, "create", "api key", key.id, name=key.name, scopes=valid_scopes)
    return key, text


def revoke_key(session: Session, actor: Actor, key_id: int) -> ApiKey:
    """Revoke a key at once; does nothing when it is revoked already. Raises NotFound."""
    actor.require(Permission.SETTINGS)
    key = session.get(ApiKey, key_id) if 0 < key_id < 2**63 else None
    if key is None:
        raise NotFound(N_("This API key does not exist."))
    if key.revoked_at is None:
        key.revoked_at = clock.now()
        audit.record(session, actor, "revoke", "api key", key.id, name=key.name)
    return key


def authenticate(session: Session, text: str) -> Actor:
    """The actor of the key ``text``. Raises Forbidden for a key that is unknown, expired or revoked."""
    prefix = text.removeprefix(_KEY_PREFIX).partition("_")[0]
    is_well_formed = text.isascii() and prefix.isalnum() and text.startswith(_KEY_PREFIX) and len(text) < 100
    key = session.scalar(select(ApiKey).where(ApiKey.prefix == prefix)) if is_well_formed else None
    now = clock.now()
    is_valid = (
        key is not None
        and hmac.compare_digest(key.digest, _digest(text))
        and key.revoked_at is None
        and (key.expires_at is None or now < key.expires_at)
    )
    if key is None or not is_valid:
        raise Forbidden(N_("This API key is not known, has ended or was revoked."))
    if key.last_used_at is None or now - key.last_used_at >= _LAST_USED_RESOLUTION:
        key.last_used_at = now
    return Actor.of_api_key(key)


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
