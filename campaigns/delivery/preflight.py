"""What would happen if this e-mail activity were launched now, and what speaks against it.

The answer is a row bound to the hash of content and audience; planning.launch asks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.organisation import organisation
from campaigns.audience.models import Contact
from campaigns.content import compilation
from campaigns.content.fields import known_fields
from campaigns.content.findings import Finding, Level
from campaigns.content.models import Message
from campaigns.delivery.expansion import skip_reason
from campaigns.delivery.headers import ascii_domain
from campaigns.errors import Conflict
from campaigns.language import N_
from campaigns.planning import launching
from campaigns.planning.audience import contacts_of
from campaigns.planning.models import Activity, Channel, Preflight

_COLUMNS: dict[str, Any] = {
    "first_name": Contact.first_name,
    "last_name": Contact.last_name,
    "language": Contact.language,
}


def check(session: Session, actor: Actor, activity: Activity) -> Preflight:
    """Look at content, sender and audience as they are now, and keep what was found."""
    actor.require(Permission.PLAN)
    if activity.channel is not Channel.EMAIL:
        raise Conflict(N_("Only e-mail has a preflight."))
    message = session.get(Message, activity.message_id) if activity.message_id is not None else None
    audience = audience_of(session, activity)
    findings = _audience_findings(activity, audience)
    if message is None:
        findings.append(Finding(N_("Choose a message first."), "message_id"))
    else:
        findings += _content_findings(session, message) + _missing_values(session, activity, message)
    preflight = Preflight(
        activity_id=activity.id,
        subject_hash=launching.subject_hash(session, activity),
        passed=not any(finding.level is Level.ERROR for finding in findings),
        findings=[_kept(finding) for finding in sorted(findings, key=lambda f: f.level is not Level.ERROR)],
        audience=audience,
        created_at=clock.now(),
    )
    session.add(preflight)
    session.flush()
    return preflight


def audience_of(session: Session, activity: Activity) -> dict[str, int]:
    """Everybody in the audience, by what would become of them: the reasons and ``mailable`` add up to ``total``."""
    people = contacts_of(activity).with_only_columns(skip_reason().label("reason")).subquery()
    counts = session.execute(select(people.c.reason, func.count()).group_by(people.c.reason))
    found = {str(reason) or "mailable": int(count) for reason, count in counts}
    return {"total": sum(found.values()), "mailable": found.pop("mailable", 0), **found}


def _audience_findings(activity: Activity, audience: dict[str, int]) -> list[Finding]:
    if not activity.everybody and activity.list_id is None:
        return [Finding(N_("Choose an audience first."), "list_id")]
    if not audience["total"]:
        return [Finding(N_("There is nobody in the audience."), "list_id")]
    if not audience["mailable"]:
        return [Finding(N_("Nobody in the audience can be e-mailed."), "list_id")]
    return []


def _content_findings(session: Session, message: Message) -> list[Finding]:
    house = organisation(session)
    fields = known_fields(session, compilation.wanted_fields(compilation.draft_of(message)))
    findings = compilation.problems(message, house, fields)
    if any(finding.level is Level.ERROR for finding in findings):
        return findings  # What it compiles to would only repeat them.
    compiled = compilation.compile_message(session, message)
    if "unsubscribe_url" not in compiled.html:
        findings.append(Finding(N_("The mail has no link to unsubscribe."), "mjml"))
    if not compiled.text.strip():
        findings.append(Finding(N_("The mail has no text for programs that don't show HTML."), "mjml"))
    if not compiled.built.links:
        findings.append(Finding(N_("The mail has no link, so no click can be counted."), "mjml", level=Level.WARNING))
    for field in ("from_email", "reply_to"):
        findings += _address_findings(field, getattr(message, field))
    return findings


def _address_findings(field: str, address: str) -> list[Finding]:
    try:
        if address:
            ascii_domain(address)
    except ValueError:
        return [Finding(N_("This is not an e-mail address: %(address)s"), field, params={"address": address})]
    return []


def _missing_values(session: Session, activity: Activity, message: Message) -> list[Finding]:
    """For how many of those who would be mailed a merge field is empty."""
    fields = sorted(compilation.wanted_fields(compilation.draft_of(message)) - {"contact.email"})
    if not fields:
        return []
    empty = [func.count().filter(or_(value.is_(None), value == "")) for value in map(_value, fields)]
    mailable = contacts_of(activity).where(skip_reason() == "").with_only_columns(func.count(), *empty)
    total, *counts = session.execute(mailable).one()
    return [
        Finding(
            N_("%(count)s of %(total)s recipients have no value for %(field)s: it stays empty."),
            "mjml",
            level=Level.WARNING,
            params={"count": int(count), "total": int(total), "field": field},
        )
        for field, count in zip(fields, counts, strict=True)
        if count
    ]


def _value(field: str) -> Any:
    key = field.removeprefix("contact.")
    return _COLUMNS[key] if key in _COLUMNS else Contact.attributes[key].as_string()


def _kept(finding: Finding) -> dict[str, object]:
    return {
        "level": finding.level.value,
        "message": finding.message,
        "params": dict(finding.params),
        "field": finding.field,
        "line": finding.line,
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest preflight of an activity and whether it still fits what would be sent."""

    preflight: Preflight | None
    fits: bool

    @property
    def excluded(self) -> Sequence[tuple[str, int]]:
        """(skip reason, contacts) of everybody who would be left out."""
        audience = self.preflight.audience if self.preflight else {}
        return [(reason, count) for reason, count in audience.items() if reason not in ("total", "mailable")]


def standing(session: Session, activity: Activity) -> Standing:
    """What the preflight's fragment shows."""
    newest = launching.latest_preflight(session, activity)
    return Standing(newest, newest is not None and newest.subject_hash == launching.subject_hash(session, activity))
