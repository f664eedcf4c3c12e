"""Tests of DKIM key lifecycle and DNS checks, with a fake resolver."""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from campaigns import config, db
from campaigns.accounts.actor import PUBLIC, SYSTEM
from campaigns.delivery.domains import authentication, dkim_keys, dns_check, dns_records
from campaigns.delivery.domains.dns_check import CheckStatus, DnsUnavailable
from campaigns.delivery.models import DkimKey
from campaigns.delivery.relays import service
from campaigns.delivery.smtp.address import TlsMode
from campaigns.errors import Conflict, Forbidden, ValidationFailed
from tests.factories import make_organisation

DOMAIN = "example.org"


def test_only_published_keys_sign_and_rotation_retires(session: Session) -> None:
    make_organisation(session)
    made = dkim_keys.create_keys(session, SYSTEM, DOMAIN)
    assert all("BEGIN" not in key.private and key.public not in key.private for key in made)
    with pytest.raises(Conflict):
        dkim_keys.activate(session, SYSTEM, made[0])
    zone = dict(map(dns_check.txt_record, made))
    answer = dns_check.check_domain(
        dns_check.read_check_input(session, SYSTEM, DOMAIN), lambda n, k: [zone[n]] if n in zone else []
    )
    dns_check.save_report(session, SYSTEM, answer)
    assert answer.results["dkim"].state is CheckStatus.GOOD
    assert dkim_keys.signers(session, DOMAIN) == ()
    for key in made:
        dkim_keys.activate(session, SYSTEM, key)
    session.flush()
    assert [signer.selector for signer in dkim_keys.signers(session, f"news.{DOMAIN}")] == [k.selector for k in made]
    assert dkim_keys.signers(session, "example.net") == ()
    newer = dkim_keys.create_keys(session, SYSTEM, DOMAIN)
    assert not {key.selector for key in newer} & {key.selector for key in made}
    newer[0].published_at = newer[0].created_at
    dkim_keys.activate(session, SYSTEM, newer[0])
    session.flush()
    assert made[0].retired_at is not None
    assert made[1].retired_at is None


@pytest.mark.parametrize("domain", ["", "x", "a b.org", "example.org\r\nx"])
def test_invalid_domain_gets_no_key(session: Session, domain: str) -> None:
    with pytest.raises(ValidationFailed):
        dkim_keys.create_keys(session, SYSTEM, domain)
    with pytest.raises(Forbidden):
        dkim_keys.create_keys(session, PUBLIC, DOMAIN)


RECORDS = {
    ("example.org", "TXT"): ["v=spf1 include:_spf.example.net -all"],
    ("_dmarc.example.org", "TXT"): ["v=DMARC1; p=none"],
    ("example.org", "MX"): ["mx.example.org"],
}


def test_check_results(session: Session) -> None:
    make_organisation(session)
    question = dns_check.read_check_input(session, SYSTEM, DOMAIN)

    def known(name: str, kind: str) -> Sequence[str]:
        return RECORDS.get((name, kind), [])

    def states(resolver: dns_check.Resolver) -> dict[str, str]:
        return {name: found.state.value for name, found in dns_check.check_domain(question, resolver).results.items()}

    def silent(name: str, kind: str) -> Sequence[str]:
        raise DnsUnavailable(name)

    assert states(known) | {"tracking": ""} == {
        "spf": "good",
        "dkim": "missing",
        "dmarc": "good",
        "mx": "good",
        "ptr": "good",
        "tracking": "",
    }
    nothing = states(lambda _name, _kind: [])
    assert (nothing["spf"], nothing["dmarc"], nothing["mx"]) == ("missing", "missing", "doubtful")
    assert states(silent)["spf"] == "unanswered"


