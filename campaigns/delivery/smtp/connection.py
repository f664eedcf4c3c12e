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
from campaigns.delivery.smtp.replies import CLOSING, DeliveryResult, DeliveryStatus, SmtpReply, judged, printable

# Timeouts in seconds (RFC 5321, section 4.5.3.2)
COMMAND = 300.0  # MAIL and RCPT
DATA = 120.0  # the reply to DATA
BLOCK = 180.0  # writing a part of the content
FINAL_DOT = 600.0  # the reply to the final dot
_LOOK = 1.0
_RETURNS = 2
"""How often a mail may be returned as untouched when its connection ends. After that it counts as an attempt, because
the mail itself could be what makes the relay close the connection."""
_AT_ONCE = 100_000
"""Octets that an empty socket buffer takes in one write, so that the final dot need not wait for a flush."""
_NO_PATH = re.compile(r"[\x00-\x20<>\x7f]")


@dataclass(slots=True, eq=False)
class Job:
    """One mail in transit, with its position in its batch."""

    mail: OutgoingMail
    batch: Any = None
    """Opaque to the connection; used by the mail source only."""
    position: int = 0
    returns: int = 0
    """How often the mail was returned because its connection ended before the relay had answered the envelope."""
    taken: float = 0.0


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
        wire: SmtpProtocol,
        offers: SmtpCapabilities,
        relay: RelayAddress,
        supply: MailSource,
        on_end: Callable[["Connection", str], None],
    ) -> None:
        self.relay, self.offers = relay, offers
        self._wire, self._supply, self._on_end = wire, supply, on_end
        self._grouped = offers.pipelining
        limits = [limit for limit in (relay.per_connection, offers.mails) if limit]
        self._left = min(limits) if limits else -1  # mails that this connection may still send; -1 means no limit
        self._expected: deque[Callable[[SmtpReply], None]] = deque()  # one handler for each outstanding reply
        self._proposed: Job | None = None  # the mail whose envelope has been written
        self._heard = False  # whether the relay has replied to that envelope (other than by closing)
        self._refusal: DeliveryResult | None = None  # the first rejection of that envelope
        self._sending = False  # the content has been written, the final dot has not
        self._dotted: Job | None = None  # the mail whose final dot has been written
        self._loop = asyncio.get_running_loop()
        self._moved = self._seen = 0
        self._looked, self._still = self._loop.time(), 0.0
        self._timer = self._loop.call_later(_LOOK, self._check)
        wire.on_reply, wire.on_flushed, wire.on_lost = self._answered, self._flushed, self._lost
        if self._grouped:
            wire.on_lines = self._usual
        if wire.lost is not None:
            self._loop.call_soon(self._lost, wire.lost)

    @property
    def idle(self) -> bool:
        """Whether no reply is outstanding and no content is being written."""
        return not self._expected and not self._sending

    @property
    def worn(self) -> bool:
        """Whether the connection has sent the maximum number of mails per connection."""
        return self._left == 0

    def go(self) -> None:
        """Take the next mail from the source, if the connection is idle."""
        if self.idle and self._wire.lost is None:
            self._moved += 1
            self._propose(b"")

    def close(self) -> None:
        """Send QUIT without waiting for the reply. A connection that is not idle is aborted."""
        if self._wire.lost is None:
            if self.idle:
                self._wire.write(b"QUIT\r\n")
                self._wire.lost = "closed"
                self._wire.transport.close()
            else:
                self._wire.cut("closed")
        self._timer.cancel()

    async def gone(self, seconds: float) -> None:
        """After :meth:`close`: wait until the socket is closed, at most ``seconds``."""
        await self._wire.gone(seconds)

    def _propose(self, before: bytes) -> None:
        """Write ``before`` and the next mail's envelope in one write."""
        job = self._take()
        if job is not None:
            self._wire.write(before + self._envelope(job))
        elif before:
            self._wire.write(before)

    def _envelope(self, job: Job) -> bytes:
        """The envelope commands of a mail: all of them with PIPELINING, else only MAIL."""
        self._proposed, self._refusal, self._heard = job, None, False
        self._expected.append(self._mail_answered)
        if not self._grouped:
            return self._mail(job.mail)
        self._expected += (self._rcpt_answered, self._data_answered)
        return b"%bRCPT TO:<%b>\r\nDATA\r\n" % (self._mail(job.mail), job.mail.recipient.encode())

    def _take(self) -> Job | None:
        while self._left and (job := self._supply.take()) is not None:
            refused = self._unfit(job.mail)
            if refused is None:
                self._left -= self._left > 0
                return job
            self._supply.settle(job, refused)
        return None

    def _unfit(self, mail: OutgoingMail) -> DeliveryResult | None:
        """The result of a mail that the relay's capabilities rule out; None when the mail can be offered."""
        if _NO_PATH.search(mail.recipient + mail.sender):
            return DeliveryResult(DeliveryStatus.NOT_COMPOSABLE, "an address that can't stand in an envelope")
        if mail.smtputf8 and not self.offers.smtputf8:
            return DeliveryResult(DeliveryStatus.REJECTED, "553 5.6.7 the relay takes no addresses beyond ASCII")
        if not (self.offers.eight_bit or _is_ascii(mail)):
            return DeliveryResult(DeliveryStatus.NOT_COMPOSABLE, "554 5.6.3 the relay takes no 8-bit content")
        if self.offers.size and len(mail.content) > self.offers.size:
            return DeliveryResult(
                DeliveryStatus.SENDER_REJECTED, f"552 5.3.4 the relay takes at most {self.offers.size} octets"
            )
        return None

    def _mail(self, mail: OutgoingMail) -> bytes:
        size = b"" if self.offers.size is None else b" SIZE=%d" % len(mail.content)
        utf8 = b" SMTPUTF8" if mail.smtputf8 else b""
        body = b"" if _is_ascii(mail) else b" BODY=8BITMIME"
        return b"MAIL FROM:<%b>%b%b%b\r\n" % (mail.sender.encode(), size, body, utf8)

    def _patience(self) -> float:
        """The timeout in seconds for the present state."""
        if self._sending:
            return BLOCK
        if self._dotted is not None:
            return FINAL_DOT
        return DATA if self._expected and self._expected[0] == self._data_answered else COMMAND

    def _usual(self, lines: Sequence[bytes]) -> bool:
        """Fast path for the usual four replies that arrive together: mail accepted, next envelope accepted.

        Returns True when it handled the lines. Otherwise they are parsed and handled reply by reply.
        """
        if len(lines) != 4 or len(self._expected) != 4 or self._dotted is None or self._proposed is None:
            return False
        taken, mail, rcpt, data = lines
        if not (taken[:4] == mail[:4] == rcpt[:4] == b"250 " and data[:4] == b"354 "):
            return False
        self._moved += 1
        self._expected.clear()
        job, self._dotted = self._dotted, None
        self._supply.settle(
            job, DeliveryResult(DeliveryStatus.SENT, printable(taken.rstrip().decode("utf-8", "replace")))
        )
        self._begin(self._proposed)
        return True

    def _answered(self, reply: SmtpReply) -> None:
        if not self._expected:
            self._wire.cut(reply.line)
            return
        self._moved += 1
        self._expected.popleft()(reply)

    def _mail_answered(self, reply: SmtpReply) -> None:
        if reply.code // 100 != 2 and not reply.refuses:
            self._wire.cut(reply.line)
            return
        self._heard = True
        if reply.refuses:
            # A rejected MAIL is about us as the sender, whatever its code: no recipient has been named yet.
            said = judged(reply)
            self._refusal = (
                DeliveryResult(DeliveryStatus.SENDER_REJECTED, said.reply)
                if said.status in (DeliveryStatus.NO_SUCH_RECIPIENT, DeliveryStatus.REJECTED)
                else said
            )
        self._next_word(self._rcpt_answered, lambda mail: b"RCPT TO:<%b>\r\n" % mail.recipient.encode())

    def _rcpt_answered(self, reply: SmtpReply) -> None:
        if reply.code // 100 != 2 and not reply.refuses:
            self._wire.cut(reply.line)
            return
        if reply.refuses:
            self._refusal = self._refusal or judged(reply)
        self._next_word(self._data_answered, lambda _: b"DATA\r\n")

    def _next_word(self, then: Callable[[SmtpReply], None], word: Callable[[OutgoingMail], bytes]) -> None:
        """Without PIPELINING: write the next envelope command, or abandon a rejected envelope."""
        if self._grouped or self._proposed is None:
            return
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        self._expected.append(then)
        self._wire.write(word(self._proposed.mail))

    def _data_answered(self, reply: SmtpReply) -> None:
        job = self._proposed
        assert job is not None
        if reply.code == 354 and self._refusal is None:
            self._begin(job)
        elif reply.code == 354:
            self._empty(self._refusal)
        elif reply.refuses:
            self._refuse(self._refusal or judged(reply))
        else:
            self._wire.cut(reply.line)

    def _empty(self, refusal: DeliveryResult | None) -> None:
        """DATA was accepted although all recipients were rejected: end it with a lone dot (RFC 2920, section 3.1)."""
        job, self._proposed = self._proposed, None
        assert job is not None
        assert refusal is not None
        self._supply.settle(job, refusal)
        self._expected.append(self._ignored)
        self._wire.write(b".\r\n")
        if self._grouped:
            self._propose(b"")

    def _refuse(self, outcome: DeliveryResult) -> None:
        """Settle a rejected mail. The SMTP transaction may still be open, so RSET comes before the next mail."""
        job, self._proposed = self._proposed, None
        assert job is not None
        self._supply.settle(job, outcome)
        self._expected.append(self._ignored)
        if self._grouped:
            self._propose(b"RSET\r\n")
        else:
            self._wire.write(b"RSET\r\n")

    def _ignored(self, reply: SmtpReply) -> None:
        if reply.code == CLOSING or not reply.code:
            self._wire.cut(reply.line)
        else:
            self.go()

    def _begin(self, job: Job) -> None:
        content = _stuffed(job.mail)
        if self._grouped and len(content) <= _AT_ONCE and self._wire.flushed:
            self._begin_and_end(job, content)
            return
        if not self._supply.may_go(job):
            self._take_back(job)
            return
        self._sending = True
        self._wire.write(content)
        if self._wire.flushed:
            self._dot()

    def _begin_and_end(self, job: Job, content: bytes) -> None:
        """Write content, final dot and the next envelope in one write."""
        following = self._take()  # Before may_go(), because taking a mail may take time in which a stop is requested.
        if not self._supply.may_go(job):
            if following is not None:
                self._supply.give_back(following)
            self._take_back(job)
            return
        self._proposed = None
        self._supply.before_dot(job)
        self._dotted = job
        self._expected.append(self._dot_answered)
        self._wire.write(b"".join((content, b".\r\n", b"" if following is None else self._envelope(following))))

    def _take_back(self, job: Job) -> None:
        """Give back a mail after DATA was accepted, which only closing the connection can undo."""
        self._proposed = None
        self._supply.give_back(job)
        self._wire.cut("told to stop")

    def _flushed(self) -> None:
        if self._sending:
            self._dot()

    def _dot(self) -> None:
        job, self._proposed, self._sending = self._proposed, None, False
        assert job is not None
        self._supply.before_dot(job)
        self._dotted = job
        self._expected.append(self._dot_answered)
        if self._grouped:
            self._propose(b".\r\n")
        else:
            self._wire.write(b".\r\n")

    def _dot_answered(self, reply: SmtpReply) -> None:
        job, self._dotted = self._dotted, None
        assert job is not None
        if 200 <= reply.code < 300:
            self._supply.settle(job, DeliveryResult(DeliveryStatus.SENT, reply.line))
        elif 400 <= reply.code < 600:
            self._supply.settle(job, judged(reply))
        else:  # Not a valid final reply, so the relay may have accepted the mail.
            self._supply.settle(job, DeliveryResult(DeliveryStatus.UNKNOWN, reply.line))
        if not 200 <= reply.code < 600 or reply.code // 100 == 3 or reply.code == CLOSING:
            self._wire.cut(reply.line)
        else:
            self.go()

    def _check(self) -> None:
        """Abort a connection without progress for longer than its timeout. Runs every second.

        Each reply only increments a counter; this check compares it. Time in which the process was stopped or the
        machine asleep does not count as waiting for the relay.
        """
        now = self._loop.time()
        self._still += min(now - self._looked, 2 * _LOOK)
        if self.idle or self._moved != self._seen:
            self._seen, self._still = self._moved, 0.0
        elif self._still > self._patience():
            self._wire.cut("no answer in time")
        self._looked = now
        if self._wire.lost is None:
            self._timer = self._loop.call_later(_LOOK, self._check)

    def _lost(self, why: str) -> None:
        """Settle the mails in transit by how far they got.

        Unknown after the final dot; given back if the relay had not replied to the envelope; else lost.
        """
        self._timer.cancel()
        self._expected.clear()
        dotted, self._dotted = self._dotted, None
        proposed, self._proposed = self._proposed, None
        if dotted is not None:
            self._supply.settle(dotted, DeliveryResult(DeliveryStatus.UNKNOWN, why))
        if proposed is not None and not self._heard and proposed.returns < _RETURNS:
            self._supply.give_back(proposed)
        elif proposed is not None:
            self._supply.settle(proposed, DeliveryResult(DeliveryStatus.CONNECTION_LOST, why))
        self._sending = False
        self._on_end(self, why)


def _is_ascii(mail: OutgoingMail) -> bool:
    return mail.ascii or mail.content.isascii()


def _stuffed(mail: OutgoingMail) -> bytes:
    """The content with dot stuffing: each dot that begins a line is doubled (RFC 5321, section 4.5.2)."""
    content = mail.content
    if mail.dotless or not (b"\n." in content or content.startswith(b".")):
        return content
    return re.sub(rb"(?m)^\.", b"..", content)
