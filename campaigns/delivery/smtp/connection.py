"""SMTP connection that sends mails one after the other (RFC 5321, RFC 2920).

With PIPELINING, a mail's content is written together with the next mail's envelope, so that each mail takes one round
trip. Without it, each reply is read before the next command is written. In both cases each reply is checked and
assigned to one mail, so that when the connection ends, it is known how far each mail got.
``tests/benchmarks/smtp_client.py`` measures CPU time and throughput of both.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from campaigns.delivery.mime.envelope import OutgoingMail
from campaigns.delivery.smtp.address import RelayAddress
from campaigns.delivery.smtp.handshake import SmtpCapabilities
from campaigns.delivery.smtp.protocol import SmtpProtocol
from campaigns.delivery.smtp.replies import (
    SERVICE_CLOSING,
    DeliveryResult,
    DeliveryStatus,
    SmtpReply,
    printable_line,
    rejection_result,
)

# Timeouts in seconds (RFC 5321, section 4.5.3.2)
COMMAND_TIMEOUT = 300.0  # MAIL and RCPT
DATA_TIMEOUT = 120.0  # the reply to DATA
BLOCK_TIMEOUT = 180.0  # writing a part of the content
FINAL_DOT_TIMEOUT = 600.0  # the reply to the final dot
_CHECK_INTERVAL = 1.0
_MAX_RETURNS = 2
"""Times that a mail may be returned as untouched when its connection ends. After that it counts as an attempt, because
the mail itself could be what makes the relay close the connection."""
_ONE_WRITE_LIMIT = 100_000
"""Octets that an empty socket buffer takes in one write, so that the final dot need not wait for a flush."""
_INVALID_IN_PATH = re.compile(r"[\x00-\x20<>\x7f]")


@dataclass(slots=True, eq=False)
class Job:
    """One mail in transit, with its position in its batch."""

    mail: OutgoingMail
    batch: Any = None
    """Opaque to the connection; used by the mail source only."""
    position: int = 0
    returns: int = 0
    """Times that the mail was returned because its connection ended before the relay had answered the envelope."""
    taken_at: float = 0.0


class MailSource(Protocol):
    """Supplies a connection with mails and receives their results. Every taken job is settled or given back once."""

    def take(self) -> Job | None:
        """The next mail; None when there is none at the moment."""

    def may_go(self, job: Job) -> bool:
        """Whether its content may still be sent."""

    def before_dot(self, job: Job) -> None:
        """Called just before the final dot is written; after it, the mail may be delivered."""

    def settle(self, job: Job, outcome: DeliveryResult) -> None: ...

    def give_back(self, job: Job) -> None:
        """Take back a job that was not attempted."""


class Connection:
    """One open connection. It takes mails from its source until there are none, then waits for :meth:`send_next`."""

    def __init__(
        self,
        protocol: SmtpProtocol,
        capabilities: SmtpCapabilities,
        relay: RelayAddress,
        source: MailSource,
        on_end: Callable[["Connection", str], None],
    ) -> None:
        self.relay, self.capabilities = relay, capabilities
        self._protocol, self._source, self._on_end = protocol, source, on_end
        self._pipelining = capabilities.pipelining
        limits = [limit for limit in (relay.per_connection, capabilities.max_mails) if limit]
        self._mails_left = min(limits) if limits else -1  # mails that this connection may still send; -1 means no limit
        self._reply_handlers: deque[Callable[[SmtpReply], None]] = deque()  # one handler for each outstanding reply
        self._offered: Job | None = None  # the mail whose envelope has been written
        self._envelope_answered = False  # whether the relay has replied to that envelope (other than by closing)
        self._rejection: DeliveryResult | None = None  # the first rejection of that envelope
        self._writing_content = False  # the content has been written, the final dot has not
        self._awaiting_final_reply: Job | None = None  # the mail whose final dot has been written
        self._loop = asyncio.get_running_loop()
        self._progress = self._checked_progress = 0
        self._checked_at, self._stalled_seconds = self._loop.time(), 0.0
        self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check_timeout)
        protocol.on_reply, protocol.on_flushed, protocol.on_lost = self._on_reply, self._on_flushed, self._on_lost
        if self._pipelining:
            protocol.on_lines = self._handle_usual_replies
        if protocol.end_reason is not None:
            self._loop.call_soon(self._on_lost, protocol.end_reason)

    @property
    def is_idle(self) -> bool:
        """Whether no reply is outstanding and no content is being written."""
        return not self._reply_handlers and not self._writing_content

    @property
    def is_exhausted(self) -> bool:
        """Whether the connection has sent the maximum number of mails per connection."""
        return self._mails_left == 0

    def send_next(self) -> None:
        """Take the next mail from the source, if the connection is idle."""
        if self.is_idle and self._protocol.end_reason is None:
            self._progress += 1
            self._offer_next(b"")

    def close(self) -> None:
        """Send QUIT without waiting for the reply. A connection that is not idle is aborted."""
        if self._protocol.end_reason is None:
            if self.is_idle:
                self._protocol.write(b"QUIT\r\n")
                self._protocol.end_reason = "closed"
                self._protocol.transport.close()
            else:
                self._protocol.abort("closed")
        self._timer.cancel()

    async def wait_closed(self, seconds: float) -> None:
        """After :meth:`close`: wait until the socket is closed, at most ``seconds``."""
        await self._protocol.wait_closed(seconds)

    def _offer_next(self, before: bytes) -> None:
        """Write ``before`` and the next mail's envelope in one write."""
        job = self._take_deliverable()
        if job is not None:
            self._protocol.write(before + self._envelope_commands(job))
        elif before:
            self._protocol.write(before)

    def _envelope_commands(self, job: Job) -> bytes:
        """The envelope commands of a mail: all of them with PIPELINING, else only MAIL."""
        self._offered, self._rejection, self._envelope_answered = job, None, False
        self._reply_handlers.append(self._on_mail_reply)
        if not self._pipelining:
            return self._mail_command(job.mail)
        self._reply_handlers += (self._on_rcpt_reply, self._on_data_reply)
        return b"%bRCPT TO:<%b>\r\nDATA\r\n" % (self._mail_command(job.mail), job.mail.recipient.encode())

    def _take_deliverable(self) -> Job | None:
        while self._mails_left and (job := self._source.take()) is not None:
            rejection = self._reject_by_capabilities(job.mail)
            if rejection is None:
                self._mails_left -= self._mails_left > 0
                return job
            self._source.settle(job, rejection)
        return None

    def _reject_by_capabilities(self, mail: OutgoingMail) -> DeliveryResult | None:
        """The result of a mail that the relay's capabilities rule out; None when the mail can be offered."""
        if _INVALID_IN_PATH.search(mail.recipient + mail.sender):
            return DeliveryResult(DeliveryStatus.NOT_COMPOSABLE, "an address that can't stand in an envelope")
        if mail.smtputf8 and not self.capabilities.smtputf8:
            return DeliveryResult(DeliveryStatus.REJECTED, "553 5.6.7 the relay takes no addresses beyond ASCII")
        if not (self.capabilities.eight_bit or _is_ascii(mail)):
            return DeliveryResult(DeliveryStatus.NOT_COMPOSABLE, "554 5.6.3 the relay takes no 8-bit content")
        if self.capabilities.max_size and len(mail.content) > self.capabilities.max_size:
            return DeliveryResult(
                DeliveryStatus.SENDER_REJECTED, f"552 5.3.4 the relay takes at most {self.capabilities.max_size} octets"
            )
        return None

    def _mail_command(self, mail: OutgoingMail) -> bytes:
        size = b"" if self.capabilities.max_size is None else b" SIZE=%d" % len(mail.content)
        utf8 = b" SMTPUTF8" if mail.smtputf8 else b""
        body = b"" if _is_ascii(mail) else b" BODY=8BITMIME"
        return b"MAIL FROM:<%b>%b%b%b\r\n" % (mail.sender.encode(), size, body, utf8)

    def _timeout(self) -> float:
        """The timeout in seconds for the present state."""
        if self._writing_content:
            return BLOCK_TIMEOUT
        if self._awaiting_final_reply is not None:
            return FINAL_DOT_TIMEOUT
        return (
            DATA_TIMEOUT if self._reply_handlers and self._reply_handlers[0] == self._on_data_reply else COMMAND_TIMEOUT
        )

    def _handle_usual_replies(self, lines: Sequence[bytes]) -> bool:
        """Fast path for the usual four replies that arrive together: mail accepted, next envelope accepted.

        Returns True when it handled the lines. Otherwise they are parsed and handled reply by reply.
        """
        if (
            len(lines) != 4
            or len(self._reply_handlers) != 4
            or self._awaiting_final_reply is None
            or self._offered is None
        ):
            return False
        dot, mail, rcpt, data = lines
        if not (dot[:4] == mail[:4] == rcpt[:4] == b"250 " and data[:4] == b"354 "):
            return False
        self._progress += 1
        self._reply_handlers.clear()
        job, self._awaiting_final_reply = self._awaiting_final_reply, None
        self._source.settle(
            job, DeliveryResult(DeliveryStatus.SENT, printable_line(dot.rstrip().decode("utf-8", "replace")))
        )
        self._send_content(self._offered)
        return True

    def _on_reply(self, reply: SmtpReply) -> None:
        if not self._reply_handlers:
            self._protocol.abort(reply.line)
            return
        self._progress += 1
        self._reply_handlers.popleft()(reply)

    def _on_mail_reply(self, reply: SmtpReply) -> None:
        if reply.code // 100 != 2 and not reply.is_rejection:
            self._protocol.abort(reply.line)
            return
        self._envelope_answered = True
        if reply.is_rejection:
            # A rejected MAIL is about us as the sender, whatever its code: no recipient has been named yet.
            result = rejection_result(reply)
            self._rejection = (
                DeliveryResult(DeliveryStatus.SENDER_REJECTED, result.reply)
                if result.status in (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED)
                else result
            )
        self._send_next_command(self._on_rcpt_reply, lambda mail: b"RCPT TO:<%b>\r\n" % mail.recipient.encode())

    def _on_rcpt_reply(self, reply: SmtpReply) -> None:
        if reply.code // 100 != 2 and not reply.is_rejection:
            self._protocol.abort(reply.line)
            return
        if reply.is_rejection:
            self._rejection = self._rejection or rejection_result(reply)
        self._send_next_command(self._on_data_reply, lambda _: b"DATA\r\n")

    def _send_next_command(
        self, handler: Callable[[SmtpReply], None], command: Callable[[OutgoingMail], bytes]
    ) -> None:
        """Without PIPELINING: write the next envelope command, or abandon a rejected envelope."""
        if self._pipelining or self._offered is None:
            return
        if self._rejection is not None:
            self._settle_and_reset(self._rejection)
            return
        self._reply_handlers.append(handler)
        self._protocol.write(command(self._offered.mail))

    def _on_data_reply(self, reply: SmtpReply) -> None:
        job = self._offered
        assert job is not None
        if reply.code == 354 and self._rejection is None:
            self._send_content(job)
        elif reply.code == 354:
            self._end_data_with_lone_dot(self._rejection)
        elif reply.is_rejection:
            self._settle_and_reset(self._rejection or rejection_result(reply))
        else:
            self._protocol.abort(reply.line)

    def _end_data_with_lone_dot(self, rejection: DeliveryResult | None) -> None:
        """DATA was accepted although all recipients were rejected: end it with a lone dot (RFC 2920, section 3.1)."""
        job, self._offered = self._offered, None
        assert job is not None
        assert rejection is not None
        self._source.settle(job, rejection)
        self._reply_handlers.append(self._on_ignored_reply)
        self._protocol.write(b".\r\n")
        if self._pipelining:
            self._offer_next(b"")

    def _settle_and_reset(self, outcome: DeliveryResult) -> None:
        """Settle a rejected mail. The SMTP transaction may still be open, so RSET comes before the next mail."""
        job, self._offered = self._offered, None
        assert job is not None
        self._source.settle(job, outcome)
        self._reply_handlers.append(self._on_ignored_reply)
        if self._pipelining:
            self._offer_next(b"RSET\r\n")
        else:
            self._protocol.write(b"RSET\r\n")

    def _on_ignored_reply(self, reply: SmtpReply) -> None:
        if reply.code == SERVICE_CLOSING or not reply.code:
            self._protocol.abort(reply.line)
        else:
            self.send_next()

    def _send_content(self, job: Job) -> None:
        content = _dot_stuff(job.mail)
        if self._pipelining and len(content) <= _ONE_WRITE_LIMIT and self._protocol.is_flushed:
            self._send_content_and_dot(job, content)
            return
        if not self._source.may_go(job):
            self._give_back_after_data(job)
            return
        self._writing_content = True
        self._protocol.write(content)
        if self._protocol.is_flushed:
            self._send_dot()

    def _send_content_and_dot(self, job: Job, content: bytes) -> None:
        """Write content, final dot and the next envelope in one write."""
        following = (
            self._take_deliverable()
        )  # Before may_go(), because taking a mail may take time in which a stop is requested.
        if not self._source.may_go(job):
            if following is not None:
                self._source.give_back(following)
            self._give_back_after_data(job)
            return
        self._offered = None
        self._source.before_dot(job)
        self._awaiting_final_reply = job
        self._reply_handlers.append(self._on_dot_reply)
        self._protocol.write(
            b"".join((content, b".\r\n", b"" if following is None else self._envelope_commands(following)))
        )

    def _give_back_after_data(self, job: Job) -> None:
        """Give back a mail after DATA was accepted, which only closing the connection can undo."""
        self._offered = None
        self._source.give_back(job)
        self._protocol.abort("the worker is stopping")

    def _on_flushed(self) -> None:
        if self._writing_content:
            self._send_dot()

    def _send_dot(self) -> None:
        job, self._offered, self._writing_content = self._offered, None, False
        assert job is not None
        self._source.before_dot(job)
        self._awaiting_final_reply = job
        self._reply_handlers.append(self._on_dot_reply)
        if self._pipelining:
            self._offer_next(b".\r\n")
        else:
            self._protocol.write(b".\r\n")

    def _on_dot_reply(self, reply: SmtpReply) -> None:
        job, self._awaiting_final_reply = self._awaiting_final_reply, None
        assert job is not None
        if 200 <= reply.code < 300:
            self._source.settle(job, DeliveryResult(DeliveryStatus.SENT, reply.line))
        elif 400 <= reply.code < 600:
            self._source.settle(job, rejection_result(reply))
        else:  # Not a valid final reply, so the relay may have accepted the mail.
            self._source.settle(job, DeliveryResult(DeliveryStatus.UNKNOWN, reply.line))
        if not 200 <= reply.code < 600 or reply.code // 100 == 3 or reply.code == SERVICE_CLOSING:
            self._protocol.abort(reply.line)
        else:
            self.send_next()

    def _check_timeout(self) -> None:
        """Abort a connection without progress for longer than its timeout. Runs every second.

        Each reply only increments a counter; this check compares it. Time in which the process was stopped or the
        machine asleep does not count as waiting for the relay.
        """
        now = self._loop.time()
        self._stalled_seconds += min(now - self._checked_at, 2 * _CHECK_INTERVAL)
        if self.is_idle or self._progress != self._checked_progress:
            self._checked_progress, self._stalled_seconds = self._progress, 0.0
        elif self._stalled_seconds > self._timeout():
            self._protocol.abort("no answer in time")
        self._checked_at = now
        if self._protocol.end_reason is None:
            self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check_timeout)

    def _on_lost(self, reason: str) -> None:
        """Settle the mails in transit by how far they got.

        Unknown after the final dot; given back if the relay had not replied to the envelope; else lost.
        """
        self._timer.cancel()
        self._reply_handlers.clear()
        awaiting, self._awaiting_final_reply = self._awaiting_final_reply, None
        offered, self._offered = self._offered, None
        if awaiting is not None:
            self._source.settle(awaiting, DeliveryResult(DeliveryStatus.UNKNOWN, reason))
        if offered is not None and not self._envelope_answered and offered.returns < _MAX_RETURNS:
            self._source.give_back(offered)
        elif offered is not None:
            self._source.settle(offered, DeliveryResult(DeliveryStatus.CONNECTION_LOST, reason))
        self._writing_content = False
        self._on_end(self, reason)


def _is_ascii(mail: OutgoingMail) -> bool:
    return mail.is_ascii or mail.content.isascii()


def _dot_stuff(mail: OutgoingMail) -> bytes:
    """The content with dot stuffing: each dot that begins a line is doubled (RFC 5321, section 4.5.2)."""
    content = mail.content
    if mail.has_no_leading_dots or not (b"\n." in content or content.startswith(b".")):
        return content
    return re.sub(rb"(?m)^\.", b"..", content)
