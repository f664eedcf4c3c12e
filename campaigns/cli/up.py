"""Commands that run a whole installation on this machine: ``up``, and ``demo`` with a sample company."""

import functools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from campaigns import config
from campaigns.cli.commands import ROOT, beat_command, python_command, web_command, worker_command
from campaigns.cli.database import prepare_schema
from campaigns.cli.host_options import LOOPBACK_HOST, check_host, listen_options

if TYPE_CHECKING:
    from campaigns.cli.supervisor import Service


@click.command()
@listen_options
@click.option("--catcher-port", type=click.IntRange(1, 65535), help="Port of the mail catcher.  [default: 2525]")
def up(host: str, port: int | None, expose: bool, catcher_port: int | None) -> None:
    """Start everything on this machine."""
    from campaigns.cli.supervisor import StartupError

    check_host(host, expose)
    try:
        sys.exit(_run_installation(host, port, catcher_port, try_next_ports=False))
    except StartupError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@listen_options
@click.option("--catcher-port", type=click.IntRange(1, 65535), help="Port of the mail catcher.  [default: 2525]")
@click.option("--contacts", type=click.IntRange(1, 100_000), default=2000, show_default=True, help="People to mail.")
@click.option("--seed", type=int, default=2026, show_default=True, help="Of the simulated audience.")
@click.option("--exit", "leave", is_flag=True, envvar="KAMPANIA_DEMO_EXIT", help="End once the figures are printed.")
def demo(
    host: str, port: int | None, expose: bool, catcher_port: int | None, contacts: int, seed: int, leave: bool
) -> None:
    """Start everything with a sample company whose campaign goes out to a simulated audience."""
    from campaigns.cli.supervisor import StartupError

    check_host(host, expose)
    os.environ.setdefault("TIME_SCALE", "60")
    # The simulated audience sends its addresses in X-Forwarded-For.
    os.environ.setdefault("TRUSTED_PROXIES", "127.0.0.0/8")
    scenario_command = [*python_command("campaigns.cli", "demo-run"), "--contacts", str(contacts), "--seed", str(seed)]
    if not leave:
        scenario_command.append("--keep-running")
    try:
        sys.exit(
            _run_installation(
                host,
                port,
                catcher_port,
                try_next_ports=True,
                foreground_command=scenario_command,
                keep_running=not leave,
            )
        )
    except StartupError as error:
        raise click.ClickException(str(error)) from error


def use_demo_folder() -> None:
    """Keep the demo in ``var/demo``, so that ``up`` in the same directory still starts with the first-run page."""
    if "KAMPANIA_VAR" not in os.environ:
        os.environ["KAMPANIA_VAR"] = str(Path("var") / "demo")


@dataclass(frozen=True)
class _Ports:
    host: str
    web: int
    catcher: int


def _run_installation(
    host: str,
    port: int | None,
    catcher_port: int | None,
    *,
    try_next_ports: bool,
    foreground_command: Sequence[str] | None = None,
    keep_running: bool = True,
) -> int:
    """Choose ports, upgrade the schema, then run the supervisor; returns its exit code.

    Other ports are tried only for those that were not given as options.
    """
    from campaigns.cli import supervisor as cli_supervisor

    settings = config.settings()
    with cli_supervisor.lock_installation(settings.var):
        wanted_web_port = port or urlsplit(settings.base_url).port or 8000
        wanted_catcher_port = catcher_port or urlsplit(settings.smtp_url).port or 2525
        ports = _Ports(
            host,
            cli_supervisor.free_port(
                host, wanted_web_port, try_next_ports=try_next_ports and port is None, option="--port"
            ),
            cli_supervisor.free_port(
                LOOPBACK_HOST,
                wanted_catcher_port,
                try_next_ports=try_next_ports and catcher_port is None,
                option="--catcher-port",
            )
            if settings.catcher
            else 0,
        )
        environment = _environment(settings, ports)
        config.set_settings(config.read(environment))
        prepare_schema()
        supervisor = cli_supervisor.Supervisor(
            services=_services(config.settings(), ports),
            logs=settings.var / "log",
            environment=environment,
            report=lambda line: click.echo(f"[supervisor] {line}"),
            foreground_command=(lambda: foreground_command) if foreground_command else None,
            keep_running=keep_running,
        )
        if foreground_command is None:
            supervisor.on_ready = lambda: _print_ready_message(config.settings())
        code = supervisor.run()
        click.echo("Stopped.")
        return code


def _environment(settings: config.Settings, ports: _Ports) -> dict[str, str]:
    """Environment of the child processes: absolute paths and the chosen ports."""
    environment = dict(os.environ)
    environment["KAMPANIA_VAR"] = str(settings.var)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    environment["PYTHONUNBUFFERED"] = "1"
    if "BASE_URL" not in environment:
        shown = LOOPBACK_HOST if ports.host in ("0.0.0.0", "::", "localhost") else ports.host  # noqa: S104
        environment["BASE_URL"] = f"http://{f'[{shown}]' if ':' in shown else shown}:{ports.web}"
    if ports.catcher:
        environment["CATCHER_PORT"] = str(ports.catcher)
    return environment


def _services(settings: config.Settings, ports: _Ports) -> "list[Service]":
    """The services in starting order."""
    from campaigns.cli import embedded_broker, supervisor

    services = []
    if settings.embedded_broker:
        ready = functools.partial(embedded_broker.is_ready, settings)
        services.append(
            supervisor.Service("broker", lambda: embedded_broker.broker_command(settings), ready, stops_last=True)
        )
    if settings.catcher:
        catcher_command = python_command("campaigns.mail_catcher.store", "--port", str(ports.catcher))
        listens = functools.partial(supervisor.is_listening, LOOPBACK_HOST, ports.catcher)
        services.append(supervisor.Service("mail-catcher", lambda: catcher_command, listens, stops_last=True))
    services += [
        *_bounce_services(settings),
        supervisor.Service("collector", lambda: python_command("tracking.collector.collector")),
        supervisor.Service("worker", lambda: worker_command(2, "default,bulk,imports", "bulk")),
        supervisor.Service("transactional", lambda: worker_command(1, "transactional,default", "transactional")),
        supervisor.Service("beat", beat_command),
        supervisor.Service(
            "web",
            lambda: web_command(ports.host, ports.web),
            lambda: supervisor.is_listening(ports.host, ports.web),
        ),
    ]
    return services


def _bounce_services(settings: config.Settings) -> "list[Service]":
    from campaigns.cli.supervisor import Service, is_listening

    if not settings.bounce_port:
        return []
    command = python_command("campaigns.delivery.bounces.intake.smtp_listener", "--port", str(settings.bounce_port))
    return [Service("bounce-listener", lambda: command, lambda: is_listening(LOOPBACK_HOST, settings.bounce_port))]


def _print_ready_message(settings: config.Settings) -> None:
    click.echo(f"Kampania is ready: {settings.base_url}/")
    if settings.catcher:
        click.echo(f"Mail goes nowhere but into the catcher: {settings.base_url}/catcher")
    click.echo(f"Logs are in {settings.var / 'log'}. Ctrl-C stops everything.")
