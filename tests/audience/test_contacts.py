"""Contacts, lists, suppressions and erasure."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import PERMISSIONS, PUBLIC, SYSTEM, Actor, ActorKind
from campaigns.accounts.models import AuditLogEntry, Role
from campaigns.audience import consent, contacts, erasure, lists, suppression
from campaigns.audience.models import (
    ConsentEntry,
    ConsentLevel,
    ConsentPurpose,
    Contact,
    ListMember,
    Suppression,
    SuppressionReason,
)
from campaigns.errors import Conflict, Forbidden, ValidationFailed
from tests.factories import make_activity, make_contact, make_list

VIEWER = Actor(ActorKind.USER, 1, "Viewer", PERMISSIONS[Role.VIEWER])


def test_address_is_unique(session: Session) -> None:
    contacts.add_contact(session, SYSTEM, email="Ann@Example.org")
    with pytest.raises(ValidationFailed, match="already"):
        contacts.add_contact(session, SYSTEM, email="ann@example.ORG ")


def test_upsert_overwrites_with_values_only(session: Session) -> None:
    first, is_new = contacts.upsert_contact(
        session, PUBLIC, email="ann@example.org", first_name="Ann", attributes={"city": "Lyon", "size": "M"}
    )
    again, is_new_again = contacts.upsert_contact(
        session, PUBLIC, email="ANN@example.org", last_name="Lee", attributes={"city": "Paris", "size": ""}
    )
    assert (is_new, is_new_again, first.id) == (True, False, again.id)
    assert (again.first_name, again.last_name) == ("Ann", "Lee")
    assert again.attributes == {"city": "Paris", "size": "M"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"email": "x"}, "email"),
        ({"first_name": "x" * 101}, "first_name"),
        ({"last_name": "a\x00b"}, "last_name"),
        ({"language": "english please"}, "language"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"attributes": {"Bad": "1"}}, "attributes"),
        ({"attributes": {"a": "x" * 1001}}, "attributes"),
        ({"attributes": {f"a{n}": "x" for n in range(101)}}, "attributes"),
    ],
)
def test_bad_values_name_their_field(session: Session, values: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        contacts.add_contact(session, SYSTEM, **{"email": "ann@example.org", **values})  # type: ignore[arg-type]
    assert [one.field for one in caught.value.problems] == [field]
    assert session.scalars(select(Contact)).all() == []


def test_language_codes_are_canonical(session: Session) -> None:
    assert contacts.add_contact(session, SYSTEM, email="a@example.org", language="PT_BR").language == "pt-BR"
    assert contacts.add_contact(session, SYSTEM, email="b@example.org", language=" FA ").language == "fa"


def test_erasure_leaves_only_a_hash(session: Session) -> None:
    ann = contacts.add_contact(session, SYSTEM, email="ann@example.org", first_name="Ann")
    chosen = make_list(session, ann)
    consent.grant(session, SYSTEM, ann.id, ConsentPurpose.EMAIL, ConsentLevel.FULL, source="form")
    erasure.erase_contact(session, SYSTEM, ann.id)
    session.flush()
    for kind in (Contact, ConsentEntry, ListMember):
        assert session.scalars(select(kind)).all() == []
    left = session.scalars(select(Suppression)).one()
    assert (left.address, left.reason) == (None, SuppressionReason.ERASED)
    assert suppression.is_suppressed(session, "ann@example.org")
    assert all("ann@" not in str(entry.detail) + entry.subject_id for entry in session.scalars(select(AuditLogEntry)))
    assert lists.list_of(session, chosen.id)
    with pytest.raises(ValidationFailed, match="erased"):
        contacts.add_contact(session, SYSTEM, email="ann@example.org")
    with pytest.raises(Conflict):
        suppression.lift(session, SYSTEM, left.id, "please")
    back, is_new = contacts.upsert_contact(session, PUBLIC, email="ann@example.org")
    assert is_new
    assert not suppression.is_suppressed(session, back.email)


def test_registered_erasure_steps_run(session: Session) -> None:
    removed: list[tuple[int, str]] = []

    def step(_session: Session, contact_id: int, address: str) -> None:
        removed.append((contact_id, address))

    erasure.register_steps([step])
    try:
        ann = make_contact(session)
        erasure.erase_contact(session, SYSTEM, ann.id)
    finally:
        erasure._steps.remove(step)
    assert removed == [(ann.id, ann.email)]


def test_erasure_removes_a_suppressed_address(session: Session) -> None:
    ann = make_contact(session)
    suppression.suppress(session, SYSTEM, ann.email, SuppressionReason.COMPLAINED)
    erasure.erase_contact(session, SYSTEM, ann.id)
    left = session.scalars(select(Suppression)).one()
    assert (left.address, left.reason) == (None, SuppressionReason.ERASED)


def test_only_more_severe_reasons_replace_a_suppression(session: Session) -> None:
    order = ["manual", "bounced", "unsubscribed", "complained"]
    for reason in [*order, *order]:
        suppression.suppress(session, SYSTEM, "ann@example.org", SuppressionReason(reason))
    one = session.scalars(select(Suppression)).one()
    assert one.reason is SuppressionReason.COMPLAINED
    with pytest.raises(Conflict):
        suppression.lift(session, SYSTEM, one.id, "please")


def test_the_public_suppresses_only_by_unsubscribing_or_complaining(session: Session) -> None:
    with pytest.raises(Forbidden):
        suppression.suppress(session, PUBLIC, "ann@example.org", SuppressionReason.MANUAL)
    with pytest.raises(Forbidden):
        suppression.suppress(session, VIEWER, "ann@example.org", SuppressionReason.MANUAL)
    suppression.suppress(session, PUBLIC, "ann@example.org", SuppressionReason.UNSUBSCRIBED)


def test_an_unsubscribed_person_stays_so_under_a_new_address(session: Session) -> None:
    ann = make_contact(session)
    suppression.suppress(session, PUBLIC, ann.email, SuppressionReason.UNSUBSCRIBED)
    contacts.update_contact(session, SYSTEM, ann.id, email="new@example.org")
    assert suppression.reason_for(session, "new@example.org") is SuppressionReason.UNSUBSCRIBED


def test_a_list_in_use_is_not_deleted(session: Session) -> None:
    chosen = make_list(session)
    make_activity(session, everybody=False, list_id=chosen.id)
    with pytest.raises(Conflict):
        lists.delete_list(session, SYSTEM, chosen.id)
    lists.rename_list(session, SYSTEM, chosen.id, "Renamed")


def test_members_are_added_once(session: Session) -> None:
    chosen = lists.create_list(session, SYSTEM, "Fair")
    ids = [make_contact(session).id for _ in range(600)]
    assert lists.add_members(session, SYSTEM, chosen.id, [*ids, 10**9]) == 600
    assert lists.add_members(session, SYSTEM, chosen.id, ids[:5]) == 0
    lists.remove_members(session, SYSTEM, chosen.id, ids[1:])
    assert [size for _, size in lists.lists_with_sizes(session)] == [1]
