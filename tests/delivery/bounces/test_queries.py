"""Tests of recorded feedback on the list and on the pages of the contact, the activity and the campaign."""

from datetime import timedelta

from flask.testing import FlaskClient
from sqlalchemy import Engine

from campaigns import db
from campaigns.planning.models import Activity
from tests.conftest import FrozenClock
from tests.delivery.bounces.test_record import deliver_report, dsn_for, make_sends, send_of


def test_feedback_is_listed_on_every_page(
    database: Engine, frozen: FrozenClock, coordinator_client: FlaskClient, viewer_client: FlaskClient
) -> None:
    activity_id, [unknown_user, mailbox_full, delivered] = make_sends(3)
    deliver_report(dsn_for(unknown_user, "5.1.1", "smtp; 550 5.1.1 <b>nobody</b> here"))
    deliver_report(dsn_for(mailbox_full, "5.2.2", "smtp; 552 5.2.2 mailbox full"))
    page = coordinator_client.get("/returns").text
    assert "&lt;b&gt;nobody&lt;/b&gt; here" in page
    assert (page.count(send_of(unknown_user).address), page.count(send_of(mailbox_full).address)) == (1, 1)
    hard = coordinator_client.get("/returns?finding=hard").text
    assert send_of(unknown_user).address in hard
    assert send_of(mailbox_full).address not in hard
    assert "Nothing found" in coordinator_client.get(f"/returns?activity={activity_id}&finding=complaint").text
    assert (
        send_of(mailbox_full).address
        in coordinator_client.get(f"/returns?q={send_of(mailbox_full).address[:9].upper()}").text
    )
    for nonsense in ("finding=delivered", "activity=x", "activity=99999999999999999", "after=x", "q=%25"):
        assert coordinator_client.get(f"/returns?{nonsense}").status_code == 200
    assert viewer_client.get("/returns").status_code == 403

    with db.read_only_session() as session:
        campaign_id = session.get_one(Activity, activity_id).campaign_id
    for path in (f"/activities/{activity_id}/returns", f"/campaigns/{campaign_id}/returns"):
        fragment_text = coordinator_client.get(path).text
        assert "5.1.1" in fragment_text
        assert "mailbox full" in fragment_text
        to_viewer = viewer_client.get(path).text
        assert "5.2.2" in to_viewer
        assert "mailbox full" not in to_viewer  # The diagnostic may contain personal data.

    fragment = coordinator_client.get(f"/contacts/{send_of(mailbox_full).contact_id}/returns").text
    assert "1 mail of the last 13 weeks bounced softly" in fragment
    assert "At 5, over at least a week" in fragment
    assert "552 5.2.2 mailbox full" in fragment
    assert coordinator_client.get(f"/contacts/{send_of(delivered).contact_id}/returns").text.strip() == ""
    assert viewer_client.get(f"/contacts/{send_of(mailbox_full).contact_id}/returns").status_code == 403
    frozen.at += timedelta(weeks=14)
    later = coordinator_client.get(f"/contacts/{send_of(mailbox_full).contact_id}/returns").text
    assert "bounced softly" not in later
    assert "mailbox full" in later


def test_the_list_is_paged(database: Engine, coordinator_client: FlaskClient) -> None:
    _, ids = make_sends(26)
    for send_id in ids:
        deliver_report(dsn_for(send_id))
    first = coordinator_client.get("/returns").text
    assert first.count('href="/sends/') == 25
    next_url = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert coordinator_client.get(next_url).text.count('href="/sends/') == 1
