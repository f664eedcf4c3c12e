"""Tests of concurrent changes to one activity."""

import threading

import pytest
from sqlalchemy import Engine

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.errors import ValidationFailed
from campaigns.planning import launch
from campaigns.planning.activities import update_activity
from campaigns.planning.models import Activity, Channel
from tests.factories import make_activity, make_list


def test_audience_change_during_launch_is_refused(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The editor reads a draft, the launch checks its preflight and commits, then the editor saves."""
    with db.transaction() as session:
        first, second = make_list(session), make_list(session)
        activity = make_activity(session, everybody=False, list_id=first.id, channel=Channel.EMAIL)
    launched, read, refused = threading.Event(), threading.Event(), []
    monkeypatch.setattr(launch, "_freeze_message", lambda *_: None)

    def edit() -> None:
        with db.new_session(read_only=True) as session:  # simulates a read before the write lock is acquired
            seen = session.get_one(Activity, activity.id)
            session.rollback() if database.dialect.name == "sqlite" else None
            read.set()
            launched.wait(100)
            session.bind = db.engine()
            try:
                update_activity(session, SYSTEM, seen, list_id=second.id)
                session.commit()
            except ValidationFailed:
                refused.append(True)

    editor = threading.Thread(target=edit)
    editor.start()
    read.wait(100)
    with db.transaction() as session:
        launch.launch(session, SYSTEM, session.get_one(Activity, activity.id))
    launched.set()
    editor.join()
    assert refused
    with db.read_only_session() as session:
        assert session.get_one(Activity, activity.id).email.list_id == first.id
