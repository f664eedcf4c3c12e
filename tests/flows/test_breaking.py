"""What stands beside the house breaks while it runs: the database, the broker, the relay, the start itself.

Each breaks for a while under every live process; afterwards a launch goes through, once for each recipient.
"""

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests import servers
from tests.flows import company
from tests.flows.running import ROOT, free_port, running_house
from tests.flows.test_house import children, processes_of
from tests.flows.visitor import Visitor, eventually

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("houses that break"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]
TORTURE = int(os.environ.get("TORTURE", "1"))


def test_the_database_and_the_broker_stop_for_a_while(tmp_path: Path) -> None:
    with (
        servers.postgres_server() as database,
        servers.valkey_server(tcp=True) as broker,
        running_house(tmp_path / "var", {"DATABASE_URL": database.url, "REDIS_URL": broker.url}) as house,
    ):
        supervised = set(children(house.supervisor.pid, house.var))
        owner = company.found(house)
        for stop, start in ((database.stop, database.start), (broker.kill, broker.start)) * min(TORTURE, 5):
            plan = company.plan(owner, people=2)
            company.preflight(owner, plan)
            company.launch(owner, plan)
            letter = company.opened(eventually(partial(house.mails_to, plan.people[0]))[0])
            stop()
            stranger = Visitor(house.base)
            assert stranger.get(letter.pixel).headers["Content-Type"] == "image/gif"
            assert stranger.get(letter.links[0], follow=False).status == 302
            time.sleep(2)  # Long enough for every tick to have met the outage.
            start()
            eventually(lambda plan=plan: "Sent 2" in owner.get(f"{plan.email}/progress").text, 120)  # type: ignore[misc]
            assert [len(house.mails_to(address)) for address in plan.people] == [1, 1]
            again = company.mailing(owner, plan, "After the outage")
            company.preflight(owner, again)
            company.launch(owner, again)
            eventually(lambda plan=plan: len(house.mails_to(plan.people[1])) == 2, 60)  # type: ignore[misc]
            eventually(lambda plan=plan: _counted(owner, plan), 60)  # type: ignore[misc]
        assert set(children(house.supervisor.pid, house.var)) == supervised  # Nobody had to be started again.
    assert house.supervisor.returncode == 0
    assert processes_of(house.var) == {}


def _counted(owner: Visitor, plan: company.Plan) -> bool:
    """Both hits of the outage came to the page, by whatever label."""
    text = company.figures(owner, plan)
    return "Clicks" in text and any(f"{label} 1" in text for label in ("Settling", "Human", "Machine", "Unknown"))


@pytest.mark.parametrize("seed", range(TORTURE))
def test_a_stop_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path, seed: int) -> None:
    """Whatever was half made, nobody stays behind, and the next start finds its way."""
    chance, var = random.Random(seed), tmp_path / "var"
    starting = _start(var)
    time.sleep(chance.uniform(0.2, 10))
    starting.send_signal(signal.SIGINT if seed % 2 else signal.SIGTERM)
    out, _ = starting.communicate(timeout=40)
    assert "Traceback" not in out
    assert processes_of(var) == {}
    with running_house(var, {}) as house:
        assert Visitor(house.base).get("/setup").status == 200


def _start(var: Path) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    ports = ("--port", str(free_port()), "--catcher-port", str(free_port()))
    return subprocess.Popen(
        [sys.executable, "-m", "campaigns.cli", "up", *ports],
        cwd=ROOT,
        env={**clean, "KAMPANIA_VAR": str(var)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_beats_two_collectors_and_a_relay_that_goes_away(tmp_path: Path) -> None:
    """Whoever is started twice by mistake sends and counts nothing twice."""
    with running_house(tmp_path / "var", {}) as house:
        ours = children(house.supervisor.pid, house.var)
        clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
        environment = {**clean, "KAMPANIA_VAR": str(house.var), "TIME_SCALE": "60", "BASE_URL": house.base}
        doubles = [
            subprocess.Popen([sys.executable, "-m", "campaigns.cli", word], cwd=ROOT, env=environment,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for word in ("beat", "collect")
        ]  # fmt: skip
        try:
            owner = company.found(house)
            plan = company.plan(owner, people=3)
            company.preflight(owner, plan)
            catcher = next(pid for pid, command in ours.items() if "catcher" in command)
            os.kill(catcher, signal.SIGKILL)
            company.launch(owner, plan)
            eventually(lambda: "Sent 3" in owner.get(f"{plan.email}/progress").text, 90)
            letter = company.opened(house.mails_to(plan.people[0])[0])
            Visitor(house.base).get(letter.pixel)
            eventually(lambda: "Settling 1" in company.figures(owner, plan))
            assert [len(house.mails_to(address)) for address in plan.people] == [1, 1, 1]
        finally:
            for double in doubles:
                double.terminate()
                double.wait(20)
