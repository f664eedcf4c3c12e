# ruff: noqa: E501
"""Corpus of bounce mails, complaints and automatic replies in the formats of many mail servers. Written for these tests."""

from collections.abc import Callable
from dataclasses import dataclass

from campaigns.delivery.mime import verp
from campaigns.tokens import Purpose, mint_send

TO = "ana@reader.example"


@dataclass(frozen=True)
class Shape:
    name: str
    finding: str
    raw: Callable[[int], str]
    status: str = ""
    proves: bool = True


def verp_of(send: int) -> str:
    return verp.sender(send, "bounces.example.org")


def original(send: int) -> str:
    return (
        f"Return-Path: <{verp_of(send)}>\nReceived: from house.example by relay.example; Sun, 22 Nov 2026\n"
        f"From: Example <news@example.org>\nTo: <{TO}>\nSubject: News\n"
        f"Message-ID: <{mint_send(Purpose.MESSAGE_ID, send)}@example.org>\n"
        f"List-Unsubscribe: <https://example.org/u/{mint_send(Purpose.UNSUBSCRIBE, send)}>\n\nHello\n"
    )


def report(
    status: str,
    diagnostic: str,
    *,
    action: str = "failed",
    to: str | None = None,
    head: str = "From: MAILER-DAEMON@mx.example (Mail Delivery System)\nSubject: Undelivered Mail Returned to Sender\n",
    final: str = f"rfc822; {TO}",
    more: str = "",
    prose: str = "This is the mail system.\n",
    third: str = "message/rfc822",
    returned: bool = True,
) -> Callable[[int], str]:
    def raw(send: int) -> str:
        back = f"--b1\nContent-Type: {third}\n\n{original(send)}\n" if returned else ""
        return (
            f"Delivered-To: {verp_of(send) if to is None else to}\n{head}Message-ID: <d{send}@mx.example>\n"
            'MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n\tboundary="b1"\n\n'
            f"Preamble\n--b1\nContent-Type: text/plain; charset=utf-8\n\n{prose}\n"
            "--b1\nContent-Description: Delivery report\nContent-Type: message/delivery-status\n\n"
            "Reporting-MTA: dns; mx.example\nArrival-Date: Sun, 22 Nov 2026 12:00:00 +0000\n\n"
            f"Final-Recipient: {final}\n{more}Action: {action}\nStatus: {status}\nRemote-MTA: dns; mx.reader.example\n"
            f"Diagnostic-Code: {diagnostic}\n\n{back}--b1--\n"
        )

    return raw


def plain(head: str, body: str, *, own: bool = True) -> Callable[[int], str]:
    def raw(send: int) -> str:
        to = f"Delivered-To: {verp_of(send)}\n" if own else "To: news@example.org\n"
        return f"{to}{head}\n\n{body}".replace("{original}", original(send))

    return raw


def complaint(kind: str, third: str = "message/rfc822", fields: str = "") -> Callable[[int], str]:
    def raw(send: int) -> str:
        back = original(send)
        if third == "text/rfc822-headers":
            back = "\n".join(line for line in back.splitlines() if not line.startswith(("To:", "Return-Path:")))
        return (
            f"From: feedback@isp.example\nTo: fbl@example.org\nSubject: FW: News\nMessage-ID: <f{send}@isp.example>\n"
            "MIME-Version: 1.0\nContent-Type: multipart/report; report-type=feedback-report; boundary=x\n\n"
            "--x\nContent-Type: text/plain\n\nThis is an email abuse report.\n"
            f"--x\nContent-Type: message/feedback-report\n\nFeedback-Type: {kind}\nUser-Agent: SomeFBL/1.0\n"
            f"Version: 1\n{fields}\n--x\nContent-Type: {third}\n\n{back}\n--x--\n"
        )

    return raw


_QMAIL = (
    "Hi. This is the qmail-send program at mx.example.\nI'm afraid I wasn't able to deliver your message to the "
    "following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n"
    f"<{TO}>:\n192.0.2.7 does not like recipient.\nRemote host said: 550 5.1.1 User unknown\n"
    "Giving up on 192.0.2.7.\n\n--- Below this line is a copy of the message.\n\n{original}"
)
_EXIM = (
    "This message was created automatically by mail delivery software.\n\nA message that you sent could not be "
    f"delivered to one or more of its\nrecipients. This is a permanent error.\n\n  {TO}\n    host mx.reader.example "
    "[192.0.2.9]\n    SMTP error from remote mail server after RCPT TO:<ana@reader.example>:\n    550 No such user here\n\n"
    "------ This is a copy of the message, including all the headers. ------\n\n{original}"
)
_MICROSOFT = (
    "From: <postmaster@outlook.example>\nSubject: Undeliverable: News\nX-MS-Exchange-Message-Is-Ndr:\n"
    "Auto-Submitted: auto-generated\n"
)

