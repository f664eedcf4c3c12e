"""The import contracts in pyproject.toml hold."""

import pytest
from importlinter.cli import lint_imports


def test_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_imports(no_logo=True) == 0, capsys.readouterr().out
