"""The ``kampania`` command: what it refuses, and its error messages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from campaigns import cli, config, db
from campaigns.accounts.models import Organisation, Role, User


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Run"]:
    """Runs commands on an empty database of the test's own."""
    monkeypatch.setenv("KAMPANIA_VAR", str(tmp_path))
    for name in ("DATABASE_URL", "REDIS_URL", "BASE_URL", "SMTP_URL"):
        monkeypatch.delenv(name, raising=False)
    config.set_settings(None)
    db.set_engine(None)
    yield Run()
    db.engine().dispose()
    db.set_engine(None)
    config.set_settings(None)


class Run:
    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(cli.main, list(words))


def add_user(run: Run, email: str, *more: str) -> Result:
    return run("user", "add", email, "--name", "Nino", "--password", "long enough, surely", *more)


@pytest.mark.parametrize("command", ["web", "worker", "collector"])
def test_an_empty_database_error_names_the_migrate_command(run: Run, command: str) -> None:
    answer = run(command)
    assert answer.exit_code == 1
    assert "kampania migrate" in answer.output


def test_an_outdated_schema_error_names_its_revision(run: Run) -> None:
    run("migrate")
    with db.engine().begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
    assert "stands at older" in run("web").output


@pytest.mark.parametrize("command", ["up", "demo", "web"])
def test_listening_for_other_machines_requires_expose(run: Run, command: str) -> None:
    answer = run(command, "--host", "0.0.0.0")
    assert answer.exit_code == 2
    assert "--expose" in answer.output


def test_the_first_user_creates_the_organisation(run: Run) -> None:
    run("migrate")
    assert "--organisation" in add_user(run, "nino@example.org").output
    assert add_user(run, "nino@example.org", "--organisation", "Kettle").exit_code == 0
    assert add_user(run, "vera@example.org", "--role", "viewer").exit_code == 0
    with db.read_only_session() as session:
        assert session.get_one(Organisation, 1).name == "Kettle"
        people = {person.email: person.role for person in session.query(User)}
    assert people == {"nino@example.org": Role.OWNER, "vera@example.org": Role.VIEWER}


def test_a_taken_address_is_reported(run: Run) -> None:
    run("migrate")
    add_user(run, "nino@example.org", "--organisation", "Kettle")
    answer = add_user(run, "nino@example.org")
    assert answer.exit_code == 1
    assert "here already" in answer.output


def test_an_invalid_setting_is_reported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIME_SCALE", "fast")
    config.set_settings(None)
    answer = run("web")
    assert answer.exit_code == 1
    assert "TIME_SCALE" in answer.output
    monkeypatch.setenv("TIME_SCALE", "1")
    config.set_settings(None)


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("collect", "collector"),
        ("bounces", "bounce-listener"),
        ("bounce", "bounce-pipe"),
        ("catcher", "mail-catcher"),
        ("tracking check", "verify"),
        ("tracking retry", "retry-dead-letters"),
    ],
)
def test_a_former_command_name_runs_the_present_one(former: str, present: str) -> None:
    result = CliRunner().invoke(cli.main, [*former.split(), "--help"])
    assert result.exit_code == 0
    assert f"is now called `{present}`" in result.stderr
