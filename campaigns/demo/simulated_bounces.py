"""Simulated bounces of the demo's mailing: late bounces of mailboxes that nobody reads, and one complaint.

Which mails bounce depends on the seed and the addresses only. Each report has the form that a mail server would send
to the envelope sender of that mail.
"""

import random
from collections.abc import Iterator, Sequence
from email.utils import format_datetime

from sqlalchemy import exists, select

from campaigns import clock, db
from campaigns.delivery.bounces.intake import maildir
from campaigns.delivery.bounces.models import FeedbackSource, InboundMessage
from campaigns.delivery.mime import verp
from campaigns.demo.reader_behaviour import profile_of
from campaigns.demo.traffic_model import ReaderProfile
from campaigns.mail_catcher.store import StoredMail

_REFUSALS = (
    (0.004, "5.1.1", "550 5.1.1 No such user here"),
    (0.003, "5.2.2", "552 5.2.2 Mailbox full: the quota is exceeded"),
    (0.003, "4.4.7", "451 4.4.7 Message expired: the other server did not answer for four days"),
    (0.001, "5.7.1", "550 5.7.1 Message refused by policy: its sender has no reputation here yet"),
)
"""(Share of all mails, enhanced status code, diagnostic)."""


def deliver_reports(mails: Sequence[StoredMail], activity_id: int, seed: int) -> int:
    """Deliver the bounces and the complaint of the activity's mails; return their number."""
    reports = list(_reports([mail for mail in mails if _send_id(mail) >> 32 == activity_id], seed))
    for report in reports:
        maildir.store_mail(report.encode(), FeedbackSource.COMMAND)
    return len(reports)


def _send_id(mail: StoredMail) -> int:
    tokens = verp.find_tokens(mail.sender)
    return verp.read_send_id(tokens[0]) if tokens else 0


def all_processed() -> bool:
    """Return whether all delivered reports are processed."""
    with db.read_only_session() as session:
        unread = session.scalar(select(exists().where(InboundMessage.feedback_type.is_(None))))
    return not unread and not maildir.count_waiting()


def _reports(mails: Sequence[StoredMail], seed: int) -> Iterator[str]:
    rng = random.Random(f"{seed}:returns")
    ordered = sorted(mails, key=lambda mail: mail.recipient)
    unopened = [mail for mail in ordered if profile_of(seed, mail.recipient) is ReaderProfile.UNOPENED]
    rng.shuffle(unopened)
    for share, status, diagnostic in _REFUSALS:
        for _ in range(max(1, round(share * len(mails)))):
            if unopened:
                yield _bounce(unopened.pop(), status, diagnostic)
    readers = [mail for mail in ordered if profile_of(seed, mail.recipient) is ReaderProfile.READER]
    if readers:
        yield _complaint(rng.choice(readers))


def _bounce(mail: StoredMail, status: str, diagnostic: str) -> str:
    """Build a delivery status notification (RFC 3464)."""
    return _report(
        mail,
        "Undelivered Mail Returned to Sender",
        "delivery-status",
        "Your mail could not be delivered.",
        f"Reporting-MTA: dns; mx.{_domain(mail)}\n\nFinal-Recipient: rfc822; {mail.recipient}\n"
        f"Action: failed\nStatus: {status}\nDiagnostic-Code: smtp; {diagnostic}\n",
    )


def _complaint(mail: StoredMail) -> str:
    """Build a complaint report (ARF, RFC 5965)."""
    return _report(
        mail,
        "Complaint about a mail of yours",
        "feedback-report",
        "Somebody pressed “This is spam”.",
        "Feedback-Type: abuse\nUser-Agent: Feedback/1.0\nVersion: 1\n"
        f"Original-Mail-From: <{mail.sender}>\nOriginal-Rcpt-To: <{mail.recipient}>\n",
    )


def _report(mail: StoredMail, subject: str, kind: str, text: str, report_fields: str) -> str:
    return (
        f"Delivered-To: {mail.sender}\nFrom: Mail Delivery System <MAILER-DAEMON@mx.{_domain(mail)}>\n"
        f"To: <{mail.sender}>\nSubject: {subject}\nDate: {format_datetime(clock.now())}\n"
        f"Message-ID: <{kind}.{mail.id}@mx.{_domain(mail)}>\nMIME-Version: 1.0\n"
        f'Content-Type: multipart/report; report-type={kind}; boundary="part"\n\n'
        f"--part\nContent-Type: text/plain; charset=utf-8\n\n{text}\n\n"
        f"--part\nContent-Type: message/{kind}\n\n{report_fields}\n"
        f"--part\nContent-Type: text/rfc822-headers\n\nReturn-Path: <{mail.sender}>\nTo: <{mail.recipient}>\n"
        f"Subject: {mail.subject.encode('ascii', 'replace').decode()}\n\n--part--\n"
    )


def _domain(mail: StoredMail) -> str:
    return mail.recipient.rpartition("@")[2]
