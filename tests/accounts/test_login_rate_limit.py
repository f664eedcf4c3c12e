"""Login rate limits: guessing locks out neither the user on another network nor a known browser."""

import pytest
from sqlalchemy.orm import Session

from campaigns.accounts import authentication
from campaigns.accounts.authentication import MAX_PER_ADDRESS, MAX_PER_ADDRESS_AND_NETWORK, LoginRateLimitKeys
from campaigns.errors import RateLimited
from tests.factories import make_user


def test_guessing_blocks_only_its_own_network(session: Session) -> None:
    for _ in range(MAX_PER_ADDRESS_AND_NETWORK):
        authentication.count_attempt(session, LoginRateLimitKeys.for_attempt("ana@acme.example", "7f/8"))
    with pytest.raises(RateLimited):
        authentication.count_attempt(session, LoginRateLimitKeys.for_attempt("ana@acme.example", "7f/8"))
    authentication.count_attempt(session, LoginRateLimitKeys.for_attempt("ana@acme.example", "0a/8"))


def test_guessing_from_many_networks_does_not_block_a_known_browser(session: Session) -> None:
    ana, bob = make_user(session), make_user(session)
    known_device = authentication.device_token(ana)
    for number in range(MAX_PER_ADDRESS):
        authentication.count_attempt(session, LoginRateLimitKeys.for_attempt(ana.email, f"{number}/8"))
    for stranger in ("", known_device[:-1], authentication.device_token(bob)):
        with pytest.raises(RateLimited):
            authentication.count_attempt(
                session, LoginRateLimitKeys.for_attempt(ana.email, f"fresh{stranger[:4]}/8", stranger)
            )
    for _ in range(MAX_PER_ADDRESS_AND_NETWORK):
        authentication.count_attempt(session, LoginRateLimitKeys.for_attempt(ana.email, "0a/8", known_device))
    with pytest.raises(RateLimited):  # A stolen device cookie does not lift the limit.
        authentication.count_attempt(session, LoginRateLimitKeys.for_attempt(ana.email, "0b/8", known_device))
