"""Tokens, and instants on both databases."""

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, outbox
from campaigns.errors import InvalidTokenError
from campaigns.tokens import Purpose, keyring, mint_send_token, open_send_token
from tests.conftest import FrozenClock


def test_a_token_is_valid_for_its_purpose_only() -> None:
    token = mint_send_token(Purpose.ENGAGEMENT, (7 << 32) | 9)
    assert len(token) == 28
    assert open_send_token(Purpose.ENGAGEMENT, token) == (7 << 32) | 9
    for purpose in Purpose:
        if purpose is not Purpose.ENGAGEMENT:
            with pytest.raises(InvalidTokenError):
                open_send_token(purpose, token)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: "",
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t + "=",
        lambda t: "B" + t[1:],
        lambda t: "é" + t[1:],
        lambda t: t[:10] + ("A" if t[10] != "A" else "B") + t[11:],
        lambda t: "A" * 5000,
        lambda t: t + "\n",
    ],
)
def test_an_altered_token_is_refused(spoil: object) -> None:
    token = mint_send_token(Purpose.ENGAGEMENT, 1)
    with pytest.raises(InvalidTokenError):
        open_send_token(Purpose.ENGAGEMENT, spoil(token))  # type: ignore[operator]


def test_an_expiring_token_expires(frozen: FrozenClock) -> None:
    token = keyring().mint_expiring(Purpose.VISIT, b"x", clock.now() + timedelta(minutes=30))
    assert keyring().open_expiring(Purpose.VISIT, token) == b"x"
    frozen.at += timedelta(minutes=31)
    with pytest.raises(InvalidTokenError):
        keyring().open_expiring(Purpose.VISIT, token)


def test_instants_keep_their_microseconds(session: Session) -> None:
    mail = outbox.enqueue(session, "password", "a@example.org", {})
    session.flush()
    session.expire_all()
    at = session.scalars(select(outbox.OutboxMail.created_at)).one()
    assert at == mail.created_at
    assert at.utcoffset() == timedelta(0)
