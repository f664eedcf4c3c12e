"""The hidden command that plays the demo scenario in a running installation and prints its results."""

from typing import TYPE_CHECKING

import click

from campaigns.cli.database import load_packages

if TYPE_CHECKING:
    from tracking.metrics.counts import ActivityCounts


@click.command("demo-run", hidden=True)
@click.option("--contacts", type=int, required=True)
@click.option("--seed", type=int, required=True)
@click.option("--keep-running", is_flag=True)
def demo_run(contacts: int, seed: int, keep_running: bool) -> None:
    """Play the demo scenario once the installation is ready."""
    from campaigns.demo import sample_company, scenario

    load_packages()
    try:
        scenario.run_demo(contacts=contacts, seed=seed, fetch_figures=_campaign_figures, keeps_running=keep_running)
    except (scenario.DemoFailed, sample_company.ForeignDatabaseError) as error:
        raise click.ClickException(str(error)) from error


def _campaign_figures(campaign_id: int) -> tuple[dict[str, str], int]:
    """The figures of a campaign's performance page by label, and the number of its hits without a final label."""
    from campaigns import db
    from campaigns.accounts.actor import SYSTEM
    from tracking.metrics.performance import campaign_performance

    with db.read_only_session() as session:
        report = campaign_performance(session, SYSTEM, campaign_id)
    counts = report.counts
    mails, opens, clicks = counts.mails, counts.opens, counts.clicks
    assert mails is not None
    assert opens is not None
    assert clicks is not None
    figures = {
        "Sent": f"{mails.delivered + mails.returned:,} of {mails.audience:,}",
        "People who opened": f"{mails.openers:,} of {mails.trackable:,}"
        f" ({_percent_text(mails.openers, mails.trackable)})",
        "People who clicked": f"{mails.clickers:,} of {mails.trackable:,}"
        f" ({_percent_text(mails.clickers, mails.trackable)})",
        "Opens by machines": f"{opens.machine:,}, {opens.unknown:,} unknown",
        "Clicks by scanners": f"{clicks.scanner + clicks.machine:,}, {clicks.unknown:,} unknown",
        "Leads": f"{counts.leads:,}",
        "Conversions": f"{counts.conversions:,}",
        "Unsubscribed": f"{mails.unsubscribers:,}",
    }
    figures |= {f"  {line.channel.label}": _channel_line(line.counts) for line in report.channels}
    return figures, opens.settling + clicks.settling + (counts.views.settling if counts.views else 0)


def _channel_line(counts: "ActivityCounts") -> str:
    views = f"{counts.views.human:>5,} page views" if counts.views else f"{'–':>5} page views"
    return f"{views} {counts.leads:>5,} leads   credit: first {counts.first_touch:,.0f}, last {counts.last_touch:,.0f}"


def _percent_text(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
