"""Distribution of tests to xdist workers: tests that share a running installation run in the same worker.

Starting an installation takes longer than the tests that use it.
"""

from xdist.scheduler import LoadScopeScheduling

INSTALLATIONS = {
    "test_axe.py::test_axe_light_left_to_right": "production",
    "test_axe.py::test_axe_dark_right_to_left": "disposable",
    "test_axe.py": "embedded",
    "test_outages.py::test_database_and_broker_outage": "production",
    "test_outages.py": "disposable",
    "test_installation.py": "disposable",
    "test_browser.py": "embedded",
    "test_hostile_input.py": "embedded",
    "test_page_script.py": "embedded",
}
"""The installation of a test by the prefix of its name, most specific first. "embedded" is everything in one directory
with SQLite, "production" a multi-process deployment, "disposable" an installation that the test itself starts.

A test that is parametrised by installation has its name in brackets.
"""


def installation_of(nodeid: str) -> str:
    """The installation that a test uses; the test's own id when it needs none."""
    folder, _, name = nodeid.rpartition("/")
    if not folder.endswith("tests/e2e"):
        return nodeid
    for installation in ("embedded", "production"):
        if f"[{installation}" in name:
            return installation
    return next((installation for begins, installation in INSTALLATIONS.items() if name.startswith(begins)), nodeid)


class ByInstallation(LoadScopeScheduling):  # type: ignore[misc]
    """Assigns each scope to the next free worker; tests with the same installation form one scope."""

    def _split_scope(self, nodeid: str) -> str:
        return installation_of(nodeid)
