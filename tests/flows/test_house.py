"""The whole house by its commands: one on a folder, and the demo tells its story."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from campaigns.demo.catcher import Box
from campaigns.house import only_one
from tests.flows.running import ROOT, free_port, processes_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


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
