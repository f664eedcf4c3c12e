"""Contact merge: surviving values, aliases, consent, suppression, pages."""

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

import wsgi  # noqa: F401  (registers the tables of every package)
from campaigns import clock, db
from campaigns.accounts.actor import PERMISSIONS, PUBLIC, SYSTEM, Actor, ActorKind
from campaigns.accounts.models import AuditLogEntry, Role
from campaigns.audience import consent, contact_merge, contacts, erasure, lists, suppression
from campaigns.audience.contact_merge import merge_contacts
from campaigns.audience.models import (
    ConsentLevel,
    ConsentPurpose,
    Contact,
    ContactAlias,
    Suppression,
    SuppressionReason,
)
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed
from campaigns.leads.models import Lead
from tests.factories import make_contact, make_list

VIEWER = Actor(ActorKind.USER, 1, "Viewer", PERMISSIONS[Role.VIEWER])


def make_pair(session: Session) -> tuple[Contact, Contact]:
    ann = make_contact(session, email="ann@example.org", first_name="Ann", last_name="", attributes={"city": "Lyon"})
    ana = make_contact(
        session,
        email="ana@example.net",
        first_name="Ana",
        last_name="Lee",
        language="fr",
        attributes={"city": "Paris", "size": "M"},
    )
    return ann, ana


def test_duplicate_becomes_an_alias_of_the_survivor(session: Session) -> None:
    ann, ana = make_pair(session)
    both, only = make_list(session, ann, ana), make_list(session, ana)
    survivor = merge_contacts(session, SYSTEM, ann.id, ana.id)
    assert (survivor.email, survivor.first_name, survivor.last_name, survivor.language) == (
        "ann@example.org",
        "Ann",
        "Lee",
        "fr",
    )
    assert survivor.attributes == {"city": "Lyon", "size": "M"}
    assert {one.id for one in lists.lists_of_contact(session, ann.id)} == {both.id, only.id}
    assert session.scalars(select(Contact.id)).all() == [ann.id]
    assert contacts.contact_by_address(session, "ana@example.net") is survivor
    assert contacts.merged_into(session, ana.id) == ann.id
    with pytest.raises(ValidationFailed, match="already"):
        contacts.add_contact(session, SYSTEM, email="ana@example.net")
    again, is_new = contacts.upsert_contact(session, PUBLIC, email="ana@example.net", timezone="Asia/Tbilisi")
    assert (again.email, again.timezone, is_new) == ("ann@example.org", "Asia/Tbilisi", False)
    entry = session.scalars(select(AuditLogEntry).where(AuditLogEntry.action == "merge")).one()
    assert (entry.subject_id, entry.detail["other"]) == (str(ann.id), ana.id)
    assert "@" not in str(entry.detail)
    contacts.update_contact(session, SYSTEM, ann.id, email="ana@example.net")
    assert session.scalars(select(ContactAlias)).all() == []


def test_chained_merges_resolve_to_the_last_survivor(session: Session) -> None:
    ann, ana = make_pair(session)
    eve = make_contact(session)
    merge_contacts(session, SYSTEM, ana.id, ann.id)
    merge_contacts(session, SYSTEM, eve.id, ana.id)
    assert contacts.contact_by_address(session, "ann@example.org") is eve
    assert contacts.merged_into(session, ann.id) == eve.id


@pytest.mark.parametrize(
    ("mine", "theirs", "then"),
    [
        ("full", "none", "none"),
        ("none", "full", "none"),
        ("full", None, "full"),
        (None, "full", "full"),
        ("deliverability", "full", "deliverability"),
        (None, None, None),
    ],
)
def test_stricter_consent_wins(session: Session, mine: str | None, theirs: str | None, then: str | None) -> None:
    ann, ana = make_pair(session)
    for contact, level in ((ann, mine), (ana, theirs)):
        if level == "none":
            consent.withdraw(session, SYSTEM, contact.id, ConsentPurpose.TRACKING, source="x")
        elif level:
            consent.grant(session, SYSTEM, contact.id, ConsentPurpose.TRACKING, ConsentLevel(level), source="x")
    levels = contact_merge.preview_merge(session, SYSTEM, ann.id, ana.id).consent[ConsentPurpose.TRACKING]
    assert [level.value if level else None for level in levels] == [mine, theirs, then]
    merge_contacts(session, SYSTEM, ann.id, ana.id)
    assert consent.latest_level(session, ann.id, ConsentPurpose.TRACKING) == (ConsentLevel(then) if then else None)
    now = consent.levels_as_of(session, [ann.id], ConsentPurpose.TRACKING, clock.now())
    assert now[ann.id] == ConsentLevel(then or "none")


