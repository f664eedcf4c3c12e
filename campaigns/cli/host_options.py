"""Listen options shared by ``up``, ``demo`` and ``web``."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

import click

LOOPBACK_HOST = "127.0.0.1"

Command = TypeVar("Command", bound=Callable[..., object])


def listen_options(command: Command) -> Command:
    """Add ``--host``, ``--port`` and ``--expose`` to a command."""
    for option in (
        click.option("--host", default=LOOPBACK_HOST, show_default=True, help="Address to listen on."),
        click.option(
            "--port", type=click.IntRange(1, 65535), help="Port of the pages.  [default: 8000, or BASE_URL's]"
        ),
        click.option("--expose", is_flag=True, help="Allow a --host that other machines can reach."),
    ):
        command = option(command)
    return command


def check_host(host: str, expose: bool) -> None:
    """Raise UsageError for a host that other machines can reach, unless ``expose`` is set."""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not expose:
        raise click.UsageError(
            f"{host} can be reached from other machines. Put a proxy with HTTPS in front and add --expose."
        )
