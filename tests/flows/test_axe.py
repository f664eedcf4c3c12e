"""Every page before axe: in the light, in the dark, from right to left."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.flows import company
from tests.flows.conftest import browsing
from tests.flows.running import RunningHouse
from tests.flows.test_browser import sign_in
from tests.flows.visitor import Visited, eventually

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("grown house")]

HERE = Path(__file__).parent


@pytest.fixture
def page(chromium: Browser, grown: RunningHouse) -> Iterator[Page]:
    with browsing(chromium, grown) as page:
        yield page


@cache
def axe() -> str:
    return (HERE / "axe" / "axe.min.js").read_text()


def findings(page: Page, *, only: Sequence[str] = (), but: Sequence[str] = ()) -> list[str]:
    """What axe says of the page: WCAG 2.2 A and AA and its own best practices; ``only`` or ``but`` some rules."""
    page.evaluate(axe())
    chosen = {"runOnly": list(only)} if only else {"rules": {rule: {"enabled": False} for rule in but}}
    report = page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **chosen})
    return [
        f"{violation['id']}: {json.dumps(node['target'])} {node['failureSummary']}"
        for violation in report["violations"]
        for node in violation["nodes"][:3]
    ]


@pytest.fixture(scope="module")
def plan(grown: RunningHouse) -> company.Plan:
    """A launched campaign, so that pages have something to show."""
    owner = company.found(grown)
    plan = company.plan(owner)
    company.preflight(owner, plan)
    company.launch(owner, plan)
    eventually(lambda: grown.mails_to(plan.people[0]))
    return plan


def addresses(plan: company.Plan, house: RunningHouse) -> Iterator[str]:
    yield from (
        "/today",
        "/campaigns",
        "/campaigns/new",
        "/messages",
        "/messages/new",
        "/contacts",
        "/contacts/new",
        "/contacts/1",
    )
    yield from ("/contacts/1/edit", "/lists", "/lists/1", "/imports", "/imports/new", "/imports/1", "/suppressions")
    yield from ("/leads", "/catcher", "/people", "/people/new", "/settings", "/audit", "/me", "/nowhere")
    yield from (
        plan.campaign,
        f"{plan.campaign}/edit",
        f"{plan.campaign}/performance",
        f"{plan.campaign}/activities/new",
    )
    yield from (f"{plan.campaign}/activities/new?channel=email", plan.email, f"{plan.email}/edit", f"{plan.email}/form")
    yield from (f"{plan.email}/preflight", f"{plan.email}/progress", f"{plan.email}/sends", plan.message, plan.landing)
    yield from (
        f"{plan.campaign}/comparison",
        f"{plan.campaign}/visits",
        f"{plan.campaign}/shares",
        f"{plan.email}/heat",
    )
    yield from ("/overview", "/site", "/goals", "/goals/rates", "/conversions/import", "/api", "/api-keys")
    yield from ("/bounces", "/relays", "/relays/domains", "/domains", "/health/house", "/health/log", "/links/check")
    yield from ("/returns", f"{plan.campaign}/events", "/contacts/1/merge")
    yield f"/catcher/{house.mails_to(plan.people[0])[0].id}"
    yield company.opened(house.mails_to(plan.people[0])[0]).unsubscribe


_COLOURS = ("color-contrast",)
"""The costliest of axe's rules."""


def settle(page: Page) -> None:
    """Until every part that is fetched apart is there."""
    page.wait_for_function("() => !document.querySelector('.htmx-request')")


def look_at_all(page: Page, addresses: Iterable[str], look: Callable[[], list[str]]) -> dict[str, list[str]]:
    found = {}
    for address in addresses:
        page.goto(address)
        settle(page)
        if says := look():
            found[address] = says
    return found


def test_axe_finds_nothing_in_the_light_or_in_the_dark(page: Page, plan: company.Plan, grown: RunningHouse) -> None:
    def look() -> list[str]:
        light = findings(page)
        page.emulate_media(color_scheme="dark")  # The same elements in other colours.
        page.reload()
        settle(page)
        dark = findings(page, only=_COLOURS)
        page.emulate_media(color_scheme="light")
        return light + dark

    sign_in(page, grown)
    assert look_at_all(page, addresses(plan, grown), look) == {}


def test_axe_finds_nothing_from_right_to_left(page: Page, plan: company.Plan, grown: RunningHouse) -> None:
    sign_in(page, grown)
    owner = company.found(grown)
    owner.post("/me/language", _language(owner.get("/me"), "fa"))
    try:
        page.goto("/campaigns")
        assert page.locator("html").get_attribute("dir") == "rtl"
        assert look_at_all(page, addresses(plan, grown), lambda: findings(page, but=_COLOURS)) == {}
    finally:
        owner.post("/me/language", _language(owner.get("/me"), "en"))


def _language(page: Visited, code: str) -> dict[str, str]:
    return {**{name: kept[0] for name, kept in page.form("/me/language").values.items()}, "language": code}


def test_strangers_pages(page: Page, grown: RunningHouse) -> None:
    company.found(grown)
    for address in ("/sign-in", "/password/forgot", "/nowhere"):
        page.goto(address)
        assert findings(page) == []
