"""Golden files of every starter template and system mail.

``KAMPANIA_GOLDEN=write pytest tests/content/test_golden.py`` rewrites the files.
"""

import os
from pathlib import Path

import pytest

from campaigns.content import merge_fields, system_mail, versions
from campaigns.content.mjml.diagnostics import Severity
from campaigns.content.rendering.renderer import RenderedMessage
from campaigns.content.starter_templates import STARTERS, StarterTemplate
from campaigns.errors import NotFound
from tests.content.fixtures import ORGANISATION

GOLDEN = Path(__file__).parent / "golden"
CONTEXTS: dict[str, dict[str, object]] = {
    "password": {"name": "Ann & Ben", "link": "https://k.example/password/reset/abc?x=1&y=2", "hours": 2},
    "new_lead": {
        "person": "Ann",
        "name": "Ben <b>",
        "email": "ben@x.org",
        "campaign": "Spring",
        "activity": "Landing page {{ 1 }}",
        "url": "https://k.example/leads/7",
    },
}


def assert_matches_golden(name: str, merged: RenderedMessage) -> None:
    found = {
        f"{name}.html": merged.html,
        f"{name}.txt": f"Subject: {merged.subject}\nPreheader: {merged.preheader}\n\n{merged.text}",
    }
    for file, text in found.items():
        path = GOLDEN / file
        if os.environ.get("KAMPANIA_GOLDEN") == "write":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), file


@pytest.mark.parametrize("starter", STARTERS, ids=lambda starter: starter.key)
def test_starters(starter: StarterTemplate) -> None:
    found = versions.compile_in_sandbox(starter.draft, ORGANISATION, merge_fields.BUILT_IN_FIELDS)
    assert {str(each) for each in found.findings} == {"This still leads to the example's address."}
    assert all(each.level is Severity.WARNING for each in found.findings)
    assert found.size < 20_000
    assert_matches_golden(
        starter.key, versions.preview(found, merge_fields.sample_fields(starter.language, ORGANISATION))
    )


@pytest.mark.parametrize("language", ["en", "fa"])
@pytest.mark.parametrize("kind", sorted(CONTEXTS))
def test_system_mail(kind: str, language: str) -> None:
    merged = system_mail.render(kind, language, CONTEXTS[kind], ORGANISATION)
    assert "<b>" not in merged.html
    assert_matches_golden(f"system-{kind}-{language}", merged)


def test_system_mail_falls_back_to_english() -> None:
    for language in ("ka", "", "en-GB", "../fa"):
        assert (
            "Choose a new password"
            in system_mail.render("password", language, CONTEXTS["password"], ORGANISATION).subject
        )


@pytest.mark.parametrize("kind", ["nothing", "../system/en/password", "layout", ""])
def test_an_unknown_kind(kind: str) -> None:
    with pytest.raises(NotFound):
        system_mail.render(kind, "en", {}, ORGANISATION)


def test_a_name_cannot_break_a_header() -> None:
    context = {**CONTEXTS["new_lead"], "name": "Ben\r\nBcc: x@y.org"}
    assert "\n" not in system_mail.render("new_lead", "en", context, ORGANISATION).subject
