"""Binary record format of hits: ``magic | length | CRC-32 | body``, with a scanner that tolerates damage."""

import struct
from dataclasses import dataclass
from enum import IntFlag
from functools import partial
from typing import NamedTuple
from zlib import crc32

MAGIC = 0xA7
LONGEST_USER_AGENT = 500
LONGEST_REPORT = 8 * 1024
"""Maximum size of one page script report in bytes."""
LONGEST_ORIGIN = 300
"""Maximum size of a page's origin in bytes: scheme, host (at most 253) and port are shorter."""
REPORT = 10
"""Kind of a page script report. Its ``user_agent`` field holds three lines: user agent, origin of the
page, JSON body.
"""
_FRAME = struct.Struct("<BHI")
_BODY = struct.Struct("<BBHqqqq")
_WHOLE = struct.Struct("<BHIBBHqqqq")  # Frame and body unpacked in one call.
LONGEST_RECORD = _FRAME.size + _BODY.size + LONGEST_USER_AGENT + LONGEST_ORIGIN + LONGEST_REPORT
_LOSS = 255  # Kind of a loss record: ``target`` hits were answered but not stored.


class RequestFlag(IntFlag):
    """Flags derived from the headers of a request."""

    HEAD = 1
    PREFETCH = 2  # Purpose, X-Moz or Sec-Purpose: prefetch
    NAVIGATED = 4  # Sec-Fetch-User: ?1
    UNTRACKED = 8  # DNT or Sec-GPC, or the opt-out flag of the page script


class Hit(NamedTuple):
    """A raw request.

    ``target``: the send of the token (sequence number 0: no recipient); for a view the visiting send or 0.
    ``number``: the link number; for a view the activity of the landing page.
    ``network``: see :mod:`tracking.endpoints.ip_networks`.
    """

    at: int  # microseconds since 1970, UTC
    kind: int
    flags: int
    target: int
    number: int
    network: int
    user_agent: bytes


_make = partial(tuple.__new__, Hit)  # ``Hit._make`` without its Python call: it runs once per hit.


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Result of scanning a byte range: hits with their offsets, and how far the range was read."""

    hits: list[tuple[int, Hit]]
    end: int
    skipped: int
    """Bytes between records that belong to no record."""
    lost: int
    """Hits in loss records: answered while the disk refused writes."""
    waits: bool
    """Whether the scan stopped at a zero byte where the next record would begin: it is not written yet."""


def pack(hit: Hit) -> bytes:
    return packed(*hit)


def packed(at: int, kind: int, flags: int, target: int, number: int, network: int, user_agent: bytes) -> bytes:
    """The record of a :class:`Hit` with these fields, without building the tuple first."""
    body = _BODY.pack(kind, flags, len(user_agent), at, target, number, network) + user_agent
    return _FRAME.pack(MAGIC, len(body), crc32(body)) + body


def pack_loss(hits: int, at: int) -> bytes:
    """A loss record: ``hits`` requests were answered but could not be stored."""
    return pack(Hit(at, _LOSS, 0, hits, 0, 0, b""))


def scan(data: bytes, origin: int = 0, through: bool = True) -> ScanResult:
    """Read all complete records. ``end`` is the position behind the last one; an incomplete tail is left for a later
    scan. Offsets of hits count from ``base_offset`` at the first byte. While a spool is being written, the scan ends at
    the first zero byte in place of a record; with ``past_zeros`` it continues behind it.

    Bytes that belong to no record are skipped up to the next valid record, whatever their origin.
    """
    hits: list[tuple[int, Hit]] = []
    at = end = skipped = lost = 0
    whole, last, frame, head = len(data), len(data) - _WHOLE.size, _FRAME.size, _BODY.size
    unpack, make, keep = _WHOLE.unpack_from, _make, hits.append
    while at <= last:
        magic, length, checksum, kind, flags, agent, instant, target, number, network = unpack(data, at)
        start = at + frame
        stop = start + length
        if magic == MAGIC and length >= head and stop <= whole and crc32(body := data[start:stop]) == checksum:
            if at != end:
                skipped += at - end
            if kind == _LOSS:
                lost += target
            else:
                keep((origin + at, make((instant, kind, flags, target, number, network, body[head : head + agent]))))
            at = end = stop
            continue
        if not magic and not through:
            return ScanResult(hits, end, skipped, lost, True)
        at = data.find(MAGIC, at + 1)
        if at < 0:
            break
    return ScanResult(hits, end, skipped, lost, False)
