"""The ``kampania`` command.

``up`` and ``demo`` run the whole house on this machine and bring the schema up to date by
themselves. The other commands are for the grown form, one process each; they refuse to start on
an older schema and say how to bring it up to date.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlsplit

import click

from campaigns import config

if TYPE_CHECKING:
    from campaigns.house import Service
    from tracking.counts import Counts

ROOT = Path(__file__).resolve().parents[1]
LISTEN = "127.0.0.1"

Command = TypeVar("Command", bound=Callable[..., object])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Kampania: what did this campaign bring?"""
    if context.invoked_subcommand == "demo":
        _use_demo_folder()
    try:
        config.settings()
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


# --- one machine -----------------------------------------------------------------------------


def _listening(command: Command) -> Command:
    for option in (
        click.option("--host", default=LISTEN, show_default=True, help="Address to listen on."),
        click.option(
            "--port", type=click.IntRange(1, 65535), help="Port of the pages.  [default: 8000, or BASE_URL's]"
        ),
        click.option("--expose", is_flag=True, help="Allow a --host that other machines can reach."),
    ):
        command = option(command)
    return command


def _check_host(host: str, expose: bool) -> None:
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not expose:
        raise click.UsageError(
            f"{host} can be reached from other machines. Put a proxy with HTTPS in front and add --expose."
        )


@main.command()
@_listening
@click.option("--catcher-port", type=click.IntRange(1, 65535), help="Port of the mail catcher.  [default: 2525]")
def up(host: str, port: int | None, expose: bool, catcher_port: int | None) -> None:
    """Start everything on this machine."""
    from campaigns.house import CannotStart

    _check_host(host, expose)
    try:
        sys.exit(_run_house(host, port, catcher_port, look_further=False))
    except CannotStart as error:
        raise click.ClickException(str(error)) from error


@main.command()
@_listening
@click.option("--catcher-port", type=click.IntRange(1, 65535), help="Port of the mail catcher.  [default: 2525]")
@click.option("--contacts", type=click.IntRange(1, 100_000), default=2000, show_default=True, help="People to mail.")
@click.option("--seed", type=int, default=2026, show_default=True, help="Of the simulated audience.")
@click.option("--exit", "leave", is_flag=True, envvar="KAMPANIA_DEMO_EXIT", help="End once the figures are printed.")
def demo(
    host: str, port: int | None, expose: bool, catcher_port: int | None, contacts: int, seed: int, leave: bool
) -> None:
    """Start everything with a sample company whose campaign goes out to a simulated audience."""
    from campaigns.house import CannotStart

    _check_host(host, expose)
    os.environ.setdefault("TIME_SCALE", "60")
    os.environ.setdefault("TRUSTED_PROXIES", "127.0.0.0/8")  # The audience tells its addresses by X-Forwarded-For.
    story = [*_python("campaigns.cli", "demo-story"), "--contacts", str(contacts), "--seed", str(seed)]
    if not leave:
        story.append("--stays")
    try:
        sys.exit(_run_house(host, port, catcher_port, look_further=True, story=story, stay=not leave))
    except CannotStart as error:
        raise click.ClickException(str(error)) from error


def _use_demo_folder() -> None:
    """The demo lives in ``var/demo``, so that ``up`` beside it still begins with the first-run page."""
    if "KAMPANIA_VAR" not in os.environ:
        os.environ["KAMPANIA_VAR"] = str(Path("var") / "demo")


@dataclass(frozen=True)
class _Ports:
    host: str
    web: int
    catcher: int


