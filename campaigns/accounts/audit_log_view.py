"""Translatable texts for audit log entries: services write verbs and subjects in short English."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import AuditLogEntry
from campaigns.i18n import N_

VERBS = {
    "add": N_("added"),
    "approve": N_("approved"),
    "assign": N_("handed over"),
    "begin": N_("began"),
    "cancel": N_("cancelled"),
    "change": N_("changed"),
    "change role": N_("changed the role of"),
    "change stage": N_("changed the stage of"),
    "come back": N_("came back"),
    "create": N_("created"),
    "decide": N_("resolved"),
    "delete": N_("deleted"),
    "enter": N_("entered"),
    "erase": N_("erased"),
    "finish": N_("finished"),
    "found": N_("founded"),
    "freeze": N_("froze for sending"),
    "launch": N_("launched"),
    "lift": N_("lifted"),
    "lock": N_("locked"),
    "note": N_("wrote notes on"),
    "pause": N_("paused"),
    "reopen": N_("took back to draft"),
    "resume": N_("resumed"),
    "send test": N_("sent a test of"),
    "set password": N_("set the password of"),
    "sign in": N_("signed in"),
    "start": N_("started"),
    "submit": N_("asked for a review of"),
    "suppress": N_("suppressed"),
    "unlock": N_("unlocked"),
    "update": N_("changed"),
    "upload": N_("uploaded"),
    "activate": N_("put in use"),
    "make": N_("made"),
    "redirect": N_("changed where it leads:"),
    "retire": N_("retired"),
    "revoke": N_("revoked"),
    "set": N_("set"),
    "take out": N_("took out"),
    "withdraw": N_("took back"),
    "archive": N_("archived"),
    "share": N_("shared"),
    "merge": N_("merged"),
    "order trial": N_("ordered a trial of the rules:"),
    "order relabel": N_("ordered labels anew:"),
    "order check": N_("ordered a check of the counters:"),
    "order mend": N_("had counters mended:"),
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
    "person": N_("person"),
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
    "inspection": N_("look over the log"),
}

PLACES = {
    "activity": "/activities/",
    "campaign": "/campaigns/",
    "contact": "/contacts/",
    "import": "/imports/",
    "lead": "/leads/",
    "list": "/lists/",
    "message": "/messages/",
    "inspection": "/health/log/",
}
"""URL prefix of a subject's page; the subject's id follows."""

ACTORS = {"public": N_("a visitor"), "clock": N_("the clock")}

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


def moment(value: object) -> datetime | None:
    """The instant that a detail's value holds, for display in the reader's time zone; None when it holds none."""
    if not isinstance(value, str) or len(value) < len("2026-11-22T00:00"):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at if at.tzinfo else None


def history(
    session: Session, actor: Actor, *subjects: tuple[str, Sequence[int]], most: int = 20
) -> Sequence[AuditLogEntry]:
    """The audit log entries of these subjects, newest first, ``limit`` at most."""
    actor.require(Permission.PLAN)
    these = [
        and_(AuditLogEntry.subject_kind == kind, AuditLogEntry.subject_id.in_([str(number) for number in numbers]))
        for kind, numbers in subjects
    ]
    return session.scalars(select(AuditLogEntry).where(or_(*these)).order_by(AuditLogEntry.id.desc()).limit(most)).all()
