"""Tests of the demo's simulated bounces: types and numbers, identical in every run with one seed."""

import random
from collections import Counter

from campaigns import config
from campaigns.delivery.bounces.intake import maildir
from campaigns.delivery.bounces.models import FeedbackType
from campaigns.delivery.bounces.parsing import parser
from campaigns.delivery.mime import verp
from campaigns.demo import simulated_bounces
from campaigns.demo.reader_behaviour import profile_of
from campaigns.demo.traffic_model import ReaderProfile
from campaigns.mail_catcher.store import StoredMail


def make_mails(activity_id: int, count: int) -> list[StoredMail]:
    recipients = [(activity_id << 32 | n, f"p{n}@d{n % 7}.example") for n in range(1, count + 1)]
    return [
        StoredMail(n, 0.0, verp.sender_for_send(send, "b.example"), to, "Čaj für Sie")
        for n, (send, to) in enumerate(recipients)
    ]


def delivered_reports() -> dict[int, FeedbackType]:
    notices = [parser.parse(path.read_bytes()) for path in (maildir.folder() / "new").iterdir()]
    assert all(notice.send_id is not None for notice in notices)
    return {notice.send_id or 0: notice.feedback_type for notice in notices}


def test_the_same_mails_bounce_in_every_run(settings: config.Settings) -> None:
    of_mailing, another = make_mails(7, 1000), make_mails(8, 50)
    addresses = {7 << 32 | n: mail.recipient for n, mail in enumerate(of_mailing, 1)}
    assert simulated_bounces.deliver_reports([*of_mailing, *another], 7, 1) == 12
    reports = delivered_reports()
    assert Counter(reports.values()) == {
        FeedbackType.HARD: 4,
        FeedbackType.SOFT: 6,
        FeedbackType.POLICY: 1,
        FeedbackType.COMPLAINT: 1,
    }
    for send_id, feedback_type in reports.items():
        expected_profile = ReaderProfile.READER if feedback_type is FeedbackType.COMPLAINT else ReaderProfile.UNOPENED
        assert profile_of(1, addresses[send_id]) is expected_profile
    for path in (maildir.folder() / "new").iterdir():
        path.unlink()
    random.shuffle(of_mailing)
    simulated_bounces.deliver_reports(of_mailing, 7, 1)
    assert delivered_reports() == reports
