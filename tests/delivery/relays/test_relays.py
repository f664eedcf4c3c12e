"""Tests of configured relays: encrypted passwords, priorities, failover, connection test, pages."""

import dataclasses
import socket
import ssl
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select, update

from campaigns import clock, config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import AuditLogEntry
from campaigns.delivery.models import Relay, RelayHealth
from campaigns.delivery.relays import availability, connection_test, service
from campaigns.delivery.relays.service import RelayInput
from campaigns.delivery.smtp import handshake
from campaigns.delivery.smtp.address import RelayAddress, TlsMode
from campaigns.delivery.worker.worker import deliver
from campaigns.encryption import seal, unseal
from campaigns.errors import ValidationFailed
from tests.delivery.fake_relay import Strange, answering
from tests.delivery.launched_activity import states
from tests.delivery.worker.test_worker import launched

WORDS = RelayInput("Main", "mail.example.org", 587, TlsMode.VERIFY, "me", "top secret")
FORM = {
    "name": "Main",
    "host": "mail.example.org",
    "port": "587",
    "tls": "verify",
    "user": "me",
    "password": "top secret",
    "connections": "2",
    "per_connection": "100",
    "per_second": "0",
    "priority": "1",
    "active": "y",
}


@pytest.fixture
def private(settings: config.Settings) -> config.Settings:
    """Settings that allow relays on loopback."""
    allowed = dataclasses.replace(settings, private_relays=True)
    config.install(allowed)
    return allowed


def enter(*relays_: Strange, **values: Any) -> None:
    with db.transaction() as session:
        for number, relay in enumerate(relays_, 1):
            words = RelayInput(f"n{number}", "127.0.0.1", relay.port, TlsMode.OFF, **{"priority": number, **values})
            service.enter(session, SYSTEM, words)


def test_sealed_secrets_open_for_their_purpose_only(settings: config.Settings) -> None:
    sealed = seal("pass wörd", "relay")
    assert "pass" not in sealed
    assert unseal(sealed, "relay") == "pass wörd"
    for changed, purpose in ((sealed, "other"), (sealed[:-4] + "AAAA", "relay")):
        with pytest.raises(ValueError, match="changed"):
            unseal(changed, purpose)
    config.install(dataclasses.replace(settings, secret_keys=((2, b"x" * 32),)))
    with pytest.raises(ValueError, match="no longer"):
        unseal(sealed, "relay")


def test_the_password_is_kept_sealed_and_forgotten_when_the_relay_moves(database: Engine) -> None:
    with db.transaction() as session:
        relay = service.enter(session, SYSTEM, WORDS)
        assert "top secret" not in relay.secret
        address = availability.address_of(relay)
        assert address is not None
        assert (address.password, address.public) == ("top secret", True)
        service.change(session, SYSTEM, relay, dataclasses.replace(WORDS, password="", name="Other"))
        assert relay.secret
        service.change(session, SYSTEM, relay, dataclasses.replace(WORDS, password="", host="elsewhere.example"))
        assert relay.secret == ""
    with db.reading() as session:
        assert "top secret" not in str([entry.__dict__ for entry in session.scalars(select(AuditLogEntry))])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": " "}, "name"),
        ({"host": "no host"}, "host"),
        ({"host": "127.0.0.1"}, "host"),
        ({"host": "::1"}, "host"),
        ({"host": "10.1.2.3"}, "host"),
        ({"host": "localhost"}, "host"),
        ({"host": "169.254.169.254"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"tls": TlsMode.OFF}, "tls"),
        ({"connections": 0}, "connections"),
        ({"per_second": -1.0}, "per_second"),
        ({"priority": 0}, "priority"),
        ({"password": "a\nb"}, "password"),
    ],
)
def test_what_cannot_be_entered(session: Any, change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationFailed) as raised:
        service.enter(session, SYSTEM, dataclasses.replace(WORDS, **change))
    assert [problem.field for problem in raised.value.problems] == [field]


def test_the_next_relay_takes_over(database: Engine, private: config.Settings) -> None:
    activity_id = launched(10)
    with answering(private, mail=b"<drop>") as bad, answering(private) as good, answering(private) as spare:
        config.install(private)
        enter(bad, good, spare)
        assert deliver(activity_id) == 10
    # One mail is deferred: the first relay dropped the connection three times with it.
    assert states(activity_id) == {"sent": 9, "deferred": 1}
    assert (len(good.taken), spare.taken) == (9, [])
    with db.reading() as session:
        down = availability.trouble(session)
        assert down is not None
        assert down.name == f"127.0.0.1:{bad.port}"
        assert [address.port for address in availability.usable(session)] == [good.port, spare.port]


