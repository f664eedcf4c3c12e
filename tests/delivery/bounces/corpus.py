# ruff: noqa: E501
"""Corpus of bounce mails, complaints and automatic replies in the formats of many mail servers. Written for these tests."""

from collections.abc import Callable
from dataclasses import dataclass

from campaigns.delivery.mime import verp
from campaigns.tokens import Purpose, mint_send_token

RECIPIENT = "ana@reader.example"


@dataclass(frozen=True)
class BounceSample:
    name: str
    feedback_type: str
    raw: Callable[[int], str]
    status: str = ""
    is_attributed: bool = True


def envelope_sender(send: int) -> str:
    return verp.sender_for_send(send, "bounces.example.org")


def returned_mail(send: int) -> str:
    return (
        f"Return-Path: <{envelope_sender(send)}>\nReceived: from house.example by relay.example; Sun, 22 Nov 2026\n"
        f"From: Example <news@example.org>\nTo: <{RECIPIENT}>\nSubject: News\n"
        f"Message-ID: <{mint_send_token(Purpose.MESSAGE_ID, send)}@example.org>\n"
        f"List-Unsubscribe: <https://example.org/u/{mint_send_token(Purpose.UNSUBSCRIBE, send)}>\n\nHello\n"
    )


def dsn_report(
    status: str,
    diagnostic: str,
    *,
    action: str = "failed",
    to: str | None = None,
    head: str = "From: MAILER-DAEMON@mx.example (Mail Delivery System)\nSubject: Undelivered Mail Returned to Sender\n",
    final: str = f"rfc822; {RECIPIENT}",
    extra_fields: str = "",
    prose: str = "This is the mail system.\n",
    returned_type: str = "message/rfc822",
    with_returned_mail: bool = True,
) -> Callable[[int], str]:
    def raw(send: int) -> str:
        returned_part = f"--b1\nContent-Type: {returned_type}\n\n{returned_mail(send)}\n" if with_returned_mail else ""
        return (
            f"Delivered-To: {envelope_sender(send) if to is None else to}\n{head}Message-ID: <d{send}@mx.example>\n"
            'MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n\tboundary="b1"\n\n'
            f"Preamble\n--b1\nContent-Type: text/plain; charset=utf-8\n\n{prose}\n"
            "--b1\nContent-Description: Delivery report\nContent-Type: message/delivery-status\n\n"
            "Reporting-MTA: dns; mx.example\nArrival-Date: Sun, 22 Nov 2026 12:00:00 +0000\n\n"
            f"Final-Recipient: {final}\n{extra_fields}Action: {action}\nStatus: {status}\nRemote-MTA: dns; mx.reader.example\n"
            f"Diagnostic-Code: {diagnostic}\n\n{returned_part}--b1--\n"
        )

    return raw


def plain_notice(head: str, body: str, *, to_envelope_sender: bool = True) -> Callable[[int], str]:
    def raw(send: int) -> str:
        to = f"Delivered-To: {envelope_sender(send)}\n" if to_envelope_sender else "To: news@example.org\n"
        return f"{to}{head}\n\n{body}".replace("{original}", returned_mail(send))

    return raw


def arf_report(kind: str, returned_type: str = "message/rfc822", fields: str = "") -> Callable[[int], str]:
    def raw(send: int) -> str:
        returned = returned_mail(send)
        if returned_type == "text/rfc822-headers":
            returned = "\n".join(line for line in returned.splitlines() if not line.startswith(("To:", "Return-Path:")))
        return (
            f"From: feedback@isp.example\nTo: fbl@example.org\nSubject: FW: News\nMessage-ID: <f{send}@isp.example>\n"
            "MIME-Version: 1.0\nContent-Type: multipart/report; report-type=feedback-report; boundary=x\n\n"
            "--x\nContent-Type: text/plain\n\nThis is an email abuse report.\n"
            f"--x\nContent-Type: message/feedback-report\n\nFeedback-Type: {kind}\nUser-Agent: SomeFBL/1.0\n"
            f"Version: 1\n{fields}\n--x\nContent-Type: {returned_type}\n\n{returned}\n--x--\n"
        )

    return raw


