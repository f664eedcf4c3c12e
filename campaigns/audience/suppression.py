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
from campaigns.audience.self_service import is_own_act, require_audience
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.tokens import Purpose, keyring

# A more severe reason replaces a weaker one, never the reverse: lifting a manual suppression must not
# mail somebody who has unsubscribed since.
_GRAVITY = {
    SuppressionReason.MANUAL: 0,
    SuppressionReason.BOUNCED: 1,
    SuppressionReason.UNSUBSCRIBED: 2,
    SuppressionReason.COMPLAINED: 3,
    SuppressionReason.ERASED: 4,
}
gravity = _GRAVITY.__getitem__
LIFTABLE = frozenset({SuppressionReason.MANUAL, SuppressionReason.BOUNCED})
"""Reasons that a coordinator may lift. The others are the person's own decision."""


def address_hash(address: str) -> str:
    """Return the keyed hash of a normalised address."""
    return keyring().keyed_hash(Purpose.ERASED, address)


def suppress(session: Session, actor: Actor, address: str, reason: SuppressionReason, detail: str = "") -> Suppression:
    """Suppress an address and return the row. Idempotent: the most severe reason is kept.

    Raises ValidationFailed for a bad address. PUBLIC may only unsubscribe or complain, else Forbidden.
    """
    require_audience(actor)
    if is_own_act(actor) and reason not in (SuppressionReason.UNSUBSCRIBED, SuppressionReason.COMPLAINED):
        raise Forbidden(N_("Your role does not allow this."))
    address = normalise(address)
    row = {
        "address": None if reason is SuppressionReason.ERASED else address,
        "address_hash": address_hash(address),
        "reason": reason,
        "detail": detail[:500],
        "at": clock.now(),
    }
    added = session.scalar(_insert_unless_there(session).values(row).returning(Suppression.id))
    lighter = [other for other, gravity in _GRAVITY.items() if gravity < _GRAVITY[reason]]
    changed = session.scalar(
        update(Suppression)
        .where(Suppression.address_hash == row["address_hash"], Suppression.reason.in_(lighter))
        .values(row | {"previous_reason": Suppression.reason})
        .returning(Suppression.id)
        .execution_options(synchronize_session=False)
    )
    found = session.scalars(
        select(Suppression)
        .where(Suppression.address_hash == row["address_hash"])
        .execution_options(populate_existing=True)
    ).one()
    if added is not None or changed is not None:
        audit.record(session, actor, "suppress", "suppression", found.id, reason=reason.value)
    return found


MOST_AT_ONCE = 1_000
"""Addresses per request: each adds a row and an audit entry, while other writers wait."""


def suppress_all(session: Session, actor: Actor, text: str, reason: SuppressionReason, detail: str = "") -> int:
    """Suppress the addresses in ``text``, separated by lines, blanks, commas or semicolons; return their number.

    All or nothing: raises ValidationFailed with the line numbers when one of them is not an address.
    """
    found: dict[str, None] = {}
    problems = []
    for line, words in enumerate(text.splitlines(), 1):
        for word in filter(None, re.split(r"[\s,;\"<>]+", words)):
            try:
                found[normalise(word)] = None
            except ValidationFailed as error:
                problems += [replace(each, field="email", line=line) for each in error.problems]
    if not found and not problems:
        problems = [ValidationProblem(N_("Enter an address."), "email")]
    if len(found) > MOST_AT_ONCE:
        problems = [ValidationProblem(N_("At most %(most)s at a time."), "email", params={"most": MOST_AT_ONCE})]
    if problems:
        raise ValidationFailed(problems[:20])
    for address in found:
        suppress(session, actor, address, reason, detail)
    return len(found)


def _insert_unless_there(session: Session) -> postgresql.Insert | sqlite.Insert:
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


def come_back(session: Session, actor: Actor, address: str, *, detail: str | None = None) -> bool:
    """End the person's own unsubscription; return whether there was one. ``detail`` restricts it to that detail.

    A bounce or complaint stays. Raises Forbidden unless the person acts themselves (actor PUBLIC).
    """
    return _end(session, actor, address, SuppressionReason.UNSUBSCRIBED, detail)


def come_back_from_erasure(session: Session, actor: Actor, address: str) -> None:
    """End the suppression of an erased person who acts themselves. Raises Forbidden for other actors."""
    _end(session, actor, address, SuppressionReason.ERASED)


def _end(session: Session, actor: Actor, address: str, reason: SuppressionReason, detail: str | None = None) -> bool:
    if not is_own_act(actor):
        raise Forbidden(N_("Your role does not allow this."))
    theirs = [Suppression.address_hash == address_hash(address), Suppression.reason == reason]
    if detail is not None:
        theirs.append(Suppression.detail == detail)
    found = session.scalars(
        select(Suppression).where(*theirs).with_for_update().execution_options(populate_existing=True)
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
