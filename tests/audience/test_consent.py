"""Consent log: levels as of an instant, and permissions to write entries."""

from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from campaigns.accounts.actor import PERMISSIONS, PUBLIC, SYSTEM, Actor, ActorKind
from campaigns.accounts.models import Role
from campaigns.audience import consent, suppression
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact, SuppressionReason
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed
from tests.conftest import NOON, FrozenClock
from tests.factories import make_contact

VIEWER = Actor(ActorKind.USER, 1, "Viewer", PERMISSIONS[Role.VIEWER])
FULL, NONE, DELIVERABILITY = ConsentLevel.FULL, ConsentLevel.NONE, ConsentLevel.DELIVERABILITY
EMAIL, TRACKING = ConsentPurpose.EMAIL, ConsentPurpose.TRACKING


def test_levels_as_of_an_instant(session: Session, frozen: FrozenClock) -> None:
    ann, bob = make_contact(session), make_contact(session)
    consent.grant(session, SYSTEM, ann.id, TRACKING, FULL, source="form")
    consent.grant(session, SYSTEM, ann.id, EMAIL, FULL, source="form")
    frozen.at = NOON + timedelta(hours=1)
    consent.withdraw(session, SYSTEM, ann.id, TRACKING, source="page")
    ids = [ann.id, bob.id, 10**9]
    assert consent.levels_as_of(session, ids, TRACKING, NOON - timedelta(seconds=1)) == dict.fromkeys(ids, NONE)
    assert consent.levels_as_of(session, ids, TRACKING, NOON)[ann.id] is FULL
    assert consent.levels_as_of(session, ids, TRACKING, NOON + timedelta(hours=1))[ann.id] is NONE
    assert consent.levels_as_of(session, ids, EMAIL, frozen.at)[ann.id] is FULL
    assert consent.levels_as_of(session, [], EMAIL, frozen.at) == {}
    full = select(Contact.id).where(consent.current_level_sql(EMAIL) == FULL)
    assert session.scalars(full).all() == [ann.id]


def test_entries_of_one_instant_keep_their_order(session: Session, frozen: FrozenClock) -> None:
    ann = make_contact(session)
    consent.grant(session, SYSTEM, ann.id, EMAIL, FULL, source="form")
    consent.withdraw(session, SYSTEM, ann.id, EMAIL, source="page")
    assert consent.levels_as_of(session, [ann.id], EMAIL, frozen.at)[ann.id] is NONE


def test_levels_of_more_ids_than_one_batch(session: Session, frozen: FrozenClock) -> None:
    contacts = [make_contact(session) for _ in range(1100)]
    for contact in contacts[::2]:
        consent.grant(session, SYSTEM, contact.id, EMAIL, FULL, source="form")
    levels = consent.levels_as_of(session, [one.id for one in contacts], EMAIL, frozen.at)
    assert [levels[one.id] for one in contacts[:2]] == [FULL, NONE]
    assert len(levels) == 1100


def test_only_the_contact_can_consent_again(session: Session) -> None:
    ann = make_contact(session)
    consent.withdraw(session, PUBLIC, ann.id, EMAIL, source="unsubscribe page")
    suppression.suppress(session, PUBLIC, ann.email, SuppressionReason.UNSUBSCRIBED)
    with pytest.raises(Conflict):
        consent.grant(session, SYSTEM, ann.id, EMAIL, FULL, source="hand")
    consent.grant(session, PUBLIC, ann.id, EMAIL, FULL, source="form")
    assert not suppression.is_suppressed(session, ann.email)
    assert [one.level for one in consent.history(session, ann.id)] == [FULL, NONE]


def test_a_bounce_or_complaint_outlasts_a_form(session: Session) -> None:
    for reason in (SuppressionReason.BOUNCED, SuppressionReason.COMPLAINED, SuppressionReason.MANUAL):
        ann = make_contact(session)
        suppression.suppress(session, SYSTEM, ann.email, reason)
        consent.grant(session, PUBLIC, ann.id, EMAIL, FULL, source="form")
        assert suppression.reason_for(session, ann.email) is reason


def test_invalid_entries_are_refused(session: Session) -> None:
    ann = make_contact(session)
    with pytest.raises(Forbidden):
        consent.grant(session, VIEWER, ann.id, EMAIL, FULL, source="x")
    with pytest.raises(Forbidden):
        consent.withdraw(session, VIEWER, ann.id, EMAIL, source="x")
    with pytest.raises(ValidationFailed):
        consent.grant(session, SYSTEM, ann.id, EMAIL, DELIVERABILITY, source="x")
    with pytest.raises(NotFound):
        consent.grant(session, SYSTEM, 10**9, EMAIL, FULL, source="x")


def test_level_subquery_uses_the_index(session: Session) -> None:
    stmt = select(Contact.id, consent.current_level_sql(EMAIL), suppression.suppressed_sql())
    sql = str(stmt.compile(session.connection(), compile_kwargs={"literal_binds": True}))
    if session.connection().dialect.name == "sqlite":
        plan = "\n".join(str(row) for row in session.execute(text(f"EXPLAIN QUERY PLAN {sql}")))
        assert "COVERING INDEX ix_consent" in plan
        assert "SCAN consent" not in plan
    else:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(str(row[0]) for row in session.execute(text(f"EXPLAIN {sql}")))
        assert "ix_consent" in plan
        assert "Sort" not in plan
