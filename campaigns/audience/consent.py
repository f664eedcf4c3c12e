"""Consent log: append-only entries per contact and purpose, read as of an instant.

No entry means no consent. A withdrawal stands until the contact answers again: neither a coordinator
nor an import can turn it into a consent.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ScalarSelect, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import Actor
from campaigns.audience import suppression
from campaigns.audience.models import ConsentEntry, ConsentLevel, ConsentPurpose, Contact
from campaigns.audience.self_service import is_self_service, require_audience_or_self_service
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_BATCH_SIZE = 500  # ids per IN (...) list, well below both databases' limits on bound parameters


def grant(
    session: Session,
    actor: Actor,
    contact_id: int,
    purpose: ConsentPurpose,
    level: ConsentLevel,
    *,
    source: str,
    wording: str = "",
    evidence: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> ConsentEntry:
    """Append an entry for what a contact allowed, with its source and evidence.

    When the contact acts themselves (actor PUBLIC), consent to e-mail also ends their earlier unsubscription.
    Raises Conflict when anybody else would turn a withdrawal into a consent, ValidationFailed for
    deliverability-only consent to e-mail, NotFound for an unknown contact.
    """
    require_audience_or_self_service(actor)
    if level is ConsentLevel.NONE:
        raise ValueError("to allow nothing is to withdraw")
    if purpose is ConsentPurpose.EMAIL and level is ConsentLevel.DELIVERABILITY:
        raise ValidationFailed(ValidationProblem(N_("Consent to e-mail is yes or no."), field="level"))
    contact = _contact(session, contact_id)
    if is_self_service(actor):
        if purpose is ConsentPurpose.EMAIL:
            suppression.lift_own_unsubscription(session, actor, contact.email)
    elif is_withdrawn(session, contact_id, purpose):
        raise Conflict(N_("This person has withdrawn. Only they can allow it again."))
    return _append(session, actor, contact_id, purpose, level, source, wording, evidence, at)


def withdraw(
    session: Session,
    actor: Actor,
    contact_id: int,
    purpose: ConsentPurpose,
    *,
    source: str,
    evidence: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> ConsentEntry:
    """Append an entry that withdraws consent for ``purpose``. Raises NotFound for an unknown contact."""
    require_audience_or_self_service(actor)
    _contact(session, contact_id)
    return _append(session, actor, contact_id, purpose, ConsentLevel.NONE, source, "", evidence, at)


def undo_withdrawal(
    session: Session,
    actor: Actor,
    contact_id: int,
    purpose: ConsentPurpose,
    *,
    source: str,
    evidence: Mapping[str, Any],
) -> bool:
    """Undo the withdrawal that carries ``evidence``: the level before it is granted again.

    Allowed only to the contact themselves (else Forbidden), and only while that withdrawal is the latest entry.
    Returns whether there was such a withdrawal with an earlier grant to restore.
    """
    if not is_self_service(actor):
        raise Forbidden(N_("Your role does not allow this."))
    latest, *earlier = _latest_entries(session, contact_id, purpose, 2) or (None,)
    if latest is None or latest.level is not ConsentLevel.NONE or latest.evidence != dict(evidence):
        return False
    previous = earlier[0] if earlier else None
    if previous is None or previous.level is ConsentLevel.NONE:
        return False
    _append(session, actor, contact_id, purpose, previous.level, source, previous.wording, evidence, None)
    return True


def _append(
    session: Session,
    actor: Actor,
    contact_id: int,
    purpose: ConsentPurpose,
    level: ConsentLevel,
    source: str,
    wording: str,
    evidence: Mapping[str, Any] | None,
    at: datetime | None,
) -> ConsentEntry:
    entry = ConsentEntry(
        contact_id=contact_id,
        purpose=purpose,
        level=level,
        at=at or clock.now(),
        source=source[:200],
        wording=wording,
        evidence=dict(evidence or {}),
        recorded_by=actor.name[:200],
    )
    session.add(entry)
    session.flush()
    return entry


def _contact(session: Session, contact_id: int) -> Contact:
    contact = session.get(Contact, contact_id)
    if contact is None:
        raise NotFound(N_("There is no such contact."))
    return contact


def is_withdrawn(session: Session, contact_id: int, purpose: ConsentPurpose) -> bool:
    """Return whether the latest answer is a withdrawal."""
    return latest_level(session, contact_id, purpose) is ConsentLevel.NONE


def latest_level(session: Session, contact_id: int, purpose: ConsentPurpose) -> ConsentLevel | None:
    """Return the level of the latest entry; None without any entry."""
    newest = _latest_entries(session, contact_id, purpose, 1)
    return newest[0].level if newest else None


_STRICTEST_FIRST = (ConsentLevel.NONE, ConsentLevel.DELIVERABILITY, ConsentLevel.FULL)


def stricter_level(first: ConsentLevel | None, second: ConsentLevel | None) -> ConsentLevel | None:
    """Return the stricter of two levels, for a contact who answered under two addresses; None means no answer."""
    return min((level for level in (first, second) if level is not None), key=_STRICTEST_FIRST.index, default=None)


def record_merged_levels(
    session: Session,
    actor: Actor,
    contact_id: int,
    duplicate_id: int,
    levels: Mapping[ConsentPurpose, ConsentLevel | None],
) -> None:
    """Append entries after two contacts were merged, where the latest entry differs from ``levels``."""
    require_audience_or_self_service(actor)
    for purpose, level in levels.items():
        if level is not None and latest_level(session, contact_id, purpose) is not level:
            _append(
                session, actor, contact_id, purpose, level, f"merged {duplicate_id}", "", {"merged": duplicate_id}, None
            )


def _latest_entries(session: Session, contact_id: int, purpose: ConsentPurpose, count: int) -> Sequence[ConsentEntry]:
    return session.scalars(
        select(ConsentEntry)
        .where(ConsentEntry.contact_id == contact_id, ConsentEntry.purpose == purpose)
        .order_by(ConsentEntry.at.desc(), ConsentEntry.id.desc())
        .limit(count)
    ).all()


def history(session: Session, contact_id: int) -> list[ConsentEntry]:
    """Return a contact's consent entries, newest first."""
    return list(
        session.scalars(
            select(ConsentEntry)
            .where(ConsentEntry.contact_id == contact_id)
            .order_by(ConsentEntry.at.desc(), ConsentEntry.id.desc())
        )
    )


