"""MJML validator: findings with line and column, refused content, and rendering."""

import re
import socket
from html import unescape

import pytest

from campaigns.content.mjml import validator
from tests.content.fixtures import compile_mjml, findings, mjml_source


def first_column(source: str) -> int | None:
    return compile_mjml(source).findings[0].column


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "error 1: <mjml> is missing."),
        ("just words", "error 1: Text cannot stand directly"),
        ("<mjml>", "error 1: <mjml> is never closed."),
        (mjml_source("<script>alert(1)</script>"), "error 4: <script> is not possible in a mail."),
        (mjml_source("<iframe src='https://x.org/'></iframe>"), "error 4: <iframe> is not possible in a mail."),
        (mjml_source('<a href="https://x.org/" onclick="x()">a</a>'), "error 4: The attribute onclick is not possible"),
        (mjml_source('<p style="width: expression(alert(1))">a</p>'), "error 4: Scripts are not possible in a mail."),
        (mjml_source("<![CDATA[ x ]]>"), "error 4: CDATA sections are not possible"),
        ('<?xml version="1.0"?>' + mjml_source(), "error 1: An XML declaration or processing instruction"),
        ("<!DOCTYPE mjml>" + mjml_source(), "error 1: Declarations such as <!DOCTYPE>"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + mjml_source("&a;"), "error 1: Declarations such as <!DOCTYPE>"),
        (mjml_source("<p>one<p>two"), "error 4: </mj-text> stands here, but <p> of line 4 is still open."),
        (mjml_source("</b>"), "error 4: </b> closes nothing."),
        (mjml_source("a < b"), "error 4: A single < begins a tag"),
        (mjml_source("<p align=center>x</p>"), "error 4: Put the value of align in quotes."),
        (mjml_source("<td nowrap>x</td>"), "error 4: The attribute nowrap has no value."),
        (mjml_source('<p class="a" class="b">x</p>'), "error 4: The attribute class stands here twice."),
        (mjml_source('<p class="a>x</p>'), "error 4: This tag cannot be read"),
        (mjml_source("<!-- never closed"), "error 4: This comment is never closed"),
        (mjml_source("<blink>x</blink>"), "error 4: There is no element <blink>."),
        (mjml_source("<mj-foo>x</mj-foo>"), "error 4: There is no element <mj-foo>."),
        (mjml_source('<mj-include path="/etc/passwd" />'), "error 4: Includes are not possible"),
        (mjml_source("<mj-column></mj-column>"), "error 4: <mj-column> cannot stand here; its place is in"),
        ("<mjml><mj-body>\n<p>x</p></mj-body></mjml>", "error 2: <p> cannot stand directly in <mj-body>"),
        (
            mjml_source(head="<mj-html-attributes></mj-html-attributes>"),
            "error 1: <mj-html-attributes> is not possible.",
        ),
        (mjml_source(head="<style>a{}</style>"), "error 1: Write style sheets into <mj-style>"),
        (mjml_source(head="<mj-style>@import url(https://x.org/);</mj-style>"), "error 1: Scripts and imports are not"),
        (mjml_source('<img src="https://x.org/a.png" />'), "warning 4: This image has no alt text"),
        (mjml_source("a\x00b"), "error 4: This place holds an invisible control character"),
        (mjml_source("a\ud800b"), "error 4: This place holds an invisible control character"),
        (mjml_source("<!--[if mso]><script>x</script><![endif]-->"), "error 4: Scripts are not possible in a mail."),
    ],
)
def test_errors_have_a_line(source: str, message: str) -> None:
    assert any(each.startswith(message) for each in findings(source)), findings(source)


def test_errors_have_a_column() -> None:
    assert first_column(mjml_source("abc <script>x</script>")) == len("<mj-text>abc <")
    assert first_column(mjml_source("سلام {{ contact.nobody }}")) == len("<mj-text>سلام {{ c")


def test_crlf_counts_as_one_line_end() -> None:
    assert any(
        "4: There is no element" in each for each in findings(mjml_source("<blink>x</blink>").replace("\n", "\r\n"))
    )


@pytest.mark.parametrize(
    "source",
    [
        "<mjml><mj-body>" + "<mj-section>" * 20_000,
        "<mjml><mj-body>" + "<mj-section>" * 20_000 + "</mj-section>" * 20_000 + "</mj-body></mjml>",
        mjml_source("<div>" * 20_000 + "</div>" * 20_000),
        mjml_source("<b>x</b>" * 6_000),
        mjml_source("{% if contact.email %}" * 5_000 + "{% endif %}" * 5_000),
    ],
)
def test_deep_and_endless_nesting_is_refused(source: str) -> None:
    reported = findings(source)
    assert reported
    assert len(reported) <= validator.MAX_FINDINGS + 2
    assert not compile_mjml(source).html


