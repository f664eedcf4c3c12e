"""The production deployment in compose.yaml serves every queue and starts only existing commands."""

import re
from pathlib import Path

from campaigns.cli import main
from workers.celery import QUEUES

COMMANDS = re.findall(r'command: \["(.+?)"\]', (Path(__file__).parents[2] / "compose.yaml").read_text())


def test_each_queue_has_a_worker() -> None:
    served = [words.split('", "')[2] for words in COMMANDS if words.startswith("worker")]
    assert sorted(queue for queues in served for queue in queues.split(",")) == sorted(QUEUES)


def test_each_command_exists() -> None:
    ours = [words.split('", "')[0] for words in COMMANDS if not words.startswith("valkey")]
    assert set(ours) <= set(main.commands)
