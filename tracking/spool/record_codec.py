"""Binary record format of hits: ``magic | length | CRC-32 | body``, with a scanner that tolerates damage."""

import struct
from dataclasses import dataclass
from enum import IntFlag
from functools import partial
from typing import NamedTuple
from zlib import crc32

MAGIC = 0xA7
MAX_USER_AGENT_BYTES = 500
MAX_REPORT_BYTES = 8 * 1024
"""Maximum size of one page script report in bytes."""
MAX_ORIGIN_BYTES = 300
"""Maximum size of a page's origin in bytes: scheme, host (at most 253) and port are shorter."""
REPORT_KIND = 10
"""Kind of a page script report. Its ``user_agent`` field holds three lines: user agent, origin of the
page, JSON body.
"""
_FRAME = struct.Struct("<BHI")
_BODY = struct.Struct("<BBHqqqq")
_FRAME_AND_BODY = struct.Struct("<BHIBBHqqqq")  # Frame and body unpacked in one call.
MAX_RECORD_BYTES = _FRAME.size + _BODY.size + MAX_USER_AGENT_BYTES + MAX_ORIGIN_BYTES + MAX_REPORT_BYTES
_LOSS_KIND = 255  # Kind of a loss record: ``target`` hits were answered but not stored.


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


_make_hit = partial(tuple.__new__, Hit)  # ``Hit._make`` without its Python call: it runs once per hit.


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Result of scanning a byte range: hits with their offsets, and how far the range was read."""

    hits: list[tuple[int, Hit]]
    end: int
    skipped_bytes: int
    """Bytes between records that belong to no record."""
    lost_hits: int
    """Hits in loss records: answered while the disk refused writes."""
    reached_unwritten: bool
    """Whether the scan stopped at a zero byte where the next record would begin: it is not written yet."""


def pack(hit: Hit) -> bytes:
    return pack_fields(*hit)


def pack_fields(at: int, kind: int, flags: int, target: int, number: int, network: int, user_agent: bytes) -> bytes:
    """The record of a :class:`Hit` with these fields, without building the tuple first."""
    body = _BODY.pack(kind, flags, len(user_agent), at, target, number, network) + user_agent
    return _FRAME.pack(MAGIC, len(body), crc32(body)) + body


def pack_loss(hits: int, at: int) -> bytes:
    """A loss record: ``hits`` requests were answered but could not be stored."""
    return pack(Hit(at, _LOSS_KIND, 0, hits, 0, 0, b""))


def scan(data: bytes, base_offset: int = 0, past_zeros: bool = True) -> ScanResult:
    """Read all complete records. ``end`` is the position behind the last one; an incomplete tail is left for a later
    scan. Offsets of hits count from ``base_offset`` at the first byte. While a spool is being written, the scan ends at
    the first zero byte in place of a record; with ``past_zeros`` it continues behind it.

    Bytes that belong to no record are skipped up to the next valid record, whatever their origin.
    """
    hits: list[tuple[int, Hit]] = []
    at = end = skipped = lost = 0
    size, last, frame, head = len(data), len(data) - _FRAME_AND_BODY.size, _FRAME.size, _BODY.size
    unpack, make, append = _FRAME_AND_BODY.unpack_from, _make_hit, hits.append
    while at <= last:
        magic, length, checksum, kind, flags, agent, instant, target, number, network = unpack(data, at)
        start = at + frame
        stop = start + length
        if magic == MAGIC and length >= head and stop <= size and crc32(body := data[start:stop]) == checksum:
            if at != end:
                skipped += at - end
            if kind == _LOSS_KIND:
                lost += target
            else:
                append(
                    (base_offset + at, make((instant, kind, flags, target, number, network, body[head : head + agent])))
                )
            at = end = stop
            continue
        if not magic and not past_zeros:
            return ScanResult(hits, end, skipped, lost, True)
        at = data.find(MAGIC, at + 1)
        if at < 0:
            break
    return ScanResult(hits, end, skipped, lost, False)
