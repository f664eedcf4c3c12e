"""Commands that manage users."""

import click

from campaigns.cli.database import check_schema, load_packages


@click.group()
def user() -> None:
    """Users, who sign in."""


@user.command("add")
@click.argument("email")
@click.option("--name", prompt=True)
@click.option("--role", type=click.Choice(["owner", "coordinator", "viewer"]), default="coordinator", show_default=True)
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True, envvar="KAMPANIA_PASSWORD")
@click.option("--organisation", "company", help="Its name, when this is the first person of an empty database.")
def add_user(email: str, name: str, role: str, password: str, company: str | None) -> None:
    """Add a user; the first one creates the organisation and owns it."""
    from campaigns import db
    from campaigns.accounts import organisation, users
    from campaigns.accounts.actor import SYSTEM
    from campaigns.accounts.models import Organisation, Role
    from campaigns.errors import KampaniaError

    check_schema()
    load_packages()
    try:
        with db.transaction() as session:
            if session.get(Organisation, 1) is not None:
                users.add_user(session, SYSTEM, email=email, name=name, role=Role(role), password=password)
            elif company:
                organisation.create_organisation(
                    session,
                    name=company,
                    sender_email=email,
                    language="en",
                    timezone="UTC",
                    currency="EUR",
                    owner_name=name,
                    owner_email=email,
                    owner_password=password,
                )
            else:
                raise click.UsageError("Nothing is set up yet: name the organisation with --organisation.")
    except KampaniaError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{name} can sign in as {email}.")
