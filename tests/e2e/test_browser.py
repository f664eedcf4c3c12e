"""End-to-end test in a browser: a coordinator creates and launches a campaign by hand."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e import steps
from tests.e2e.installation import RunningInstallation
from tests.e2e.visitor import eventually

pytestmark = pytest.mark.browser

CHANNELS = ("email", "social", "search", "ads", "content", "video", "web", "event")
READER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"
CSV = "E-mail,First name,City\nana.walk@inbox.example.net,Ana,Batumi\nnot an address,Nobody,Nowhere\n"


def sign_in(page: Page, installation: RunningInstallation) -> None:
    steps.sign_in_owner(installation)  # Runs the first-run setup if no other test has.
    page.goto("/sign-in")
    page.fill("[name=email]", steps.OWNER)
    page.fill("[name=password]", steps.PASSWORD)
    page.click("main button[type=submit]")
    page.wait_for_url("**/today")


_COUNT_PRINTED_PARTS = """far => {
    const section = document.querySelector(far);
    section.replaceChildren();  // As if it had not come yet.
    dispatchEvent(new Event("beforeprint"));
    return section.childElementCount;
}"""
_FIND_FORM = """action => [...document.forms].findIndex(
    form => form.method === "post" && new URL(form.action).pathname.endsWith(action))"""


def submit_form(page: Page, action: str) -> None:
    """Click the submit button of the form whose action ends with ``action``."""
    page.wait_for_function(f"action => ({_FIND_FORM})(action) >= 0", arg=action)
    form = page.locator("form").nth(page.evaluate(_FIND_FORM, action))
    form.locator("button:not([type=button]):not([formaction])").first.click()


def test_a_coordinator_launches_a_campaign_and_gets_a_lead(page: Page, embedded: RunningInstallation) -> None:
    sign_in(page, embedded)
    campaign = _create_campaign(page)
    activities = {channel: _add_activity(page, campaign, channel) for channel in CHANNELS}
    _import_contacts(page)
    landing = _create_landing_page(page, activities["web"])
    message = _write_message(page, f"{embedded.base}{landing}")
    _send_test_mail(page, message, embedded)
    _choose_message_and_audience(page, activities["email"])
    _launch(page, activities["email"])

    mail = steps.parse_mail(eventually(lambda: embedded.mails_to("ana.walk@inbox.example.net"))[0])
    with page.expect_response("**/changes") as stream:
        page.goto(f"{campaign}/performance")
    assert stream.value.headers["content-type"].startswith("text/event-stream")
    # The user agent must not be HeadlessChrome, which bot detection labels as a machine.
    reader = page.context.browser.new_page(user_agent=READER)  # type: ignore[union-attr]
    reader.set_content(f"<img src='{mail.pixel_url}'>")
    reader.goto(next(link for link in mail.links if link.endswith("/1")))
    expect(reader).to_have_url(re.compile(re.escape(landing)))
    reader.fill("[name=email]", "ana.walk@inbox.example.net")
    reader.check("[name=consent]")
    reader.click("button[type=submit]")
    expect(reader.locator("body")).to_contain_text("Thank you")
    reader.close()

    # The open page refreshes itself.
    expect(page.locator("body")).to_contain_text("1 new leads of this campaign")
    expect(page.locator("body")).to_contain_text("1 clickers ÷ 1 trackable recipients")
    assert page.evaluate(_COUNT_PRINTED_PARTS, "#profile") > 0


def _create_campaign(page: Page) -> str:
    page.goto("/campaigns/new")
    page.fill("[name=name]", "By hand")
    page.select_option("[name=objective]", "leads")
    page.fill("[name=starts_on]", "2026-11-01")
    page.fill("[name=ends_on]", "2026-12-24")
    page.fill("[name=budget]", "1500")
    page.fill("[name=colour]", "#2fb344")
    submit_form(page, "/campaigns/new")
    page.wait_for_url(re.compile(r"/campaigns/\d+$"))
    return page.url


def _add_activity(page: Page, campaign: str, channel: str) -> str:
    page.goto(f"{campaign}/activities/new")
    page.click(f"a[href*='channel={channel}']")
    page.fill("[name=title]", f"Something by {channel}")
    page.fill("[name=cost]", "100")
    page.locator("main form button[type=submit]").last.click()
    page.wait_for_url(re.compile(r"/activities/\d+$"))
    return page.url


def _import_contacts(page: Page) -> None:
    page.goto("/imports/new")
    page.set_input_files("[name=file]", {"name": "walk.csv", "mimeType": "text/csv", "buffer": CSV.encode()})
    submit_form(page, "/imports/new")
    page.wait_for_url("**/mapping")
    page.fill("[name=new_list]", "Walkers")
    page.check("[name=email_consent][value=full]")
    page.check("[name=tracking_consent][value=full]")
    page.fill("[name=consent_source]", "cards beside the till")
    page.fill("[name=consent_wording]", "Yes, write to me")
    submit_form(page, "/mapping")
    submit_form(page, "/start")
    with page.expect_download() as download:
        page.click("a[href$='rejected.csv']")
    assert "not an address" in download.value.path().read_text("utf-8-sig")


def _create_landing_page(page: Page, activity: str) -> str:
    page.goto(f"{activity}/form")
    page.fill("[name=title]", "A tasting box")
    page.fill("[name=slug]", "walk-box")
    submit_form(page, "/form")
    return "/f/walk-box"


def _write_message(page: Page, landing: str) -> str:
    page.goto("/messages/new")
    page.locator("form", has=page.locator("[name=starter]")).first.locator("button").click()
    page.wait_for_url(re.compile(r"/messages/\d+$"))
    page.fill("[name=name]", "Walkers' invitation")
    page.fill("[name=subject]", "{{ contact.first_name }}, come in")
    page.fill(
        "[name=mjml]",
        "<mjml><mj-body><mj-section><mj-column><mj-text>Dear {{ contact.first_name }}</mj-text>"
        f"<mj-button href='{landing}'>Come in</mj-button></mj-column></mj-section></mj-body></mjml>",
    )
    page.locator("button[form=message-form]:not([formaction])").first.click()
    preview_selector = ".editor-frame iframe:not(.waiting)"
    expect(page.frame_locator(preview_selector).locator("body")).to_contain_text("Come in")
    wide_box = page.locator(preview_selector).bounding_box()
    page.get_by_label("Phone", exact=True).check()
    expect(page.frame_locator(preview_selector).locator("body")).to_contain_text("Come in")
    narrow_box = page.locator(preview_selector).bounding_box()
    assert wide_box
    assert narrow_box
    assert narrow_box["width"] < wide_box["width"]
    return page.url


def _send_test_mail(page: Page, message: str, installation: RunningInstallation) -> None:
    page.goto(message)
    page.locator("form[action$='/test-mail'] [name=address]").press("Enter")
    expect(page.locator("body")).to_contain_text(steps.OWNER)
    caught = eventually(lambda: [mail for mail in installation.mails_to(steps.OWNER) if "come in" in mail.subject])[0]
    page.goto(f"/catcher/{caught.id}")
    expect(page.frame_locator("iframe.mail-frame").locator("body")).to_contain_text("Come in")


def _choose_message_and_audience(page: Page, activity: str) -> None:
    page.goto(f"{activity}/edit")
    page.select_option("[name=message_id]", label="Walkers' invitation")
    page.select_option("[name=list_id]", label="Walkers")
    submit_form(page, "/edit")
    page.wait_for_url(activity)


def _launch(page: Page, activity: str) -> None:
    submit_form(page, "/preflight")
    expect(page.locator("#preflight")).to_contain_text("Preflight passed")
    submit_form(page, "/launch")
    page.locator("dialog[open] [data-yes]").click()
    expect(page.locator("body")).to_contain_text("Launched")
    page.goto(f"{activity}/progress")
    expect(page.locator("body")).to_contain_text("Sent 1")
