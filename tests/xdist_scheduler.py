"""Which process of the test run walks through which whole house: starting one costs more than its flows."""

from xdist.scheduler import LoadScopeScheduling

HOUSES = {
    "test_axe.py::test_axe_finds_nothing_in_the_light": "grown",
    "test_axe.py::test_axe_finds_nothing_from_right_to_left_in_the_dark": "own",
    "test_axe.py": "embedded",
    "test_outages.py::test_the_database_and_the_broker_stop_for_a_while": "grown",
    "test_outages.py": "own",
    "test_installation.py": "own",
    "test_browser.py": "embedded",
    "test_hostile_input.py": "embedded",
    "test_page_script.py": "embedded",
}
"""By how a test's name begins, most exact first; a test of both houses says which in its brackets."""


def house_of(nodeid: str) -> str:
    """The house that a test walks through; the test's own name for one that needs none."""
    folder, _, name = nodeid.rpartition("/")
    if not folder.endswith("tests/e2e"):
        return nodeid
    for house in ("embedded", "grown"):
        if f"[{house}" in name:
            return house
    return next((house for begins, house in HOUSES.items() if name.startswith(begins)), nodeid)


class ByHouse(LoadScopeScheduling):  # type: ignore[misc]
    """Every test goes to the next process that is free, those of one house together and first."""

    def _split_scope(self, nodeid: str) -> str:
        return house_of(nodeid)
