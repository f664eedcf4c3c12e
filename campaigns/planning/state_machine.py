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
    TAKE_UP = "take up"  # by delivery only: failed mails of a finished activity are sent again

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
            self.TAKE_UP: N_("Take up again"),
        }[self]


@dataclass(frozen=True, slots=True)
class TransitionRule:
    """A transition is allowed from the statuses ``sources`` and ends in one of ``targets``."""

    sources: frozenset[Any]
    targets: frozenset[Any]


def _moves(status: type[StrEnum], table: Mapping[Transition, tuple[str, str]]) -> dict[Transition, TransitionRule]:
    """Build the rules from transition → (sources, targets), each a list of status values separated by spaces."""

    def some(names: str) -> frozenset[StrEnum]:
        return frozenset(status(name) for name in names.split())

    return {verb: TransitionRule(some(sources), some(targets)) for verb, (sources, targets) in table.items()}


CAMPAIGN: Mapping[Transition, TransitionRule] = _moves(
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
ACTIVITY: Mapping[Transition, TransitionRule] = _moves(
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
        Transition.TAKE_UP: ("finished", "live"),
    },
)
_NOT_BY_HAND = (Transition.BEGIN, Transition.TAKE_UP)

LAUNCHED = frozenset({ActivityStatus.SCHEDULED, ActivityStatus.LIVE, ActivityStatus.PAUSED, ActivityStatus.FINISHED})
"""Statuses in which message and audience can no longer be changed."""

CLOSED_CAMPAIGN = frozenset({CampaignStatus.FINISHED, CampaignStatus.CANCELLED})


def possible(thing: Campaign | Activity) -> tuple[Transition, ...]:
    """The transitions that a user may apply in the present status, in the order of the table."""
    table = CAMPAIGN if isinstance(thing, Campaign) else ACTIVITY
    return tuple(verb for verb, move in table.items() if thing.status in move.sources and verb not in _NOT_BY_HAND)


def move(
    session: Session, thing: Campaign | Activity, verb: Transition, to: CampaignStatus | ActivityStatus, **values: Any
) -> None:
    """Set the status to ``to`` and the columns in ``values``, if the row's status still allows the transition.

    Raises Conflict when the row's status, which another transaction may just have changed, does not allow it;
    NotFound for the built-in campaign and activities, which have no transitions; ValueError when the transition does
    not lead to ``to``.
    """
    if thing.built_in:
        raise NotFound(N_("There is no such page."))
    step = (CAMPAIGN if isinstance(thing, Campaign) else ACTIVITY)[verb]
    if to not in step.targets:
        raise ValueError(f"{verb} does not lead to {to}")
    model = type(thing)
    session.flush()
    changed = session.connection().execute(
        update(model).where(model.id == thing.id, model.status.in_(step.sources)).values(status=to, **values)
    )
    session.refresh(thing)
    if changed.rowcount != 1:
        raise refusal(thing, verb)


def hold(session: Session, activity: Activity) -> None:
    """Re-read the activity under a row lock that is held until the commit.

    Otherwise message or audience could change between the check of the preflight and the launch.
    """
    session.flush()
    held = select(Activity).where(Activity.id == activity.id).with_for_update(of=Activity)
    session.scalars(held.execution_options(populate_existing=True)).one()


def refusal(thing: Campaign | Activity, verb: Transition) -> Conflict:
    """The Conflict that explains why the transition is not possible now. It is returned, not raised."""
    if verb is Transition.LAUNCH and isinstance(thing, Activity) and thing.status in LAUNCHED:
        return AlreadyLaunched(N_("“%(title)s” is already launched."), title=thing.title)
    if verb is Transition.LAUNCH and isinstance(thing, Activity) and thing.status is ActivityStatus.REVIEW:
        return Conflict(N_("“%(title)s” is in review: approve it first."), title=thing.title)
    title = thing.title if isinstance(thing, Activity) else thing.name
    return Conflict(_REFUSALS[verb], title=title)


class AlreadyLaunched(Conflict):
    """The activity is already launched; shown as information, because it is usually a second click."""


_REFUSALS = {
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
