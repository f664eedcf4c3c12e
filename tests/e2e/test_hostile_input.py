"""End-to-end tests of hostile input in every field: code, right-to-left overrides and long words are only displayed."""

from typing import Any

import pytest
from playwright.sync_api import Page, TimeoutError

from tests.e2e import steps
from tests.e2e.installation import RunningInstallation
from tests.e2e.test_browser import sign_in
from tests.e2e.visitor import VisitedPage, Visitor

pytestmark = pytest.mark.browser

CODE = "<script>hurt=1</script>\"'><img src=x onerror=hurt=1>{{7*7}}\u202e"
LONG_CODE = CODE + "W" * 110
MJML = "<mjml><mj-body><mj-section><mj-column><mj-text>{}</mj-text></mj-column></mj-section></mj-body></mjml>"


def submit_page(visitor: Visitor, path: str, action: str, **answers: Any) -> VisitedPage:
    page = visitor.submit(visitor.get(path).form(action), **answers)
    assert page.status < 400, (path, page.text)
    return page


def create_hostile_objects(installation: RunningInstallation) -> list[str]:
    """Create objects with hostile texts; return the URLs of their pages."""
    owner = steps.sign_in_owner(installation)
    campaign = submit_page(owner, "/campaigns/new", "/new", name=LONG_CODE, description=LONG_CODE * 3).url
    web = submit_page(owner, f"{campaign}/activities/new?channel=web", "/new", title=LONG_CODE, notes=LONG_CODE * 3).url
    form = f"{web}/form"
    submit_page(
        owner,
        form,
        "/form",
        title=LONG_CODE,
        intro=LONG_CODE,
        button=CODE,
        thanks=LONG_CODE,
        slug="hostile",
        consent_wording=LONG_CODE,
        tracking_wording=LONG_CODE,
        **{"questions-0-label": LONG_CODE, "questions-1-label": CODE},
    )
    message = owner.submit(owner.get("/messages/new").form("/messages/new", having="starter")).url
    submit_page(
        owner,
        message,
        message.removeprefix(installation.base),
        name=LONG_CODE,
        subject=CODE,
        preheader=CODE,
        mjml=MJML.format("Dear {{ contact.first_name }}"),
    )
    contact = submit_page(
        owner,
        "/contacts/new",
        "/new",
        email="hostile@example.org",
        first_name=CODE,
        last_name="W" * 90,
        attributes=f"city = {CODE}",
    ).url
    people = submit_page(owner, "/lists", "/lists", name=LONG_CODE).url
    owner.submit(owner.get(people).form("/members"), addresses="hostile@example.org")
    submit_page(owner, contact, "/consent", answer="email:full", source=CODE, wording=LONG_CODE)
    lead = submit_page(owner, "/leads/new", "/new", email="hostile@example.org", activity_id=web.rsplit("/", 1)[1]).url
    submit_page(owner, lead, "/notes", notes=LONG_CODE * 3)
    submit_page(owner, "/suppressions", "/suppressions", email="blocked@example.org", detail=LONG_CODE)
    submit_page(owner, "/people/new", "/new", name=LONG_CODE, email="w@example.org", password="long enough for a start")
    mailing = submit_page(
        owner,
        f"{campaign}/activities/new?channel=email",
        "/new",
        title=LONG_CODE,
        message_id=message.rsplit("/", 1)[1],
        list_id=people.rsplit("/", 1)[1],
    ).url
    return [
        "/today",
        "/campaigns",
        campaign,
        f"{campaign}/edit",
        f"{campaign}/performance",
        f"{campaign}/activities/new",
        web,
        form,
        f"{form}/preview",
        "/f/hostile",
        "/f/hostile/thanks",
        "/messages",
        message,
        f"{message}/preview",
        "/contacts",
        contact,
        f"{contact}/edit",
        "/lists",
        people,
        "/leads",
        lead,
        "/leads/new",
        "/suppressions",
        "/people",
        "/audit",
        mailing,
        f"{mailing}/edit",
        f"{mailing}/preflight",
    ]


def test_hostile_texts_are_only_displayed(page: Page, embedded: RunningInstallation) -> None:
    addresses = create_hostile_objects(embedded)
    sign_in(page, embedded)
    failures = []
    for address in addresses:
        page.set_viewport_size({"width": 1280, "height": 844})
        page.goto(address)
        page.wait_for_function("() => !document.querySelector('.htmx-request')")
        if page.evaluate("() => 'hurt' in window"):
            failures.append(f"{address} ran it")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            try:  # Layout follows the new viewport after a moment, and fragments are still arriving.
                page.wait_for_function(
                    "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth", timeout=5_000
                )
            except TimeoutError:
                failures.append(f"{address} is wider than {width}")
    assert failures == []
