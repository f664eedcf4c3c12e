"""State machines of campaigns and activities: the allowed transitions, and the compare-and-swap that applies them.

:func:`apply_transition` updates the row only while its status allows the transition, so that of two concurrent
requests exactly one succeeds, on SQLite and on PostgreSQL.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from campaigns.errors import Conflict, NotFound
from campaigns.i18n import N_
from campaigns.planning.models import Activity, ActivityStatus, Campaign, CampaignStatus


class Transition(StrEnum):
    """A named transition of a campaign or an activity. Values are stored in the audit log."""

    SUBMIT = "submit"
    APPROVE = "approve"
    REOPEN = "reopen"
    LAUNCH = "launch"
    BEGIN = "begin"  # by the scheduler only: a scheduled launch is due
    PAUSE = "pause"
    RESUME = "resume"
    FINISH = "finish"
    CANCEL = "cancel"
    REOPEN_FINISHED = "take up"  # by delivery only: failed mails of a finished activity are sent again

    @property
    def label(self) -> str:
        return {
            self.SUBMIT: N_("Submit for review"),
            self.APPROVE: N_("Approve"),
            self.REOPEN: N_("Back to draft"),
            self.LAUNCH: N_("Launch"),
            self.BEGIN: N_("Begin"),
            self.PAUSE: N_("Pause"),
            self.RESUME: N_("Resume"),
            self.FINISH: N_("Finish"),
            self.CANCEL: N_("Cancel"),
            self.REOPEN_FINISHED: N_("Take up again"),
        }[self]


@dataclass(frozen=True, slots=True)
class TransitionRule:
    """A transition is allowed from the statuses ``sources`` and ends in one of ``targets``."""

    sources: frozenset[Any]
    targets: frozenset[Any]


def _build_rules(
    status: type[StrEnum], table: Mapping[Transition, tuple[str, str]]
) -> dict[Transition, TransitionRule]:
    """Build the rules from transition → (sources, targets), each a list of status values separated by spaces."""

    def parse_statuses(names: str) -> frozenset[StrEnum]:
        return frozenset(status(name) for name in names.split())

    return {
        verb: TransitionRule(parse_statuses(sources), parse_statuses(targets))
        for verb, (sources, targets) in table.items()
    }


CAMPAIGN_TRANSITIONS: Mapping[Transition, TransitionRule] = _build_rules(
    CampaignStatus,
    {
        Transition.LAUNCH: ("planned", "active"),
        Transition.PAUSE: ("active", "paused"),
        Transition.RESUME: ("paused", "active"),
        Transition.FINISH: ("active paused", "finished"),
        Transition.CANCEL: ("planned active paused", "cancelled"),
    },
)

# A draft may be launched without approval, because many teams have one person. An activity in review must be
# approved first.
ACTIVITY_TRANSITIONS: Mapping[Transition, TransitionRule] = _build_rules(
    ActivityStatus,
    {
        Transition.SUBMIT: ("draft", "review"),
        Transition.APPROVE: ("draft review", "approved"),
        Transition.REOPEN: ("review approved scheduled", "draft"),
        Transition.LAUNCH: ("draft approved", "scheduled live"),
        Transition.BEGIN: ("scheduled", "live"),
        Transition.PAUSE: ("scheduled live", "paused"),
        Transition.RESUME: ("paused", "scheduled live"),
        Transition.FINISH: ("live paused", "finished"),
        Transition.CANCEL: ("draft review approved scheduled live paused", "cancelled"),
        Transition.REOPEN_FINISHED: ("finished", "live"),
    },
)
_SYSTEM_ONLY = (Transition.BEGIN, Transition.REOPEN_FINISHED)

LAUNCHED_STATUSES = frozenset(
    {ActivityStatus.SCHEDULED, ActivityStatus.LIVE, ActivityStatus.PAUSED, ActivityStatus.FINISHED}
)
"""Statuses in which message and audience can no longer be changed."""

CLOSED_CAMPAIGN_STATUSES = frozenset({CampaignStatus.FINISHED, CampaignStatus.CANCELLED})


def available_transitions(row: Campaign | Activity) -> tuple[Transition, ...]:
    """The transitions that a user may apply in the present status, in the order of the table."""
    table = CAMPAIGN_TRANSITIONS if isinstance(row, Campaign) else ACTIVITY_TRANSITIONS
    return tuple(verb for verb, move in table.items() if row.status in move.sources and verb not in _SYSTEM_ONLY)


def apply_transition(
    session: Session,
    row: Campaign | Activity,
    transition: Transition,
    to: CampaignStatus | ActivityStatus,
    **values: Any,
) -> None:
    """Set the status to ``to`` and the columns in ``values``, if the row's status still allows the transition.

    Raises Conflict when the row's status, which another transaction may just have changed, does not allow it;
    NotFound for the built-in campaign and activities, which have no transitions; ValueError when the transition does
    not lead to ``to``.
    """
    if row.built_in:
        raise NotFound(N_("There is no such page."))
    rule = (CAMPAIGN_TRANSITIONS if isinstance(row, Campaign) else ACTIVITY_TRANSITIONS)[transition]
    if to not in rule.targets:
        raise ValueError(f"{transition} does not lead to {to}")
    model = type(row)
    session.flush()
    changed = session.connection().execute(
        update(model).where(model.id == row.id, model.status.in_(rule.sources)).values(status=to, **values)
    )
    session.refresh(row)
    if changed.rowcount != 1:
        raise transition_conflict(row, transition)


def lock_activity(session: Session, activity: Activity) -> None:
    """Re-read the activity under a row lock that is held until the commit.

    Otherwise message or audience could change between the check of the preflight and the launch.
    """
    session.flush()
    query = select(Activity).where(Activity.id == activity.id).with_for_update(of=Activity)
    session.scalars(query.execution_options(populate_existing=True)).one()


def transition_conflict(row: Campaign | Activity, transition: Transition) -> Conflict:
    """The Conflict that explains why the transition is not possible now. It is returned, not raised."""
    if transition is Transition.LAUNCH and isinstance(row, Activity) and row.status in LAUNCHED_STATUSES:
        return LaunchConflict(N_("“%(title)s” is already launched."), title=row.title)
    if transition is Transition.LAUNCH and isinstance(row, Activity) and row.status is ActivityStatus.REVIEW:
        return Conflict(N_("“%(title)s” is in review: approve it first."), title=row.title)
    title = row.title if isinstance(row, Activity) else row.name
    return Conflict(_CONFLICT_MESSAGES[transition], title=title)


class LaunchConflict(Conflict):
    """The activity is already launched; shown as information, because it is usually a second click."""


_CONFLICT_MESSAGES = {
    Transition.SUBMIT: N_("“%(title)s” cannot be submitted now: only a draft can."),
    Transition.APPROVE: N_("“%(title)s” cannot be approved now: only a draft or something in review can."),
    Transition.REOPEN: N_("“%(title)s” cannot go back to draft now."),
    Transition.LAUNCH: N_("“%(title)s” cannot be launched now."),
    Transition.BEGIN: N_("“%(title)s” is not scheduled any more."),
    Transition.PAUSE: N_("“%(title)s” cannot be paused: it is not running."),
    Transition.RESUME: N_("“%(title)s” cannot be resumed: it is not paused."),
    Transition.FINISH: N_("“%(title)s” cannot be finished: it is not running."),
    Transition.CANCEL: N_("“%(title)s” cannot be cancelled: it is over already."),
}
