"""The hidden command that plays the demo scenario in a running installation and prints its results."""

from typing import TYPE_CHECKING

import click

from campaigns.cli.database import know_every_room

if TYPE_CHECKING:
    from tracking.metrics.counts import ActivityCounts


@click.command("demo-run", hidden=True)
@click.option("--contacts", type=int, required=True)
@click.option("--seed", type=int, required=True)
@click.option("--stays", is_flag=True)
def demo_run(contacts: int, seed: int, stays: bool) -> None:
    """Play the demo scenario once the installation is ready."""
    from campaigns.demo import sample_company, scenario

    know_every_room()
    try:
        scenario.tell(people=contacts, seed=seed, figures=_figures, stays=stays)
    except (scenario.DemoFailed, sample_company.NotADemoDatabase) as error:
        raise click.ClickException(str(error)) from error


def _figures(campaign_id: int) -> tuple[dict[str, str], int]:
    """The figures of a campaign's performance page by label, and the number of its hits without a final label."""
    from campaigns import db
    from campaigns.accounts.actor import SYSTEM
    from tracking.metrics.performance import performance

    with db.reading() as session:
        found = performance(session, SYSTEM, campaign_id)
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


def _of_channel(counts: "ActivityCounts") -> str:
    views = f"{counts.views.human:>5,} page views" if counts.views else f"{'–':>5} page views"
    return f"{views} {counts.leads:>5,} leads   credit: first {counts.first_touch:,.0f}, last {counts.last_touch:,.0f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
