"""The import contracts in pyproject.toml hold."""

import pytest
from importlinter.cli import lint_imports


def test_every_import_goes_downward(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_imports(no_logo=True) == 0, capsys.readouterr().out