def test_a_source_beyond_the_cap_is_refused() -> None:
    assert findings(mjml_source("x" * validator.MAX_SOURCE_BYTES)) == ["error None: The MJML is larger than 256 KB."]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ["<a ", "{{ '", "<!--", "{{", "<p a='", "</", "<mj-style>", "&", "{% if x %}", '<a href="']
)
def test_unclosed_constructs_finish_in_time(unit: str) -> None:
    compile_mjml("<mjml>" + unit * (200_000 // len(unit)))


def test_html_is_tidied_for_mrml() -> None:
    html = compile_mjml(
        mjml_source("one<br>two<BR>three &nbsp; R&D <IMG SRC='https://x.org/a\"b.png' ALT='it\"s'>")
    ).html
    assert "one<br />two<br />three &nbsp; R&D" in html
    assert 'alt="it&quot;s"' in html


@pytest.mark.parametrize("mark", ["\u200c", "\u200d", "\u200e", "\u200f", "\u064b", "\u00a0", "\\", "می‌خواهم", "👩‍💻"])
def test_characters_that_mrml_mangles_come_through(mark: str) -> None:
    html = compile_mjml(mjml_source(f'<img src="https://x.org/a.png" alt="a{mark}b" /> c{mark}d')).html
    found = re.search(r'alt="a(.*?)b"', html)
    assert found is not None
    assert unescape(found[1]) == mark
    assert "u{" not in html
    assert f"c{mark}d" in html


def test_language_direction_title_preheader_and_colour_scheme() -> None:
    page = compile_mjml(
        mjml_source(), subject="سلام & {{ contact.first_name }}", preheader="خبر <تازه>", language="fa"
    ).html
    assert '<html lang="fa" dir="rtl"' in page
    assert "<title>سلام &amp; {{ contact.first_name }}</title>" in page
    assert "خبر &lt;تازه&gt;" in page
    assert '<meta name="color-scheme" content="light"' in page
    assert "direction:rtl" in page
    assert "text-align:right" in page
    dark = compile_mjml(
        mjml_source(head="<mj-style>@media (prefers-color-scheme: dark) { a { color: red } }</mj-style>")
    ).html
    assert '<meta name="color-scheme" content="light dark"' in dark


def test_an_own_title_and_preview_stay() -> None:
    source = mjml_source(head="<mj-title>Mine</mj-title><mj-preview>Own {{ contact.email }}</mj-preview>")
    found = compile_mjml(source, preheader="unused")
    assert "<title>Mine</title>" in found.html
    assert found.html.count("unused") == 0
    assert found.preheader == "Own {{ contact.email }}"
    assert [str(each) for each in found.findings] == ["The MJML has an <mj-preview> of its own; this text is not used."]


def test_inline_styles_are_inlined_and_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    head = (
        '<mj-style inline="inline">.red { color: red }</mj-style>'
        '<mj-font name="Remote" href="http://127.0.0.1:9/font.css" />'
    )
    page = compile_mjml(mjml_source('<p class="red">x {{ contact.email }}</p>', head)).html
    assert re.search(r'<p class="red" style="color: red;?">x \{\{ contact.email \}\}</p>', page)
    assert "fonts.googleapis.com" not in page


def test_comments_are_removed() -> None:
    page = compile_mjml(
        mjml_source("<!-- not sure about {{ this.field }} -->Hello<!--[if mso]>Outlook<![endif]-->")
    ).html
    assert "not sure" not in page
    assert "<!--[if mso]>Outlook<![endif]-->" in page


def test_literal_braces_are_not_evaluated() -> None:
    page = compile_mjml(
        mjml_source("&#123;&#123; 7 * 7 }} &#123;% x %}", "<mj-style>@media print{#a{color:red}}</mj-style>")
    )
    assert not page.findings
    from campaigns.content.rendering import jinja_sandbox

    html = jinja_sandbox.render_limited(jinja_sandbox.HTML_ENVIRONMENT.from_string(page.html), {"organisation": {}})
    text = jinja_sandbox.render_limited(jinja_sandbox.TEXT_ENVIRONMENT.from_string(page.text), {"organisation": {}})
    assert "@media print{#a{color:red}}" in html
    assert "{{ 7 * 7 }} {% x %}" in text
    assert "49" not in html
