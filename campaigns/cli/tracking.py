"""Commands that relabel events and check, rebuild and retry what is counted from them."""

import sys
from datetime import UTC, datetime

import click

from campaigns.cli.database import check_schema, load_packages
from campaigns.cli.renamed_commands import CommandGroup


@click.group(cls=CommandGroup)
def tracking() -> None:
    """Events, and the counters derived from them."""


def _midnight_utc(_context: click.Context, _option: click.Parameter, value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)


@tracking.command("relabel")
@click.option(
    "--from", "since", type=click.DateTime(), callback=_midnight_utc, required=True, help="The first instant, UTC."
)
@click.option(
    "--to", "until", type=click.DateTime(), callback=_midnight_utc, required=True, help="Up to this instant, UTC."
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def relabel_events(since: datetime, until: datetime, dry_run: bool) -> None:
    """Label the events of a period again with the current bot rules."""
    check_schema()
    load_packages()
    from campaigns.accounts.actor import SYSTEM
    from tracking.jobs.relabel import relabel
    from tracking.models.events import HitKind, TrafficLabel

    moves = relabel(
        SYSTEM, since, until, dry_run=dry_run, progress=lambda done: click.echo(f"{done:,} events", err=True)
    )
    for move, number in sorted(moves.items()):
        before, after = TrafficLabel(move.before).name.lower(), TrafficLabel(move.after).name.lower()
        click.echo(f"activity {move.activity_id}  {HitKind(move.kind).name.lower():5}  {before} → {after}  {number:,}")
    click.echo(f"{moves.total():,} events {'would change' if dry_run else 'changed'} their label.")


@tracking.command("verify")
def check_counts() -> None:
    """Compare every counter with a recount of the events; exits with 1 when one differs."""
    sys.exit(1 if _check_counters(repair=False) else 0)


@tracking.command("rebuild")
def rebuild_counts() -> None:
    """Recount the events, one activity at a time, and repair the counters that differ."""
    _check_counters(repair=True)


def _check_counters(repair: bool) -> int:
    check_schema()
    load_packages()
    from campaigns import db
    from tracking.jobs import counter_check

    with db.read_only_session() as session:
        activities = counter_check.activity_ids(session)
    differing = 0
    for activity_id in activities:
        with db.transaction() if repair else db.read_only_session() as session:
            if not repair:
                counter_check.begin_snapshot(session)
            differences = (counter_check.rebuild if repair else counter_check.find_mismatches)(session, activity_id)
        for difference in differences[:20]:
            click.echo(f"{difference.key}: {difference.stored} is kept, {difference.expected} is counted")
        differing += len(differences)
    ending = "were mended" if repair else "differ from the log"
    click.echo(f"{len(activities) - 1:,} activities: {differing:,} counters {ending}.")
    return differing


@tracking.command("retry-dead-letters")
def retry_hits() -> None:
    """Count hits that an earlier version could not process."""
    check_schema()
    load_packages()
    from tracking.collector import collector

    click.echo(f"{collector.recount_dead_letters():,} hits from dead letters are counted now.")
