"""Commands that run one process each, for production deployments."""

from urllib.parse import urlsplit

import click

from campaigns import config
from campaigns.cli.commands import beat_command, exec_command, python_command, web_command, worker_command
from campaigns.cli.database import check_schema
from campaigns.cli.host_options import check_host, listen_options


@click.command()
@listen_options
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True)
def web(host: str, port: int | None, expose: bool, threads: int) -> None:
    """Serve pages, pixels and links."""
    check_host(host, expose)
    check_schema()
    exec_command(web_command(host, port or urlsplit(config.settings().base_url).port or 8000, threads))


@click.command()
@click.option("--concurrency", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--queues", help="Comma-separated; all of them by default.")
def worker(concurrency: int, queues: str | None) -> None:
    """Run background tasks."""
    check_schema()
    exec_command(worker_command(concurrency, queues))


@click.command()
def beat() -> None:
    """Schedule the periodic tasks; one process for the whole installation."""
    exec_command(beat_command())


@click.command()
def collector() -> None:
    """Count hits from this host's spools."""
    check_schema()
    exec_command(python_command("tracking.collector.collector"))


@click.command("bounce-listener")
def bounce_listener() -> None:
    """Receive bounces from the mail server, on BOUNCE_PORT."""
    port = config.settings().bounce_port
    if not port:
        raise click.ClickException("BOUNCE_PORT says on which port of 127.0.0.1 to listen.")
    exec_command(python_command("campaigns.delivery.bounces.intake.smtp_listener", "--port", str(port)))


@click.command("mail-catcher")
def mail_catcher() -> None:
    """Catch mail instead of delivering it."""
    settings = config.settings()
    if not settings.catcher:
        raise click.ClickException("SMTP_URL names a relay, so no mail would come to the catcher.")
    exec_command(python_command("campaigns.mail_catcher.store", "--port", str(urlsplit(settings.smtp_url).port)))