def _run_house(
    host: str,
    port: int | None,
    catcher_port: int | None,
    *,
    look_further: bool,
    story: Sequence[str] | None = None,
    stay: bool = True,
) -> int:
    """Settle ports and schema, then supervise; look for other ports only where none was asked for."""
    from campaigns import house

    settings = config.settings()
    with house.only_one(settings.var):
        asked_web = port or urlsplit(settings.base_url).port or 8000
        asked_catcher = catcher_port or urlsplit(settings.smtp_url).port or 2525
        ports = _Ports(
            host,
            house.free_port(host, asked_web, look_further=look_further and port is None, option="--port"),
            house.free_port(
                LISTEN, asked_catcher, look_further=look_further and catcher_port is None, option="--catcher-port"
            )
            if settings.catcher
            else 0,
        )
        environment = _environment(settings, ports)
        config.install(config.read(environment))
        _prepare_schema()
        supervisor = house.Supervisor(
            services=_services(config.settings(), ports),
            logs=settings.var / "log",
            environment=environment,
            say=lambda line: click.echo(f"[house] {line}"),
            story=(lambda: story) if story else None,
            stay=stay,
        )
        if story is None:
            supervisor.greet = lambda: _greet(config.settings())
        code = supervisor.run()
        click.echo("Stopped.")
        return code


def _environment(settings: config.Settings, ports: _Ports) -> dict[str, str]:
    """What the processes are told: absolute paths and the ports that were settled on."""
    environment = dict(os.environ)
    environment["KAMPANIA_VAR"] = str(settings.var)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    environment["PYTHONUNBUFFERED"] = "1"
    if "BASE_URL" not in environment:
        shown = LISTEN if ports.host in ("0.0.0.0", "::", "localhost") else ports.host  # noqa: S104
        environment["BASE_URL"] = f"http://{f'[{shown}]' if ':' in shown else shown}:{ports.web}"
    if ports.catcher:
        environment["CATCHER_PORT"] = str(ports.catcher)
    return environment


def _services(settings: config.Settings, ports: _Ports) -> "list[Service]":
    """In the order of starting; stopping goes the other way round."""
    from campaigns import house
    from campaigns.demo import broker

    services = []
    if settings.embedded_broker:
        services.append(house.Service("broker", lambda: broker.command(settings), lambda: broker.answers(settings)))
    if settings.catcher:
        catching = _python("campaigns.demo.catcher", "--port", str(ports.catcher))
        services.append(house.Service("catcher", lambda: catching, lambda: house.listens(LISTEN, ports.catcher)))
    services += [
        house.Service("collector", lambda: _python("tracking.collect")),
        house.Service("worker", _worker_command),
        house.Service("beat", _beat_command),
        house.Service(
            "web",
            lambda: _web_command(ports.host, ports.web),
            lambda: house.listens(ports.host, ports.web),
        ),
    ]
    return services


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def _web_command(host: str, port: int, threads: int = 4) -> list[str]:
    options = ["--interface", "wsgi", "--host", host, "--port", str(port), "--workers", "1", "--no-ws", "--http", "1"]
    options += ["--blocking-threads", str(threads), "--respawn-failed-workers", "--workers-kill-timeout", "5"]
    return _python("granian", *options, "wsgi:application")


def _worker_command(concurrency: int = 2, queues: str | None = None) -> list[str]:
    options = ["--concurrency", str(concurrency), "--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    return _python("celery", "-A", "workers.celery", "worker", *options, *(["-Q", queues] if queues else []))


def _beat_command() -> list[str]:
    schedule = str(config.settings().var / "beat")
    return _python(
        "celery", "-A", "workers.celery", "beat", "--schedule", schedule, "--pidfile", "", "--loglevel", "WARNING"
    )


def _greet(settings: config.Settings) -> None:
    click.echo(f"Kampania is ready: {settings.base_url}/")
    if settings.catcher:
        click.echo(f"Mail goes nowhere but into the catcher: {settings.base_url}/catcher")
    click.echo(f"Logs are in {settings.var / 'log'}. Ctrl-C stops everything.")


# --- one process each ------------------------------------------------------------------------


@main.command()
@_listening
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True)
def web(host: str, port: int | None, expose: bool, threads: int) -> None:
    """Serve pages, pixels and links."""
    _check_host(host, expose)
    _check_schema()
    _become(_web_command(host, port or urlsplit(config.settings().base_url).port or 8000, threads))


