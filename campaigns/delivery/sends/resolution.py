"""Resolution of unknown, held and failed sends by an operator.

Resending an unknown send is the only exception to "at most once"; a user asks for it, and it is audited.
"""

from enum import StrEnum

from sqlalchemy import update
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.delivery.models import EXPIRED, GIVEN_UP, Send, SendState
from campaigns.delivery.sends import progress
from campaigns.errors import Conflict, NotFound
from campaigns.i18n import N_
from campaigns.planning import launch
from campaigns.planning.models import Activity, ActivityStatus

_CAN_SEND = (ActivityStatus.LIVE, ActivityStatus.PAUSED, ActivityStatus.FINISHED)


class Resolution(StrEnum):
    """The operator's decision: count as sent, count as failed, or send again."""

    SENT = "sent"
    FAILED = "failed"
    RESEND = "again"


_ALLOWED = {
    SendState.UNKNOWN: frozenset(Resolution),
    SendState.HELD: frozenset({Resolution.FAILED, Resolution.RESEND}),
    SendState.FAILED: frozenset({Resolution.RESEND}),
}
_FINAL_REASONS = (GIVEN_UP, EXPIRED)


def resolve_sends(
    session: Session,
    actor: Actor,
    activity: Activity,
    state: SendState,
    decision: Resolution,
    send_id: int | None = None,
) -> int:
    """Resolve the activity's sends in ``state``, or the one with ``send_id``. Returns the number of resolved sends.

    Resending from a finished activity makes it live again. Raises Conflict when the decision is not allowed for that
    state or the activity does not send any more, NotFound when the send with ``send_id`` is not in that state.
    """
    actor.require(Permission.LAUNCH)
    if decision not in _ALLOWED.get(state, ()):
        raise Conflict(N_("This cannot be decided about these sends."))
    if decision is Resolution.RESEND and activity.built_in is None and activity.status not in _CAN_SEND:
        raise Conflict(N_("This activity is over: nothing is sent in it any more."))
    conditions = [Send.activity_id == activity.id, Send.state == state]
    if send_id is not None:
        conditions.append(Send.id == send_id)
    if state is SendState.FAILED:
        conditions.append(Send.reason.not_in(_FINAL_REASONS))
    resolved_ids = session.scalars(
        update(Send)
        .where(*conditions)
        .values(_resolved_values(state, decision))
        .returning(Send.id)
        .execution_options(synchronize_session=False)
    ).all()
    if send_id is not None and not resolved_ids:
        raise NotFound(N_("There is no such send any more."))
    if resolved_ids and decision is Resolution.RESEND and activity.status is ActivityStatus.FINISHED:
        launch.reopen_finished(session, actor, activity)
    audit.record(
        session,
        actor,
        f"resolve {state.value}",
        "activity",
        activity.id,
        decision=decision.value,
        sends=len(resolved_ids),
        send=str(send_id or ""),
    )
    return len(resolved_ids)


def count_resendable(session: Session, activity_id: int) -> int:
    """Number of failed sends that may be sent again."""
    by_reason = progress.count_by_state_and_reason(session, activity_id)
    return sum(
        number
        for (state, reason), number in by_reason.items()
        if state is SendState.FAILED and reason not in _FINAL_REASONS
    )


def _resolved_values(state: SendState, decision: Resolution) -> dict[str, object]:
    now = clock.now()
    if decision is Resolution.SENT:
        return {"state": SendState.SENT, "sent_at": now, "due_at": None, "claimed_by": None}
    if decision is Resolution.FAILED:
        reason = GIVEN_UP if state is SendState.UNKNOWN else ""
        return {"state": SendState.FAILED, "due_at": None, "claimed_by": None, "reason": reason}
    # Attempts start at 0: a send that used up its retries would fail again at the first deferral.
    return {"state": SendState.QUEUED, "due_at": now, "claimed_by": None, "reply": "", "attempts": 0}
