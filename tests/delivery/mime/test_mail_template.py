"""Tests of mail templates: rendered mails, read by two parsers, equal those of the reference composer."""

import re
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact
from campaigns.content.models import Link, MessageVersion
from campaigns.delivery.mime import dkim, mail_template
from campaigns.delivery.mime.compose import MailContext, compose
from campaigns.delivery.mime.segment_renderer import _CompiledTemplate
from campaigns.delivery.models import Send
from campaigns.errors import ValidationFailed
from campaigns.planning.models import Activity, Campaign, EmailDetails
from tests.delivery.launched_activity import parse_mail
from tests.delivery.mime import reference_composer, rfc_parser

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

TEXTS = [
    "Hello",
    " ",
    "\n",
    "\n\n\n",
    ".",
    "From ",
    "=",
    "=3D",
    " \n",
    "\t",
    "x" * 80,
    "é",
    "გამარჯობა",
    "سلام دنیا\u200c",
    "Привет",
    "👩‍👩‍👧‍👦",
    "<b>&amp;</b>",
    "\r\n",
    "a" * 74,
    "a" * 75,
    "a" * 76,
    "é" * 30,
    "." * 80,
    "--=_x",
    '"',
]
FIELDS = [
    "{{ contact.first_name }}",
    "{{ contact.city }}",
    "{{ links[1] }}",
    "{{ links[2] }}",
    "{{ unsubscribe_url }}",
    "{{ organisation.name }}",
    "{{ contact.first_name|default('friend') }}",
    "{{ contact.city|upper|truncate(9) }}",
    '{{ "{" }}',
]
BLOCKS = [
    "{% if contact.city %}\n",
    "{% if contact.city == 'x' %}",
    "{% if not contact.first_name and contact.city %}",
    "{% if pixel %}",
    "{% for n in range(2) %}",
    "{% for n in range(3) %}{{ loop.index0 }}{{ loop.last }}{{ n }}",
    "{% for contact in range(2) %}",
    "{% for n in contact.city %}{% if loop.first %}{{ n }}{% endif %}",
    "{% for n in range(2) if n %}",
    "{% for word in contact.city|split('=') %}{% if word == 'x' %}{{ word|upper }}{% endif %}",
    "{% for word in contact.city|split(',') %}{{ word }}{{ loop.index }}",
]
LOOPS = ("{% for",)

plain = st.lists(st.sampled_from(TEXTS + FIELDS), max_size=12).map("".join)


def _block(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def written(opening: str, body: str, other: str, behind: str) -> str:
        if opening.startswith(LOOPS):
            return f"{opening}{body}{{% endfor %}}{behind}"
        return f"{opening}{body}{{% else %}}{other}{{% endif %}}{behind}"

    return st.builds(written, st.sampled_from(BLOCKS), inner, plain, plain)


templates = st.recursive(plain, _block, max_leaves=4)
values = st.lists(st.sampled_from([*TEXTS, "<", "x,y"]), max_size=6).map("".join) | st.text(max_size=40)


def make_mail_context(
    html: str,
    text: str,
    first: str,
    city: str,
    *,
    subject: str = "News",
    trackable: bool = True,
    transactional: bool = False,
) -> MailContext:
    campaign = Campaign(id=41, name="Spring & Co")
    activity = Activity(id=42, campaign_id=41, campaign=campaign, built_in="api" if transactional else None)
    activity.email_details = EmailDetails(list_id=7)
    organisation = Organisation(name="Us", sender_name="Us", sender_email="us@example.org", postal_address="Street 1")
    targets = "https://example.org/1", "https://example.org/2?a=1&city={{ contact.city }}"
    links = [Link(number=n, url=url, label="") for n, url in enumerate(targets, 1)]
    version = MessageVersion(
        content_hash="x",
        subject=subject,
        preheader="",
        html=html,
        text=text,
        from_name="Us",
        from_email="us@example.org",
        reply_to="",
        language="en",
        links=links,
    )
    contact = Contact(email="ana@example.net", first_name=first, last_name="", attributes={"city": city})
    return MailContext(
        Send(id=(42 << 32) + 1, address=contact.email), activity, organisation, version, contact, None, trackable
    )


def bodies(message: EmailMessage) -> list[str]:
    return [part.get_content().replace("\r\n", "\n") for part in message.iter_parts()]


@given(templates, templates, values, values, st.booleans(), st.booleans())
def test_equals_reference_composer(html: str, text: str, first: str, city: str, trackable: bool, single: bool) -> None:
    made = make_mail_context(html, text, first, city, trackable=trackable, transactional=single)
    try:
        mail = compose(made, AT)
    except ValidationFailed as refused:  # Nested loops may exceed the maximum output size.
        assert "beyond every measure" in str(refused)  # noqa: PT017
        return
    expected = reference_composer.compose_reference(made, AT)
    texts = [body.rstrip("\n") for body in bodies(parse_mail(mail.content))]
    assert texts == [body.rstrip("\n") for body in bodies(expected)]
    independent = rfc_parser.parse(mail.content)
    assert [part.text.rstrip("\n") for part in independent.parts] == texts
    body = mail.content.partition(b"\r\n\r\n")[2]
    assert dkim._canonical_body(body) == body  # Signing skips the canonicalisation.
    for line in mail.content.removesuffix(b"\r\n").split(b"\r\n"):
        assert not re.search(rb"[\r\n]|^\.|^From |[ \t]$", line)
        assert len(line) <= 76 or line.startswith((b"List-Unsubscribe", b"Content-Type: multipart"))


@given(values, values)
def test_values_do_not_add_headers(first: str, city: str) -> None:
    made = make_mail_context("x", "x", first, city, subject="{{ contact.first_name }} – {{ contact.city }}")
    mail = compose(made, AT)
    message, independent = parse_mail(mail.content), rfc_parser.parse(mail.content)
    assert len(message.keys()) == len(independent.headers) == 11
    assert message["Subject"] == reference_composer.compose_reference(made, AT)["Subject"]


@pytest.mark.parametrize(
    ("source", "flat"),
    [
        ("{{ contact.first_name|default('you') }} {{ links[1] }}", True),
        ("{% for n in range(2) %}{{ loop.index }}{{ n }}{% else %}x{% endfor %}", True),
        ("{% for contact in range(2) %}{{ contact }}{% endfor %}", False),
        ("{% set n = 2 %}{{ n }}", False),
    ],
)
def test_unsupported_templates_use_jinja(source: str, flat: bool) -> None:
    made = make_mail_context(source, source, "Ana", "")
    assert made.version is not None
    template = mail_template.build_template(made.version, made.activity, made.organisation, True)
    assert isinstance(template.html, _CompiledTemplate) is isinstance(template.text, _CompiledTemplate) is flat
