"""Outages of database, broker, relay and processes, and interrupted starts, while an installation runs.

Each outage lasts a while under every live process; afterwards a launch must complete, one mail per recipient.
"""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from campaigns.cli.supervisor import is_listening
from tests.e2e import steps
from tests.e2e.conftest import ExternalServices
from tests.e2e.installation import (
    RunningInstallation,
    child_processes,
    interrupted_start,
    running_installation,
    start_command,
)
from tests.e2e.visitor import Visitor, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
REPETITIONS = int(os.environ.get("TORTURE", "1"))


def test_database_and_broker_outage(production: RunningInstallation, external_services: ExternalServices) -> None:
    supervised = len(child_processes(production))
    owner = steps.sign_in_owner(production)
    database, broker = external_services.database, external_services.broker
    for stop, start in ((database.stop, database.start), (broker.kill, broker.start)) * min(REPETITIONS, 5):
        plan = steps.create_plan(owner, people=2)
        steps.run_preflight(owner, plan)
        steps.launch(owner, plan)
        mail = steps.parse_mail(eventually(partial(production.mails_to, plan.people[0]))[0])
        stop()
        visitor = Visitor(production.base)
        assert visitor.get(mail.pixel_url).headers["Content-Type"] == "image/gif"
        assert visitor.get(mail.links[0], follow=False).status == 302
        time.sleep(2)  # Long enough for every tick to meet the outage.
        start()
        eventually(lambda plan=plan: "Sent 2" in owner.get(f"{plan.email}/progress").text)  # type: ignore[misc]
        assert [len(production.mails_to(address)) for address in plan.people] == [1, 1]
        second = steps.add_mailing(owner, plan, "After the outage")
        steps.run_preflight(owner, second)
        steps.launch(owner, second)
        eventually(lambda plan=plan: len(production.mails_to(plan.people[1])) == 2)  # type: ignore[misc]
        eventually(lambda plan=plan: _hit_is_counted(owner, plan))  # type: ignore[misc]
    eventually(lambda: len(child_processes(production)) == supervised)


def _hit_is_counted(owner: Visitor, plan: steps.CampaignPlan) -> bool:
    """Return whether the hit is counted once on the page, under any label."""
    text = steps.performance_text(owner, plan)
    return any(f"{label} 1" in text for label in ("Settling", "Human", "Machine", "Unknown"))


@pytest.mark.parametrize("seed", range(1, REPETITIONS))
def test_an_interrupted_start_leaves_no_process(tmp_path: Path, seed: int) -> None:
    """The next start recovers."""
    interrupted_start(tmp_path / "var", seed)
    with running_installation(tmp_path / "var", {}) as installation:
        assert Visitor(installation.base).get("/setup").status == 200


def test_duplicate_beat_and_collector_and_relay_outage(disposable: RunningInstallation) -> None:
    """A process that is started twice by mistake sends and counts nothing twice."""
    duplicates = [
        start_command(disposable.var, word, TIME_SCALE="60", BASE_URL=disposable.base) for word in ("beat", "collector")
    ]
    try:
        owner = steps.sign_in_owner(disposable)
        plan = steps.create_plan(owner, people=3)
        steps.run_preflight(owner, plan)
        catcher = next(pid for pid, command in child_processes(disposable).items() if "catcher" in command)
        os.kill(catcher, signal.SIGKILL)
        steps.launch(owner, plan)
        eventually(lambda: "Sent 3" in owner.get(f"{plan.email}/progress").text)
        mail = steps.parse_mail(disposable.mails_to(plan.people[0])[0])
        Visitor(disposable.base).get(mail.pixel_url)
        eventually(lambda: _hit_is_counted(owner, plan))
        assert [len(disposable.mails_to(address)) for address in plan.people] == [1, 1, 1]
    finally:
        for double in duplicates:
            double.terminate()
            double.communicate(timeout=120)


def test_killed_processes_are_restarted(disposable: RunningInstallation) -> None:
    killed = child_processes(disposable)
    assert len(killed) == 7, killed  # broker, catcher, collector, two workers, beat, web
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(child_processes(disposable).keys() - killed.keys()) == len(killed))
    eventually(lambda: is_listening("127.0.0.1", disposable.port))
    owner = steps.sign_in_owner(disposable)
    plan = steps.create_plan(owner, people=1)
    steps.run_preflight(owner, plan)
    steps.launch(owner, plan)
    mail = steps.parse_mail(eventually(partial(disposable.mails_to, plan.people[0]))[0])
    assert Visitor(disposable.base).get(mail.pixel_url).status == 200
    eventually(lambda: _hit_is_counted(owner, plan))
