"""Complaint reports: ARF (RFC 5965) and Outlook.com's junk mail reports, which are not ARF."""

import re

from campaigns.delivery.bounces.parsing.mime_reader import ParsedMail, field

FEEDBACK = "message/feedback-report"
_KIND = re.compile(r"^feedback-type[ \t]*:[ \t]*([\w-]{1,40})", re.I | re.M)
_COMPLAINTS = frozenset({"abuse", "fraud", "virus", "complaint", "other", "spam"})
_HARMLESS = frozenset({"not-spam", "auth-failure", "opt-out-list"})


def kind(mail: ParsedMail) -> str:
    """Return the feedback type of an ARF report in lower case, or ``""`` when the mail is not a complaint report."""
    for part in mail.parts:
        if part.kind == FEEDBACK:
            found = _KIND.search(part.text)
            return found[1].lower() if found else "abuse"
    if field(mail.head, "X-HmXmrOriginalRecipient"):  # Outlook.com junk mail reporting
        return "abuse"
    return ""


def is_complaint(kind: str) -> bool:
    """Return whether a person marked the mail as junk.

    ``opt-out`` counts as a complaint; the other feedback types address the mail operator.
    """
    return kind not in _HARMLESS and (kind in _COMPLAINTS or kind.startswith(("opt-out", "abuse")))
