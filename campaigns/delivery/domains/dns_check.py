"""DNS check of a sending domain: SPF, DKIM, DMARC, MX, PTR of the relays, and the tracking host.

DNS queries can take seconds, so :func:`check_domain` runs outside any transaction; :func:`save_report` stores the
result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

import dns.exception
import dns.resolver
import dns.reversename
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, config
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.organisation import organisation
from campaigns.delivery.mime import dkim
from campaigns.delivery.models import DkimKey, DomainCheck
from campaigns.delivery.relays import availability
from campaigns.i18n import N_

_TIMEOUT = 3.0  # seconds per query


class DnsUnavailable(Exception):
    """A DNS query failed (timeout, SERVFAIL, network), so nothing is known about the name."""


class Resolver(Protocol):
    """Queries the DNS for the records of one type; empty when there are none. Raises DnsUnavailable."""

    def __call__(self, name: str, kind: str) -> Sequence[str]: ...


def query_dns(name: str, kind: str) -> Sequence[str]:
    """Query the system's resolver. TXT strings are joined; other records give their last field in lower case.

    Raises DnsUnavailable.
    """
    try:
        answer = dns.resolver.resolve(name, kind, lifetime=_TIMEOUT)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError) as error:
        raise DnsUnavailable(name) from error
    if kind == "TXT":
        return [b"".join(each.strings).decode("utf-8", "replace") for each in answer]
    return [each.to_text().split()[-1].rstrip(".").lower() for each in answer]


class CheckStatus(StrEnum):
    """Result of one check; stored in ``DomainCheck.results``."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    MISSING = "missing"
    UNANSWERED = "unanswered"

    @property
    def label(self) -> str:
        return {
            self.GOOD: N_("Good"),
            self.DOUBTFUL: N_("Doubtful"),
            self.MISSING: N_("Missing"),
            self.UNANSWERED: N_("No answer"),
        }[self]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Status of one check, with a message (msgid) and its parameters."""

    state: CheckStatus
    message: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DnsCheckInput:
    """Input of a DNS check, read from the database before the DNS is queried."""

    domain: str
    keys: Sequence[tuple[int, str, str, str]]
    """(id, domain, selector, public key) of the keys that are not retired."""
    relay_hosts: Sequence[str]
    """Hosts of the configured relays."""
    bounce_domain: str
    """The domain of the envelope sender. Receivers check the SPF record of this domain, not of the From domain
    (RFC 7208)."""


@dataclass(frozen=True, slots=True)
class DnsCheckReport:
    """Results of all checks of a domain."""

    domain: str
    results: Mapping[str, CheckResult]
    published: frozenset[int]
    """Ids of the keys whose record was found."""


def check_domain(check_input: DnsCheckInput, resolver: Resolver = query_dns) -> DnsCheckReport:
    """Run all checks of a domain. They query the DNS, so no transaction may be open."""
    published: set[int] = set()
    checks: dict[str, Callable[[], CheckResult]] = {
        "spf": lambda: _spf(check_input.bounce_domain, resolver),
        "dkim": lambda: _dkim(check_input, resolver, published),
        "dmarc": lambda: _dmarc(check_input.domain, resolver),
        "mx": lambda: _mx(check_input.bounce_domain, resolver),
        "ptr": lambda: _ptr(check_input.relay_hosts, resolver),
        "tracking": lambda: _tracking(resolver),
    }
    return DnsCheckReport(
        check_input.domain, {name: _run_check(each) for name, each in checks.items()}, frozenset(published)
    )


def _run_check(run: Callable[[], CheckResult]) -> CheckResult:
    try:
        return run()
    except DnsUnavailable as error:
        return CheckResult(CheckStatus.UNANSWERED, N_("The DNS did not answer about %(name)s."), {"name": str(error)})


def _spf(domain: str, resolver: Resolver) -> CheckResult:
    records = [text for text in resolver(domain, "TXT") if text.lower().split(" ")[0] == "v=spf1"]
    if not records:
        return CheckResult(
            CheckStatus.MISSING, N_("No SPF record: publish who may send for %(domain)s."), {"domain": domain}
        )
    if len(records) > 1:
        return CheckResult(CheckStatus.MISSING, N_("Several SPF records count as none: join them into one."), {})
    if records[0].lower().split()[-1] in ("+all", "all", "?all"):
        return CheckResult(
            CheckStatus.DOUBTFUL, N_("The SPF record lets everybody send: end it with -all or ~all."), {}
        )
    return CheckResult(CheckStatus.GOOD, "%(record)s", {"record": records[0][:300]})


def _dkim(check_input: DnsCheckInput, resolver: Resolver, published: set[int]) -> CheckResult:
    for key_id, domain, selector, public in check_input.keys:
        texts = resolver(f"{selector}._domainkey.{domain}", "TXT")
        if any(f"p={public}" in "".join(text.split()) for text in texts):
            published.add(key_id)
    if not check_input.keys:
        return CheckResult(CheckStatus.MISSING, N_("There is no key: make one."), {})
    if len(published) < len(check_input.keys):
        params = {"found": str(len(published)), "all": str(len(check_input.keys))}
        return CheckResult(
            CheckStatus.DOUBTFUL if published else CheckStatus.MISSING,
            N_("%(found)s of %(all)s keys are published."),
            params,
        )
    return CheckResult(CheckStatus.GOOD, N_("All keys are published."), {})


def _dmarc(domain: str, resolver: Resolver) -> CheckResult:
    parts = domain.split(".")
    for name in (".".join(parts[start:]) for start in range(len(parts) - 1)):
        for text in resolver(f"_dmarc.{name}", "TXT"):
            if text.lower().replace(" ", "").startswith("v=dmarc1"):
                return CheckResult(CheckStatus.GOOD, "%(record)s", {"record": text[:300]})
    return CheckResult(
        CheckStatus.MISSING, N_("No DMARC record; large mailbox providers ask bulk senders for one."), {}
    )


def _mx(domain: str, resolver: Resolver) -> CheckResult:
    hosts = resolver(domain, "MX")
    if not hosts:
        return CheckResult(
            CheckStatus.DOUBTFUL, N_("Nobody takes mail for %(domain)s, so bounces are lost."), {"domain": domain}
        )
    return CheckResult(CheckStatus.GOOD, "%(hosts)s", {"hosts": ", ".join(hosts)[:300]})


def _ptr(hosts: Sequence[str], resolver: Resolver) -> CheckResult:
    public_addresses = []
    for host in hosts:
        for address in _addresses(host, resolver):
            if not ip_address(address).is_global:
                continue
            names = resolver(dns.reversename.from_address(address).to_text(omit_final_dot=True), "PTR")
            if not any(address in _addresses(name, resolver) for name in names):
                params = {"address": address}
                return CheckResult(CheckStatus.DOUBTFUL, N_("%(address)s has no name that leads back to it."), params)
            public_addresses.append(address)
    if not public_addresses:
        return CheckResult(CheckStatus.GOOD, N_("The relay is in our own network; look at its way out there."), {})
    return CheckResult(CheckStatus.GOOD, "%(addresses)s", {"addresses": ", ".join(public_addresses)[:300]})


def _addresses(host: str, resolver: Resolver) -> Sequence[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        return [*resolver(host, "A"), *resolver(host, "AAAA")]


def _tracking(resolver: Resolver) -> CheckResult:
    host = urlsplit(config.settings().tracking_url).hostname or ""
    if resolver(host, "CNAME") or _addresses(host, resolver):
        return CheckResult(CheckStatus.GOOD, "%(host)s", {"host": host})
    return CheckResult(CheckStatus.MISSING, N_("Links lead to %(host)s, which the DNS does not know."), {"host": host})


def read_check_input(session: Session, actor: Actor, domain: str) -> DnsCheckInput:
    """Read the input of :func:`check_domain` from the database."""
    actor.require(Permission.SETTINGS)
    keys = session.scalars(select(DkimKey).where(DkimKey.domain == domain, DkimKey.retired_at.is_(None)))
    hosts = dict.fromkeys(address.host for address in availability.relay_addresses(session))
    key_rows = [(key.id, key.domain, key.selector, key.public) for key in keys]
    return DnsCheckInput(domain, key_rows, list(hosts), organisation(session).bounce_domain or domain)


def save_report(session: Session, actor: Actor, report: DnsCheckReport) -> DomainCheck:
    """Store a report, and mark the keys found in the DNS as published."""
    actor.require(Permission.SETTINGS)
    for key_id in report.published:
        key = session.get(DkimKey, key_id)
        if key is not None and key.published_at is None:
            key.published_at = clock.now()
    results = {
        name: {"state": found.state.value, "message": found.message, "params": dict(found.params)}
        for name, found in report.results.items()
    }
    return session.merge(DomainCheck(domain=report.domain, checked_at=clock.now(), results=results))


def txt_record(key: DkimKey) -> tuple[str, str]:
    """(name, value) of the TXT record that publishes ``key``."""
    return f"{key.selector}._domainkey.{key.domain}", dkim.dns_record_value(key.algorithm, key.public)
