"""Labels anew by the present rules: everything that counts them moves along, a portion at a time."""

from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from campaigns import clock, db
from campaigns.accounts.actor import CLOCK
from tests.conftest import FrozenClock
from tests.tracking.scene import events, make_mailing, send_row
from tests.tracking.test_collect import check_counts
from tracking import collect, relabel, rollups, settle
from tracking.models import Event, Kind, Label
from tracking.relabel import Moved


def test_labels_and_all_that_counts_them_move(
    database: Engine, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relabel, "PORTION", 2)
    mailing, began = make_mailing(5), clock.now()
    for index in range(5):
        frozen.at += timedelta(minutes=2)
        mailing.click(index=index, ip=f"198.51.{index}.9")
    collect.collect_once()
    frozen.at += timedelta(minutes=20)
    settle.settle_due()
    with db.transaction() as session:  # As rules of another day would have said, counted so.
        session.execute(update(Event).values(label=Label.SCANNER, rules=0))
        rollups.rebuild(session)
    until = frozen.at
    expected = Counter({Moved(mailing.activity_id, Kind.CLICK, Label.SCANNER, Label.HUMAN): 5})
    assert relabel.relabel(CLOCK, began, until, dry_run=True) == expected
    assert {event.label for event in events()} == {Label.SCANNER}
    assert relabel.relabel(CLOCK, began, began + timedelta(minutes=5)).total() == 2
    assert relabel.relabel(CLOCK, began, until).total() == 3
    assert relabel.relabel(CLOCK, began, until).total() == 0
    assert {event.label for event in events()} == {Label.HUMAN}
    assert all(send_row(send).clicked_at for send in mailing.sends)
    check_counts()
