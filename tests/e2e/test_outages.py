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

from campaigns.cli.supervisor import listens
from tests.e2e import steps
from tests.e2e.conftest import Beside
from tests.e2e.installation import RunningHouse, children, interrupted_start, kampania, running_house
from tests.e2e.visitor import Visitor, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
TORTURE = int(os.environ.get("TORTURE", "1"))


def test_the_database_and_the_broker_stop_for_a_while(grown: RunningHouse, beside: Beside) -> None:
    supervised = len(children(grown))
    owner = steps.found(grown)
    database, broker = beside.database, beside.broker
    for stop, start in ((database.stop, database.start), (broker.kill, broker.start)) * min(TORTURE, 5):
        plan = steps.plan(owner, people=2)
        steps.preflight(owner, plan)
        steps.launch(owner, plan)
        letter = steps.opened(eventually(partial(grown.mails_to, plan.people[0]))[0])
        stop()
        stranger = Visitor(grown.base)
        assert stranger.get(letter.pixel).headers["Content-Type"] == "image/gif"
        assert stranger.get(letter.links[0], follow=False).status == 302
        time.sleep(2)  # Long enough for every tick to meet the outage.
        start()
        eventually(lambda plan=plan: "Sent 2" in owner.get(f"{plan.email}/progress").text)  # type: ignore[misc]
        assert [len(grown.mails_to(address)) for address in plan.people] == [1, 1]
        again = steps.mailing(owner, plan, "After the outage")
        steps.preflight(owner, again)
        steps.launch(owner, again)
        eventually(lambda plan=plan: len(grown.mails_to(plan.people[1])) == 2)  # type: ignore[misc]
        eventually(lambda plan=plan: _counted(owner, plan))  # type: ignore[misc]
    eventually(lambda: len(children(grown)) == supervised)


def _counted(owner: Visitor, plan: steps.Plan) -> bool:
    """Return whether the hit is counted once on the page, under any label."""
    text = steps.figures(owner, plan)
    return any(f"{label} 1" in text for label in ("Settling", "Human", "Machine", "Unknown"))


@pytest.mark.parametrize("seed", range(1, TORTURE))
def test_a_stop_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path, seed: int) -> None:
    """The next start recovers."""
    interrupted_start(tmp_path / "var", seed)
    with running_house(tmp_path / "var", {}) as house:
        assert Visitor(house.base).get("/setup").status == 200


def test_two_beats_two_collectors_and_a_relay_that_goes_away(own: RunningHouse) -> None:
    """A process that is started twice by mistake sends and counts nothing twice."""
    doubles = [kampania(own.var, word, TIME_SCALE="60", BASE_URL=own.base) for word in ("beat", "collector")]
    try:
        owner = steps.found(own)
        plan = steps.plan(owner, people=3)
        steps.preflight(owner, plan)
        catcher = next(pid for pid, command in children(own).items() if "catcher" in command)
        os.kill(catcher, signal.SIGKILL)
        steps.launch(owner, plan)
        eventually(lambda: "Sent 3" in owner.get(f"{plan.email}/progress").text)
        letter = steps.opened(own.mails_to(plan.people[0])[0])
        Visitor(own.base).get(letter.pixel)
        eventually(lambda: _counted(owner, plan))
        assert [len(own.mails_to(address)) for address in plan.people] == [1, 1, 1]
    finally:
        for double in doubles:
            double.terminate()
            double.communicate(timeout=120)


def test_killed_processes_come_back(own: RunningHouse) -> None:
    killed = children(own)
    assert len(killed) == 7, killed  # broker, catcher, collector, two workers, beat, web
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(children(own).keys() - killed.keys()) == len(killed))
    eventually(lambda: listens("127.0.0.1", own.port))
    owner = steps.found(own)
    plan = steps.plan(owner, people=1)
    steps.preflight(owner, plan)
    steps.launch(owner, plan)
    letter = steps.opened(eventually(partial(own.mails_to, plan.people[0]))[0])
    assert Visitor(own.base).get(letter.pixel).status == 200
    eventually(lambda: _counted(owner, plan))
