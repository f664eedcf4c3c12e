"""Suggested SPF and DMARC records for what a DNS check found missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from campaigns import config
from campaigns.delivery.domains.dns_check import CheckStatus
from campaigns.delivery.relays.service import is_private

_SPF_INCLUDES = {
    "amazonaws.com": "amazonses.com",
    "brevo.com": "spf.brevo.com",
    "gmail.com": "_spf.google.com",
    "google.com": "_spf.google.com",
    "mailgun.org": "mailgun.org",
    "office365.com": "spf.protection.outlook.com",
    "postmarkapp.com": "spf.mtasv.net",
    "sendgrid.net": "sendgrid.net",
}
"""SPF ``include:`` domain by the domain of a sending service's relays. Such services send from other addresses than
their relay host's."""


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A TXT record; ``subject`` is ``spf`` or ``dmarc``."""

    subject: str
    name: str
    value: str


def suggest_records(domain: str, results: Mapping[str, Any], hosts: Sequence[str]) -> list[DnsRecord]:
    """The missing records to publish for ``domain`` when mail leaves through the relay ``hosts``.

    Nothing is suggested for an existing record that needs a change, because only the DNS owner knows its other entries.
    """
    records = []
    spf, mechanisms = results.get("spf", {}), _spf_mechanisms(hosts)
    if spf.get("state") == CheckStatus.MISSING and spf["params"].get("domain") and mechanisms:
        records.append(DnsRecord("spf", spf["params"]["domain"], f"v=spf1 {' '.join(mechanisms)} ~all"))
    if results.get("dmarc", {}).get("state") == CheckStatus.MISSING:
        records.append(DnsRecord("dmarc", f"_dmarc.{domain}", "v=DMARC1; p=none"))
    return records


def _spf_mechanisms(hosts: Sequence[str]) -> list[str]:
    """SPF mechanisms of the relays. For a private relay it is our public host, because it sends from our address."""
    own_host = urlsplit(config.settings().base_url).hostname or ""
    public_hosts = (own_host if is_private(host) else host for host in hosts)
    return list(dict.fromkeys(_spf_mechanism(host) for host in public_hosts if host and not is_private(host)))


def _spf_mechanism(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        service = next((of for end, of in _SPF_INCLUDES.items() if host == end or host.endswith(f".{end}")), None)
        return f"include:{service}" if service else f"a:{host}"
    return f"ip{address.version}:{address}"
