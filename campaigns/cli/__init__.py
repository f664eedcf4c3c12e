"""The ``kampania`` command.

``up`` and ``demo`` run the whole house on this machine and bring the schema up to date by
themselves. The other commands are for the grown form, one process each; they refuse to start on
an older schema and say how to bring it up to date.
"""

import click

from campaigns import config
from campaigns.cli import bounce_pipe, database, demo_scenario, serve, tracking, up, users


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
    *(up.up, up.demo, demo_scenario.demo_story),
    *(serve.web, serve.worker, serve.beat, serve.collect, serve.bounces),
    serve.catcher,
    *(database.migrate, database.draft_migration, tracking.tracking, users.user),
    bounce_pipe.bounce,
):
    main.add_command(command)