def test_separate_bounce_domain(session: Session) -> None:
    make_organisation(session).bounce_domain = "returns.example.org"
    report = dns_check.check_domain(
        dns_check.read_check_input(session, SYSTEM, DOMAIN), lambda n, k: RECORDS.get((n, k), [])
    )
    assert report.results["spf"].params == report.results["mx"].params == {"domain": "returns.example.org"}
    assert report.results["dmarc"].state is CheckStatus.GOOD
    kept = dns_check.save_report(session, SYSTEM, report)
    assert (
        dns_records.suggest_records(DOMAIN, kept.results, ["192.0.2.1"]) == []
    )  # Private addresses are not published.
    assert [(each.subject, each.name) for each in dns_records.suggest_records(DOMAIN, kept.results, ["9.9.9.9"])] == [
        ("spf", "returns.example.org")
    ]
    found = authentication.check_authentication(session, f"news@{DOMAIN}").findings
    assert {"domain": "returns.example.org"} in [each.params for each in found]


@pytest.mark.parametrize(
    ("hosts", "value"),
    [
        (["email-smtp.eu-west-1.amazonaws.com", "smtp.sendgrid.net"], "include:amazonses.com include:sendgrid.net"),
        (["mail.example.net", "9.9.9.9", "2620:fe::9"], "a:mail.example.net ip4:9.9.9.9 ip6:2620:fe::9"),
        (["127.0.0.1", "localhost"], "a:news.example.org"),
    ],
)
def test_suggested_spf_record_names_relays(settings: config.Settings, hosts: list[str], value: str) -> None:
    config.set_settings(dataclasses.replace(settings, base_url="https://news.example.org"))
    nothing = dns_check.check_domain(dns_check.DnsCheckInput(DOMAIN, [], hosts, DOMAIN), lambda _name, _kind: [])
    results = {name: {"state": each.state, "params": each.params} for name, each in nothing.results.items()}
    assert [(each.name, each.value) for each in dns_records.suggest_records(DOMAIN, results, hosts)] == [
        (DOMAIN, f"v=spf1 {value} ~all"),
        (f"_dmarc.{DOMAIN}", "v=DMARC1; p=none"),
    ]


def test_pages(owner_client: FlaskClient, coordinator_client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_check.check_domain, "__defaults__", (lambda _name, _kind: [],))
    assert coordinator_client.get("/domains").status_code == 403
    assert owner_client.post("/domains/keys", data={"domain": "example.com"}).status_code == 303
    assert "_domainkey.example.com" in owner_client.get("/domains").text
    assert owner_client.post("/domains/example.com/check").status_code == 303
    page = owner_client.get("/domains").text
    assert "No SPF record" in page
    assert "v=DKIM1; k=rsa; p=" in page
    assert "_dmarc.example.com" in page
    with db.read_only_session() as session:
        key = dkim_keys.list_keys(session)[0]
    assert owner_client.post(f"/domains/keys/{key.id}/activate").status_code == 303
    assert "not in the DNS yet" in owner_client.get("/domains").text
    owner_client.post(f"/domains/keys/{key.id}/retire")
    assert "Leave its record in the DNS until" in owner_client.get("/domains").text
    with db.transaction() as session:
        session.execute(update(DkimKey).values(retired_at=key.created_at - timedelta(days=8)))
    page = owner_client.get("/domains").text
    assert dns_check.txt_record(key)[0] in page
    assert "can be taken out of the DNS" in page


def test_every_active_relay_is_checked(session: Session) -> None:
    make_organisation(session)
    for host in ("relay.example.net", "other.example.net"):
        service.create_relay(session, SYSTEM, service.RelayInput(host, host, 25, TlsMode.VERIFY))
    question = dns_check.read_check_input(session, SYSTEM, DOMAIN)
    assert question.relay_hosts == ["relay.example.net", "other.example.net"]
    zone = {
        ("relay.example.net", "A"): ["8.8.8.8"],
        ("8.8.8.8.in-addr.arpa", "PTR"): ["relay.example.net"],
        ("other.example.net", "A"): ["9.9.9.9"],
    }
    found = dns_check.check_domain(question, lambda name, kind: zone.get((name, kind), [])).results["ptr"]
    assert (found.state, found.params) == (CheckStatus.DOUBTFUL, {"address": "9.9.9.9"})
