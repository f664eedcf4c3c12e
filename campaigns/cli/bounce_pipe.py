"""Command that reads one bounce from standard input, for a mail server's pipe transport."""

import sys

import click

_EX_TEMPFAIL = 75  # EX_TEMPFAIL of sysexits.h: the mail server keeps the message and tries again.
_EX_DATAERR = 65  # EX_DATAERR


@click.command("bounce-pipe")
@click.option("--recipient", default="", help="The envelope's recipient, where the message does not name it.")
def bounce_pipe(recipient: str) -> None:
    """Take one returned message from standard input, e.g. from an alias "|kampania bounce-pipe"."""
    from campaigns.delivery.bounces.intake import maildir
    from campaigns.delivery.bounces.models import FeedbackSource

    raw = sys.stdin.buffer.read(maildir.MAX_MAIL_BYTES + 1)[: maildir.MAX_MAIL_BYTES]
    if not raw.strip():
        sys.exit(_EX_DATAERR)
    head = f"Delivered-To: {recipient}\n".encode() if recipient.isprintable() and recipient else b""
    try:
        maildir.store_mail(head + raw, FeedbackSource.COMMAND)
    except OSError as error:
        click.echo(str(error), err=True)
        sys.exit(_EX_TEMPFAIL)
