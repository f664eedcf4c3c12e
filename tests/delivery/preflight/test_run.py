"""Tests of the preflight: findings about content and sender, and detection of later changes."""

from datetime import timedelta

from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts.actor import SYSTEM
from campaigns.content.fallbacks import field_fallbacks
from campaigns.content.mjml.compiler import MessageDraft
from campaigns.delivery.domains import authentication, dkim_keys
from campaigns.delivery.models import DomainCheck
from campaigns.delivery.preflight import run
from campaigns.planning.models import Activity, Preflight
from tests.delivery.launched_activity import grant_consent
from tests.factories import make_activity, make_contact, make_list, make_message, make_organisation

MJML = """<mjml><mj-body><mj-section><mj-column>
<mj-image src="http://example.net/a.png" />
<mj-text>Hello {{ contact.first_name|default("friend") }}, {{ contact.last_name }}
{% if contact.language %}!{% endif %}</mj-text><mj-button href="https://example.net/offer">Offer</mj-button>
</mj-column></mj-section></mj-body></mjml>"""


def mailing(session: Session, **values: str) -> Activity:
    make_organisation(session)
    listed = make_list(
        session, grant_consent(session, make_contact(session, first_name="", last_name="", language=None))
    )
    message = make_message(session, **{"mjml": MJML, "from_email": "news@example.net", **values})
    return make_activity(session, everybody=False, list_id=listed.id, message_id=message.id)


def messages(found: Preflight) -> list[str]:
    return [str(each["message"]) % each["params"] for each in found.findings]


def test_content_warnings_do_not_block_launch(session: Session) -> None:
    found = run.evaluate_and_save(session, SYSTEM, mailing(session, subject="s" * 80, preheader=""))
    text = " | ".join(messages(found))
    assert found.passed
    assert "1 pictures are not fetched by https" in text
    assert "The subject has 80 characters" in text
    assert "There is no preheader" in text
    assert "This image has no alt text" in text
    assert "no value for contact.first_name: they read “friend”" in text
    assert "no value for contact.last_name: it stays empty" in text
    assert "no value for contact.language; a condition decides" in text
    assert "Nobody has looked at the DNS of example.net" in text
    assert found.facts["links"] == 1
    assert (found.facts["pictures"], found.facts["undescribed"]) == (1, 1)
    assert found.facts["text"]


def test_changed_parts_are_named(session: Session) -> None:
    activity = mailing(session)
    assert run.preflight_status(session, activity).preflight is None
    run.evaluate_and_save(session, SYSTEM, activity)
    assert run.preflight_status(session, activity).is_current
    make_message(session)
    listed, activity.email.list_id = activity.email.list_id, make_list(session, make_contact(session)).id
    assert list(run.preflight_status(session, activity).changed) == ["audience"]
    activity.email.list_id = listed
    assert run.preflight_status(session, activity).is_current


def store_domain_check(session: Session, *, days: int = 0, **states: str) -> None:
    results = {name: {"state": state, "message": "", "params": {}} for name, state in states.items()}
    results.setdefault("dmarc", {})["params"] = {"record": "v=DMARC1; p=reject"}
    session.merge(DomainCheck(domain="example.net", checked_at=clock.now() - timedelta(days=days), results=results))
    session.flush()


def sender_findings(session: Session) -> tuple[list[str], bool]:
    found = authentication.check_authentication(session, "News@mail.Example.net").findings
    return [each.message % each.params for each in found], any(each.level.value == "error" for each in found)


def test_unauthenticated_sender_is_an_error(session: Session) -> None:
    store_domain_check(session, spf="missing", dkim="missing", dmarc="good")
    words, wrong = sender_findings(session)
    assert wrong
    assert any("neither SPF nor DKIM" in each for each in words)
    store_domain_check(session, spf="good", dkim="missing", dmarc="good")
    words, wrong = sender_findings(session)
    assert not wrong
    assert words == ["Mail from mail.example.net is not signed with DKIM: make keys at “Sending domains”."]


def test_authenticated_sender_passes_until_the_check_is_old(session: Session) -> None:
    for key in dkim_keys.create_keys(session, SYSTEM, "example.net"):
        key.published_at = key.created_at
        dkim_keys.activate(session, SYSTEM, key)
    store_domain_check(session, spf="good", dkim="good", dmarc="good")
    assert sender_findings(session) == ([], False)
    store_domain_check(session, days=9, spf="good", dkim="doubtful", dmarc="good")
    words, wrong = sender_findings(session)
    assert not wrong
    assert [each.split(":")[0] for each in words] == [
        "The DNS of mail.example.net was looked at 9 days ago",
        "Not all DKIM keys of mail.example.net are published",
    ]


def test_fallbacks() -> None:
    draft = MessageDraft(
        "Hi {{ contact.a | d('x') }}", "{{ contact.a }}", "{% if contact.b %}{{ contact.c }}{% endif %}", "en"
    )
    assert field_fallbacks(draft) == {"contact.a": ["x", ""], "contact.c": [""]}
