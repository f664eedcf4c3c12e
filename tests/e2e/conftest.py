"""Running installations for the end-to-end tests, started once each.

``embedded``: the default, one machine. ``production``: PostgreSQL, and Valkey over TCP. ``disposable``: its processes
may be killed. ``tests/xdist_scheduler.py`` decides which test process uses which installation.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests import servers
from tests.e2e import steps
from tests.e2e.installation import RunningHouse, interrupted_start, running_house
from tests.e2e.visitor import Visitor

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with running_house(tmp_path_factory.mktemp("embedded") / "var", {}) as house:
        yield house


@dataclass(frozen=True)
class Beside:
    """External servers of the production installation."""

    database: servers.Server
    broker: servers.Server


@pytest.fixture(scope="session")
def beside() -> Iterator[Beside]:
    with servers.postgres_server() as database, servers.valkey_server(tcp=True) as broker:
        yield Beside(database, broker)


@pytest.fixture(scope="session")
def grown(beside: Beside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    urls = {"DATABASE_URL": beside.database.url, "REDIS_URL": beside.broker.url}
    with running_house(tmp_path_factory.mktemp("grown") / "var", urls) as house:
        yield house


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    """An installation whose processes may be killed, in a folder whose first start was interrupted."""
    var = tmp_path_factory.mktemp("own") / "var"
    interrupted_start(var, 0)
    with running_house(var, {}) as house:
        yield house


@pytest.fixture(params=["embedded", "grown"])
def house(request: pytest.FixtureRequest) -> RunningHouse:
    chosen: RunningHouse = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def owner(house: RunningHouse) -> Visitor:
    """The owner, signed in."""
    return steps.found(house)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raise the timeout: real processes on a busy machine are slow."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.timeout(600))


_ARGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")  # Its driver keeps an event loop running in this thread.
def chromium() -> Iterator[Browser]:
    """Chromium of the machine; without one the test is skipped, or fails in CI."""
    found = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium on this machine")
        pytest.skip("no Chromium on this machine: the pages were not looked at")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_ARGS.split())
        yield browser
        browser.close()


def _complains(message: ConsoleMessage) -> bool:
    """Return whether the console message is an error, except the expected 404 of /nowhere."""
    return message.type == "error" and not message.location["url"].endswith("/nowhere")


@contextmanager
def browsing(chromium: Browser, house: RunningHouse) -> Iterator[Page]:
    """Yield a page in a new browser profile; console errors and page errors fail the test."""
    context = chromium.new_context(
        base_url=house.base, viewport={"width": 1280, "height": 900}, reduced_motion="reduce"
    )
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if _complains(message) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def page(chromium: Browser, embedded: RunningHouse) -> Iterator[Page]:
    with browsing(chromium, embedded) as page:
        yield page