def test_equal_relays_share_and_an_idle_one_is_asked_again(database: Engine, private: config.Settings) -> None:
    activity_id = launched(60)
    with answering(private) as one, answering(private) as two:
        config.install(private)
        enter(one, two, priority=1)
        assert deliver(activity_id) == 60
    assert states(activity_id) == {"sent": 60}
    assert min(len(one.taken), len(two.taken)) > 0
    with db.transaction() as session:
        session.add(RelayHealth(name=f"127.0.0.1:{one.port}", error="x", failures=1, retry_at=clock.now()))
    with db.reading() as session:
        assert len(availability.usable(session)) == 2


def test_a_relay_that_is_switched_off_is_not_used(database: Engine, private: config.Settings) -> None:
    activity_id = launched(2)
    with answering(private) as unused, answering(private) as usual:
        enter(unused)
        with db.transaction() as session:
            session.execute(update(Relay).values(active=False))
        assert deliver(activity_id) == 2
    assert (len(unused.taken), len(usual.taken)) == (0, 2)


def test_a_private_address_behind_a_name_is_refused(database: Engine, settings: config.Settings) -> None:
    activity_id = launched(1)
    with answering(settings) as relay:
        config.install(dataclasses.replace(settings, private_relays=True))
        enter(relay)
        config.install(settings)
        assert deliver(activity_id) == 0
        with db.reading() as session:
            down = availability.trouble(session)
        assert down is not None
        assert "private address" in down.error
    assert relay.words == []


def test_pages(owner_client: FlaskClient, coordinator_client: FlaskClient) -> None:
    assert coordinator_client.get("/relays").status_code == 403
    assert "SMTP_URL" in owner_client.get("/relays").text
    assert owner_client.post("/relays/new", data=FORM | {"host": "127.0.0.1"}).status_code == 400
    made = owner_client.post("/relays/new", data=FORM)
    assert (made.status_code, made.location) == (303, "/relays/1")
    page = owner_client.get("/relays/1")
    assert "mail.example.org" in page.text
    assert "top secret" not in page.text
    assert owner_client.post("/relays/1", data=FORM | {"priority": "x"}).status_code == 400
    assert owner_client.post("/relays/1", data=FORM | {"priority": "3", "password": ""}).status_code == 303
    with db.reading() as session:
        relay = session.get_one(Relay, 1)
        assert (relay.priority, relay.per_connection, relay.active) == (3, 100, True)
        assert relay.secret
    assert owner_client.post("/relays/1/removal").status_code == 303
    assert owner_client.get("/relays/1").status_code == 404


def test_a_trial_shows_the_dialogue_without_the_secret(owner_client: FlaskClient, settings: config.Settings) -> None:
    with answering(settings, ehlo=b"250-strange <b>\r\n250-AUTH PLAIN\r\n250 SIZE 1000", auth=b"235 come in") as relay:
        config.install(dataclasses.replace(settings, private_relays=True))
        enter(relay, user="me", password="top secret")
        with db.reading() as session:
            address = availability.addresses(session)[0]
        availability.note_failure(address, "connection refused")
        page = owner_client.post("/relays/1/trial")
        with db.reading() as session:
            assert availability.usable(session) == [address], "whoever mended it does not wait until the pause is over"
        assert page.status_code == 200
        assert "AUTH PLAIN ***" in page.text
        assert "SIZE" in page.text
        assert "AG1l" not in page.text
        assert "<b>" not in page.text
    config.install(settings)
    assert "private address" in owner_client.post("/relays/1/trial").text


def test_a_relay_that_refuses_the_sign_in_is_told_with_advice(
    owner_client: FlaskClient, private: config.Settings
) -> None:
    with answering(private, ehlo=b"250-strange\r\n250 AUTH PLAIN", auth=b"535 5.7.8 no") as relay:
        enter(relay, user="me", password="wrong")
        page = owner_client.post("/relays/1/trial").text
    assert "535 5.7.8 no" in page
    assert "look at user and password" in page
    page = owner_client.post("/relays/1/trial").text
    assert "Nothing listens on that port" in page
    assert "What was said" not in page, "nothing was said"


@pytest.mark.parametrize(
    ("error", "port", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), 587, "how the host is spelt"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), 587, "does not prove this host"),
        (ssl.SSLError(1, "wrong version number"), 465, "does not begin with TLS"),
        (TimeoutError(), 465, "choose “TLS, verified”"),
        (TimeoutError(), 25, "A firewall may stand between"),
    ],
)
def test_a_failed_trial_says_what_to_change(
    error: OSError, port: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: Any) -> None:
        raise error

    monkeypatch.setattr(handshake._Handshake, "_connect", connect)
    tried = connection_test.attempt(RelayAddress("mail.example.org", port))
    assert words in tried.advice
    assert "Errno" not in tried.error
