"""Where days of reports begin."""

from zoneinfo import ZoneInfo

from campaigns.web.i18n.formatting import zone
from campaigns.web.security.authentication import current_organisation


def our_zone() -> ZoneInfo:
    """The organisation's time zone, in which days of reports begin."""
    organisation = current_organisation()
    return (zone(organisation.timezone) if organisation else None) or ZoneInfo("UTC")
