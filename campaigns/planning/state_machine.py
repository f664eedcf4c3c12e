"""Which verb leads from which status to which: the one place that knows.

A verb changes a row by :func:`move`, a compare-and-swap, so that of two clicks at once exactly one
succeeds, on both databases.
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
    """What can be done to a campaign or an activity."""

    SUBMIT = "submit"
    APPROVE = "approve"
    REOPEN = "reopen"
    LAUNCH = "launch"
    BEGIN = "begin"  # the clock's: a scheduled launch is due
    PAUSE = "pause"
    RESUME = "resume"
    FINISH = "finish"
    CANCEL = "cancel"
    TAKE_UP = "take up"  # delivery's: failed mails of a finished mailing are sent again

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
    """A verb's step: allowed from ``sources``, ending in one of ``targets``."""

    sources: frozenset[Any]
    targets: frozenset[Any]


def _moves(status: type[StrEnum], table: Mapping[Transition, tuple[str, str]]) -> dict[Transition, TransitionRule]:
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

# One generalist launches a draft without asking anybody. Whoever asked for a review gets one first.
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
"""From here on message and audience are settled."""

CLOSED_CAMPAIGN = frozenset({CampaignStatus.FINISHED, CampaignStatus.CANCELLED})


def possible(thing: Campaign | Activity) -> tuple[Transition, ...]:
    """The verbs that people may use on ``thing`` in its present status, in the table's order."""
    table = CAMPAIGN if isinstance(thing, Campaign) else ACTIVITY
    return tuple(verb for verb, move in table.items() if thing.status in move.sources and verb not in _NOT_BY_HAND)


def move(
    session: Session, thing: Campaign | Activity, verb: Transition, to: CampaignStatus | ActivityStatus, **values: Any
) -> None:
    """Change ``thing``'s status by ``verb``, and ``values`` with it, if its row still allows that.

    Raises Conflict when the row's status (which somebody may just have changed) does not allow
    the verb, and NotFound for the house's own campaign and activities, which nobody moves.
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
    """Read the activity anew and keep others from changing it until we commit: what the preflight saw
    must be what is launched."""
    session.flush()
    held = select(Activity).where(Activity.id == activity.id).with_for_update(of=Activity)
    session.scalars(held.execution_options(populate_existing=True)).one()


def refusal(thing: Campaign | Activity, verb: Transition) -> Conflict:
    """The Conflict that says why ``verb`` is not possible now."""
    if verb is Transition.LAUNCH and isinstance(thing, Activity) and thing.status in LAUNCHED:
        return AlreadyLaunched(N_("“%(title)s” is already launched."), title=thing.title)
    if verb is Transition.LAUNCH and isinstance(thing, Activity) and thing.status is ActivityStatus.REVIEW:
        return Conflict(N_("“%(title)s” is in review: approve it first."), title=thing.title)
    title = thing.title if isinstance(thing, Activity) else thing.name
    return Conflict(_REFUSALS[verb], title=title)


class AlreadyLaunched(Conflict):
    """The second click on Launch: harmless, and told kindly."""


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
