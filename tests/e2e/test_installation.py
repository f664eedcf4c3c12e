"""End-to-end tests of the commands: one installation per folder, and the demo."""

import re
import stat
import sys
from pathlib import Path

import pytest

from campaigns.cli.supervisor import lock_installation
from campaigns.mail_catcher.store import MailStore
from tests.e2e.installation import free_port, processes_of, start_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def test_a_second_installation_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with lock_installation(tmp_path):  # the lock that a running installation holds
        status, words = _run_command(tmp_path, "up", "--port", str(free_port()))
    assert status == 1
    assert "runs already" in words
    assert processes_of(tmp_path) == {}


def test_the_demo_runs_twice(tmp_path: Path) -> None:
    var = tmp_path / "var"
    ports = ("--port", str(free_port()), "--catcher-port", str(free_port()))
    mailed = 0
    for _ in range(2):
        status, words = _run_command(
            var, "demo", "--exit", "--contacts", "40", *ports, TIME_SCALE="600"
        )  # Nobody watches.
        assert status == 0, words
        sent = re.search(r"Sent +(\d+) of (\d+)", words)
        assert sent, words
        assert int(sent[1]) >= 35  # Some contacts of the first run have unsubscribed, others have been added by forms.
        mailed += int(sent[1])
        assert "requests of the audience failed" not in words
        assert "/performance" in words
    assert MailStore(var / "catcher.db").count() >= mailed
    assert stat.S_IMODE((var / "demo.json").stat().st_mode) == 0o600
    assert processes_of(var) == {}


def _run_command(var: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command; return (exit status, output)."""
    process = start_command(var, *arguments, **environment)
    out, _ = process.communicate(timeout=200)
    return process.returncode, out
