"""Command that reads one bounce from standard input, for a mail server's pipe transport."""

import sys

import click

_TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h: the mail server keeps the message and tries again.
_NOTHING = 65  # EX_DATAERR


@click.command("bounce-pipe")
@click.option("--recipient", default="", help="The envelope's recipient, where the message does not name it.")
def bounce_pipe(recipient: str) -> None:
    """Take one returned message from standard input, e.g. from an alias "|kampania bounce-pipe"."""
    from campaigns.delivery.bounces.intake import maildir
    from campaigns.delivery.bounces.models import FeedbackSource

    raw = sys.stdin.buffer.read(maildir.LARGEST + 1)[: maildir.LARGEST]
    if not raw.strip():
        sys.exit(_NOTHING)
    head = f"Delivered-To: {recipient}\n".encode() if recipient.isprintable() and recipient else b""
    try:
        maildir.keep(head + raw, FeedbackSource.COMMAND)
    except OSError as error:
        click.echo(str(error), err=True)
        sys.exit(_TRY_LATER)
