"""Merge expressions: permitted syntax, and refusals with field and line."""

import pytest

from campaigns.content.rendering import jinja_sandbox
from tests.content.fixtures import compile_mjml, findings, mjml_source

NAMES = {
    "contact": {"first_name": "Sára <b>", "last_name": "", "email": "s@x.org", "language": "en"},
    "campaign": {"name": "Spring"},
    "organisation": {"name": "Acme", "postal_address": "", "sender_name": "", "sender_email": ""},
    "links": {},
    "unsubscribe_url": "https://u",
}


def render_expression(words: str) -> str:
    found = compile_mjml(mjml_source(f"«{words}»"))
    assert not found.findings, [str(each) for each in found.findings]
    html = jinja_sandbox.render_limited(jinja_sandbox.HTML_ENVIRONMENT.from_string(found.html), NAMES)
    return html[html.index("«") + 1 : html.index("»")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("{{ contact.first_name }}", "Sára &lt;b&gt;"),
        ("{{ contact.last_name }}", ""),
        ("{{contact.last_name|default('friend')}}", "friend"),
        ('{{ contact.last_name | default("a > b }}") }}', "a &gt; b }}"),
        ("{{ contact.email|upper }}", "S@X.ORG"),
        ("{{ 'abcdefgh'|truncate(5) }}", "abcd…"),
        ("{{ 'anna maria'|title }}", "Anna Maria"),
        ("{% if contact.last_name %}a{% elif contact.email == 's@x.org' %}b{% else %}c{% endif %}", "b"),
        ("{% if contact.first_name and not contact.last_name %}x{% endif %}", "x"),
        ("{% for i in range(3) %}{{ loop.index }}{% endfor %}", "123"),
        ("{% for w in 'a,b'|split(',') %}<i>{{ w }}</i>{% endfor %}", "<i>a</i><i>b</i>"),
        ("{% for w in ['a', contact.email] %}{{ w }} {% endfor %}", "a s@x.org "),
        ("{# a note #}x", "x"),
        ("{{ contact.first_name ~ '!' }}", "Sára &lt;b&gt;!"),
    ],
)
def test_permitted_expressions(words: str, expected: str) -> None:
    assert render_expression(words) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a\n{{ contact.nonsense }}", "error 5: Unknown merge field contact.nonsense."),
        ("{{ contact.frist_name }}", "error 4: Unknown merge field contact.frist_name. Did you mean"),
        ("{{ nobody }}", "error 4: Unknown merge field nobody."),
        ("{{ contact }}", "error 4: Unknown merge field contact."),
        ("{{ links[1] }}", "error 4: This is not possible in a merge expression"),
        ("{{ pixel }}", "error 4: Unknown merge field pixel."),
        ("{{ contact.first_name.upper() }}", "error 4: This is not possible in a merge expression"),
        ("{{ contact.__class__ }}", "error 4: Unknown merge field contact.__class__."),
        ("{{ ''.__class__.__mro__ }}", "error 4: A merge field has two parts"),
        ("{{ contact.email.__class__ }}", "error 4: A merge field has two parts"),
        ("{{ self }}", "error 4: Unknown merge field self."),
        ("{{ range(3) }}", "error 4: This is not possible in a merge expression"),
        ("{{ cycler }}", "error 4: Unknown merge field cycler."),
        ("{{ 'a' * 50000000 }}", "error 4: This is not possible in a merge expression"),
        ("{{ 10 ** 10 ** 10 }}", "error 4: This is not possible in a merge expression"),
        ("{{ 'a' % 10 }}", "error 4: This is not possible in a merge expression"),
        ("{{ contact.email|attr('x') }}", "error 4: There is no filter attr; possible are: capitalize"),
        ("{{ contact.email|safe }}", "error 4: There is no filter safe"),
        ("{% for i in range(10**9) %}x{% endfor %}", "error 4: A loop can go over a list"),
        ("{% for i in range(51) %}x{% endfor %}", "error 4: A loop can go over a list"),
        ("{% for i in range(9) %}" * 3 + "x" + "{% endfor %}" * 3, "error 4: At most 2 loops"),
        ("{% for contact in range(9) %}x{% endfor %}", "error 4: The loop's name contact is taken"),
        ("{% for a, b in range(9) %}x{% endfor %}", "error 4: Write a loop as {% for item in … %}."),
        ("{% for i in range(9) recursive %}x{% endfor %}", "error 4: Write a loop as"),
        ("{% set x = 1 %}", "error 4: Only {{ … }}, {% if %} and {% for %} are possible in a message."),
        ("{% include 'x' %}", "error 4: Only {{ … }}"),
        ("{% import 'os' as os %}", "error 4: Only {{ … }}"),
        ("{% macro x() %}{% endmacro %}", "error 4: Only {{ … }}"),
        ("{% raw %}{{ x }}{% endraw %}", "error 4: Only {{ … }}"),
        ("{% if contact.email %}x", "error 4: This merge expression cannot be read: Unexpected end of template"),
        ("{{ contact. }}", "error 4: This merge expression cannot be read"),
        ("{{ contact.email", "error 4: The merge expression that begins with {{ is not closed with }}."),
        ("{{ " + "(" * 400 + "1" + ")" * 400 + " }}", "error None: Merge expressions are nested too deeply."),
        ("<p {{ contact.email }}>x</p>", "error 4: A merge expression cannot stand here; inside a tag"),
        ('<p class="{{ contact.email }}">x</p>', "error 4: Merge expressions are not possible in the attribute class."),
        ('<p title="{% if contact.email %}x{% endif %}">x</p>', "error 4: Conditions and loops are not possible"),
        ("{% if contact.email %}<p>x{% endif %}</p>", "error 4: endif must stand in the same element as its if."),
        ("<table>{{ contact.email }}<tr><td>x</td></tr></table>", "error 4: A merge field cannot stand directly"),
    ],
)
def test_refused_expressions(expression: str, message: str) -> None:
    assert any(each.startswith(message) for each in findings(mjml_source(expression))), findings(
        mjml_source(expression)
    )