@main.command()
@click.option("--concurrency", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--queues", help="Comma-separated; all of them by default.")
def worker(concurrency: int, queues: str | None) -> None:
    """Work on what is due."""
    _check_schema()
    _become(_worker_command(concurrency, queues))


@main.command()
def beat() -> None:
    """Wake the workers by the clock; one process for the whole installation."""
    _become(_beat_command())


@main.command()
def collect() -> None:
    """Count hits from this host's spools."""
    _check_schema()
    _become(_python("tracking.collect"))


@main.command()
def catcher() -> None:
    """Catch mail instead of sending it on."""
    settings = config.settings()
    if not settings.catcher:
        raise click.ClickException("SMTP_URL names a relay, so no mail would come to the catcher.")
    _become(_python("campaigns.demo.catcher", "--port", str(urlsplit(settings.smtp_url).port)))


@main.command("demo-story", hidden=True)
@click.option("--contacts", type=int, required=True)
@click.option("--seed", type=int, required=True)
@click.option("--stays", is_flag=True)
def demo_story(contacts: int, seed: int, stays: bool) -> None:
    """What ``demo`` tells once the house is up."""
    from campaigns.demo import company, story

    _know_every_room()
    try:
        story.tell(people=contacts, seed=seed, figures=_figures, stays=stays)
    except (story.StoryFailed, company.NotOurs) as error:
        raise click.ClickException(str(error)) from error


def _figures(campaign_id: int) -> tuple[dict[str, str], int]:
    """What the performance page says of a campaign, and how many hits are not settled."""
    from campaigns import db
    from campaigns.accounts.actor import CLOCK
    from tracking.performance import performance

    with db.reading() as session:
        found = performance(session, CLOCK, campaign_id)
    counts = found.counts
    mails, opens, clicks = counts.mails, counts.opens, counts.clicks
    assert mails is not None
    assert opens is not None
    assert clicks is not None
    told = {
        "Sent": f"{mails.delivered + mails.returned:,} of {mails.audience:,}",
        "People who opened": f"{mails.openers:,} of {mails.trackable:,} ({_share(mails.openers, mails.trackable)})",
        "People who clicked": f"{mails.clickers:,} of {mails.trackable:,} ({_share(mails.clickers, mails.trackable)})",
        "Opens by machines": f"{opens.machine:,}, {opens.unknown:,} unknown",
        "Clicks by scanners": f"{clicks.scanner + clicks.machine:,}, {clicks.unknown:,} unknown",
        "Leads": f"{counts.leads:,}",
        "Conversions": f"{counts.conversions:,}",
        "Unsubscribed": f"{mails.unsubscribers:,}",
    }
    told |= {f"  {line.channel.label}": _of_channel(line.counts) for line in found.channels}
    return told, opens.settling + clicks.settling + (counts.views.settling if counts.views else 0)


def _of_channel(counts: "Counts") -> str:
    views = f"{counts.views.human:>5,} page views" if counts.views else f"{'–':>5} page views"
    return f"{views} {counts.leads:>5,} leads   credit: first {counts.first_touch:,.0f}, last {counts.last_touch:,.0f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _become(command: list[str]) -> NoReturn:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    os.execv(command[0], command)  # noqa: S606


# --- the database ----------------------------------------------------------------------------


def _know_every_room() -> None:
    import wsgi  # noqa: F401


def _prepare_schema() -> None:
    from campaigns import db
    from campaigns.migrations import schema

    if not schema.is_current(db.engine()):
        schema.upgrade(db.engine())
    db.engine().dispose()
    db.install(None)


def _check_schema() -> None:
    from sqlalchemy.exc import OperationalError

    from campaigns import db
    from campaigns.migrations import schema

    try:
        found, wanted = schema.current(db.engine()), schema.newest()
    except OperationalError as error:
        raise click.ClickException(f"The database does not answer: {error.orig}") from error
    if found != wanted:
        state = "has no tables yet" if found is None else f"stands at {found}, this program expects {wanted}"
        raise click.ClickException(f"The database {state}. Run `kampania migrate` first.")


@main.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    from alembic.util import CommandError

    from campaigns import db
    from campaigns.migrations import schema

    try:
        schema.upgrade(db.engine())
    except CommandError as error:
        raise click.ClickException(f"{error}. A newer Kampania made this database.") from error
    click.echo(f"The database stands at {schema.newest()}.")


@main.command("draft-migration", hidden=True)
@click.argument("message")
def draft_migration(message: str) -> None:
    """Write a migration from what the database has to what the models say."""
    from campaigns import db
    from campaigns.migrations import schema

    schema.draft(db.engine(), message)


# --- the log of hits -------------------------------------------------------------------------


@main.group()
def tracking() -> None:
    """The log of hits, and what is counted from it."""


def _day(_context: click.Context, _option: click.Parameter, value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)


@tracking.command("relabel")
@click.option("--from", "since", type=click.DateTime(), callback=_day, required=True, help="The first instant, UTC.")
@click.option("--to", "until", type=click.DateTime(), callback=_day, required=True, help="Up to this instant, UTC.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def relabel_events(since: datetime, until: datetime, dry_run: bool) -> None:
    """Say anew, by the present rules, who made the hits of a period."""
    _check_schema()
    _know_every_room()
    from campaigns.accounts.actor import CLOCK
    from tracking.models import Kind, Label
    from tracking.relabel import relabel

    moved = relabel(
        CLOCK, since, until, dry_run=dry_run, progress=lambda done: click.echo(f"{done:,} events", err=True)
    )
    for move, number in sorted(moved.items()):
        before, after = Label(move.before).name.lower(), Label(move.after).name.lower()
        click.echo(f"activity {move.activity_id}  {Kind(move.kind).name.lower():5}  {before} → {after}  {number:,}")
    click.echo(f"{moved.total():,} events {'would change' if dry_run else 'changed'} their label.")


@tracking.command("check")
def check_counts() -> None:
    """Compare every counter with a recount of the log; ends with 1 when one differs."""
    sys.exit(1 if _recount(mend=False) else 0)


@tracking.command("rebuild")
def rebuild_counts() -> None:
    """Count the log anew, an activity at a time, and mend the counters that differ."""
    _recount(mend=True)


def _recount(mend: bool) -> int:
    _check_schema()
    _know_every_room()
    from campaigns import db
    from tracking import rollups

    with db.reading() as session:
        activities = rollups.activities(session)
    wrong = 0
    for activity_id in activities:
        with db.transaction() if mend else db.reading() as session:
            found = (rollups.rebuild if mend else rollups.compare)(session, activity_id)
        for difference in found[:20]:
            click.echo(f"{difference.key}: {difference.kept} is kept, {difference.counted} is counted")
        wrong += len(found)
    ending = "were mended" if mend else "differ from the log"
    click.echo(f"{len(activities):,} activities: {wrong:,} counters {ending}.")
    return wrong


@tracking.command("retry")
def retry_hits() -> None:
    """Count hits that an earlier version had to set aside."""
    _check_schema()
    _know_every_room()
    from tracking import collect

    click.echo(f"{collect.count_again():,} hits that had been set aside are counted now.")


# --- people ----------------------------------------------------------------------------------


@main.group()
def user() -> None:
    """People who sign in."""


@user.command("add")
@click.argument("email")
@click.option("--name", prompt=True)
@click.option("--role", type=click.Choice(["owner", "coordinator", "viewer"]), default="coordinator", show_default=True)
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True, envvar="KAMPANIA_PASSWORD")
@click.option("--organisation", "company", help="Its name, when this is the first person of an empty database.")
def add_user(email: str, name: str, role: str, password: str, company: str | None) -> None:
    """Add somebody; the first one founds the organisation and owns it."""
    from campaigns import db
    from campaigns.accounts import organisation, people
    from campaigns.accounts.actor import CLOCK
    from campaigns.accounts.models import Organisation, Role
    from campaigns.errors import KampaniaError

    _check_schema()
    _know_every_room()
    try:
        with db.transaction() as session:
            if session.get(Organisation, 1) is not None:
                people.add_person(session, CLOCK, email=email, name=name, role=Role(role), password=password)
            elif company:
                organisation.found(
                    session, name=company, sender_email=email, language="en", timezone="UTC", currency="EUR",
                    owner_name=name, owner_email=email, owner_password=password,
                )  # fmt: skip
            else:
                raise click.UsageError("Nothing is set up yet: name the organisation with --organisation.")
    except KampaniaError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{name} can sign in as {email}.")


if __name__ == "__main__":
    main()
