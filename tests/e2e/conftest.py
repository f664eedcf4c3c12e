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
from tests.e2e.installation import RunningInstallation, interrupted_start, running_installation
from tests.e2e.visitor import Visitor

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    with running_installation(tmp_path_factory.mktemp("embedded") / "var", {}) as installation:
        yield installation


@dataclass(frozen=True)
class ExternalServices:
    """External servers of the production installation."""

    database: servers.Server
    broker: servers.Server


@pytest.fixture(scope="session")
def external_services() -> Iterator[ExternalServices]:
    with servers.postgres_server() as database, servers.valkey_server(tcp=True) as broker:
        yield ExternalServices(database, broker)


@pytest.fixture(scope="session")
def production(
    external_services: ExternalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningInstallation]:
    urls = {"DATABASE_URL": external_services.database.url, "REDIS_URL": external_services.broker.url}
    with running_installation(tmp_path_factory.mktemp("production") / "var", urls) as installation:
        yield installation


@pytest.fixture(scope="session")
def disposable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    """An installation whose processes may be killed, in a folder whose first start was interrupted."""
    var = tmp_path_factory.mktemp("disposable") / "var"
    interrupted_start(var, 0)
    with running_installation(var, {}) as installation:
        yield installation


@pytest.fixture(params=["embedded", "production"])
def installation(request: pytest.FixtureRequest) -> RunningInstallation:
    selected: RunningInstallation = request.getfixturevalue(request.param)
    return selected


@pytest.fixture
def owner(installation: RunningInstallation) -> Visitor:
    """The owner, signed in."""
    return steps.sign_in_owner(installation)


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


def _is_error(message: ConsoleMessage) -> bool:
    """Return whether the console message is an error, except the expected 404 of /nowhere."""
    return message.type == "error" and not message.location["url"].endswith("/nowhere")


@contextmanager
def browser_page(chromium: Browser, installation: RunningInstallation) -> Iterator[Page]:
    """Yield a page in a new browser profile; console errors and page errors fail the test."""
    context = chromium.new_context(
        base_url=installation.base, viewport={"width": 1280, "height": 900}, reduced_motion="reduce"
    )
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if _is_error(message) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def page(chromium: Browser, embedded: RunningInstallation) -> Iterator[Page]:
    with browser_page(chromium, embedded) as page:
        yield page
