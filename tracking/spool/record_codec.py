"""A hit as bytes: ``magic | length | CRC-32 | body``, and reading them back from anything."""

import struct
from dataclasses import dataclass
from enum import IntFlag
from functools import partial
from typing import NamedTuple
from zlib import crc32

MAGIC = 0xA7
LONGEST_USER_AGENT = 500
LONGEST_REPORT = 8 * 1024
"""Bytes of what the page script says at once."""
LONGEST_ORIGIN = 300
"""Bytes of the origin of its page: a scheme, a host's 253 and a port are fewer."""
REPORT = 10
"""In place of a kind: behind the user agent stand the page's origin and the script's words, a line each."""
_FRAME = struct.Struct("<BHI")
_BODY = struct.Struct("<BBHqqqq")
_WHOLE = struct.Struct("<BHIBBHqqqq")  # Frame and body at once.
LONGEST_RECORD = _FRAME.size + _BODY.size + LONGEST_USER_AGENT + LONGEST_ORIGIN + LONGEST_REPORT
_LOSS = 255  # In place of a kind: ``target`` hits were answered but not kept.


class RequestFlag(IntFlag):
    """What a request said about itself."""

    HEAD = 1
    PREFETCH = 2  # Purpose, X-Moz or Sec-Purpose: prefetch
    NAVIGATED = 4  # Sec-Fetch-User: ?1
    UNTRACKED = 8  # DNT or Sec-GPC, or the page script says so


class Hit(NamedTuple):
    """A raw request. ``target`` is the token's send (sequence number 0: nobody), for a view the
    visiting send or 0; ``number`` is the link, for a view the landing page's activity."""

    at: int  # microseconds since 1970 UTC
    kind: int
    flags: int
    target: int
    number: int
    network: int
    user_agent: bytes


_make = partial(tuple.__new__, Hit)  # ``Hit._make`` without its Python: this is asked for every hit.


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What was found in a stretch of a spool: hits with their positions, and how far it was read."""

    hits: list[tuple[int, Hit]]
    end: int
    skipped: int
    """Bytes between records that are no record."""
    lost: int
    """Hits that the writer says the disk refused."""
    waits: bool
    """Whether the next record isn't written yet: where it should begin stands a zero."""


def pack(hit: Hit) -> bytes:
    return packed(*hit)


def packed(at: int, kind: int, flags: int, target: int, number: int, network: int, user_agent: bytes) -> bytes:
    """The record of a :class:`Hit` with these fields, which need not be made first."""
    body = _BODY.pack(kind, flags, len(user_agent), at, target, number, network) + user_agent
    return _FRAME.pack(MAGIC, len(body), crc32(body)) + body


def pack_loss(hits: int, at: int) -> bytes:
    """A record that stands for hits which were answered but could not be kept."""
    return pack(Hit(at, _LOSS, 0, hits, 0, 0, b""))


def scan(data: bytes, origin: int = 0, through: bool = True) -> ScanResult:
    """Read all whole records; ``end`` is behind the last one, an incomplete tail is left for later. Positions of
    hits count from ``origin`` at the first byte. Of a spool that is still written it ends where nothing is
    written yet; ``through`` goes on behind that place.

    Bytes that are no record, wherever they come from, are passed over up to the next whole record.
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
