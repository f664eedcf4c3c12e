"""MJML validator: findings with line and column, refused content, and rendering."""

import re
import socket
from html import unescape

import pytest

from campaigns.content.mjml import validator
from tests.content.fixtures import built, findings, mail


def column(source: str) -> int | None:
    return built(source).findings[0].column


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "error 1: <mjml> is missing."),
        ("just words", "error 1: Text cannot stand directly"),
        ("<mjml>", "error 1: <mjml> is never closed."),
        (mail("<script>alert(1)</script>"), "error 4: <script> is not possible in a mail."),
        (mail("<iframe src='https://x.org/'></iframe>"), "error 4: <iframe> is not possible in a mail."),
        (mail('<a href="https://x.org/" onclick="x()">a</a>'), "error 4: The attribute onclick is not possible"),
        (mail('<p style="width: expression(alert(1))">a</p>'), "error 4: Scripts are not possible in a mail."),
        (mail("<![CDATA[ x ]]>"), "error 4: CDATA sections are not possible"),
        ('<?xml version="1.0"?>' + mail(), "error 1: An XML declaration or processing instruction"),
        ("<!DOCTYPE mjml>" + mail(), "error 1: Declarations such as <!DOCTYPE>"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + mail("&a;"), "error 1: Declarations such as <!DOCTYPE>"),
        (mail("<p>one<p>two"), "error 4: </mj-text> stands here, but <p> of line 4 is still open."),
        (mail("</b>"), "error 4: </b> closes nothing."),
        (mail("a < b"), "error 4: A single < begins a tag"),
        (mail("<p align=center>x</p>"), "error 4: Put the value of align in quotes."),
        (mail("<td nowrap>x</td>"), "error 4: The attribute nowrap has no value."),
        (mail('<p class="a" class="b">x</p>'), "error 4: The attribute class stands here twice."),
        (mail('<p class="a>x</p>'), "error 4: This tag cannot be read"),
        (mail("<!-- never closed"), "error 4: This comment is never closed"),
        (mail("<blink>x</blink>"), "error 4: There is no element <blink>."),
        (mail("<mj-foo>x</mj-foo>"), "error 4: There is no element <mj-foo>."),
        (mail('<mj-include path="/etc/passwd" />'), "error 4: Includes are not possible"),
        (mail("<mj-column></mj-column>"), "error 4: <mj-column> cannot stand here; its place is in"),
        ("<mjml><mj-body>\n<p>x</p></mj-body></mjml>", "error 2: <p> cannot stand directly in <mj-body>"),
        (mail(head="<mj-html-attributes></mj-html-attributes>"), "error 1: <mj-html-attributes> is not possible."),
        (mail(head="<style>a{}</style>"), "error 1: Write style sheets into <mj-style>"),
        (mail(head="<mj-style>@import url(https://x.org/);</mj-style>"), "error 1: Scripts and imports are not"),
        (mail('<img src="https://x.org/a.png" />'), "warning 4: This image has no alt text"),
        (mail("a\x00b"), "error 4: This place holds an invisible control character"),
        (mail("a\ud800b"), "error 4: This place holds an invisible control character"),
        (mail("<!--[if mso]><script>x</script><![endif]-->"), "error 4: Scripts are not possible in a mail."),
    ],
)
def test_what_is_wrong_is_named_with_its_line(source: str, said: str) -> None:
    assert any(each.startswith(said) for each in findings(source)), findings(source)


def test_the_column_is_named_too() -> None:
    assert column(mail("abc <script>x</script>")) == len("<mj-text>abc <")
    assert column(mail("سلام {{ contact.nobody }}")) == len("<mj-text>سلام {{ c")


def test_a_line_of_windows_ends_counts_once() -> None:
    assert any("4: There is no element" in each for each in findings(mail("<blink>x</blink>").replace("\n", "\r\n")))


