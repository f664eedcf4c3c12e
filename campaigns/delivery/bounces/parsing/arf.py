"""Complaints: feedback reports as of RFC 5965, and what Microsoft sends instead."""

import re

from campaigns.delivery.bounces.parsing.mime_reader import ParsedMail, field

FEEDBACK = "message/feedback-report"
_KIND = re.compile(r"^feedback-type[ \t]*:[ \t]*([\w-]{1,40})", re.I | re.M)
_COMPLAINTS = frozenset({"abuse", "fraud", "virus", "complaint", "other", "spam"})
_HARMLESS = frozenset({"not-spam", "auth-failure", "opt-out-list"})


def kind(mail: ParsedMail) -> str:
    """The type of a feedback report in lower case; empty when it is none."""
    for part in mail.parts:
        if part.kind == FEEDBACK:
            found = _KIND.search(part.text)
            return found[1].lower() if found else "abuse"
    if field(mail.head, "X-HmXmrOriginalRecipient"):  # Outlook.com's junk mail reporting
        return "abuse"
    return ""


def is_complaint(kind: str) -> bool:
    """Whether a person said "junk". ``opt-out`` is as good as that; other kinds are for operators."""
    return kind not in _HARMLESS and (kind in _COMPLAINTS or kind.startswith(("opt-out", "abuse")))