_QMAIL_TEXT = (
    "Hi. This is the qmail-send program at mx.example.\nI'm afraid I wasn't able to deliver your message to the "
    "following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n"
    f"<{RECIPIENT}>:\n192.0.2.7 does not like recipient.\nRemote host said: 550 5.1.1 User unknown\n"
    "Giving up on 192.0.2.7.\n\n--- Below this line is a copy of the message.\n\n{original}"
)
_EXIM_TEXT = (
    "This message was created automatically by mail delivery software.\n\nA message that you sent could not be "
    f"delivered to one or more of its\nrecipients. This is a permanent error.\n\n  {RECIPIENT}\n    host mx.reader.example "
    "[192.0.2.9]\n    SMTP error from remote mail server after RCPT TO:<ana@reader.example>:\n    550 No such user here\n\n"
    "------ This is a copy of the message, including all the headers. ------\n\n{original}"
)
_EXCHANGE_HEADER = (
    "From: <postmaster@outlook.example>\nSubject: Undeliverable: News\nX-MS-Exchange-Message-Is-Ndr:\n"
    "Auto-Submitted: auto-generated\n"
)

CORPUS = [
    BounceSample(
        "postfix, unknown user",
        "hard",
        dsn_report(
            "5.1.1",
            f"smtp; 550 5.1.1 <{RECIPIENT}>: Recipient address rejected: User unknown in local recipient table",
            head="From: MAILER-DAEMON@mx.example\nSubject: Undelivered Mail Returned to Sender\n"
            "Auto-Submitted: auto-replied\n",
            extra_fields=f"Original-Recipient: rfc822;{RECIPIENT}\n",
        ),
        "5.1.1",
    ),
    BounceSample(
        "postfix, no such domain",
        "soft",
        dsn_report(
            "5.4.4",
            "X-Postfix; Host or domain name not found. Name service "
            "error for name=reader.example type=AAAA: Host not found",
        ),
        "5.4.4",
    ),
    BounceSample(
        "postfix, given up after days",
        "soft",
        dsn_report("4.4.1", "X-Postfix; connect to mx.reader.example[192.0.2.1]:25: Connection timed out"),
        "4.4.1",
    ),
    BounceSample(
        "postfix, still trying", "delayed", dsn_report("4.4.1", "X-Postfix; Connection timed out", action="delayed")
    ),
    BounceSample(
        "postfix, delivered", "delivered", dsn_report("2.0.0", "X-Postfix; delivered to mailbox", action="delivered")
    ),
    BounceSample(
        "relayed to one who sends no notices", "delivered", dsn_report("2.1.9", "smtp; 250 ok", action="relayed")
    ),
    BounceSample(
        "gmail, no such account",
        "hard",
        dsn_report(
            "5.1.1",
            "smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try\n"
            " 550-5.1.1 double-checking the recipient's email address for typos. 550 5.1.1 https://support.example/",
            head='From: "Mail Delivery Subsystem" <mailer-daemon@googlemail.example>\nSubject: Delivery Status '
            "Notification (Failure)\nAuto-Submitted: auto-replied\n",
        ),
        "5.1.1",
    ),
    BounceSample(
        "gmail, unsolicited",
        "policy",
        dsn_report(
            "5.7.1",
            "smtp; 550-5.7.1 [192.0.2.5 12] Our system has detected that this message is likely unsolicited mail.",
        ),
        "5.7.1",
    ),
    BounceSample(
        "gmail, full",
        "soft",
        dsn_report("5.2.2", "smtp; 552-5.2.2 The email account that you tried to reach is over quota"),
        "5.2.2",
    ),
    BounceSample(
        "exchange, not in the directory",
        "hard",
        dsn_report(
            "5.1.10",
            "smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
            head=_EXCHANGE_HEADER,
        ),
        "5.1.10",
    ),
    BounceSample(
        "exchange, restricted",
        "policy",
        dsn_report("5.7.133", "smtp;550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", head=_EXCHANGE_HEADER),
        "5.7.133",
    ),
    BounceSample(
        "exchange, full",
        "soft",
        dsn_report(
            "5.2.2",
            "smtp;554 5.2.2 STOREDRV.Deliver; mailbox full; QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
            head=_EXCHANGE_HEADER,
        ),
        "5.2.2",
    ),
    BounceSample(
        "yahoo, no such account",
        "hard",
        dsn_report(
            "5.0.0",
            "smtp; 554 delivery error: dd This user doesn't have a yahoo.example account (ana@reader.example) [-5]",
        ),
        "5.0.0",
    ),
    BounceSample(
        "yahoo, deferred for complaints, given up",
        "soft",
        dsn_report(
            "4.7.0",
            "smtp; 421 4.7.0 [TSS04] Messages from "
            "192.0.2.5 temporarily deferred due to unexpected volume or user complaints",
        ),
        "4.7.0",
    ),
    BounceSample(
        "says 5.1.1 and means us",
        "policy",
        dsn_report("5.1.1", "smtp; 550 5.1.1 blocked using zen.spamhaus.org"),
        "5.1.1",
    ),
    BounceSample(
        "sendmail",
        "hard",
        dsn_report(
            "5.1.1",
            "SMTP; 550 5.1.1 <ana@reader.example>... User unknown",
            head="From: Mail Delivery Subsystem <MAILER-DAEMON@mx.example>\nSubject: Returned mail: see transcript for "
            "details\n",
            final=f"RFC822; {RECIPIENT.upper()}",
            extra_fields="X-Actual-Recipient: RFC822; ana\n",
        ),
        "5.1.1",
    ),
    BounceSample(
        "switched off",
        "soft",
        dsn_report("5.2.1", "smtp; 550 5.2.1 The email account that you tried to reach is disabled"),
        "5.2.1",
    ),
    BounceSample(
        "behind a forwarding address",
        "hard",
        dsn_report("5.1.1", "smtp; 550 5.1.1 unknown", final="rfc822; elsewhere@other.example"),
        "5.1.1",
    ),
    BounceSample(
        "envelope lost, Message-ID given back",
        "hard",
        dsn_report("5.1.1", "smtp; 550 5.1.1 unknown", to="news@example.org", returned_type="text/rfc822-headers"),
        "5.1.1",
    ),
    BounceSample(
        "nothing given back, envelope in capitals",
        "hard",
        lambda send: dsn_report(
            "5.1.1", "smtp; 550 5.1.1 unknown", to=envelope_sender(send).upper(), with_returned_mail=False
        )(send),
        "5.1.1",
    ),
    BounceSample(
        "no status, only a diagnostic",
        "hard",
        lambda send: str(dsn_report("x", "smtp; 550 no such user")(send)).replace("Status: x\n", ""),
        "",
    ),
    BounceSample(
        "label of the report lost",
        "hard",
        lambda send: dsn_report("5.1.1", "smtp; 550 5.1.1 unknown")(send).replace(
            "message/delivery-status", "text/plain"
        ),
        "5.1.1",
    ),
    BounceSample(
        "internationalised report",
        "hard",
        lambda send: dsn_report("5.1.1", "smtp; 550 5.1.1 unknown", final=f"utf-8; {RECIPIENT}")(send).replace(
            "message/delivery-status", "message/global-delivery-status"
        ),
        "5.1.1",
    ),
    BounceSample(
        "qmail", "hard", plain_notice("From: MAILER-DAEMON@mx.example\nSubject: failure notice", _QMAIL_TEXT), "5.1.1"
    ),
    BounceSample(
        "exim, prose",
        "hard",
        plain_notice(
            "From: Mail Delivery System <Mailer-Daemon@mx.example>\nX-Failed-Recipients: "
            f"{RECIPIENT}\nAuto-Submitted: auto-replied\nSubject: Mail delivery failed: returning message to sender",
            _EXIM_TEXT,
        ),
    ),
    BounceSample(
        "exim, warning",
        "delayed",
        plain_notice(
            "From: Mail Delivery System <Mailer-Daemon@mx.example>\nX-Failed-Recipients: "
            f"{RECIPIENT}\nSubject: Warning: message 1abc delayed 24 hours",
            "No action is required on your part.",
        ),
    ),
    BounceSample(
        "german prose",
        "hard",
        plain_notice(
            "From: MAILER-DAEMON@mx.example\nSubject: Unzustellbar: News",
            f"Ihre Nachricht konnte nicht zugestellt werden.\n{RECIPIENT}: Empfänger unbekannt\n",
        ),
    ),
    BounceSample(
        "russian prose, full",
        "soft",
        plain_notice(
            "From: mailer-daemon@mx.example\nSubject: Недоставленное сообщение",
            f"{RECIPIENT}: 552 ящик получателя переполнен\n",
        ),
    ),
    BounceSample(
        "japanese prose",
        "hard",
        plain_notice(
            "From: postmaster@mx.example\nSubject: =?utf-8?B?6YWN5L+h5LiN6IO9?=\n"
            "Content-Type: text/plain; charset=utf-8",
            f"{RECIPIENT} 宛先 ユーザーは存在しません\n",
        ),
    ),
    BounceSample(
        "prose to the sender, no envelope",
        "hard",
        plain_notice("From: MAILER-DAEMON@mx.example\nSubject: failure notice", _QMAIL_TEXT, to_envelope_sender=False),
        "5.1.1",
    ),
    BounceSample("complaint, whole mail", "complaint", arf_report("abuse")),
    BounceSample("complaint, redacted to headers", "complaint", arf_report("abuse", "text/rfc822-headers")),
    BounceSample("opt-out complaint", "complaint", arf_report("opt-out")),
    BounceSample("not spam after all", "delivered", arf_report("not-spam")),
    BounceSample("failed authentication report", "delivered", arf_report("auth-failure")),
    BounceSample(
        "outlook.com's junk report",
        "complaint",
        plain_notice(
            "From: staff@hotmail.example\nX-HmXmrOriginalRecipient: x@y.example\n"
            "Subject: complaint about message\nContent-Type: message/rfc822",
            "{original}",
            to_envelope_sender=False,
        ),
    ),
    BounceSample(
        "out of office",
        "auto_reply",
        plain_notice(
            "From: Ana <ana@reader.example>\nAuto-Submitted: auto-replied\nSubject: Re: News",
            "I am away. 550 5.1.1 is the number of my room.",
        ),
    ),
    BounceSample(
        "out of office, exchange",
        "auto_reply",
        plain_notice(
            "From: Ana <ana@reader.example>\nX-Auto-Response-Suppress: All\nSubject: Automatic reply: News",
            "I am on leave until Monday.",
        ),
    ),
    BounceSample(
        "out of office, persian",
        "auto_reply",
        plain_notice("From: a@reader.example\nPrecedence: auto_reply\nSubject: پاسخ خودکار", "در مرخصی هستم"),
    ),
    BounceSample(
        "a person writes",
        "unreadable",
        plain_notice("From: Ana <ana@reader.example>\nSubject: Re: News", "Thank you! Where is my box?"),
    ),
    BounceSample(
        "somebody else's bounce",
        "foreign",
        lambda send: dsn_report("5.1.1", "smtp; 550 5.1.1 unknown", to="x@example.org", with_returned_mail=False)(send),
        "5.1.1",
        is_attributed=False,
    ),
    BounceSample(
        "a forged token",
        "forged",
        lambda send: dsn_report(
            "5.1.1", "smtp; 550 5.1.1 unknown", to=f"b+{'0' * 42}@bounces.example.org", with_returned_mail=False
        )(send),
        "5.1.1",
        is_attributed=False,
    ),
]