@pytest.mark.parametrize(
    "source",
    [
        "<mjml><mj-body>" + "<mj-section>" * 20_000,
        "<mjml><mj-body>" + "<mj-section>" * 20_000 + "</mj-section>" * 20_000 + "</mj-body></mjml>",
        mail("<div>" * 20_000 + "</div>" * 20_000),
        mail("<b>x</b>" * 6_000),
        mail("{% if contact.email %}" * 5_000 + "{% endif %}" * 5_000),
    ],
)
def test_deep_and_endless_nesting_is_refused(source: str) -> None:
    said = findings(source)
    assert said
    assert len(said) <= validator.MOST_FINDINGS + 2
    assert not built(source).html


def test_a_source_beyond_the_cap_is_refused() -> None:
    assert findings(mail("x" * validator.LARGEST_SOURCE)) == ["error None: The MJML is larger than 256 KB."]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ["<a ", "{{ '", "<!--", "{{", "<p a='", "</", "<mj-style>", "&", "{% if x %}", '<a href="']
)
def test_repeated_beginnings_take_no_time(unit: str) -> None:
    built("<mjml>" + unit * (200_000 // len(unit)))


def test_html_is_tidied_for_mrml() -> None:
    html = built(mail("one<br>two<BR>three &nbsp; R&D <IMG SRC='https://x.org/a\"b.png' ALT='it\"s'>")).html
    assert "one<br />two<br />three &nbsp; R&D" in html
    assert 'alt="it&quot;s"' in html


@pytest.mark.parametrize("mark", ["\u200c", "\u200d", "\u200e", "\u200f", "\u064b", "\u00a0", "\\", "می‌خواهم", "👩‍💻"])
def test_characters_that_mrml_mangles_come_through(mark: str) -> None:
    html = built(mail(f'<img src="https://x.org/a.png" alt="a{mark}b" /> c{mark}d')).html
    found = re.search(r'alt="a(.*?)b"', html)
    assert found is not None
    assert unescape(found[1]) == mark
    assert "u{" not in html
    assert f"c{mark}d" in html


def test_language_direction_title_preheader_and_colour_scheme() -> None:
    page = built(mail(), subject="سلام & {{ contact.first_name }}", preheader="خبر <تازه>", language="fa").html
    assert '<html lang="fa" dir="rtl"' in page
    assert "<title>سلام &amp; {{ contact.first_name }}</title>" in page
    assert "خبر &lt;تازه&gt;" in page
    assert '<meta name="color-scheme" content="light"' in page
    assert "direction:rtl" in page
    assert "text-align:right" in page
    dark = built(mail(head="<mj-style>@media (prefers-color-scheme: dark) { a { color: red } }</mj-style>")).html
    assert '<meta name="color-scheme" content="light dark"' in dark


def test_an_own_title_and_preview_stay() -> None:
    source = mail(head="<mj-title>Mine</mj-title><mj-preview>Own {{ contact.email }}</mj-preview>")
    found = built(source, preheader="unused")
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
    page = built(mail('<p class="red">x {{ contact.email }}</p>', head)).html
    assert re.search(r'<p class="red" style="color: red;?">x \{\{ contact.email \}\}</p>', page)
    assert "fonts.googleapis.com" not in page


def test_notes_among_colleagues_do_not_leave_the_house() -> None:
    page = built(mail("<!-- not sure about {{ this.field }} -->Hello<!--[if mso]>Outlook<![endif]-->")).html
    assert "not sure" not in page
    assert "<!--[if mso]>Outlook<![endif]-->" in page


def test_braces_of_style_sheets_and_entities_stay_words() -> None:
    page = built(mail("&#123;&#123; 7 * 7 }} &#123;% x %}", "<mj-style>@media print{#a{color:red}}</mj-style>"))
    assert not page.findings
    from campaigns.content.rendering import jinja_sandbox

    html = jinja_sandbox.fill(jinja_sandbox.HTML.from_string(page.html), {"organisation": {}})
    text = jinja_sandbox.fill(jinja_sandbox.TEXT.from_string(page.text), {"organisation": {}})
    assert "@media print{#a{color:red}}" in html
    assert "{{ 7 * 7 }} {% x %}" in text
    assert "49" not in html