@pytest.mark.parametrize("whose", [0, 1])
@pytest.mark.parametrize(("reason", "survives"), [("unsubscribed", True), ("manual", True), ("bounced", False)])
def test_suppression_survives(session: Session, whose: int, reason: str, survives: bool) -> None:
    pair = make_pair(session)
    addresses = [contact.email for contact in pair]
    suppression.suppress(session, SYSTEM, addresses[whose], SuppressionReason(reason))
    merge_contacts(session, SYSTEM, pair[0].id, pair[1].id)
    assert suppression.is_suppressed(session, addresses[whose])
    assert suppression.is_suppressed(session, addresses[1 - whose]) is survives


def test_an_erased_person_leaves_no_alias(session: Session) -> None:
    ann, ana = make_pair(session)
    merge_contacts(session, SYSTEM, ann.id, ana.id)
    erasure.erase_contact(session, SYSTEM, ann.id)
    assert session.scalars(select(ContactAlias)).all() == []
    assert session.scalars(select(Suppression.address)).all() == [None, None]
    assert suppression.is_suppressed(session, "ana@example.net")


def test_permissions_and_invalid_merges(session: Session) -> None:
    ann, ana = make_pair(session)
    for operation in (merge_contacts, contact_merge.preview_merge):
        with pytest.raises(Forbidden):
            operation(session, VIEWER, ann.id, ana.id)
        with pytest.raises(Forbidden):
            operation(session, PUBLIC, ann.id, ana.id)
        with pytest.raises(Conflict):
            operation(session, SYSTEM, ann.id, ann.id)
        with pytest.raises(NotFound):
            operation(session, SYSTEM, ann.id, 999)
    assert len(session.scalars(select(Contact)).all()) == 2


def test_every_unique_reference_has_a_merge_step() -> None:
    """A new table that allows one row per contact needs a merge step like merge_open_leads."""
    handled = {"list_members", "leads"}
    for table in db.Base.metadata.sorted_tables:
        for kind in (Contact, Lead):
            references = {c for c in table.columns if any(key.column.table is kind.__table__ for key in c.foreign_keys)}
            keys = [one for one in table.constraints if isinstance(one, sa.UniqueConstraint | sa.PrimaryKeyConstraint)]
            indexes = [one for one in table.indexes if one.unique]
            unique = [one.name for one in (*keys, *indexes) if references & set(one.columns)]
            assert not unique or table.name in handled, (table.name, unique)


def test_merge_pages(coordinator_client: FlaskClient, viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        ann, ana = (contact.id for contact in make_pair(session))
    page = coordinator_client.get(f"/contacts/{ann}/merge?q=ana").text
    assert f'href="/contacts/{ann}/merge?with={ana}"' in page
    assert "ana@example.net" in page
    preview = coordinator_client.get(f"/contacts/{ann}/merge?with={ana}").text
    for word in ("Ann", "Lee", "This one stays", f"/contacts/{ana}/merge?with={ann}", "cannot be undone"):
        assert word in preview, word
    assert coordinator_client.get(f"/contacts/{ann}/merge?with={ann}").status_code == 409
    assert coordinator_client.get(f"/contacts/{ann}/merge?with=999").status_code == 404
    assert viewer_client.post(f"/contacts/{ann}/merge", data={"with": ana}).status_code == 403
    assert coordinator_client.post(f"/contacts/{ann}/merge", data={"with": "x"}).status_code == 404
    assert coordinator_client.post(f"/contacts/{ann}/merge", data={"with": ana}).location == f"/contacts/{ann}"
    assert coordinator_client.get(f"/contacts/{ana}").location == f"/contacts/{ann}"
    assert "ana@example.net" in coordinator_client.get(f"/contacts/{ann}").text
    assert coordinator_client.post(f"/contacts/{ann}/merge", data={"with": ana}).status_code == 404
