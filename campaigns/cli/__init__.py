"""The ``kampania`` command.

``up`` and ``demo`` run the whole house on this machine and bring the schema up to date by
themselves. The other commands are for the grown form, one process each; they refuse to start on
an older schema and say how to bring it up to date.
"""

import click

from campaigns import config
from campaigns.cli import counting, database, machine, people, processes, returning, story


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Kampania: what did this campaign bring?"""
    if context.invoked_subcommand == "demo":
        machine.use_demo_folder()
    try:
        config.settings()
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


for command in (
    *(machine.up, machine.demo, story.demo_story),
    *(processes.web, processes.worker, processes.beat, processes.collect, processes.bounces),
    processes.catcher,
    *(database.migrate, database.draft_migration, counting.tracking, people.user),
    returning.bounce,
):
    main.add_command(command)
