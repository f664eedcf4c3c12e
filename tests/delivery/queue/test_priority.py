"""Test of priority: a test mail is sent while a launch uses all the connections that it may use."""

import dataclasses
import threading
import time

from sqlalchemy import Engine

from campaigns import config, db
from campaigns.delivery.queue import scheduler
from campaigns.delivery.transactional import enqueue
from campaigns.delivery.worker.worker import deliver
from campaigns.planning.models import Activity
from tests.delivery.fake_relay import answering
from tests.delivery.launched_activity import states
from tests.delivery.relays.test_relays import enter
from tests.delivery.worker.test_worker import launched

SIZE = 60


def test_a_test_mail_waits_for_no_launch(database: Engine, settings: config.Settings) -> None:
    activity_id, under_way = launched(SIZE), threading.Event()

    def answer(number: int) -> bytes:
        """Reply of the relay: delays the launch's mails until the test mail arrives."""
        if number > 4:
            under_way.set()
            deadline = time.monotonic() + 60
            while b"RCPT TO:<me@example.net>" not in relay.words and time.monotonic() < deadline:
                time.sleep(0.01)
        return b"250 2.0.0 taken"

    with answering(settings, dot=answer) as relay:
        config.install(dataclasses.replace(settings, private_relays=True))
        enter(relay, connections=2)
        launch = threading.Thread(target=deliver, args=(activity_id, 60.0))
        launch.start()
        assert under_way.wait(60)
        with db.transaction() as session:
            version_id = session.get_one(Activity, activity_id).email.version_id
            urgent = enqueue.add(session, "test", "me@example.net", "once", version_id=version_id).activity_id
        assert urgent in scheduler.find().urgent
        assert deliver(urgent) == 1
        assert states(urgent) == {"sent": 1}
        launch.join()
    assert states(activity_id) == {"sent": SIZE}
    words = relay.words
    assert words.index(b"RCPT TO:<me@example.net>") < len(words) - SIZE, "long before the launch was over"
