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
from tests.delivery.fake_relay import run_fake_relay
from tests.delivery.launched_activity import count_states
from tests.delivery.relays.test_relays import create_relays
from tests.delivery.worker.test_worker import launch_mailing

SIZE = 60


def test_test_mail_is_sent_during_a_launch(database: Engine, settings: config.Settings) -> None:
    activity_id, launch_started = launch_mailing(SIZE), threading.Event()

    def answer(number: int) -> bytes:
        """Reply of the relay: delays the launch's mails until the test mail arrives."""
        if number > 4:
            launch_started.set()
            deadline = time.monotonic() + 60
            while b"RCPT TO:<me@example.net>" not in relay.commands and time.monotonic() < deadline:
                time.sleep(0.01)
        return b"250 2.0.0 taken"

    with run_fake_relay(settings, dot=answer) as relay:
        config.set_settings(dataclasses.replace(settings, private_relays=True))
        create_relays(relay, connections=2)
        launch = threading.Thread(target=deliver, args=(activity_id, 60.0))
        launch.start()
        assert launch_started.wait(60)
        with db.transaction() as session:
            version_id = session.get_one(Activity, activity_id).email.version_id
            urgent = enqueue.enqueue_send(session, "test", "me@example.net", "once", version_id=version_id).activity_id
        assert urgent in scheduler.find_due_work().urgent
        assert deliver(urgent) == 1
        assert count_states(urgent) == {"sent": 1}
        launch.join()
    assert count_states(activity_id) == {"sent": SIZE}
    commands = relay.commands
    assert commands.index(b"RCPT TO:<me@example.net>") < len(commands) - SIZE, "long before the launch was over"
