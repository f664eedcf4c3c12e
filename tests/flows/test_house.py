"""The whole house: killed processes come back, Ctrl-C leaves nobody, the demo tells its story."""

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from campaigns.demo.catcher import Box
from campaigns.house import listens, only_one
from tests.flows import company
from tests.flows.running import ROOT, free_port, running_house
from tests.flows.visitor import Visitor, eventually

pytestmark = [
    pytest.mark.xdist_group("houses of their own"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]


def processes_of(var: Path) -> dict[int, str]:
    """Every process that was told of this folder, by number."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit():
                continue
            command = (entry / "cmdline").read_bytes()
            # Valkey writes its title over its environment; the title names the socket.
            if str(var).encode() in command + (entry / "environ").read_bytes():
                found[int(entry.name)] = command.replace(b"\0", b" ").decode()
        except OSError:
            continue  # It ended meanwhile, or is somebody else's.
    return found


def children(parent: int, var: Path) -> dict[int, str]:
    def parent_of(pid: int) -> int:
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return 0

    return {pid: command for pid, command in processes_of(var).items() if parent_of(pid) == parent}


def test_killed_processes_come_back_and_ctrl_c_leaves_nobody(tmp_path: Path) -> None:
    var = tmp_path / "var"
    with running_house(var, {}) as house:
        supervisor = house.supervisor.pid
        killed = children(supervisor, var)
        assert len(killed) == 7, killed  # broker, catcher, collector, two workers, beat, web
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(children(supervisor, var).keys() - killed.keys()) == 6, 60)
        eventually(lambda: listens("127.0.0.1", house.port), 60)
        owner = company.found(house)
        plan = company.plan(owner, people=1)
        company.preflight(owner, plan)
        company.launch(owner, plan)
        letter = company.opened(eventually(lambda: house.mails_to(plan.people[0]))[0])
        assert Visitor(house.base).get(letter.pixel).status == 200
        eventually(lambda: "1" in re.findall(r"Settling (\d)", company.figures(owner, plan)))
    assert house.supervisor.returncode == 0
    assert processes_of(var) == {}


def test_a_second_house_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with only_one(tmp_path):  # What the first one holds for as long as it runs.
        second = _kampania(tmp_path, "up", "--port", str(free_port()))
    assert second.returncode == 1
    assert "runs already" in second.stderr
    assert processes_of(tmp_path) == {}


def test_the_demo_tells_its_story_twice(tmp_path: Path) -> None:
    var = tmp_path / "var"
    ports = ("--port", str(free_port()), "--catcher-port", str(free_port()))
    mailed = 0
    for _ in range(2):
        told = _kampania(var, "demo", "--exit", "--contacts", "40", *ports, TIME_SCALE="600")  # Nobody looks on.
        assert told.returncode == 0, told.stdout + told.stderr
        sent = re.search(r"Sent +(\d+) of (\d+)", told.stdout)
        assert sent, told.stdout
        assert int(sent[1]) >= 35  # Of those from before, some have unsubscribed, and others have come by forms.
        mailed += int(sent[1])
        assert "requests of the audience failed" not in told.stdout
        assert "/performance" in told.stdout
    assert Box(var / "catcher.db").count() >= mailed
    assert stat.S_IMODE((var / "demo.json").stat().st_mode) == 0o600
    assert processes_of(var) == {}


def _kampania(var: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    return subprocess.run(
        [sys.executable, "-m", "campaigns.cli", *words],
        cwd=ROOT,
        env={**clean, "KAMPANIA_VAR": str(var), **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
