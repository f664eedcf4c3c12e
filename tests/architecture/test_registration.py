"""Registration of erasure and merge steps: every process that erases or merges contacts knows all of them.

The steps are listed by hand: a step that is not imported by an entry point would be dropped silently.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ERASURE_STEPS = [
    "campaigns.capture.erasure.erase_lead_notifications",
    "campaigns.delivery.sends.erasure.anonymise_sends",
    "campaigns.delivery.bounces.effects.erasure.erase_feedback",
]
STEPS_BEFORE_MERGE = [
    "tracking.jobs.contact_merge.lock_counters",
    "campaigns.delivery.sends.contact_merge.skip_duplicate_sends",
    "campaigns.leads.lead_merge.merge_open_leads",
]
STEPS_AFTER_MERGE = ["tracking.jobs.contact_merge.merge_conversions"]

ENTRY_POINTS = {
    "web": "import wsgi",
    "worker": "import workers.celery; workers.celery.import_tasks()",
    "command line": "import campaigns.cli.database; campaigns.cli.database.load_packages()",
}

REPORT = """
import json
from campaigns.audience import contact_merge, erasure
from campaigns.db import Base
named = lambda steps: [f"{step.__module__}.{step.__name__}" for step in steps]
print(json.dumps({
    "erasure": named(erasure._steps),
    "before": named(contact_merge._steps_before),
    "after": named(contact_merge._steps_after),
    "tables": sorted(Base.metadata.tables),
}))
"""


def registered_steps(load: str) -> dict[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-c", f"{load}\n{REPORT}"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found: dict[str, list[str]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_every_entry_point_registers_every_step(entry_point: str) -> None:
    found = registered_steps(ENTRY_POINTS[entry_point])
    assert found["erasure"] == ERASURE_STEPS
    assert found["before"] == STEPS_BEFORE_MERGE
    assert found["after"] == STEPS_AFTER_MERGE


def test_every_entry_point_registers_every_table() -> None:
    tables = [registered_steps(load)["tables"] for load in ENTRY_POINTS.values()]
    assert len(tables[0]) > 70
    assert tables[0] == tables[1] == tables[2]
