"""Explicit registration of every package's tables, erasure steps and contact-merge steps, for the entry points.

A package that adds a table, a copy of an address or a row per contact is listed here; nothing is discovered by
file name.
"""

from campaigns import outbox, retries
from campaigns.accounts import models as accounts_models
from campaigns.audience import contact_merge, erasure
from campaigns.audience import models as audience_models
from campaigns.capture import models as capture_models
from campaigns.capture.erasure import erase_lead_notifications
from campaigns.content import models as content_models
from campaigns.delivery import models as delivery_models
from campaigns.delivery.bounces import models as bounces_models
from campaigns.delivery.bounces.effects.erasure import erase_feedback
from campaigns.delivery.sends import counters
from campaigns.delivery.sends.contact_merge import skip_duplicate_sends
from campaigns.delivery.sends.erasure import anonymise_sends
from campaigns.leads import models as leads_models
from campaigns.leads.lead_merge import merge_open_leads
from campaigns.planning import models as planning_models
from tracking.jobs.contact_merge import lock_counters, merge_conversions
from tracking.models import attribution, conversions, maintenance, visits
from tracking.models import events as event_models

MODULES_WITH_TABLES = (
    outbox,
    retries,
    accounts_models,
    audience_models,
    content_models,
    leads_models,
    capture_models,
    planning_models,
    delivery_models,
    counters,
    bounces_models,
    event_models,
    visits,
    conversions,
    attribution,
    maintenance,
)
"""Importing these modules adds their tables to ``Base.metadata``."""

ERASURE_STEPS = (erase_lead_notifications, anonymise_sends, erase_feedback)

STEPS_BEFORE_MERGE = (lock_counters, skip_duplicate_sends, merge_open_leads)
"""Highest package first: tracking's step may have to wait for the collector, and must do so before rows are locked."""

STEPS_AFTER_MERGE = (merge_conversions,)


def register_packages() -> None:
    """Register the erasure and merge steps. Importing this module registers the tables. Safe to call twice."""
    erasure.register_steps(ERASURE_STEPS)
    contact_merge.register_steps(before=STEPS_BEFORE_MERGE, after=STEPS_AFTER_MERGE)
