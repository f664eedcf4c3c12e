"""Complaint reports: ARF (RFC 5965) and Outlook.com's junk mail reports, which are not ARF."""

import re

from campaigns.delivery.bounces.parsing.mime_reader import ParsedMail, field

CONTENT_TYPE = "message/feedback-report"
_FEEDBACK_TYPE = re.compile(r"^feedback-type[ \t]*:[ \t]*([\w-]{1,40})", re.I | re.M)
_COMPLAINT_TYPES = frozenset({"abuse", "fraud", "virus", "complaint", "other", "spam"})
_NON_COMPLAINT_TYPES = frozenset({"not-spam", "auth-failure", "opt-out-list"})


def report_type(mail: ParsedMail) -> str:
    """Return the feedback type of an ARF report in lower case, or ``""`` when the mail is not a complaint report."""
    for part in mail.parts:
        if part.content_type == CONTENT_TYPE:
            match = _FEEDBACK_TYPE.search(part.text)
            return match[1].lower() if match else "abuse"
    if field(mail.head, "X-HmXmrOriginalRecipient"):  # Outlook.com junk mail reporting
        return "abuse"
    return ""


def is_complaint(report_type: str) -> bool:
    """Return whether a person marked the mail as junk.

    ``opt-out`` counts as a complaint; the other feedback types address the mail operator.
    """
    return report_type not in _NON_COMPLAINT_TYPES and (
        report_type in _COMPLAINT_TYPES or report_type.startswith(("opt-out", "abuse"))
    )
