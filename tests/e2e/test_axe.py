"""Accessibility tests with axe: every page left-to-right in the light theme and right-to-left in the dark theme."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e import steps
from tests.e2e.conftest import browser_page
from tests.e2e.installation import RunningInstallation
from tests.e2e.test_browser import sign_in
from tests.e2e.visitor import VisitedPage, eventually

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent


@cache
def axe() -> str:
    return (HERE / "axe" / "axe.min.js").read_text()


def axe_violations(page: Page) -> list[str]:
    """Return axe's violations on the page: WCAG 2.2 A and AA, and axe's best practices."""
    page.evaluate(axe())
    report = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {json.dumps(node['target'])} {node['failureSummary']}"
        for violation in report["violations"]
        for node in violation["nodes"][:3]
    ]


def launch_campaign(installation: RunningInstallation) -> steps.CampaignPlan:
    """Launch a campaign, so that the pages have data."""
    owner = steps.sign_in_owner(installation)
    plan = steps.create_plan(owner)
    steps.run_preflight(owner, plan)
    steps.launch(owner, plan)
    eventually(lambda: installation.mails_to(plan.people[0]))
    return plan


def page_paths(plan: steps.CampaignPlan, installation: RunningInstallation) -> Iterator[str]:
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
    yield from (
        "/bounces",
        "/relays",
        "/relays/domains",
        "/domains",
        "/health/installation",
        "/health/log",
        "/links/check",
    )
    yield from ("/returns", f"{plan.campaign}/events", "/contacts/1/merge")
    yield f"/catcher/{installation.mails_to(plan.people[0])[0].id}"
    yield steps.parse_mail(installation.mails_to(plan.people[0])[0]).unsubscribe_url


_LOAD_LAZY_PARTS = """() => {
    for (const far of document.querySelectorAll("main section")) far.style.contentVisibility = "visible";
    for (const far of document.querySelectorAll("[hx-trigger='near']")) far.dispatchEvent(new Event("near"));
}"""


def check_pages(page: Page, installation: RunningInstallation, plan: steps.CampaignPlan) -> dict[str, list[str]]:
    """Return the violations by page, after lazily loaded and lazily laid out parts are present."""
    violations = {}
    for address in page_paths(plan, installation):
        page.goto(address)
        page.evaluate(_LOAD_LAZY_PARTS)
        page.wait_for_function("() => !document.querySelector('.htmx-request')")
        if page_violations := axe_violations(page):
            violations[address] = page_violations
    return violations


def test_axe_light_left_to_right(chromium: Browser, production: RunningInstallation) -> None:
    plan = launch_campaign(production)
    with browser_page(chromium, production) as page:
        sign_in(page, production)
        assert check_pages(page, production, plan) == {}


def test_axe_dark_right_to_left(chromium: Browser, disposable: RunningInstallation) -> None:
    plan = launch_campaign(disposable)
    owner = steps.sign_in_owner(disposable)
    owner.post("/me/language", _language_form(owner.get("/me"), "fa"))
    try:
        with browser_page(chromium, disposable) as page:
            page.emulate_media(color_scheme="dark")
            sign_in(page, disposable)
            assert page.locator("html").get_attribute("dir") == "rtl"
            assert page.locator("html").get_attribute("data-bs-theme") == "dark"
            assert check_pages(page, disposable, plan) == {}
    finally:
        owner.post("/me/language", _language_form(owner.get("/me"), "en"))


def _language_form(page: VisitedPage, code: str) -> dict[str, str]:
    return {**{name: values[0] for name, values in page.form("/me/language").values.items()}, "language": code}


def test_axe_pages_before_sign_in(chromium: Browser, embedded: RunningInstallation) -> None:
    steps.sign_in_owner(embedded)
    with browser_page(chromium, embedded) as page:
        for address in ("/sign-in", "/password/forgot", "/nowhere"):
            page.goto(address)
            assert axe_violations(page) == []
