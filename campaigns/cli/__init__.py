"""The ``kampania`` command.

``up`` and ``demo`` run the whole installation on this machine and upgrade the schema by themselves. The other commands
run one process each, for production; they refuse to start on an outdated schema and name the command that upgrades it.
"""

import click

from campaigns import config
from campaigns.cli import bounce_pipe, database, demo_scenario, serve, tracking, up, users
from campaigns.cli.renamed_commands import CommandGroup


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Kampania: what did this campaign bring?"""
    if context.invoked_subcommand == "demo":
        up.use_demo_folder()
    try:
        config.settings()
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


for command in (
    *(up.up, up.demo, demo_scenario.demo_run),
    *(serve.web, serve.worker, serve.beat, serve.collector, serve.bounce_listener),
    serve.mail_catcher,
    *(database.migrate, database.makemigration, tracking.tracking, users.user),
    bounce_pipe.bounce_pipe,
):
    main.add_command(command)
