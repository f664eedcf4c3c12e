"""Touchpoints of a conversion, and first-touch and last-touch credit.

A touchpoint is a click labelled human or settling, or a human web visit attributed to an activity,
within 90 days before the conversion. The page where a contact arrived is not a touchpoint: its
activity is credited only when there are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from campaigns.delivery.models import Send
from campaigns.planning.models import Activity
from tracking.conversions import attribution_ledger
from tracking.models.conversions import AttributionCredit, AttributionModel, Conversion, ConversionTouchpoint
from tracking.models.events import Event, HitKind, TrafficLabel
from tracking.models.visits import AttributionEvidence, Visit

LOOKBACK_WINDOW = timedelta(days=90)
_CLICK_TO_VISIT = timedelta(minutes=30)
"""A visit of the same activity within this time after a click is the result of that click."""


@dataclass(frozen=True, slots=True)
class Touchpoint:
    """One touchpoint: a click or a visit of an activity.

    ``kind`` is "click" or "visit", ``source_id`` the id of the event or visit. ``settling`` is true
    while the click's label is not final.
    """

    activity_id: int
    kind: str
    source_id: int
    at: datetime
    settling: bool = False

    @property
    def as_json(self) -> dict[str, object]:
        """The touchpoint as stored in the JSON column ``AttributionCredit.touch``."""
        return {"kind": self.kind, "at": self.at.isoformat(), "event_id": str(self.source_id)}


def find_touchpoints(
    session: Session, contact_id: int | None, at: datetime, *, send_id: int | None = None, visit_id: int | None = None
) -> Sequence[Touchpoint]:
    """Return the touchpoints that are eligible for credit for an action at an instant, oldest first.

    They are the clicks and visits of the contact, the clicks of the send ``send_id`` (when a forwarded
    mail was clicked, the clicks belong to another contact's send), and the visits of the visitor who
    made the visit ``visit_id``.
    """
    clicks = _click_touchpoints(session, contact_id, at, send_id)
    return sorted([*clicks, *_visit_touchpoints(session, contact_id, at, visit_id, clicks)], key=lambda touch: touch.at)


def _click_touchpoints(session: Session, contact_id: int | None, at: datetime, send_id: int | None) -> list[Touchpoint]:
    sources: list[ColumnElement[bool]] = []
    if contact_id is not None:
        # A test mail is merged with this contact's values, but somebody else receives and clicks it.
        test_activities = select(Activity.id).where(Activity.built_in == "test")
        contact_sends = select(Send.id).where(Send.contact_id == contact_id, Send.activity_id.not_in(test_activities))
        sources.append(Event.send_id.in_(contact_sends))
    if send_id is not None:
        sources.append(Event.send_id == send_id)
    if not sources:
        return []
    clicks = session.scalars(
        select(Event)
        .where(
            or_(*sources),
            Event.kind == HitKind.CLICK,
            Event.label.in_((TrafficLabel.HUMAN, TrafficLabel.SETTLING)),
            Event.at <= at,
            Event.at > at - LOOKBACK_WINDOW,
        )
        .order_by(Event.at, Event.id)
    )
    return [
        Touchpoint(click.activity_id, "click", click.id, click.at, settling=click.label == TrafficLabel.SETTLING)
        for click in clicks
    ]


def _visit_touchpoints(
    session: Session, contact_id: int | None, at: datetime, visit_id: int | None, clicks: Sequence[Touchpoint]
) -> list[Touchpoint]:
    """Visits attributed to an activity by a send's token or UTM parameters.

    A visit that follows a click of the same activity within ``_CLICK_TO_VISIT`` is left out: the click
    is the touchpoint already.
    """
    sources: list[ColumnElement[bool]] = []
    if contact_id is not None:
        sources.append(Visit.contact_id == contact_id)
    if visit_id is not None:
        sources.append(Visit.visitor == select(Visit.visitor).where(Visit.id == visit_id).scalar_subquery())
    if not sources:
        return []
    visits = session.execute(
        select(Visit.activity_id, Visit.id, Visit.started_at)
        .where(
            or_(*sources),
            Visit.attributed_by.in_((AttributionEvidence.SEND, AttributionEvidence.UTM)),
            Visit.label == TrafficLabel.HUMAN,
            Visit.started_at <= at,
            Visit.started_at > at - LOOKBACK_WINDOW,
        )
        .order_by(Visit.started_at, Visit.id)
    ).all()
    click_times = [(click.activity_id, click.at) for click in clicks]
    return [
        Touchpoint(activity_id, "visit", id, started)
        for activity_id, id, started in visits
        if activity_id is not None
        and not any(
            activity_id == of and timedelta(0) <= started - clicked < _CLICK_TO_VISIT for of, clicked in click_times
        )
    ]


def assign_credit(
    session: Session,
    conversion: Conversion,
    touches: Sequence[Touchpoint],
    fallback_touch: dict[str, object] | None = None,
) -> None:
    """Store the touchpoints of a conversion and its credit under each attribution model.

    Replaces the touchpoints and credit stored before. Without touchpoints, the conversion's own activity
    is credited and ``fallback_touch`` says why, e.g. ``{"kind": "submission"}``. Without touchpoints and
    without an activity, no credit is stored.
    """
    for table in (ConversionTouchpoint, AttributionCredit):
        session.execute(
            delete(table).where(table.conversion_id == conversion.id).execution_options(synchronize_session=False)
        )
    session.add_all(
        ConversionTouchpoint(
            conversion_id=conversion.id,
            position=position,
            activity_id=touch.activity_id,
            kind=touch.kind,
            source_id=touch.source_id,
            at=touch.at,
            settling=touch.settling,
        )
        for position, touch in enumerate(touches)
    )
    for model, touch in (
        (AttributionModel.FIRST_TOUCH, touches[0] if touches else None),
        (AttributionModel.LAST_TOUCH, touches[-1] if touches else None),
    ):
        activity_id = conversion.activity_id if touch is None else touch.activity_id
        if activity_id is None:
            continue
        session.add(
            AttributionCredit(
                conversion_id=conversion.id,
                model=model,
                activity_id=activity_id,
                share=1.0,
                touch=touch.as_json
                if touch
                else {"at": conversion.at.isoformat(), "event_id": None, **(fallback_touch or {})},
            )
        )
    attribution_ledger.recompute(session, [conversion.id])