CORPUS = [
    Shape(
        "postfix, unknown user",
        "hard",
        report(
            "5.1.1",
            f"smtp; 550 5.1.1 <{TO}>: Recipient address rejected: User unknown in local recipient table",
            head="From: MAILER-DAEMON@mx.example\nSubject: Undelivered Mail Returned to Sender\n"
            "Auto-Submitted: auto-replied\n",
            more=f"Original-Recipient: rfc822;{TO}\n",
        ),
        "5.1.1",
    ),
    Shape(
        "postfix, no such domain",
        "soft",
        report(
            "5.4.4",
            "X-Postfix; Host or domain name not found. Name service "
            "error for name=reader.example type=AAAA: Host not found",
        ),
        "5.4.4",
    ),
    Shape(
        "postfix, given up after days",
        "soft",
        report("4.4.1", "X-Postfix; connect to mx.reader.example[192.0.2.1]:25: Connection timed out"),
        "4.4.1",
    ),
    Shape("postfix, still trying", "delayed", report("4.4.1", "X-Postfix; Connection timed out", action="delayed")),
    Shape("postfix, delivered", "delivered", report("2.0.0", "X-Postfix; delivered to mailbox", action="delivered")),
    Shape("relayed to one who sends no notices", "delivered", report("2.1.9", "smtp; 250 ok", action="relayed")),
    Shape(
        "gmail, no such account",
        "hard",
        report(
            "5.1.1",
            "smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try\n"
            " 550-5.1.1 double-checking the recipient's email address for typos. 550 5.1.1 https://support.example/",
            head='From: "Mail Delivery Subsystem" <mailer-daemon@googlemail.example>\nSubject: Delivery Status '
            "Notification (Failure)\nAuto-Submitted: auto-replied\n",
        ),
        "5.1.1",
    ),
    Shape(
        "gmail, unsolicited",
        "policy",
        report(
            "5.7.1",
            "smtp; 550-5.7.1 [192.0.2.5 12] Our system has detected that this message is likely unsolicited mail.",
        ),
        "5.7.1",
    ),
    Shape(
        "gmail, full",
        "soft",
        report("5.2.2", "smtp; 552-5.2.2 The email account that you tried to reach is over quota"),
        "5.2.2",
    ),
    Shape(
        "exchange, not in the directory",
        "hard",
        report(
            "5.1.10",
            "smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
            head=_MICROSOFT,
        ),
        "5.1.10",
    ),
    Shape(
        "exchange, restricted",
        "policy",
        report("5.7.133", "smtp;550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", head=_MICROSOFT),
        "5.7.133",
    ),
    Shape(
        "exchange, full",
        "soft",
        report(
            "5.2.2",
            "smtp;554 5.2.2 STOREDRV.Deliver; mailbox full; QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
            head=_MICROSOFT,
        ),
        "5.2.2",
    ),
    Shape(
        "yahoo, no such account",
        "hard",
        report(
            "5.0.0",
            "smtp; 554 delivery error: dd This user doesn't have a yahoo.example account (ana@reader.example) [-5]",
        ),
        "5.0.0",
    ),
    Shape(
        "yahoo, deferred for complaints, given up",
        "soft",
        report(
            "4.7.0",
            "smtp; 421 4.7.0 [TSS04] Messages from "
            "192.0.2.5 temporarily deferred due to unexpected volume or user complaints",
        ),
        "4.7.0",
    ),
    Shape(
        "says 5.1.1 and means us", "policy", report("5.1.1", "smtp; 550 5.1.1 blocked using zen.spamhaus.org"), "5.1.1"
    ),
    Shape(
        "sendmail",
        "hard",
        report(
            "5.1.1",
            "SMTP; 550 5.1.1 <ana@reader.example>... User unknown",
            head="From: Mail Delivery Subsystem <MAILER-DAEMON@mx.example>\nSubject: Returned mail: see transcript for "
            "details\n",
            final=f"RFC822; {TO.upper()}",
            more="X-Actual-Recipient: RFC822; ana\n",
        ),
        "5.1.1",
    ),
    Shape(
        "switched off",
        "soft",
        report("5.2.1", "smtp; 550 5.2.1 The email account that you tried to reach is disabled"),
        "5.2.1",
    ),
    Shape(
        "behind a forwarding address",
        "hard",
        report("5.1.1", "smtp; 550 5.1.1 unknown", final="rfc822; elsewhere@other.example"),
        "5.1.1",
    ),
    Shape(
        "envelope lost, Message-ID given back",
        "hard",
        report("5.1.1", "smtp; 550 5.1.1 unknown", to="news@example.org", third="text/rfc822-headers"),
        "5.1.1",
    ),
    Shape(
        "nothing given back, envelope in capitals",
        "hard",
        lambda send: report("5.1.1", "smtp; 550 5.1.1 unknown", to=verp_of(send).upper(), returned=False)(send),
        "5.1.1",
    ),
    Shape(
        "no status, only a diagnostic",
        "hard",
        lambda send: str(report("x", "smtp; 550 no such user")(send)).replace("Status: x\n", ""),
        "",
    ),
    Shape(
        "label of the report lost",
        "hard",
        lambda send: report("5.1.1", "smtp; 550 5.1.1 unknown")(send).replace("message/delivery-status", "text/plain"),
        "5.1.1",
    ),
    Shape(
        "internationalised report",
        "hard",
        lambda send: report("5.1.1", "smtp; 550 5.1.1 unknown", final=f"utf-8; {TO}")(send).replace(
            "message/delivery-status", "message/global-delivery-status"
        ),
        "5.1.1",
    ),
    Shape("qmail", "hard", plain("From: MAILER-DAEMON@mx.example\nSubject: failure notice", _QMAIL), "5.1.1"),
    Shape(
        "exim, prose",
        "hard",
        plain(
            "From: Mail Delivery System <Mailer-Daemon@mx.example>\nX-Failed-Recipients: "
            f"{TO}\nAuto-Submitted: auto-replied\nSubject: Mail delivery failed: returning message to sender",
            _EXIM,
        ),
    ),
    Shape(
        "exim, warning",
        "delayed",
        plain(
            "From: Mail Delivery System <Mailer-Daemon@mx.example>\nX-Failed-Recipients: "
            f"{TO}\nSubject: Warning: message 1abc delayed 24 hours",
            "No action is required on your part.",
        ),
    ),
    Shape(
        "german prose",
        "hard",
        plain(
            "From: MAILER-DAEMON@mx.example\nSubject: Unzustellbar: News",
            f"Ihre Nachricht konnte nicht zugestellt werden.\n{TO}: Empfänger unbekannt\n",
        ),
    ),
    Shape(
        "russian prose, full",
        "soft",
        plain(
            "From: mailer-daemon@mx.example\nSubject: Недоставленное сообщение",
            f"{TO}: 552 ящик получателя переполнен\n",
        ),
    ),
    Shape(
        "japanese prose",
        "hard",
        plain(
            "From: postmaster@mx.example\nSubject: =?utf-8?B?6YWN5L+h5LiN6IO9?=\n"
            "Content-Type: text/plain; charset=utf-8",
            f"{TO} 宛先 ユーザーは存在しません\n",
        ),
    ),
    Shape(
        "prose to the sender, no envelope",
        "hard",
        plain("From: MAILER-DAEMON@mx.example\nSubject: failure notice", _QMAIL, own=False),
        "5.1.1",
    ),
    Shape("complaint, whole mail", "complaint", complaint("abuse")),
    Shape("complaint, redacted to headers", "complaint", complaint("abuse", "text/rfc822-headers")),
    Shape("opt-out complaint", "complaint", complaint("opt-out")),
    Shape("not spam after all", "delivered", complaint("not-spam")),
    Shape("failed authentication report", "delivered", complaint("auth-failure")),
    Shape(
        "outlook.com's junk report",
        "complaint",
        plain(
            "From: staff@hotmail.example\nX-HmXmrOriginalRecipient: x@y.example\n"
            "Subject: complaint about message\nContent-Type: message/rfc822",
            "{original}",
            own=False,
        ),
    ),
    Shape(
        "out of office",
        "auto_reply",
        plain(
            "From: Ana <ana@reader.example>\nAuto-Submitted: auto-replied\nSubject: Re: News",
            "I am away. 550 5.1.1 is the number of my room.",
        ),
    ),
    Shape(
        "out of office, exchange",
        "auto_reply",
        plain(
            "From: Ana <ana@reader.example>\nX-Auto-Response-Suppress: All\nSubject: Automatic reply: News",
            "I am on leave until Monday.",
        ),
    ),
    Shape(
        "out of office, persian",
        "auto_reply",
        plain("From: a@reader.example\nPrecedence: auto_reply\nSubject: پاسخ خودکار", "در مرخصی هستم"),
    ),
    Shape(
        "a person writes",
        "unreadable",
        plain("From: Ana <ana@reader.example>\nSubject: Re: News", "Thank you! Where is my box?"),
    ),
    Shape(
        "somebody else's bounce",
        "foreign",
        lambda send: report("5.1.1", "smtp; 550 5.1.1 unknown", to="x@example.org", returned=False)(send),
        "5.1.1",
        proves=False,
    ),
    Shape(
        "a forged token",
        "forged",
        lambda send: report("5.1.1", "smtp; 550 5.1.1 unknown", to=f"b+{'0' * 42}@bounces.example.org", returned=False)(
            send
        ),
        "5.1.1",
        proves=False,
    ),
]
