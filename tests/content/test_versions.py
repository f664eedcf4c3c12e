"""Message problems and frozen versions."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import PERMISSIONS, SYSTEM, Actor, ActorKind
from campaigns.accounts.models import AuditLogEntry, Role
from campaigns.content import versions
from campaigns.content.merge_fields import BUILT_IN_FIELDS, known_fields
from campaigns.content.mjml.compiler import LARGE_MAIL_BYTES, MAX_MAIL_BYTES
from campaigns.content.mjml.diagnostics import Severity
from campaigns.content.models import Message, MessageVersion
from campaigns.errors import Forbidden, ValidationFailed
from tests.content.fixtures import ORGANISATION, mjml_source
from tests.factories import make_contact, make_message, make_organisation

VIEWER = Actor(ActorKind.USER, 1, "V", PERMISSIONS[Role.VIEWER])


def problem_tuples(message: Message, fields: object = BUILT_IN_FIELDS) -> list[tuple[str, str | None, int | None, str]]:
    found = versions.find_problems(message, ORGANISATION, fields)  # type: ignore[arg-type]
    return [(each.level.value, each.field, each.line, str(each)) for each in found]


def test_freezing(session: Session) -> None:
    make_organisation(session)
    message = make_message(session)
    version = versions.freeze(session, SYSTEM, message)
    assert version.id is not None
    assert version.from_email == "news@example.org"
    assert version.from_name == "Example"
    assert [(each.number, each.url, each.label) for each in version.links] == [
        (1, "https://example.org/offer", "See the offer")
    ]
    assert "{{ links[1] }}" in version.html
    assert "{{ unsubscribe_url }}" in version.html
    assert "{% if pixel %}" in version.html
    assert "{{ links[1] }}" in version.text
    assert session.scalar(select(func.count()).select_from(AuditLogEntry).where(AuditLogEntry.action == "freeze")) == 1


def test_the_same_content_is_frozen_once(session: Session) -> None:
    make_organisation(session)
    message = make_message(session)
    first = versions.freeze(session, SYSTEM, message)
    message.name = "Another name is not another mail"
    assert versions.freeze(session, SYSTEM, message).id == first.id
    assert session.scalar(select(func.count()).select_from(MessageVersion)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "Other"},
        {"preheader": "Other"},
        {"mjml": mjml_source("Other")},
        {"language": "fa"},
        {"from_name": "Other"},
        {"from_email": "other@example.org"},
        {"reply_to": "other@example.org"},
    ],
)
def test_any_change_of_content_or_sender_is_another_version(session: Session, change: dict[str, str]) -> None:
    make_organisation(session)
    message = make_message(session)
    first = versions.freeze(session, SYSTEM, message)
    for field, value in change.items():
        setattr(message, field, value)
    assert versions.freeze(session, SYSTEM, message).id != first.id


def test_the_organisations_sender_is_content_too(session: Session) -> None:
    organisation = make_organisation(session)
    message = make_message(session)
    first = versions.freeze(session, SYSTEM, message)
    organisation.sender_email = "new@example.org"
    assert versions.freeze(session, SYSTEM, message).id != first.id


def test_a_message_with_errors_is_not_frozen(session: Session) -> None:
    make_organisation(session)
    message = make_message(session, mjml=mjml_source("{{ contact.nobody }}"), subject="")
    with pytest.raises(ValidationFailed) as error:
        versions.freeze(session, SYSTEM, message)
    assert {(each.field, each.line) for each in error.value.problems} == {("mjml", 4), ("subject", None)}
    assert session.scalar(select(func.count()).select_from(MessageVersion)) == 0


def test_a_viewer_freezes_nothing(session: Session) -> None:
    make_organisation(session)
    with pytest.raises(Forbidden):
        versions.freeze(session, VIEWER, make_message(session))


def test_errors_come_before_warnings() -> None:
    message = Message(
        subject="x",
        preheader="",
        language="en",
        from_email="",
        from_name="",
        reply_to="",
        mjml=mjml_source('<img src="https://x.org/a.png" /><blink>x</blink>'),
    )
    assert [each[0] for each in problem_tuples(message)] == ["error", "warning"]


def message_of_size(size: int) -> Message:
    return Message(
        subject="x", preheader="", language="en", from_email="", from_name="", reply_to="", mjml=mjml_source("x" * size)
    )


def test_the_size_of_a_mail() -> None:
    assert problem_tuples(message_of_size(LARGE_MAIL_BYTES - 8_000)) == []
    large = problem_tuples(message_of_size(LARGE_MAIL_BYTES))
    assert [each[0] for each in large] == ["warning"]
    assert "KB of HTML; at 100 KB it cannot be sent" in large[0][3]
    too_large = problem_tuples(message_of_size(MAX_MAIL_BYTES))
    assert [each[0] for each in too_large] == ["error"]
    assert "Gmail cuts it off at 100 KB" in too_large[0][3]


def test_tracked_addresses_count_into_the_size() -> None:
    message = message_of_size(1)
    message.mjml = mjml_source('<a href="https://x.org/">x</a>' * 1_400)
    assert [each[0] for each in problem_tuples(message)] == ["warning"]


def test_oversized_output_is_reported() -> None:
    message = message_of_size(1)
    message.mjml = mjml_source(
        "{% for i in range(50) %}{% for j in range(50) %}" + "x" * 1000 + "{% endfor %}{% endfor %}"
    )
    assert problem_tuples(message) == [("error", "mjml", None, "The merged message grows beyond every measure.")]


def test_fields_of_contacts_are_known(session: Session) -> None:
    make_organisation(session)
    make_contact(session, attributes={"city": "Tbilisi"})
    assert "contact.city" in known_fields(session)
    message = make_message(session, mjml=mjml_source("{{ contact.city|upper }}"))
    assert versions.freeze(session, SYSTEM, message).html.count("contact.city") == 1


def test_rare_field_is_looked_up(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campaigns.content.merge_fields._SAMPLED_CONTACTS", 0)
    make_contact(session, attributes={"city": "Tbilisi"})
    assert "contact.city" not in known_fields(session)
    assert "contact.city" in known_fields(session, {"contact.city", "contact.town"})
    assert "contact.town" not in known_fields(session, {"contact.city", "contact.town"})


def test_missing_postal_address_is_a_warning(session: Session) -> None:
    organisation = make_organisation(session, postal_address="")
    found = versions.find_problems(make_message(session), organisation, BUILT_IN_FIELDS)
    assert [(each.level, each.field) for each in found if each.field == "organisation"] == [
        (Severity.WARNING, "organisation")
    ]
