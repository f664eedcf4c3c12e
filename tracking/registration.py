"""Explicit registration of every package's tables, erasure steps and merge steps, for the entry points.

A package that adds a table, a copy of an address or a row per contact is named here; nothing is found by file name.
"""

from campaigns import outbox, setbacks
from campaigns.accounts import models as accounts_models
from campaigns.audience import erasing, uniting
from campaigns.audience import models as audience_models
from campaigns.capture import models as capture_models
from campaigns.capture.erasing import forget_lead
from campaigns.content import models as content_models
from campaigns.delivery import models as delivery_models
from campaigns.delivery.bounces import models as bounces_models
from campaigns.delivery.bounces.erasing import forget_feedback
from campaigns.delivery.erasing import forget_recipient
from campaigns.delivery.uniting import skip_doubles
from campaigns.leads import models as leads_models
from campaigns.leads.uniting import fold_leads
from campaigns.planning import models as planning_models
from tracking import conversion_models, earning_models, inspection_models, visit_models
from tracking import models as event_models
from tracking.uniting import count_once, wait_for_the_collector

MODULES_WITH_TABLES = (
    outbox,
    setbacks,
    accounts_models,
    audience_models,
    content_models,
    leads_models,
    capture_models,
    planning_models,
    delivery_models,
    bounces_models,
    event_models,
    visit_models,
    conversion_models,
    earning_models,
    inspection_models,
)
"""Importing them has put their tables into ``Base.metadata``."""

ERASURE_STEPS = (forget_lead, forget_recipient, forget_feedback)

STEPS_BEFORE_MERGE = (wait_for_the_collector, skip_doubles, fold_leads)
"""Highest package first: tracking's step may have to wait for the collector before any row is locked."""

STEPS_AFTER_MERGE = (count_once,)


def register_packages() -> None:
    """Register all steps; importing this module has registered the tables. Calling it twice changes nothing."""
    erasing.register_steps(ERASURE_STEPS)
    uniting.register_steps(before=STEPS_BEFORE_MERGE, after=STEPS_AFTER_MERGE)
