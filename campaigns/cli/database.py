"""Database schema commands, and the check that refuses to start on an outdated schema."""

import click


def load_packages() -> None:
    """Import every package that registers tables and steps."""
    from tracking.registration import register_packages

    register_packages()


def prepare_schema() -> None:
    """Upgrade the schema when it is outdated, and close the connections, so that no child process inherits them."""
    from campaigns import db
    from campaigns.migrations import schema

    if not schema.is_current(db.engine()):
        schema.upgrade(db.engine())
    db.engine().dispose()
    db.set_engine(None)


def check_schema() -> None:
    """Raise ClickException unless the database answers and has the newest schema."""
    from sqlalchemy.exc import OperationalError

    from campaigns import db
    from campaigns.migrations import schema

    try:
        current, newest = schema.current_revision(db.engine()), schema.head_revision()
    except OperationalError as error:
        raise click.ClickException(f"The database does not answer: {error.orig}") from error
    if current != newest:
        state = "has no tables yet" if current is None else f"stands at {current}, this program expects {newest}"
        raise click.ClickException(f"The database {state}. Run `kampania migrate` first.")


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    from alembic.util import CommandError

    from campaigns import db
    from campaigns.migrations import schema

    try:
        schema.upgrade(db.engine())
    except schema.UpgradeRefused as error:
        raise click.ClickException(f"{error}.") from error
    except CommandError as error:
        raise click.ClickException(f"{error}. A newer Kampania made this database.") from error
    click.echo(f"The database stands at {schema.head_revision()}.")


@click.command("makemigration", hidden=True)
@click.argument("message")
def makemigration(message: str) -> None:
    """Write a migration from the difference between the database and the models."""
    from campaigns import db
    from campaigns.migrations import schema

    schema.draft(db.engine(), message)
