"""Login rate limits: guessing locks out neither the user on another network nor a known browser."""

import pytest
from sqlalchemy.orm import Session

from campaigns.accounts import authentication
from campaigns.accounts.authentication import FOR_ADDRESS, FOR_ADDRESS_ANYWHERE, LoginRateLimitKeys
from campaigns.errors import RateLimited
from tests.factories import make_person


def test_guessing_locks_only_its_own_network(session: Session) -> None:
    for _ in range(FOR_ADDRESS):
        authentication.knock(session, LoginRateLimitKeys.of("ana@acme.example", "7f/8"))
    with pytest.raises(RateLimited):
        authentication.knock(session, LoginRateLimitKeys.of("ana@acme.example", "7f/8"))
    authentication.knock(session, LoginRateLimitKeys.of("ana@acme.example", "0a/8"))


def test_guessing_from_everywhere_leaves_a_known_browser(session: Session) -> None:
    ana, bob = make_person(session), make_person(session)
    known = authentication.device_token(ana)
    for number in range(FOR_ADDRESS_ANYWHERE):
        authentication.knock(session, LoginRateLimitKeys.of(ana.email, f"{number}/8"))
    for stranger in ("", known[:-1], authentication.device_token(bob)):
        with pytest.raises(RateLimited):
            authentication.knock(session, LoginRateLimitKeys.of(ana.email, f"fresh{stranger[:4]}/8", stranger))
    for _ in range(FOR_ADDRESS):
        authentication.knock(session, LoginRateLimitKeys.of(ana.email, "0a/8", known))
    with pytest.raises(RateLimited):  # A stolen device cookie does not lift the limit.
        authentication.knock(session, LoginRateLimitKeys.of(ana.email, "0b/8", known))
