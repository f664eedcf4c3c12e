"""Links: validation of targets, numbering, personalisation and encoding."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.content.rendering import links
from campaigns.errors import ValidationFailed
from campaigns.tokens import Purpose, open_send_token
from tests.content.fixtures import compile_mjml, findings, mjml_source

HOSTS = {"ours.local", "127.0.0.1"}


@pytest.mark.parametrize(
    "url",
    [
        "https://x.org/",
        "http://x.org",
        "HTTPS://X.ORG/a?b=c#d",
        "https://x.org:8443/",
        "https://ours.local/f/a",
        "http://127.0.0.1:8000/f/a",
        "https://x.org/{{ contact.email }}",
        "https://x.org/?a={{ contact.email }}&b=1",
        "https://пример.рф/путь",
        "https://مثال.ایران/صفحه",
        "https://8.8.8.8/",
        "https://x.org/a%20b",
    ],
)
def test_valid_targets(url: str) -> None:
    assert links.url_problem(url, HOSTS) is None
    assert links.to_ascii_url(url).isascii()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "no address"),
        ("javascript:alert(1)", "http:// or https://"),
        ("JaVaScRiPt:alert(1)", "http:// or https://"),
        ("java\tscript:alert(1)", "blanks"),
        ("data:text/html,x", "http:// or https://"),
        ("vbscript:x", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("ftp://x.org/", "http:// or https://"),
        ("www.x.org", "whole address"),
        ("x.org/page", "whole address"),
        ("/page", "whole address"),
        ("//x.org/", "whole address"),
        ("page.html", "whole address"),
        ("https:", "no host"),
        ("https:///x", "no host"),
        ("https://", "no host"),
        ("https://localhost/", "private network"),
        ("https://a.localhost./", "private network"),
        ("https://printer.local/", "private network"),
        ("https://intranet/", "private network"),
        ("http://10.0.0.1/", "private network"),
        ("http://192.168.1.1/", "private network"),
        ("http://169.254.169.254/latest/meta-data", "private network"),
        ("http://[::1]/", "private network"),
        ("http://2130706433/", "private network"),
        ("http://0x7f.1/", "private network"),
        ("https://good.org@evil.org/", "user name"),
        ("https://x.org\\@evil.org/", "backslashes"),
        ("https://x.org/a b", "blanks"),
        ("https://x.org:port/", "cannot be read"),
        ("https://-x-.org/", "cannot be read"),
        ("{{ contact.email }}", "cannot be merged"),
        ("{{ contact.email }}://x.org", "cannot be merged"),
        ("https://{{ contact.email }}/", "cannot be merged"),
        ("https://x.{{ contact.email }}/", "cannot be merged"),
        ("https://x.org{{ contact.email }}", "cannot be merged"),
        ("https://x.org:{{ contact.email }}/", "cannot be merged"),
        ("https://x.org/{% if contact.email %}a{% endif %}", "Conditions"),
        ("https://x.org/" + "a" * 2000, "too long"),
    ],
)
def test_invalid_targets(url: str, problem: str) -> None:
    assert problem in (links.url_problem(url, {"ours.local"}) or "")


def test_link_problems_have_a_line() -> None:
    reported = findings(
        mjml_source('\n<a href="javas&#99;ript:alert(1)">x</a> <a href="">y</a> <a href="www.x.org">z</a>')
    )
    assert [each.partition(":")[0] for each in reported] == ["error 5"] * 3


def test_every_web_link_gets_its_number_and_label() -> None:
    found = compile_mjml(
        mjml_source(
            '<a href="https://a.org/?x=1&amp;y=2">Read <b>more</b> &amp; win</a>'
            '<a href="https://b.org/"><img src="https://b.org/i.png" alt="The shop" /></a>'
            '<a href="mailto:x@y.org?subject=Hi%20there">write</a><a href="tel:+995">call</a><a href="#top">up</a>'
            '<a href="https://c.org/{{ contact.email }}">for {{ contact.email }}</a>'
            '<a href="{{ unsubscribe_url }}">leave</a>'
        )
    )
    assert [(each.number, each.url, each.label) for each in found.links] == [
        (1, "https://a.org/?x=1&y=2", "Read more & win"),
        (2, "https://b.org/", "The shop"),
        (3, "https://c.org/{{ contact.email }}", "for {{ contact.email }}"),
    ]
    hrefs = re.findall(r'href="([^"]*)"', found.html)
    assert hrefs == [
        "{{ links[1] }}",
        "{{ links[2] }}",
        "mailto:x@y.org?subject=Hi%20there",
        "tel:+995",
        "#top",
        "{{ links[3] }}",
        "{{ unsubscribe_url }}",
    ]
    assert "kampania-footer" not in found.html  # the source has an unsubscribe link of its own
    for piece in (
        "Read more & win <{{ links[1] }}>",
        "The shop <{{ links[2] }}>",
        "leave <{{ unsubscribe_url }}>",
        "write <x@y.org",
    ):
        assert piece in found.text


def test_images_need_public_urls() -> None:
    for source in ("data:image/png;base64,x", "cid:a", "//x.org/a.png", "http://10.0.0.1/a.png", "a.png"):
        assert "error 4: A picture needs a public" in findings(mjml_source(f'<img alt="" src="{source}" />'))[0]


def test_urls_of_a_send() -> None:
    tracked = links.tracked_url(7 << 32 | 9, 3)
    assert tracked.endswith("/3")
    assert open_send_token(Purpose.ENGAGEMENT, tracked.split("/")[-2]) == 7 << 32 | 9
    assert open_send_token(Purpose.ENGAGEMENT, links.pixel_url(5).rpartition("/")[2]) == 5
    assert open_send_token(Purpose.UNSUBSCRIBE, links.unsubscribe_url(5).rpartition("/")[2]) == 5


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_merged_value_stays_in_its_part_of_the_url(value: str) -> None:
    value = value.encode("utf-8", "ignore").decode()
    url = links.personalise_url(
        "https://x.org/p/{{ contact.first_name }}/q?n={{ contact.first_name }}&b=1#end",
        {"contact": {"first_name": value}},
    )
    parts = urlsplit(url)
    assert url.isascii()
    assert parts.netloc == "x.org"
    assert parts.fragment == "end"
    assert parse_qs(parts.query, keep_blank_values=True) == {"n": [value], "b": ["1"]}
    assert parts.path.count("/") == 3


def test_value_is_encoded_once() -> None:
    assert (
        links.personalise_url("https://x.org/?n={{ a.b|urlencode }}", {"a": {"b": "ä &"}})
        == "https://x.org/?n=%C3%A4%20%26"
    )


def test_changed_origin_is_refused() -> None:
    with pytest.raises(ValidationFailed):
        links.personalise_url("https://x.org{{ a.b }}", {"a": {"b": "evil"}})


@settings(max_examples=300)
@given(st.text(max_size=80) | st.text("htps:/.@[]{}%\\#?x0 1\t", max_size=30).map("https://".__add__))
def test_accepted_text_becomes_a_complete_ascii_url(url: str) -> None:
    if links.url_problem(url, set()) is None:
        whole = links.to_ascii_url(url)
        assert links.url_origin(whole).startswith(("http://", "https://"))
        assert re.fullmatch(r"[!-~]+", re.sub(r"\{\{.*?\}\}", "", whole, flags=re.DOTALL))
