"""Every URL requested by every role: access that is not listed here is refused.

A new page is closed to viewers, and so is every action, until it is listed below.
"""

import dataclasses
import os
import re
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from campaigns import config, db
from campaigns.mail_catcher.store import MailStore
from tests.architecture import sample_rows

VIEWER_PAGES = {
    "home",
    "accounts.me",
    "tracking.campaign_list.index",
    "planning.campaign",
    "planning.activity",
    "capture.preview",
    "delivery.preflights.page",
    "delivery.progress_page",
    "delivery.progress_counts",
    "delivery.progress_controls",
    "tracking.performance.page",
    "tracking.performance.csv",
    "tracking.performance.live",
    "tracking.performance.stream",
    "tracking.performance.summary",
    "tracking.performance.comparison",
    "tracking.performance.profile",
    "tracking.click_map.page",
    "tracking.click_map.mail",
    "tracking.performance.link_clicks",
    "content.index",
    "content.preview",
    "content.starter_preview",
    "tracking.home.page",
    "tracking.web_visits.page",
    "tracking.overview.page",
    "tracking.goals.index",
    "tracking.goals.rates",
    "tracking.api_docs.page",
    "tracking.utm_lint.page",
    "delivery.feedback.of_activity",
    "delivery.feedback.of_campaign",
}
OPEN_TO_ALL_ROLES = {"accounts.me", "accounts.change_password", "accounts.choose_language"}
OWNERS_ONLY = {
    "accounts.everybody",
    "accounts.add_person",
    "accounts.change_role",
    "accounts.lock",
    "accounts.unlock",
    "accounts.settings",
    "accounts.audit_trail",
    "accounts_api.keys",
    "accounts_api.create",
    "accounts_api.revoke",
    "tracking.health.installation",
    *(f"tracking.maintenance.{name}" for name in ("index", "check", "show", "progress", "apply")),
    "delivery.relays.index",
    "delivery.relays.enter",
    "delivery.relays.relay",
    "delivery.relays.trial",
    "delivery.relays.removal",
    "delivery.domains.index",
    "delivery.domains.make",
    "delivery.domain_limits.index",
    "delivery.domain_limits.enter",
    "delivery.domain_limits.limit",
    "delivery.domain_limits.removal",
    "delivery.domains.check",
    "delivery.domains.activate",
    "delivery.domains.retire",
    *(
        f"delivery.bounces.{name}"
        for name in (
            "index",
            "domain",
            "webhook",
            "subscription",
            "change_mailbox",
            "try_mailbox",
            "kept",
            "throw_away",
        )
    ),
}
VALUES = {"slug": "form-1", "key": "newsletter", "filename": "app.css", "token": "x", "domain": "example.org"}


def urls(app: Flask, method: str) -> Iterator[tuple[str, str]]:
    """(endpoint, path) of every URL that requires signing in; ``<any(…)>`` gives one path per alternative."""
    for rule in app.url_map.iter_rules():
        if method in (rule.methods or ()) and not getattr(app.view_functions[rule.endpoint], "is_public", False):
            for path in paths(rule):
                yield rule.endpoint, path


def paths(rule: Rule) -> list[str]:
    found = [re.sub(r"<int:\w+>", "1", rule.rule)]
    while "<any(" in found[0]:
        found = [
            path.replace(several[0], one, 1)
            for path in found
            if (several := re.search(r"<any\(([^)]*)\):\w+>", path))
            for one in several[1].split(",")
        ]
    return [re.sub(r"<(?:\w+:)?(\w+)>", lambda name: VALUES[name[1]], path) for path in found]


@pytest.fixture
def furnished(app: Flask, settings: config.Settings) -> Flask:
    config.set_settings(dataclasses.replace(settings, catcher=True))
    with MailStore().open() as box:
        box.execute(
            "INSERT INTO mails (at, sender, recipient, subject, raw) VALUES (0, 'a', ?, ?, ?)",
            (
                sample_rows.EMAIL,
                f"Hello {sample_rows.FIRST}",
                f"Subject: Hello\r\n\r\nHello {sample_rows.FIRST}\r\n".encode(),
            ),
        )
    with db.transaction() as session:
        sample_rows.insert_sample_rows(session)
    return app


def test_viewers_see_their_pages_and_no_personal_data(furnished: Flask, viewer_client: FlaskClient) -> None:
    wrong: list[tuple[str, object]] = []
    for endpoint, path in urls(furnished, "GET"):
        answer = viewer_client.get(path)
        if answer.status_code not in ((200, 204, 303) if endpoint in VIEWER_PAGES | OPEN_TO_ALL_ROLES else (403,)):
            wrong.append((path, answer.status_code))
        wrong += [(path, word) for word in exposed_secrets(answer.text)]
        if endpoint in VIEWER_PAGES:
            for question in (f"?q={sample_rows.LAST}&contact=1&part=text", "?contact=1"):
                body = viewer_client.get(path + question).text.replace(f"q={sample_rows.LAST}", "")
                body = body.replace(f'value="{sample_rows.LAST}"', "")  # The search box repeats the query.
                wrong += [(path + question, word) for word in exposed_secrets(body)]
    assert wrong == [], "\n".join(map(str, wrong))


def exposed_secrets(body: str) -> list[str]:
    return [word for word in sample_rows.SECRETS if word in body]


def test_viewers_may_not_post(furnished: Flask, viewer_client: FlaskClient) -> None:
    wrong = []
    for endpoint, path in urls(furnished, "POST"):
        status = viewer_client.post(path).status_code
        if status != 403 and not (endpoint in OPEN_TO_ALL_ROLES and status < 500):
            wrong.append((path, status))
    assert wrong == [], "\n".join(map(str, wrong))


def test_coordinators_have_no_access_to_users_and_settings(furnished: Flask, coordinator_client: FlaskClient) -> None:
    wrong = []
    for method in ("GET", "POST"):
        for endpoint, path in urls(furnished, method):
            status = coordinator_client.open(path, method=method).status_code
            if (status == 403) != (endpoint in OWNERS_ONLY) or status >= 500:
                wrong.append((method, path, status))
    assert wrong == [], "\n".join(map(str, wrong))


def test_owners_get_no_server_errors(furnished: Flask, owner_client: FlaskClient) -> None:
    """GET pages are covered by ``test_any_input``."""
    for _, path in urls(furnished, "POST"):
        status = owner_client.post(path).status_code
        assert status < 500, path
        assert status != 403, path


def test_impossible_ids_are_not_found(furnished: Flask, owner_client: FlaskClient) -> None:
    """One of the numbers per URL, in turn; with ``TORTURE`` all of them."""
    impossible = ("99999999999999999999", str(2**63 - 1), "0")
    for method in ("GET", "POST"):
        for place, rule in enumerate(furnished.url_map.iter_rules()):
            if "<int:" in rule.rule and method in (rule.methods or ()):
                for number in impossible if os.environ.get("TORTURE") else (impossible[place % 3],):
                    path = re.sub(r"<any\((\w+)[^>]*>", r"\1", rule.rule)
                    path = re.sub(r"<int:\w+>", number, path)
                    expected = (401, 404) if path.startswith("/api/") else (400, 404, 405)
                    assert owner_client.open(path, method=method).status_code in expected, (method, path)
