"""Translatable texts for audit log entries: services write verbs and subjects in short English."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import AuditLogEntry
from campaigns.i18n import N_

VERBS = {
    "activate": N_("put in use"),
    "approve": N_("approved"),
    "archive": N_("archived"),
    "assign": N_("handed over"),
    "cancel": N_("cancelled"),
    "change role": N_("changed the role of"),
    "change stage": N_("changed the stage of"),
    "create": N_("created"),
    "delete": N_("deleted"),
    "edit notes": N_("wrote notes on"),
    "erase": N_("erased"),
    "finish": N_("finished"),
    "freeze": N_("froze for sending"),
    "launch": N_("launched"),
    "lift": N_("lifted"),
    "lock": N_("locked"),
    "log in": N_("signed in"),
    "merge": N_("merged"),
    "pause": N_("paused"),
    "redirect": N_("changed where it leads:"),
    "reopen": N_("took back to draft"),
    "resolve": N_("resolved"),
    "resubscribe": N_("came back"),
    "resume": N_("resumed"),
    "retire": N_("retired"),
    "revoke": N_("revoked"),
    "send test": N_("sent a test of"),
    "set": N_("set"),
    "set password": N_("set the password of"),
    "share": N_("shared"),
    "start": N_("started"),
    "start check": N_("ordered a check of the counters:"),
    "start relabel": N_("ordered labels anew:"),
    "start repair": N_("had counters mended:"),
    "start trial": N_("ordered a trial of the rules:"),
    "submit": N_("asked for a review of"),
    "suppress": N_("suppressed"),
    "unlock": N_("unlocked"),
    "update": N_("changed"),
    "upload": N_("uploaded"),
    "withdraw": N_("took back"),
}
"""A verb that is missing here is shown as it was written."""

SUBJECTS = {
    "activity": N_("activity"),
    "campaign": N_("campaign"),
    "contact": N_("contact"),
    "form": N_("landing page"),
    "import": N_("import"),
    "lead": N_("lead"),
    "list": N_("list"),
    "message": N_("message"),
    "organisation": N_("organisation"),
    "user": N_("person"),
    "send": N_("send"),
    "api key": N_("API key"),
    "dkim key": N_("DKIM key"),
    "goal": N_("goal"),
    "relay": N_("relay"),
    "short link": N_("short link"),
    "exchange rate": N_("exchange rate"),
    "event": N_("event"),
    "offline import": N_("file of conversions"),
    "suppression": N_("suppression"),
    "maintenance run": N_("look over the log"),
}

SUBJECT_URLS = {
    "activity": "/activities/",
    "campaign": "/campaigns/",
    "contact": "/contacts/",
    "import": "/imports/",
    "lead": "/leads/",
    "list": "/lists/",
    "message": "/messages/",
    "maintenance run": "/health/log/",
}
"""URL prefix of a subject's page; the subject's id follows."""

ACTORS = {"public": N_("a visitor"), "system": N_("the clock")}

DETAILS = {
    "activities": N_("activities"),
    "activity": N_("activity"),
    "after": N_("after"),
    "amount": N_("amount"),
    "at": N_("at"),
    "before": N_("before"),
    "bounced": N_("bounced"),
    "cancelled": N_("cancelled"),
    "changed": N_("changed"),
    "channel": N_("channel"),
    "complained": N_("complained"),
    "conversions": N_("conversions"),
    "currency": N_("currency"),
    "decision": N_("decision"),
    "domain": N_("domain"),
    "email": N_("e-mail"),
    "filename": N_("file"),
    "finished": N_("finished"),
    "key": N_("key"),
    "name": N_("name"),
    "new": N_("new"),
    "other": N_("with number"),
    "rate": N_("rate"),
    "reason": N_("reason"),
    "role": N_("role"),
    "sends": N_("sends"),
    "source": N_("source"),
    "title": N_("title"),
    "url": N_("address"),
    "since": N_("from"),
    "until": N_("until"),
    "valid_from": N_("valid from"),
    "version": N_("version"),
    "why": N_("why"),
}
"""Labels of an entry's details; a key that is missing here is shown as it was written."""


def parse_instant(value: object) -> datetime | None:
    """The instant that a detail's value holds, for display in the reader's time zone; None when it holds none."""
    if not isinstance(value, str) or len(value) < len("2026-11-22T00:00"):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at if at.tzinfo else None


def history(
    session: Session, actor: Actor, *subjects: tuple[str, Sequence[int]], limit: int = 20
) -> Sequence[AuditLogEntry]:
    """The audit log entries of these subjects, newest first, ``limit`` at most."""
    actor.require(Permission.PLAN)
    conditions = [
        and_(AuditLogEntry.subject_kind == kind, AuditLogEntry.subject_id.in_([str(number) for number in numbers]))
        for kind, numbers in subjects
    ]
    return session.scalars(
        select(AuditLogEntry).where(or_(*conditions)).order_by(AuditLogEntry.id.desc()).limit(limit)
    ).all()
