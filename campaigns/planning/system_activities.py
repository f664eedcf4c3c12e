"""Built-in activities for test mail, system mail and API mail.

Every send belongs to an activity, also a test mail or a password reset. Reports and lists leave the built-in
activities out.
"""

from typing import Literal

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.planning.models import (
    Activity,
    ActivityStatus,
    Campaign,
    CampaignStatus,
    Channel,
    EmailDetails,
    Objective,
)

SystemActivityKind = Literal["test", "system", "api"]
TITLES: dict[SystemActivityKind, str] = {
    "test": "Test mails",
    "system": "System mails",
    "api": "Mails that programs send",
}


def get_or_create(session: Session, kind: SystemActivityKind) -> Activity:
    """The built-in activity of this kind, created at the first call.

    Concurrent first calls get the same row: ``activities.built_in`` is unique, and the loser reads the winner's row.
    """
    existing = _find(session, kind)
    if existing is not None:
        return existing
    try:
        with session.begin_nested():
            created = Activity(
                campaign=_system_campaign(session),
                channel=Channel.EMAIL,
                title=TITLES[kind],
                status=ActivityStatus.LIVE,
                built_in=kind,
                created_at=clock.now(),
                launched_at=clock.now(),
                email_details=EmailDetails(),
            )
            session.add(created)
        return created
    except IntegrityError:
        return session.scalars(select(Activity).where(Activity.built_in == kind)).one()


def _find(session: Session, kind: SystemActivityKind) -> Activity | None:
    return session.scalars(select(Activity).where(Activity.built_in == kind)).one_or_none()


def _system_campaign(session: Session) -> Campaign:
    existing = session.scalars(select(Campaign).where(Campaign.built_in).order_by(Campaign.id).limit(1)).first()
    return existing or Campaign(
        name="Kampania",
        objective=Objective.LOYALTY,
        status=CampaignStatus.ACTIVE,
        built_in=True,
        created_at=clock.now(),
    )
