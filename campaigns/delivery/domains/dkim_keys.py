"""DKIM keys: creation, activation after publication in the DNS, retirement, selection for signing."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.delivery.mime import dkim
from campaigns.delivery.mime.dkim import Algorithm, Signer
from campaigns.delivery.mime.headers import with_ascii_domain
from campaigns.delivery.models import DkimKey
from campaigns.encryption import decrypt, encrypt
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_SECRET_PURPOSE = "dkim"
RECORD_RETENTION = timedelta(days=7)
"""Time for which the record of a retired key must stay in the DNS: signed mail may still be in queues."""


def create_keys(session: Session, actor: Actor, domain: str) -> list[DkimKey]:
    """Create an RSA and an Ed25519 key for a domain. They sign nothing until they are published and activated.

    Raises ValidationFailed for an invalid domain.
    """
    actor.require(Permission.SETTINGS)
    try:
        domain = with_ascii_domain(f"x@{domain.strip().lower().rstrip('.')}").removeprefix("x@")
    except ValueError as error:
        raise ValidationFailed(ValidationProblem(N_("This is not a domain."), "domain")) from error
    if "." not in domain:
        raise ValidationFailed(ValidationProblem(N_("This is not a domain."), "domain"))
    keys = []
    for algorithm in Algorithm:
        private, public = dkim.generate_key(algorithm)
        key = DkimKey(
            domain=domain,
            selector=_selector(session, domain, algorithm),
            algorithm=algorithm,
            private=encrypt(private, _SECRET_PURPOSE),
            public=public,
            created_at=clock.now(),
        )
        session.add(key)
        session.flush()
        keys.append(key)
    audit.record(session, actor, "create", "dkim key", keys[0].id, domain=domain)
    return keys


def _selector(session: Session, domain: str, algorithm: Algorithm) -> str:
    taken = set(session.scalars(select(DkimKey.selector).where(DkimKey.domain == domain)))
    prefix = f"k{clock.now():%Y%m}{'r' if algorithm is Algorithm.RSA else 'e'}"
    return next(name for name in (f"{prefix}{n}" for n in range(1, 10_000)) if name not in taken)


def list_keys(session: Session) -> list[DkimKey]:
    """All keys, retired ones included, by domain, the newest first."""
    return list(session.scalars(select(DkimKey).order_by(DkimKey.domain, DkimKey.id.desc())))


def get_key(session: Session, key_id: int) -> DkimKey:
    """The key with this id. Raises NotFound."""
    key = session.get(DkimKey, key_id)
    if key is None:
        raise NotFound(N_("There is no such key."))
    return key


def activate(session: Session, actor: Actor, key: DkimKey) -> None:
    """Sign with ``key`` from now on; the domain's active key of the same algorithm is retired.

    Raises Conflict unless a DNS check has found the key published: receivers treat a signature that cannot be verified
    as a failure.
    """
    actor.require(Permission.SETTINGS)
    if key.published_at is None:
        raise Conflict(N_("This key is not in the DNS yet: publish its record, then check the domain."))
    if key.retired_at is not None:
        raise Conflict(N_("This key is retired: make a new one."))
    others = select(DkimKey).where(
        DkimKey.domain == key.domain,
        DkimKey.algorithm == key.algorithm,
        DkimKey.id != key.id,
        DkimKey.active_at.is_not(None),
        DkimKey.retired_at.is_(None),
    )
    for other in session.scalars(others):
        other.retired_at = clock.now()
    key.active_at = clock.now()
    audit.record(session, actor, "activate", "dkim key", key.id, domain=key.domain, selector=key.selector)


def retire(session: Session, actor: Actor, key: DkimKey) -> None:
    """Stop signing with ``key``. Its record must stay in the DNS for :data:`RECORD_RETENTION`."""
    actor.require(Permission.SETTINGS)
    key.retired_at = key.retired_at or clock.now()
    audit.record(session, actor, "retire", "dkim key", key.id, domain=key.domain, selector=key.selector)


def signing_keys(session: Session, domain: str) -> list[DkimKey]:
    """The keys that sign mail from ``domain``: active ones of the domain itself, else of its nearest parent domain."""
    parts = domain.split(".")
    domain_and_parents = [".".join(parts[start:]) for start in range(len(parts) - 1)]
    query = select(DkimKey).where(
        DkimKey.domain.in_(domain_and_parents), DkimKey.active_at.is_not(None), DkimKey.retired_at.is_(None)
    )
    keys = list(session.scalars(query.order_by(DkimKey.algorithm.desc())))
    nearest = max((key.domain for key in keys), key=len, default="")
    return [key for key in keys if key.domain == nearest]


def signers(session: Session, domain: str) -> Sequence[Signer]:
    """The keys of :func:`signing_keys`, decrypted and loaded."""
    return tuple(
        Signer(key.domain, key.selector, dkim.load_private_key(decrypt(key.private, _SECRET_PURPOSE)))
        for key in signing_keys(session, domain)
    )
