"""Mail renderer: values of contact fields stay text, in HTML, text part and headers."""

import html
import re
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.audience.models import Contact
from campaigns.content.mjml import compiler
from campaigns.content.rendering import renderer
from campaigns.content.rendering.renderer import MergeUrls
from tests.content.fixtures import ORGANISATION, compile_mjml, mjml_source

URLS = MergeUrls({1: "https://t.org/c/a/1"}, "https://t.org/o/a", "https://t.org/u/a")


def make_version(mjml: str, subject: str = "For {{ contact.first_name }}") -> SimpleNamespace:
    found = compile_mjml(mjml, subject=subject, preheader="Pre {{ contact.first_name }}")
    assert not found.findings
    return SimpleNamespace(
        content_hash=str(hash((mjml, subject))),
        subject=found.subject,
        preheader=found.preheader,
        html=found.html,
        text=found.text,
    )


def make_fields(**values: object) -> dict[str, dict[str, str]]:
    made = Contact(**{"email": "a@x.org", "first_name": "", "last_name": "", "attributes": {}, **values})
    return renderer.recipient_fields(made, "Spring", ORGANISATION)


LINKED = mjml_source('Hi «{{ contact.first_name }}» <a href="https://x.org/?n={{ contact.first_name }}">go</a>')


@settings(max_examples=150)
@given(
    st.text(max_size=80)
    | st.sampled_from(["{{ 7*7 }}", "{% if", "ندا جان\u200c", '"><script>', "👩‍💻", "a\r\nBcc: x@y.org"])
)
def test_any_value_stays_text(value: str) -> None:
    merged = renderer.render(make_version(LINKED), make_fields(first_name=value), URLS)
    inside = merged.html[merged.html.index("Hi «") + 4 : merged.html.rindex("» <a")]
    assert html.unescape(inside) == html.unescape(str(html.escape(value)))
    assert "<" not in inside
    lines = value.replace("\r\n", "\n").replace("\r", "\n")
    assert f"«{lines}»" in merged.text or re.search(r"\n{3}", lines)
    for line in (merged.subject, merged.preheader):
        assert not re.search(r"[\r\n\x00-\x1f\x7f\u2028\u2029]", line)


def test_empty_fields_render_as_nothing() -> None:
    merged = renderer.render(make_version(LINKED), make_fields(), URLS)
    assert "«»" in merged.html
    assert merged.subject == "For"


def test_urls_are_inserted() -> None:
    merged = renderer.render(make_version(LINKED), make_fields(), URLS)
    assert 'href="https://t.org/c/a/1"' in merged.html
    assert 'src="https://t.org/o/a"' in merged.html
    assert 'href="https://t.org/u/a"' in merged.html
    assert "go <https://t.org/c/a/1>" in merged.text
    assert "Unsubscribe <https://t.org/u/a>" in merged.text
    assert "1 Main Street, Tbilisi" in merged.text


def test_no_image_without_a_pixel() -> None:
    merged = renderer.render(
        make_version(LINKED), make_fields(), MergeUrls({1: "https://x.org/?n="}, None, "https://t.org/u/a")
    )
    assert "<img" not in merged.html


def test_a_persian_subject_keeps_its_joiners() -> None:
    merged = renderer.render(make_version(mjml_source(), "می‌خواهم 👩‍💻"), make_fields(), URLS)
    assert merged.subject == "می‌خواهم 👩‍💻"


def test_attributes_are_fields_and_cannot_override_columns() -> None:
    fields = make_fields(first_name="Ann", attributes={"city": "Tbilisi", "first_name": "Eve", "items": "3"})
    assert fields["contact"]["city"] == "Tbilisi"
    assert fields["contact"]["first_name"] == "Ann"
    draft = compiler.MessageDraft("x", "", mjml_source("«{{ contact.items }} {{ contact.keys }}»"), "en")
    found = compiler.compile_draft(draft, ["contact.items", "contact.keys"], ())
    made = SimpleNamespace(content_hash="attributes", subject="x", preheader="", html=found.html, text=found.text)
    assert "«3 »" in renderer.render(made, fields, URLS).html


def test_the_same_hash_is_compiled_once() -> None:
    made = make_version(LINKED)
    renderer.render(made, make_fields(first_name="a"), URLS)
    hits = renderer._compile_templates.cache_info().hits
    renderer.render(made, make_fields(first_name="b"), URLS)
    assert renderer._compile_templates.cache_info().hits == hits + 1
