"""Accessibility tests with axe: every page left-to-right in the light theme and right-to-left in the dark theme."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e import steps
from tests.e2e.conftest import browsing
from tests.e2e.installation import RunningHouse
from tests.e2e.test_browser import sign_in
from tests.e2e.visitor import Visited, eventually

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent


@cache
def axe() -> str:
    return (HERE / "axe" / "axe.min.js").read_text()


def findings(page: Page) -> list[str]:
    """Return axe's violations on the page: WCAG 2.2 A and AA, and axe's best practices."""
    page.evaluate(axe())
    report = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {json.dumps(node['target'])} {node['failureSummary']}"
        for violation in report["violations"]
        for node in violation["nodes"][:3]
    ]


def launched(house: RunningHouse) -> steps.Plan:
    """Launch a campaign, so that the pages have data."""
    owner = steps.found(house)
    plan = steps.plan(owner)
    steps.preflight(owner, plan)
    steps.launch(owner, plan)
    eventually(lambda: house.mails_to(plan.people[0]))
    return plan


def addresses(plan: steps.Plan, house: RunningHouse) -> Iterator[str]:
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
    yield steps.opened(house.mails_to(plan.people[0])[0]).unsubscribe


_COME_NEAR = """() => {
    for (const far of document.querySelectorAll("main section")) far.style.contentVisibility = "visible";
    for (const far of document.querySelectorAll("[hx-trigger='near']")) far.dispatchEvent(new Event("near"));
}"""


def look_at_all(page: Page, house: RunningHouse, plan: steps.Plan) -> dict[str, list[str]]:
    """Return the violations by page, after lazily loaded and lazily laid out parts are present."""
    found = {}
    for address in addresses(plan, house):
        page.goto(address)
        page.evaluate(_COME_NEAR)
        page.wait_for_function("() => !document.querySelector('.htmx-request')")
        if says := findings(page):
            found[address] = says
    return found


def test_axe_finds_nothing_in_the_light(chromium: Browser, grown: RunningHouse) -> None:
    plan = launched(grown)
    with browsing(chromium, grown) as page:
        sign_in(page, grown)
        assert look_at_all(page, grown, plan) == {}


def test_axe_finds_nothing_from_right_to_left_in_the_dark(chromium: Browser, own: RunningHouse) -> None:
    plan = launched(own)
    owner = steps.found(own)
    owner.post("/me/language", _language(owner.get("/me"), "fa"))
    try:
        with browsing(chromium, own) as page:
            page.emulate_media(color_scheme="dark")
            sign_in(page, own)
            assert page.locator("html").get_attribute("dir") == "rtl"
            assert page.locator("html").get_attribute("data-bs-theme") == "dark"
            assert look_at_all(page, own, plan) == {}
    finally:
        owner.post("/me/language", _language(owner.get("/me"), "en"))


def _language(page: Visited, code: str) -> dict[str, str]:
    return {**{name: kept[0] for name, kept in page.form("/me/language").values.items()}, "language": code}


def test_strangers_pages(chromium: Browser, embedded: RunningHouse) -> None:
    steps.found(embedded)
    with browsing(chromium, embedded) as page:
        for address in ("/sign-in", "/password/forgot", "/nowhere"):
            page.goto(address)
            assert findings(page) == []
