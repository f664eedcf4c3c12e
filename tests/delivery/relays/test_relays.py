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
from campaigns.encryption import decrypt, encrypt
from campaigns.errors import ValidationFailed
from tests.delivery.fake_relay import Strange, run_fake_relay
from tests.delivery.launched_activity import count_states
from tests.delivery.worker.test_worker import launch_mailing

RELAY_INPUT = RelayInput("Main", "mail.example.org", 587, TlsMode.VERIFY, "me", "top secret")
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
    config.set_settings(allowed)
    return allowed


def create_relays(*relays_: Strange, **values: Any) -> None:
    with db.transaction() as session:
        for number, relay in enumerate(relays_, 1):
            relay_input = RelayInput(
                f"n{number}", "127.0.0.1", relay.port, TlsMode.OFF, **{"priority": number, **values}
            )
            service.create_relay(session, SYSTEM, relay_input)


def test_encrypted_secrets_are_bound_to_their_purpose(settings: config.Settings) -> None:
    sealed = encrypt("pass wörd", "relay")
    assert "pass" not in sealed
    assert decrypt(sealed, "relay") == "pass wörd"
    for changed, purpose in ((sealed, "other"), (sealed[:-4] + "AAAA", "relay")):
        with pytest.raises(ValueError, match="changed"):
            decrypt(changed, purpose)
    config.set_settings(dataclasses.replace(settings, secret_keys=((2, b"x" * 32),)))
    with pytest.raises(ValueError, match="no longer"):
        decrypt(sealed, "relay")


def test_password_is_encrypted_and_deleted_when_host_changes(database: Engine) -> None:
    with db.transaction() as session:
        relay = service.create_relay(session, SYSTEM, RELAY_INPUT)
        assert "top secret" not in relay.secret
        address = availability.build_address(relay)
        assert address is not None
        assert (address.password, address.public_only) == ("top secret", True)
        service.update_relay(session, SYSTEM, relay, dataclasses.replace(RELAY_INPUT, password="", name="Other"))
        assert relay.secret
        service.update_relay(
            session, SYSTEM, relay, dataclasses.replace(RELAY_INPUT, password="", host="elsewhere.example")
        )
        assert relay.secret == ""
    with db.read_only_session() as session:
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
def test_invalid_input(session: Any, change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationFailed) as raised:
        service.create_relay(session, SYSTEM, dataclasses.replace(RELAY_INPUT, **change))
    assert [problem.field for problem in raised.value.problems] == [field]


def test_failover_to_next_relay(database: Engine, private: config.Settings) -> None:
    activity_id = launch_mailing(10)
    with (
        run_fake_relay(private, mail=b"<drop>") as bad,
        run_fake_relay(private) as good,
        run_fake_relay(private) as spare,
    ):
        config.set_settings(private)
        create_relays(bad, good, spare)
        assert deliver(activity_id) == 10
    # One mail is deferred: the first relay dropped the connection three times with it.
    assert count_states(activity_id) == {"sent": 9, "deferred": 1}
    assert (len(good.contents), spare.contents) == (9, [])
    with db.read_only_session() as session:
        failing = availability.failing_relay(session)
        assert failing is not None
        assert failing.name == f"127.0.0.1:{bad.port}"
        assert [address.port for address in availability.usable_relays(session)] == [good.port, spare.port]


def test_relays_of_equal_priority_share_the_load(database: Engine, private: config.Settings) -> None:
    activity_id = launch_mailing(60)
    with run_fake_relay(private) as one, run_fake_relay(private) as two:
        config.set_settings(private)
        create_relays(one, two, priority=1)
        assert deliver(activity_id) == 60
    assert count_states(activity_id) == {"sent": 60}
    assert min(len(one.contents), len(two.contents)) > 0
    with db.transaction() as session:
        session.add(RelayHealth(name=f"127.0.0.1:{one.port}", error="x", failures=1, retry_at=clock.now()))
    with db.read_only_session() as session:
        assert len(availability.usable_relays(session)) == 2


def test_inactive_relay_is_not_used(database: Engine, private: config.Settings) -> None:
    activity_id = launch_mailing(2)
    with run_fake_relay(private) as unused, run_fake_relay(private) as usual:
        create_relays(unused)
        with db.transaction() as session:
            session.execute(update(Relay).values(active=False))
        assert deliver(activity_id) == 2
    assert (len(unused.contents), len(usual.contents)) == (0, 2)


def test_private_address_behind_host_name_is_refused(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_mailing(1)
    with run_fake_relay(settings) as relay:
        config.set_settings(dataclasses.replace(settings, private_relays=True))
        create_relays(relay)
        config.set_settings(settings)
        assert deliver(activity_id) == 0
        with db.read_only_session() as session:
            failing = availability.failing_relay(session)
        assert failing is not None
        assert "private address" in failing.error
    assert relay.commands == []


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
    with db.read_only_session() as session:
        relay = session.get_one(Relay, 1)
        assert (relay.priority, relay.per_connection, relay.active) == (3, 100, True)
        assert relay.secret
    assert owner_client.post("/relays/1/removal").status_code == 303
    assert owner_client.get("/relays/1").status_code == 404


def test_connection_test_masks_password(owner_client: FlaskClient, settings: config.Settings) -> None:
    with run_fake_relay(
        settings, ehlo=b"250-strange <b>\r\n250-AUTH PLAIN\r\n250 SIZE 1000", auth=b"235 come in"
    ) as relay:
        config.set_settings(dataclasses.replace(settings, private_relays=True))
        create_relays(relay, user="me", password="top secret")
        with db.read_only_session() as session:
            address = availability.relay_addresses(session)[0]
        availability.record_failure(address, "connection refused")
        page = owner_client.post("/relays/1/trial")
        with db.read_only_session() as session:
            assert availability.usable_relays(session) == [address], "a successful test ends the pause"
        assert page.status_code == 200
        assert "AUTH PLAIN ***" in page.text
        assert "SIZE" in page.text
        assert "AG1l" not in page.text
        assert "<b>" not in page.text
    config.set_settings(settings)
    assert "private address" in owner_client.post("/relays/1/trial").text


def test_connection_test_advises_on_rejected_authentication(
    owner_client: FlaskClient, private: config.Settings
) -> None:
    with run_fake_relay(private, ehlo=b"250-strange\r\n250 AUTH PLAIN", auth=b"535 5.7.8 no") as relay:
        create_relays(relay, user="me", password="wrong")
        page = owner_client.post("/relays/1/trial").text
    assert "535 5.7.8 no" in page
    assert "look at user and password" in page
    page = owner_client.post("/relays/1/trial").text
    assert "Nothing listens on that port" in page
    assert "What was said" not in page, "nothing was sent"


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
def test_connection_test_advice(error: OSError, port: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(*_: Any) -> None:
        raise error

    monkeypatch.setattr(handshake._Handshake, "_connect", connect)
    result = connection_test.try_connection(RelayAddress("mail.example.org", port))
    assert words in result.advice
    assert "Errno" not in result.error
