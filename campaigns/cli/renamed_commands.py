"""Commands of version 0.1 under their former names: each runs the new command and names it on standard error."""

from collections.abc import Mapping

import click

RENAMED: Mapping[str, str] = {
    "collect": "collector",
    "bounces": "bounce-listener",
    "bounce": "bounce-pipe",
    "catcher": "mail-catcher",
    "demo-story": "demo-run",
    "draft-migration": "makemigration",
    "check": "verify",
    "retry": "retry-dead-letters",
}
"""Former name → present name, of ``kampania`` and of ``kampania tracking``."""


class CommandGroup(click.Group):
    """A group that also knows the former names of its commands."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, also by its former name; None for an unknown one."""
        found = super().get_command(ctx, cmd_name)
        renamed = RENAMED.get(cmd_name)
        if found is not None or renamed is None:
            return found
        command = super().get_command(ctx, renamed)
        if command is not None:
            click.echo(f"`{cmd_name}` is now called `{renamed}`.", err=True)
        return command
