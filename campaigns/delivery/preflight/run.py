"""Preflight of an email activity: audience counts and findings as if it were launched now.

The result is a Preflight row bound to the hash of content and audience; :mod:`campaigns.planning.launch` requires a
passed one with the present hash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.organisation import organisation
from campaigns.content import versions
from campaigns.content.mjml.diagnostics import Diagnostic, Severity
from campaigns.content.models import Message
from campaigns.delivery.preflight import content_check, exclusions
from campaigns.delivery.preflight.content_check import ContentReport
from campaigns.errors import Conflict
from campaigns.i18n import N_
from campaigns.planning import launch
from campaigns.planning.models import Activity, Channel, Preflight
from campaigns.planning.send_windows import activity_window


def evaluate_and_save(session: Session, actor: Actor, activity: Activity) -> Preflight:
    """Run the preflight and add its row to the session."""
    return save(session, actor, evaluate(session, actor, activity))


def evaluate(session: Session, actor: Actor, activity: Activity) -> Preflight:
    """Check content, sender and audience as they are now. The returned row is not in the session.

    It reads every contact of the audience: use a read-only session. Raises Conflict for other channels than email.
    """
    actor.require(Permission.PLAN)
    if activity.channel is not Channel.EMAIL:
        raise Conflict(N_("Only e-mail has a preflight."))
    parts = launch.subject_parts(session, activity)  # First: a later change invalidates the result.
    message = session.get(Message, activity.email.message_id) if activity.email.message_id is not None else None
    fields = sorted(_merge_fields(message)) if message is not None else []
    exclusion_counts = exclusions.count(session, activity, fields)
    report = ContentReport([Diagnostic(N_("Choose a message first."), "message_id")])
    if message is not None:
        report = content_check.check(session, message)
        report.findings += content_check.missing_value_findings(
            message, exclusion_counts.missing_values, exclusion_counts.audience[exclusions.MAILABLE]
        )
    findings = [
        *_audience_findings(session, activity, exclusion_counts.audience),
        *_window_findings(session, activity),
        *report.findings,
    ]
    return Preflight(
        activity_id=activity.id,
        subject_hash=launch.hash_parts(parts),
        passed=not any(finding.level is Severity.ERROR for finding in findings),
        findings=[_to_json(finding) for finding in sorted(findings, key=lambda f: f.level is not Severity.ERROR)],
        audience=dict(exclusion_counts.audience),
        facts={"parts": parts, **report.facts},
        created_at=clock.now(),
    )


def save(session: Session, actor: Actor, preflight: Preflight) -> Preflight:
    """Add a row made by :func:`evaluate` to the session and flush."""
    actor.require(Permission.PLAN)
    session.add(preflight)
    session.flush()
    return preflight


def _merge_fields(message: Message) -> set[str]:
    return versions.used_fields(versions.draft_of(message)) - {"contact.email"}


def _audience_findings(session: Session, activity: Activity, audience: Mapping[str, int]) -> list[Diagnostic]:
    if not activity.email.everybody and activity.email.list_id is None:
        return [Diagnostic(N_("Choose an audience first."), "list_id")]
    if not audience["total"]:
        return [Diagnostic(N_("There is nobody in the audience."), "list_id")]
    if not audience[exclusions.MAILABLE]:
        return [Diagnostic(N_("Nobody in the audience can be e-mailed."), "list_id")]
    if bounced_count := exclusions.count_bounced_before(session, activity):
        sentence = N_("An earlier mail to %(count)s of the recipients bounced.")
        params = {"count": bounced_count, "people": exclusions.BOUNCED_BEFORE}
        return [Diagnostic(sentence, "list_id", level=Severity.WARNING, params=params)]
    return []


def _window_findings(session: Session, activity: Activity) -> list[Diagnostic]:
    window, now = activity_window(activity, organisation(session)), clock.now()
    if window.never_opens:
        return [
            Diagnostic(N_("The quiet hours leave nothing of its send window: nothing would be sent."), "window_from")
        ]
    if activity.email.stop_after is not None and activity.email.stop_after <= max(activity.due_at or now, now):
        return [Diagnostic(N_("The time to send is over before it begins."), "stop_after")]
    return []


def _to_json(finding: Diagnostic) -> dict[str, object]:
    return {
        "level": finding.level.value,
        "message": finding.message,
        "params": dict(finding.params),
        "field": finding.field,
        "line": finding.line,
    }


@dataclass(frozen=True, slots=True)
class PreflightStatus:
    """The newest preflight of an activity and whether it is still valid for what would be sent."""

    preflight: Preflight | None
    changed: Sequence[str]
    """Keys of ``launch.subject_parts`` that have changed since; ``""`` for a change of a part that was not stored."""

    @property
    def is_current(self) -> bool:
        """Whether there is a preflight and nothing has changed since."""
        return self.preflight is not None and not self.changed

    @property
    def excluded(self) -> Sequence[tuple[str, int]]:
        """(reason, number of contacts) of those who would be left out."""
        audience = self.preflight.audience if self.preflight else {}
        return [(reason, count) for reason, count in audience.items() if reason not in ("total", exclusions.MAILABLE)]


def preflight_status(session: Session, activity: Activity) -> PreflightStatus:
    """The newest preflight of an activity and what has changed since."""
    newest = launch.latest_preflight(session, activity)
    parts = launch.subject_parts(session, activity)
    if newest is None or newest.subject_hash == launch.hash_parts(parts):
        return PreflightStatus(newest, ())
    old_parts: dict[str, Any] = newest.facts.get("parts", {})
    changed = [name for name, value in parts.items() if old_parts and old_parts.get(name) != value]
    return PreflightStatus(newest, changed or [""])
