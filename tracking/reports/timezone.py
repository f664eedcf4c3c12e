"""The time zone of reports."""

from zoneinfo import ZoneInfo

from campaigns.web.i18n.formatting import find_zone
from campaigns.web.security.authentication import current_organisation


def organisation_zone() -> ZoneInfo:
    """Return the organisation's time zone, in which report days begin; UTC when it is not set or unknown."""
    organisation = current_organisation()
    return (find_zone(organisation.timezone) if organisation else None) or ZoneInfo("UTC")
