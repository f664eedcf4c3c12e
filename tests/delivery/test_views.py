"""Tests of the pages of preflight, progress, sends and test mails."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select, update

from campaigns import db
from campaigns.accounts.models import AuditLogEntry
from campaigns.audience.models import Contact
from campaigns.delivery.models import Send, SendState
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.relays import availability
from campaigns.delivery.smtp.address import relay_from_settings
from campaigns.planning.models import Activity, ActivityStatus, EmailDetails, Preflight
from tests.delivery.launched_activity import count_states, grant_consent, load_sends, make_mailing
from tests.factories import make_activity, make_contact, make_list, make_message

MJML = """<mjml><mj-body><mj-section><mj-column>
<mj-text>Hello {{ contact.first_name }}</mj-text><mj-button href="https://example.org/offer">Offer</mj-button>
</mj-column></mj-section></mj-body></mjml>"""


def make_draft(**values: Any) -> int:
    with db.transaction() as session:
        people = make_list(session, make_contact(session), make_contact(session, first_name=""))
        message = make_message(session, mjml=values.pop("mjml", MJML))
        return make_activity(session, everybody=False, list_id=people.id, message_id=message.id, **values).id


def launch_with_state(size: int = 4, state: SendState = SendState.UNKNOWN) -> int:
    with db.transaction() as session:
        activity_id = make_mailing(session, size).id
    expand(activity_id)
    with db.transaction() as session:
        first = select(Send.id).where(Send.activity_id == activity_id).order_by(Send.id).limit(2)
        session.execute(
            update(Send).where(Send.id.in_(first)).values(state=state, reply="451 4.3.0 id A1B2C3D4 a@b.example")
        )
    return activity_id


def test_preflight_counts_and_names_reasons(coordinator_client: FlaskClient) -> None:
    activity_id = make_draft()
    asked = coordinator_client.get(f"/activities/{activity_id}/preflight", headers={"HX-Request": "true"})
    assert "Run the preflight" in asked.text
    assert coordinator_client.post(f"/activities/{activity_id}/preflight").status_code == 303
    with db.read_only_session() as session:
        found = session.scalars(select(Preflight)).one()
    assert found.audience == {"total": 2, "mailable": 0, "no_consent": 2}
    assert not found.passed
    shown = coordinator_client.get(f"/activities/{activity_id}/preflight")
    assert shown.status_code == 200
    assert "Nobody in the audience can be e-mailed." in shown.text
    assert "No consent to mail" in shown.text
    with db.transaction() as session:
        make_contact(session)
        session.execute(
            update(EmailDetails).where(EmailDetails.activity_id == activity_id).values(everybody=True, list_id=None)
        )
    assert "has changed since" in coordinator_client.get(f"/activities/{activity_id}/preflight").text


def test_missing_values_warn_but_do_not_block_launch(coordinator_client: FlaskClient) -> None:
    activity_id = make_draft()
    with db.transaction() as session:
        for contact in session.scalars(select(Contact)):
            grant_consent(session, contact)
    coordinator_client.post(f"/activities/{activity_id}/preflight")
    shown = coordinator_client.get(f"/activities/{activity_id}/preflight").text
    assert "Preflight passed" in shown
    assert "Go on to the launch" in shown
    assert "1 of 2 recipients have no value for contact.first_name" in shown
    launched = coordinator_client.post(f"/activities/{activity_id}/launch")
    assert launched.status_code == 303
    with db.read_only_session() as session:
        assert session.get_one(Activity, activity_id).status is ActivityStatus.LIVE


def test_preflight_names_the_line_of_an_error(coordinator_client: FlaskClient) -> None:
    activity_id = make_draft(mjml=MJML.replace("first_name", "frist_name"))
    coordinator_client.post(f"/activities/{activity_id}/preflight")
    shown = coordinator_client.get(f"/activities/{activity_id}/preflight").text
    assert "Line 2" in shown
    assert "frist_name" in shown
    assert "Open the message" in shown
    with db.transaction() as session:
        (preflight,) = session.scalars(select(Preflight))
        finding: Any = {
            "level": "error",
            "message": "%(n)s of them",
            "field": "subject",
            "line": 1,
            "params": {"n": 1234},
        }
        preflight.findings = [*preflight.findings, finding]
    assert "Subject: 1,234 of them" in coordinator_client.get(f"/activities/{activity_id}/preflight").text


def test_viewer_sees_progress_but_neither_people_nor_buttons(viewer_client: FlaskClient) -> None:
    activity_id = launch_with_state()
    shown = viewer_client.get(f"/activities/{activity_id}/progress")
    assert shown.status_code == 200
    assert "Count as sent" not in shown.text
    assert viewer_client.get(f"/activities/{activity_id}/sends").status_code == 403
    assert viewer_client.post(f"/activities/{activity_id}/preflight").status_code == 403
    viewer_client.post(f"/activities/{activity_id}/sends/unknown/sent")
    assert count_states(activity_id)["unknown"] == 2


def test_progress_counts_and_relay_trouble(coordinator_client: FlaskClient) -> None:
    activity_id = launch_with_state()
    availability.record_failure(relay_from_settings(), "Connection refused")
    shown = coordinator_client.get(f"/activities/{activity_id}/progress").text
    assert "2 / 4" in shown
    assert "Connection refused" in shown
    fragment = coordinator_client.get(f"/activities/{activity_id}/progress/counts").text
    assert "<html" not in fragment
    assert "sends stay due" in fragment


@pytest.mark.parametrize(("decision", "after"), [("sent", "sent"), ("failed", "failed"), ("again", "queued")])
def test_unknown_sends_are_resolved_and_audited(coordinator_client: FlaskClient, decision: str, after: str) -> None:
    activity_id = launch_with_state()
    answer = coordinator_client.post(f"/activities/{activity_id}/sends/unknown/{decision}")
    assert answer.status_code == 303
    assert count_states(activity_id).get("unknown", 0) == 0
    assert count_states(activity_id)[after] >= 2
    with db.read_only_session() as session:
        entry = session.scalars(select(AuditLogEntry).where(AuditLogEntry.action == "resolve unknown")).one()
    assert entry.detail["sends"] == 2


def test_single_send_is_resolved(coordinator_client: FlaskClient) -> None:
    activity_id = launch_with_state()
    only = load_sends(activity_id, SendState.UNKNOWN)[0].id
    coordinator_client.post(f"/activities/{activity_id}/sends/unknown/sent", data={"send": str(only)})
    assert count_states(activity_id) == {"sent": 1, "unknown": 1, "queued": 2}


def test_nothing_is_resent_after_the_end(coordinator_client: FlaskClient) -> None:
    activity_id = launch_with_state()
    with db.transaction() as session:
        session.execute(update(Activity).values(status=ActivityStatus.FINISHED))
    coordinator_client.post(f"/activities/{activity_id}/sends/unknown/again")
    assert count_states(activity_id)["unknown"] == 2
    coordinator_client.post(f"/activities/{activity_id}/sends/held/sent")
    assert count_states(activity_id)["unknown"] == 2


def test_sends_are_paged_without_a_query_for_each(
    coordinator_client: FlaskClient,
    database: Engine,
    count_queries: Callable[[Engine], AbstractContextManager[list[str]]],
) -> None:
    activity_id = launch_with_state(60)
    with count_queries(database) as queries:
        shown = coordinator_client.get(f"/activities/{activity_id}/sends")
    assert shown.status_code == 200
    assert len([query for query in queries if query.startswith("SELECT")]) <= 8
    assert shown.text.count("@example.net") == 25
    assert 'rel="next"' in shown.text
    assert coordinator_client.get(f"/activities/{activity_id}/sends?state=unknown").text.count("@example.net") == 2
    assert coordinator_client.get(f"/activities/{activity_id}/sends?state=nonsense").status_code == 200


def test_pages_of_other_channels_are_404(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        other = make_activity(session, channel="social", everybody=False).id
    for path in ("preflight", "progress", "progress/counts", "sends"):
        assert coordinator_client.get(f"/activities/{other}/{path}").status_code == 404
    assert coordinator_client.get("/activities/999/progress").status_code == 404


def test_test_mail(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        message_id = make_message(session, mjml=MJML).id
    where = f"/messages/{message_id}/test-mail"
    form = {"address": "Me@Acme.example", "key": "k1", "next": f"/messages/{message_id}"}
    for _ in range(2):  # A double click sends once.
        assert coordinator_client.post(where, data=form).status_code == 303
    with db.read_only_session() as session:
        (send,) = session.scalars(select(Send)).all()
    assert send.address.lower() == "me@acme.example"
    assert send.state is SendState.QUEUED
    evil = coordinator_client.post(where, data=form | {"next": "//evil.example"})
    assert evil.headers["Location"] == f"/messages/{message_id}"
    coordinator_client.post(where, data={"address": "not an address"})
    with db.read_only_session() as session:
        assert len(session.scalars(select(Send)).all()) == 1


def test_a_test_mail_with_a_contacts_values_to_several(coordinator_client: FlaskClient) -> None:
    with db.transaction() as session:
        message_id, contact_id = make_message(session, mjml=MJML).id, make_contact(session).id
    where = f"/messages/{message_id}/test-mail"
    form = {"address": "a@acme.example, b@acme.example;a@acme.example", "key": "k", "contact": str(contact_id)}
    assert coordinator_client.post(where, data=form).status_code == 303
    coordinator_client.post(where, data=form | {"key": "k2", "address": ",".join(f"x{n}@b.example" for n in range(11))})
    with db.read_only_session() as session:
        found = session.scalars(select(Send).order_by(Send.id)).all()
    assert [(send.address, send.contact_id) for send in found] == [
        ("a@acme.example", contact_id),
        ("b@acme.example", contact_id),
    ]


def test_viewer_sends_no_test_mail(viewer_client: FlaskClient) -> None:
    with db.transaction() as session:
        message_id = make_message(session, mjml=MJML).id
    assert viewer_client.post(f"/messages/{message_id}/test-mail", data={"address": "a@b.example"}).status_code == 403
