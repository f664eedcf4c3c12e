"""Tests of the demo's simulated bounces: types and numbers, identical in every run with one seed."""

import random
from collections import Counter

from campaigns import config
from campaigns.delivery.bounces.intake import maildir
from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing import parser
from campaigns.delivery.mime import verp
from campaigns.demo import simulated_bounces
from campaigns.demo.reader_behaviour import family_of
from campaigns.demo.traffic_model import ReaderProfile
from campaigns.mail_catcher.store import StoredMail


def mails(activity_id: int, count: int) -> list[StoredMail]:
    made = [(activity_id << 32 | n, f"p{n}@d{n % 7}.example") for n in range(1, count + 1)]
    return [StoredMail(n, 0.0, verp.sender(send, "b.example"), to, "Čaj für Sie") for n, (send, to) in enumerate(made)]


def came_back() -> dict[int, FeedbackType]:
    notices = [parser.read(path.read_bytes()) for path in (maildir.folder() / "new").iterdir()]
    assert all(notice.send_id is not None for notice in notices)
    return {notice.send_id or 0: notice.finding for notice in notices}


def test_the_same_people_in_every_run(settings: config.Settings) -> None:
    of_mailing, another = mails(7, 1000), mails(8, 50)
    addresses = {7 << 32 | n: mail.recipient for n, mail in enumerate(of_mailing, 1)}
    assert simulated_bounces.send_back([*of_mailing, *another], 7, 1) == 12
    found = came_back()
    assert Counter(found.values()) == {
        FeedbackType.HARD: 4,
        FeedbackType.SOFT: 6,
        FeedbackType.POLICY: 1,
        FeedbackType.COMPLAINT: 1,
    }
    for send_id, finding in found.items():
        wanted = ReaderProfile.READER if finding is FeedbackType.COMPLAINT else ReaderProfile.NOBODY
        assert family_of(1, addresses[send_id]) is wanted
    for path in (maildir.folder() / "new").iterdir():
        path.unlink()
    random.shuffle(of_mailing)
    simulated_bounces.send_back(of_mailing, 7, 1)
    assert came_back() == found
