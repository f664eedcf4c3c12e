"""Suppressions: addresses that are never mailed, with the reason.

Every row stores the keyed hash of its address, so one index look-up answers whether an address is suppressed,
also for an erased person of whom only the hash is left.
"""

import re
from dataclasses import replace

from sqlalchemy import Exists, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.addresses import normalise
from campaigns.audience.models import Contact, Suppression, SuppressionReason
from campaigns.audience.self_service import is_self_service, require_audience_or_self_service
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.tokens import Purpose, keyring

# A more severe reason replaces a weaker one, never the reverse: lifting a manual suppression must not
# mail somebody who has unsubscribed since.
_SEVERITY = {
    SuppressionReason.MANUAL: 0,
    SuppressionReason.BOUNCED: 1,
    SuppressionReason.UNSUBSCRIBED: 2,
    SuppressionReason.COMPLAINED: 3,
    SuppressionReason.ERASED: 4,
}
severity = _SEVERITY.__getitem__
LIFTABLE = frozenset({SuppressionReason.MANUAL, SuppressionReason.BOUNCED})
"""Reasons that a coordinator may lift. The others are the person's own decision."""


def address_hash(address: str) -> str:
    """Return the keyed hash of a normalised address."""
    return keyring().keyed_hash(Purpose.ERASED, address)


def suppress(session: Session, actor: Actor, address: str, reason: SuppressionReason, detail: str = "") -> Suppression:
    """Suppress an address and return the row. Idempotent: the most severe reason is kept.

    Raises ValidationFailed for a bad address. PUBLIC may only unsubscribe or complain, else Forbidden.
    """
    require_audience_or_self_service(actor)
    if is_self_service(actor) and reason not in (SuppressionReason.UNSUBSCRIBED, SuppressionReason.COMPLAINED):
        raise Forbidden(N_("Your role does not allow this."))
    address = normalise(address)
    row = {
        "address": None if reason is SuppressionReason.ERASED else address,
        "address_hash": address_hash(address),
        "reason": reason,
        "detail": detail[:500],
        "at": clock.now(),
    }
    added = session.scalar(_insert_ignoring_conflicts(session).values(row).returning(Suppression.id))
    weaker_reasons = [other for other, rank in _SEVERITY.items() if rank < _SEVERITY[reason]]
    changed = session.scalar(
        update(Suppression)
        .where(Suppression.address_hash == row["address_hash"], Suppression.reason.in_(weaker_reasons))
        .values(row | {"previous_reason": Suppression.reason})
        .returning(Suppression.id)
        .execution_options(synchronize_session=False)
    )
    stored = session.scalars(
        select(Suppression)
        .where(Suppression.address_hash == row["address_hash"])
        .execution_options(populate_existing=True)
    ).one()
    if added is not None or changed is not None:
        audit.record(session, actor, "suppress", "suppression", stored.id, reason=reason.value)
    return stored


MAX_ADDRESSES_PER_REQUEST = 1_000
"""Addresses per request: each adds a row and an audit entry, while other writers wait."""


def suppress_all(session: Session, actor: Actor, text: str, reason: SuppressionReason, detail: str = "") -> int:
    """Suppress the addresses in ``text``, separated by lines, blanks, commas or semicolons; return their number.

    All or nothing: raises ValidationFailed with the line numbers when one of them is not an address.
    """
    unique_addresses: dict[str, None] = {}
    problems = []
    for line, line_text in enumerate(text.splitlines(), 1):
        for word in filter(None, re.split(r"[\s,;\"<>]+", line_text)):
            try:
                unique_addresses[normalise(word)] = None
            except ValidationFailed as error:
                problems += [replace(each, field="email", line=line) for each in error.problems]
    if not unique_addresses and not problems:
        problems = [ValidationProblem(N_("Enter an address."), "email")]
    if len(unique_addresses) > MAX_ADDRESSES_PER_REQUEST:
        problems = [
            ValidationProblem(N_("At most %(most)s at a time."), "email", params={"most": MAX_ADDRESSES_PER_REQUEST})
        ]
    if problems:
        raise ValidationFailed(problems[:20])
    for address in unique_addresses:
        suppress(session, actor, address, reason, detail)
    return len(unique_addresses)


def _insert_ignoring_conflicts(session: Session) -> postgresql.Insert | sqlite.Insert:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    return insert(Suppression).on_conflict_do_nothing(index_elements=[Suppression.address_hash])


def lift(session: Session, actor: Actor, suppression_id: int, why: str) -> None:
    """Delete a suppression; ``why`` goes into the audit log.

    Raises NotFound, ValidationFailed without a reason, and Conflict for reasons that only the person can take back
    (unsubscribed, complained, erased).
    """
    actor.require(Permission.AUDIENCE)
    found = session.get(Suppression, suppression_id)
    if found is None:
        raise NotFound(N_("There is no such suppression."))
    if found.reason not in LIFTABLE:
        raise Conflict(N_("Only the person can take this back, by signing up again."))
    if not why.strip():
        raise ValidationFailed(ValidationProblem(N_("Say why the address may receive e-mail again."), field="why"))
    session.delete(found)
    audit.record(session, actor, "lift", "suppression", found.id, reason=found.reason.value, why=why.strip()[:500])


def lift_own_unsubscription(session: Session, actor: Actor, address: str, *, detail: str | None = None) -> bool:
    """End the person's own unsubscription; return whether there was one. ``detail`` restricts it to that detail.

    A bounce or complaint stays. Raises Forbidden unless the person acts themselves (actor PUBLIC).
    """
    return _lift_own(session, actor, address, SuppressionReason.UNSUBSCRIBED, detail)


def lift_own_erasure(session: Session, actor: Actor, address: str) -> None:
    """End the suppression of an erased person who acts themselves. Raises Forbidden for other actors."""
    _lift_own(session, actor, address, SuppressionReason.ERASED)


def _lift_own(
    session: Session, actor: Actor, address: str, reason: SuppressionReason, detail: str | None = None
) -> bool:
    if not is_self_service(actor):
        raise Forbidden(N_("Your role does not allow this."))
    conditions = [Suppression.address_hash == address_hash(address), Suppression.reason == reason]
    if detail is not None:
        conditions.append(Suppression.detail == detail)
    found = session.scalars(
        select(Suppression).where(*conditions).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        return False
    if found.previous_reason in LIFTABLE and reason is SuppressionReason.UNSUBSCRIBED:
        found.reason, found.previous_reason, found.detail = found.previous_reason, None, ""
    else:
        session.delete(found)
    session.flush()
    audit.record(session, actor, "resubscribe", "suppression", found.id, reason=reason.value)
    return True


def reason_for(session: Session, address: str) -> SuppressionReason | None:
    """Return why a normalised address is suppressed; None when it may be mailed."""
    return session.scalar(select(Suppression.reason).where(Suppression.address_hash == address_hash(address)))


def is_suppressed(session: Session, address: str) -> bool:
    """Return whether a normalised address is suppressed."""
    return reason_for(session, address) is not None


def suppressed_sql() -> Exists:
    """Return an EXISTS that is true for suppressed contacts of the enclosing query; one index look-up per contact.

    It compares addresses only, which is sufficient: no contact has an erased address.
    """
    return exists().where(Suppression.address == Contact.email).correlate(Contact)
