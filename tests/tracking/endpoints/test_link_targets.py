"""Link target cache: links of a mail redirect from the first mail on, even when the database is down."""

import dataclasses

import pytest
from sqlalchemy import Engine

from campaigns import config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.delivery.models import Send
from campaigns.delivery.queue import batch, link_cache
from campaigns.delivery.queue.expansion import expand
from campaigns.delivery.transactional import enqueue
from campaigns.planning import links as planned
from campaigns.planning import system_activities
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, mint_send_token
from tests.delivery.launched_activity import load_sends, make_mailing, make_version
from tests.tracking.fixtures import Answer, wsgi_request
from tracking.endpoints import link_targets


def launch_mailing() -> int:
    with db.transaction() as session:
        activity_id = make_mailing(session, 2).id
    expand(activity_id)
    return activity_id


def restart_without_database(settings: config.Settings) -> None:
    """Restart the web process without a database, on the host whose worker claimed the batch."""
    config.set_settings(dataclasses.replace(settings))
    db.set_engine(db.make_engine("sqlite:////nowhere/at/all.db"))


def click(send_id: int, number: int = 1) -> Answer:
    return wsgi_request(f"/c/{mint_send_token(Purpose.ENGAGEMENT, send_id)}/{number}")


def test_links_are_cached_before_the_first_mail_is_sent(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_mailing()
    send_ids = [send.id for send in load_sends(activity_id)]
    assert batch.claim(activity_id, 1) is not None  # The batch is claimed, no mail sent, and no sync has run.
    restart_without_database(settings)
    for send_id in (*send_ids, activity_id << 32):
        assert click(send_id).headers["Location"] == "https://example.org/offer"
    assert click(send_ids[0], 2).status == 404


@pytest.mark.parametrize("kind", ["test", "api"])
def test_links_of_single_mails_are_cached(
    database: Engine, settings: config.Settings, kind: system_activities.SystemActivityKind
) -> None:
    with db.transaction() as session:
        make_mailing(session, 1)
        version = make_version(session)
        added = [
            enqueue.enqueue_send(session, kind, f"{n}@example.org", str(n), version_id=version.id) for n in range(3)
        ]
        activity_id, send_ids = added[0].activity_id, [send.id for send in added]
    if kind == "test":
        assert batch.claim(activity_id, 10) is not None
    else:  # After one lookup the target is cached, too: the mail was sent from another host.
        assert [click(send_id).status for send_id in send_ids] == [302] * 3
    restart_without_database(settings)
    assert [click(send_id).headers.get("Location") for send_id in send_ids] == ["https://example.org/offer"] * 3
    assert click(send_ids[-1] + 1).status == 503, "nobody can say whether there is such a mail"


def test_a_worker_never_overwrites_newer_cached_links(database: Engine) -> None:
    activity_id = launch_mailing()
    with db.transaction() as session:
        planned.override_mail_link(
            session, SYSTEM, session.get_one(Activity, activity_id), 1, "https://example.org/new"
        )
    link_targets.sync()
    kept = (link_cache.directory() / f"{activity_id}.json").read_bytes()
    assert batch.claim(activity_id, 1) is not None
    link_cache.write_json(f"{activity_id}.json", {1: "https://example.org/old"}, new=True)
    assert (link_cache.directory() / f"{activity_id}.json").read_bytes() == kept
    assert [path.name for path in link_cache.directory().glob("*.*.*")] == [], "temporary files are removed"


def test_a_change_before_the_first_mail_is_cached(database: Engine) -> None:
    activity_id = launch_mailing()
    with db.transaction() as session:
        planned.override_mail_link(session, SYSTEM, session.get_one(Activity, activity_id), 1, planned.SWITCHED_OFF)
    assert batch.claim(activity_id, 1) is not None
    assert link_cache.links_for_activity(activity_id) == {1: planned.SWITCHED_OFF}


def test_a_cache_write_error_does_not_block_sending(database: Engine, settings: config.Settings) -> None:
    activity_id = launch_mailing()
    link_cache.directory().parent.mkdir(exist_ok=True)
    link_cache.directory().write_text("a file where the directory should be")
    assert batch.claim(activity_id, 1) is not None
    assert click(load_sends(activity_id)[0].id).status == 302, "the database knows the way"


def test_scheduled_activities_are_not_cached(database: Engine, settings: config.Settings) -> None:
    """A scheduled activity may be reopened and changed; no mail with the older links is ever sent."""
    activity_id = launch_mailing()
    with db.transaction() as session:
        session.get_one(Activity, activity_id).launched_at = None
    link_targets.sync()
    assert link_cache.links_for_activity(activity_id) is None
    with db.read_only_session() as session:
        assert session.get(Send, activity_id << 32 | 1) is not None
