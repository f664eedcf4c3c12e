"""Preflight check of a message's content and sender."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from campaigns.accounts.organisation import organisation
from campaigns.content import versions
from campaigns.content.fallbacks import field_fallbacks
from campaigns.content.merge_fields import known_fields
from campaigns.content.mjml.compiler import MAX_MAIL_BYTES
from campaigns.content.mjml.diagnostics import Diagnostic, Severity
from campaigns.content.mjml.validator import MISSING_ALT
from campaigns.content.models import Message
from campaigns.content.versions import CompileResult
from campaigns.delivery.domains import authentication
from campaigns.delivery.mime.headers import with_ascii_domain
from campaigns.delivery.preflight.exclusions import LACKS_PREFIX
from campaigns.i18n import N_

VISIBLE_SUBJECT = 70
"""Characters of a subject that a desktop inbox shows; a phone shows half of them."""
VISIBLE_PREHEADER = 130
"""Characters of a preheader that an inbox shows."""
_IMAGE = re.compile(r"<img\b", re.I)
_HTTP_IMAGE = re.compile(r"""<(?:img|v:image|v:fill)\b[^>]*?\ssrc="http://""", re.I)


@dataclass(slots=True)
class ContentReport:
    """Findings (errors and warnings) and facts.

    ``facts``: ``sender``, ``signed`` and the states of the domain checks; see :func:`_facts` for those of the mail.
    """

    findings: list[Diagnostic] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


def check(session: Session, message: Message) -> ContentReport:
    """Check the current draft. A draft with errors is not compiled, and its report lacks the facts of the mail."""
    org = organisation(session)
    merge_fields = known_fields(session, versions.used_fields(versions.draft_of(message)))
    report = ContentReport(versions.find_problems(message, org, merge_fields))
    address = message.from_email or org.sender_email
    if address:
        sender = authentication.check_authentication(session, address)
        report.findings += sender.findings
        report.facts |= {"sender": address, "signed": sender.signed, **sender.states}
    if any(finding.level is Severity.ERROR and finding.field != "from_email" for finding in report.findings):
        return report  # Findings of the compiled mail would repeat the errors.
    compiled = versions.compile_message(session, message)
    report.findings += _compiled_findings(compiled)
    report.facts |= _facts(compiled)
    for name in ("from_email", "reply_to"):
        report.findings += _address_findings(name, getattr(message, name))
    return report


def _compiled_findings(compiled: CompileResult) -> list[Diagnostic]:
    findings = []
    if "unsubscribe_url" not in compiled.html:
        findings.append(Diagnostic(N_("The mail has no link to unsubscribe."), "mjml"))
    if not compiled.text.strip():
        findings.append(Diagnostic(N_("The mail has no text for programs that don't show HTML."), "mjml"))
    if not compiled.built.links:
        findings.append(_warning(N_("The mail has no link, so no click can be counted."), "mjml"))
    if http_images := len(_HTTP_IMAGE.findall(compiled.html)):
        message = N_("%(count)s pictures are not fetched by https://, and many mail programs don't show them.")
        findings.append(_warning(message, "mjml", count=http_images))
    if VISIBLE_SUBJECT < len(compiled.subject) <= 120:
        message = N_("The subject has %(length)s characters; most inboxes show about %(shown)s.")
        findings.append(_warning(message, "subject", length=len(compiled.subject), shown=VISIBLE_SUBJECT))
    if not compiled.preheader:
        findings.append(_warning(N_("There is no preheader: inboxes show the mail's first words."), "preheader"))
    elif len(compiled.preheader) > VISIBLE_PREHEADER:
        message = N_("The preheader has %(length)s characters; most inboxes show about %(shown)s.")
        findings.append(_warning(message, "preheader", length=len(compiled.preheader), shown=VISIBLE_PREHEADER))
    return findings


def _facts(compiled: CompileResult) -> dict[str, object]:
    """Facts of the compiled mail. ``size`` and ``limit`` are in KiB, ``subject`` and ``preheader`` in characters."""
    return {
        "size": round(compiled.size / 1024),
        "limit": MAX_MAIL_BYTES // 1024,
        "links": len(compiled.built.links),
        "subject": len(compiled.subject),
        "preheader": len(compiled.preheader),
        "text": bool(compiled.text.strip()),
        "unsubscribe": "unsubscribe_url" in compiled.html,
        "pictures": len(_IMAGE.findall(compiled.html)) - 1,  # without the tracking pixel
        "undescribed": sum(finding.message == MISSING_ALT for finding in compiled.findings),
    }


def _address_findings(name: str, address: str) -> list[Diagnostic]:
    try:
        if address:
            with_ascii_domain(address)
    except ValueError:
        return [Diagnostic(N_("This is not an e-mail address: %(address)s"), name, params={"address": address})]
    return []


def _warning(message: str, where: str, **params: object) -> Diagnostic:
    return Diagnostic(message, where, level=Severity.WARNING, params=params)


def missing_value_findings(message: Message, missing_counts: Mapping[str, int], mailable: int) -> list[Diagnostic]:
    """A warning per merge field without a value for some recipients, with the fallback that they get.

    ``missing_counts``: field → number of mailable recipients without a value. The parameter ``people`` of a finding is
    the reason for :func:`campaigns.delivery.preflight.exclusions.contacts_query` that lists them.
    """
    fallbacks_by_field = field_fallbacks(versions.draft_of(message))
    findings = []
    for name, count in missing_counts.items():
        texts = fallbacks_by_field.get(name)
        if texts is None:
            sentence = N_(
                "%(count)s of %(total)s recipients have no value for %(field)s; a condition decides for them."
            )
        elif "" in texts:
            sentence = N_("%(count)s of %(total)s recipients have no value for %(field)s: it stays empty.")
        else:
            sentence = N_("%(count)s of %(total)s recipients have no value for %(field)s: they read “%(fallback)s”.")
        params = {
            "count": count,
            "total": mailable,
            "field": name,
            "fallback": "”, “".join(texts or ()),
            "people": f"{LACKS_PREFIX}{name}",
        }
        findings.append(Diagnostic(sentence, "mjml", level=Severity.WARNING, params=params))
    return findings
