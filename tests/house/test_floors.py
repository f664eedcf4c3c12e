"""The architecture as a test: what pyproject.toml says of imports is true."""

import pytest
from grimp import ImportGraph
from importlinter.cli import lint_imports

from tests.house.floors import FloorsContract, exactness

FLOORS = ["base", "house.one house.two", "house.*.views", "house.cli"]


def test_every_import_goes_downward(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_imports(no_logo=True) == 0, capsys.readouterr().out


def contract(*floors: str) -> FloorsContract:
    return FloorsContract(
        name="", session_options={}, contract_options={"floors": list(floors or FLOORS), "name": "", "type": "floors"}
    )


def graph(*imports: tuple[str, str]) -> ImportGraph:
    made = ImportGraph()
    for name in ("house", "house.one", "house.two", "house.one.views", "house.two.views", "house.cli"):
        made.add_module(name)
    for importer, imported in imports:
        made.add_import(importer=importer, imported=imported, line_number=1, line_contents="")
    return made


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("house.one.views", "house.one"),
        ("house.one.views", "house.two"),
        ("house.cli", "house.one.views"),
    ],
)
def test_downward_is_allowed(importer: str, imported: str) -> None:
    assert list(contract().breaches(graph((importer, imported)))) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("house.one", "house.two"),  # neighbours of one floor
        ("house.one", "house.one.views"),  # a room and its own face
        ("house.one.views", "house.two.views"),
        ("house.two", "house.cli"),
    ],
)
def test_sideways_and_upward_are_breaches(importer: str, imported: str) -> None:
    assert list(contract().breaches(graph((importer, imported)))) == [(importer, imported, "line 1")]


def test_a_module_without_a_floor_is_a_breach() -> None:
    stray = graph()
    stray.add_module("house.three")
    assert list(contract().breaches(stray)) == [("house.three", "", "has no floor in pyproject.toml")]


def test_the_most_exact_pattern_wins() -> None:
    assert exactness("house.*.views", "house.one.views.pages") > exactness("house.one", "house.one.views.pages")
    assert exactness("house.one", "house.oneself") == (0, 0)
