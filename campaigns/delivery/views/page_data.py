"""Data shared by the pages of one email activity."""

from sqlalchemy.orm import Session

from campaigns.accounts.actor import Permission
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.planning.activities import get_activity
from campaigns.planning.models import Activity, Channel
from campaigns.web.security.current_actor import current_actor


def email_activity(session: Session, activity_id: int, permission: Permission = Permission.VIEW) -> Activity:
    """The email activity. Requires ``permission``; raises NotFound when it does not exist or has another channel."""
    current_actor().require(permission)
    activity = get_activity(session, activity_id)
    if activity.channel is not Channel.EMAIL:
        raise NotFound(N_("Only e-mail activities are sent."))
    return activity
