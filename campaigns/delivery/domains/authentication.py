"""Preflight check of sender authentication: SPF, DKIM and DMARC of the From domain.

Reads only stored results of DNS checks; DNS itself is queried on the page of sending domains.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.content.mjml.diagnostics import Diagnostic, Severity
from campaigns.delivery.domains import dkim_keys
from campaigns.delivery.domains.dns_check import CheckStatus
from campaigns.delivery.models import DomainCheck
from campaigns.i18n import N_

MAX_CHECK_AGE = timedelta(days=7)
_ENFORCING_POLICY = re.compile(r";\s*p\s*=\s*(reject|quarantine)", re.I)
_MISSING_MESSAGES = {
    "spf": N_("%(domain)s has no valid SPF record: see “Sending domains”."),
    "dkim": N_("No DKIM key of %(domain)s is published: see “Sending domains”."),
    "dmarc": N_("%(domain)s has no DMARC record; large mailbox providers ask bulk senders for one."),
}
_DOUBTFUL_MESSAGES = {
    "spf": N_("The SPF record of %(domain)s is doubtful: see “Sending domains”."),
    "dkim": N_("Not all DKIM keys of %(domain)s are published: see “Sending domains”."),
}


@dataclass(frozen=True, slots=True)
class SenderAuthentication:
    """Authentication of a sending domain, as far as stored."""

    domain: str
    signed: bool
    """Whether an active key of this domain or of a parent domain signs (DMARC relaxed alignment, RFC 7489)."""
    states: Mapping[str, str]
    """:class:`CheckStatus` value by ``spf``, ``dkim``, ``dmarc``; empty when the domain was never checked."""
    findings: list[Diagnostic]


def check_authentication(session: Session, address: str) -> SenderAuthentication:
    """Check the domain of a From address."""
    domain = address.rpartition("@")[2].lower()
    signed = bool(dkim_keys.signing_keys(session, domain))
    stored_check = _nearest_check(session, domain)
    findings = []
    if stored_check is None:
        findings.append(_warning(N_("Nobody has looked at the DNS of %(domain)s: see “Sending domains”."), domain))
    elif stored_check.checked_at < clock.now() - MAX_CHECK_AGE:
        days = (clock.now() - stored_check.checked_at).days
        message = N_("The DNS of %(domain)s was looked at %(days)s days ago: look again at “Sending domains”.")
        findings.append(_warning(message, domain, days=days))
    results = stored_check.results if stored_check is not None else {}
    states: dict[str, str] = {name: str(results[name]["state"]) for name in ("spf", "dkim", "dmarc") if name in results}
    for name, state in states.items():
        message = (
            _MISSING_MESSAGES
            if state == CheckStatus.MISSING
            else _DOUBTFUL_MESSAGES
            if state == CheckStatus.DOUBTFUL
            else {}
        ).get(name, "")
        if message and not (name == "dkim" and not signed):
            findings.append(_warning(message, str(results[name]["params"].get("domain", domain))))
    if not signed:
        findings.append(_unsigned_finding(domain, states, results))
    return SenderAuthentication(domain, signed, states, findings)


def _unsigned_finding(domain: str, states: Mapping[str, str], results: Mapping[str, Any]) -> Diagnostic:
    """The finding for unsigned mail: a warning, because the relay may sign.

    It is an error when SPF is missing too and the DMARC policy asks receivers to reject or quarantine such mail.
    """
    policy = str(results.get("dmarc", {}).get("params", {}).get("record", ""))
    if states.get("spf") == CheckStatus.MISSING and _ENFORCING_POLICY.search(policy):
        message = N_(
            "%(domain)s asks receivers to refuse what neither SPF nor DKIM vouches for, and this mail has neither."
        )
        return Diagnostic(message, "from_email", params={"domain": domain})
    return _warning(N_("Mail from %(domain)s is not signed with DKIM: make keys at “Sending domains”."), domain)


def _warning(message: str, domain: str, **params: object) -> Diagnostic:
    return Diagnostic(message, "from_email", level=Severity.WARNING, params={"domain": domain, **params})


def _nearest_check(session: Session, domain: str) -> DomainCheck | None:
    """The stored check of the domain itself, else of its nearest parent domain."""
    parts = domain.split(".")
    names = (".".join(parts[start:]) for start in range(max(len(parts) - 1, 1)))
    return next((found for name in names if (found := session.get(DomainCheck, name)) is not None), None)