def test_fields_between_elements_are_refused_and_conditions_are_not() -> None:
    source = mjml_source().replace("<mj-section>\n", "{{ contact.email }}<mj-section>\n")
    assert "A merge field cannot stand directly in <mj-body>" in findings(source)[0]
    source = mjml_source().replace("<mj-section>", "{% if contact.email %}<mj-section>")
    source = source.replace("</mj-section>", "</mj-section>{% endif %}")
    assert findings(source) == []
    html = compile_mjml(source).html
    assert "{% if contact.email %}" in html
    assert "{% endif %}" in html


def test_rows_of_a_table_can_be_repeated() -> None:
    page = render_expression("<table>{% for i in range(2) %}<tr><td>{{ i }}</td></tr>{% endfor %}</table>")
    assert page == "<table><tr><td>0</td></tr><tr><td>1</td></tr></table>"


@pytest.mark.parametrize(("where", "other"), [("subject", "preheader"), ("preheader", "subject")])
def test_subject_and_preheader_are_checked_too(where: str, other: str) -> None:
    for text, message in (
        ("Hi {{ contact.nobody }}", "Unknown merge field contact.nobody."),
        ("a\nb", "Line breaks and control characters are not possible here."),
        ("a\r\nBcc: x@y.org", "Line breaks and control characters are not possible here."),
        ("{{ x", "The merge expression that begins with {{ is not closed with }}."),
    ):
        found = compile_mjml(mjml_source(), **{where: text, other: "fine"}).findings
        assert [(each.field, str(each)) for each in found] == [(where, message)]


def test_a_missing_subject() -> None:
    assert findings(mjml_source(), subject="  ") == ["error None: The subject is missing."]
