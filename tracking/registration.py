"""Explicit registration of every package's tables, erasure steps and merge steps, for the entry points.

A package that adds a table, a copy of an address or a row per contact is named here; nothing is found by file name.
"""

import tracking.conversion_models
import tracking.earning_models
import tracking.inspection_models
import tracking.models
import tracking.visit_models  # noqa: F401
from campaigns.audience import erasing, uniting
from campaigns.capture.erasing import forget_lead
from campaigns.delivery.bounces.erasing import forget_feedback
from campaigns.delivery.erasing import forget_recipient
from campaigns.delivery.uniting import skip_doubles
from campaigns.leads.uniting import fold_leads
from tracking.uniting import count_once, wait_for_the_collector

ERASURE_STEPS = (forget_lead, forget_recipient, forget_feedback)

STEPS_BEFORE_MERGE = (wait_for_the_collector, skip_doubles, fold_leads)
"""Highest package first: tracking's step may have to wait for the collector before any row is locked."""

STEPS_AFTER_MERGE = (count_once,)


def register_packages() -> None:
    """Register all steps; importing this module has registered the tables. Calling it twice changes nothing."""
    erasing.register_steps(ERASURE_STEPS)
    uniting.register_steps(before=STEPS_BEFORE_MERGE, after=STEPS_AFTER_MERGE)
