"""End-to-end tests of hostile input in every field: code, right-to-left overrides and long words are only displayed."""

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.e2e import steps
from tests.e2e.installation import RunningHouse
from tests.e2e.test_browser import sign_in
from tests.e2e.visitor import Visited, Visitor

pytestmark = pytest.mark.browser

CODE = "<script>hurt=1</script>\"'><img src=x onerror=hurt=1>{{7*7}}\u202e"
ENDLESS = CODE + "W" * 110
MJML = "<mjml><mj-body><mj-section><mj-column><mj-text>{}</mj-text></mj-column></mj-section></mj-body></mjml>"


def written(visitor: Visitor, path: str, action: str, **answers: Any) -> Visited:
    page = visitor.submit(visitor.get(path).form(action), **answers)
    assert page.status < 400, (path, page.text)
    return page


def full_of_hostile_words(house: RunningHouse) -> list[str]:
    """Create objects with hostile texts; return the URLs of their pages."""
    owner = steps.found(house)
    campaign = written(owner, "/campaigns/new", "/new", name=ENDLESS, description=ENDLESS * 3).url
    web = written(owner, f"{campaign}/activities/new?channel=web", "/new", title=ENDLESS, notes=ENDLESS * 3).url
    form = f"{web}/form"
    written(
        owner,
        form,
        "/form",
        title=ENDLESS,
        intro=ENDLESS,
        button=CODE,
        thanks=ENDLESS,
        slug="hostile",
        consent_wording=ENDLESS,
        tracking_wording=ENDLESS,
        **{"questions-0-label": ENDLESS, "questions-1-label": CODE},
    )
    message = owner.submit(owner.get("/messages/new").form("/messages/new", having="starter")).url
    written(
        owner,
        message,
        message.removeprefix(house.base),
        name=ENDLESS,
        subject=CODE,
        preheader=CODE,
        mjml=MJML.format("Dear {{ contact.first_name }}"),
    )
    contact = written(
        owner,
        "/contacts/new",
        "/new",
        email="hostile@example.org",
        first_name=CODE,
        last_name="W" * 90,
        attributes=f"city = {CODE}",
    ).url
    people = written(owner, "/lists", "/lists", name=ENDLESS).url
    owner.submit(owner.get(people).form("/members"), addresses="hostile@example.org")
    written(owner, contact, "/consent", answer="email:full", source=CODE, wording=ENDLESS)
    lead = written(owner, "/leads/new", "/new", email="hostile@example.org", activity_id=web.rsplit("/", 1)[1]).url
    written(owner, lead, "/notes", notes=ENDLESS * 3)
    written(owner, "/suppressions", "/suppressions", email="blocked@example.org", detail=ENDLESS)
    written(owner, "/people/new", "/new", name=ENDLESS, email="w@example.org", password="long enough for a start")
    mailing = written(
        owner,
        f"{campaign}/activities/new?channel=email",
        "/new",
        title=ENDLESS,
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


def test_hostile_words_are_only_words(page: Page, embedded: RunningHouse) -> None:
    addresses = full_of_hostile_words(embedded)
    sign_in(page, embedded)
    found = []
    for address in addresses:
        page.set_viewport_size({"width": 1280, "height": 844})
        page.goto(address)
        page.wait_for_function("() => !document.querySelector('.htmx-request')")
        if page.evaluate("() => 'hurt' in window"):
            found.append(f"{address} ran it")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            if page.evaluate("() => document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                found.append(f"{address} is wider than {width}")
    assert found == []