def levels_as_of(
    session: Session, contact_ids: Collection[int], purpose: ConsentPurpose, at: datetime
) -> dict[int, ConsentLevel]:
    """Return the level of each contact at an instant, keyed by contact id; NONE for ids without entries or contact."""
    unique_ids = list(dict.fromkeys(contact_ids))
    levels = dict.fromkeys(unique_ids, ConsentLevel.NONE)
    level = level_sql(purpose, at)
    for start in range(0, len(unique_ids), _BATCH_SIZE):
        chunk = unique_ids[start : start + _BATCH_SIZE]
        for contact_id, contact_level in session.execute(select(Contact.id, level).where(Contact.id.in_(chunk))):
            if contact_level is not None:
                levels[contact_id] = contact_level
    return levels


def current_level_sql(purpose: ConsentPurpose) -> ScalarSelect[ConsentLevel]:
    """Return a subquery: the latest level of the enclosing query's Contact; NULL (no consent) without an entry."""
    return level_sql(purpose, None)


def level_sql(purpose: ConsentPurpose, at: datetime | BindParameter[datetime] | None) -> ScalarSelect[ConsentLevel]:
    """Return a subquery like :func:`current_level_sql`, as of ``at``: one index look-up per contact."""
    latest = select(ConsentEntry.level).where(ConsentEntry.contact_id == Contact.id, ConsentEntry.purpose == purpose)
    if at is not None:
        latest = latest.where(ConsentEntry.at <= at)
    newest = latest.order_by(ConsentEntry.at.desc(), ConsentEntry.id.desc()).limit(1)
    return newest.correlate(Contact).scalar_subquery()
