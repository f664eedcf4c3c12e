"""Service functions of messages: create, update, copy, permissions."""

import pytest
from sqlalchemy.orm import Session

from campaigns.accounts.actor import PERMISSIONS, SYSTEM, Actor, ActorKind
from campaigns.accounts.models import Role
from campaigns.content import messages
from campaigns.content.models import Message
from campaigns.content.starter_templates import STARTERS
from campaigns.errors import Conflict, Forbidden, NotFound, ValidationFailed

VIEWER = Actor(ActorKind.USER, 1, "V", PERMISSIONS[Role.VIEWER])


def update(session: Session, message: Message, **values: str | int) -> Message:
    whole = {
        "name": "N",
        "subject": "S",
        "preheader": "",
        "mjml": "<mjml>",
        "language": "en",
        **values,
    }
    return messages.update_message(session, SYSTEM, message, **whole)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [starter.key for starter in STARTERS])
def test_creating_from_a_starter(session: Session, key: str) -> None:
    message = messages.create_message(session, SYSTEM, name=" Mine ", starter=key)
    assert (message.name, message.revision) == ("Mine", 1)
    assert message.mjml.startswith("<mjml>")
    assert message.language == ("fa" if key.endswith("-fa") else "en")


def test_changing_raises_the_revision(session: Session) -> None:
    message = messages.create_message(session, SYSTEM, name="A")
    update(session, message, revision=1, name="B", mjml="<mjml>\r\nunfinished", from_email=" Ann@X.ORG ")
    assert (message.name, message.revision, message.mjml) == ("B", 2, "<mjml>\nunfinished")
    assert message.from_email == "ann@x.org"


def test_concurrent_update_is_a_conflict(session: Session) -> None:
    message = messages.create_message(session, SYSTEM, name="A")
    update(session, message, revision=1, name="First")
    with pytest.raises(Conflict):
        update(session, message, revision=1, name="Second")
    session.refresh(message)
    assert message.name == "First"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", "x" * 201),
        ("subject", "x" * 501),
        ("subject", "a\r\nBcc: b@x.org"),
        ("preheader", "a\nb"),
        ("from_name", "a\nb"),
        ("from_name", "a\x00"),
        ("mjml", "a\x00"),
        ("mjml", "\ud800"),
        ("mjml", "x" * (256 * 1024 + 1)),
        ("language", "xx"),
        ("from_email", "nobody"),
        ("reply_to", "a@b@c.org"),
        ("from_email", "a@x.org\r\nBcc: b@x.org"),
    ],
)
def test_invalid_values_name_their_field(session: Session, field: str, value: str) -> None:
    message = messages.create_message(session, SYSTEM, name="A")
    with pytest.raises(ValidationFailed) as error:
        update(session, message, revision=1, **{field: value})
    assert {problem.field for problem in error.value.problems} == {field}
    assert message.revision == 1


def test_copying(session: Session) -> None:
    message = messages.create_message(session, SYSTEM, name="A", starter="offer", reply_to="a@x.org")
    copy = messages.duplicate_message(session, SYSTEM, message, "B" * 300)
    assert copy.id != message.id
    assert (copy.mjml, copy.reply_to, len(copy.name)) == (message.mjml, "a@x.org", 200)


def test_viewers_change_nothing(session: Session) -> None:
    message = messages.create_message(session, SYSTEM, name="A")
    with pytest.raises(Forbidden):
        messages.create_message(session, VIEWER, name="A")
    with pytest.raises(Forbidden):
        messages.duplicate_message(session, VIEWER, message, "B")
    with pytest.raises(Forbidden):
        messages.update_message(
            session, VIEWER, message, revision=1, name="x", subject="", preheader="", mjml="", language="en"
        )


def test_unknown_message_and_starter(session: Session) -> None:
    with pytest.raises(NotFound):
        messages.message_of(session, 404)
    with pytest.raises(NotFound):
        messages.create_message(session, SYSTEM, name="A", starter="../letter")
