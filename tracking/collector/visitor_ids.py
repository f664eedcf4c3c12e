"""Visitor keys without cookies: keyed hashes that cannot be reversed once the salt of their day is deleted."""

import secrets
from collections.abc import Collection
from datetime import date, timedelta
from hashlib import blake2b

from sqlalchemy import Connection, delete, insert, select

from campaigns.db import from_micros
from campaigns.tokens import Purpose, keyring
from tracking.collector.page_reports import PageReport
from tracking.models.visits import DaySalt

_DAY = timedelta(days=1)
_SALT_BYTES = 32


class DailySalts:
    """The salts of the days (UTC) on which reports arrived and of the days before, so that a visit can continue past
    midnight. Older salts are deleted: their hashes can no longer be recomputed.
    """

    def __init__(self, connection: Connection, instants: Collection[int]) -> None:
        self._connection = connection
        self._salts: dict[date, bytes] = {}
        days = {from_micros(at).date() for at in instants}
        if not days:
            return
        connection.execute(delete(DaySalt).where(DaySalt.day < min(days) - _DAY))
        self._salts = dict(connection.execute(select(DaySalt.day, DaySalt.salt)).all())
        for day in sorted(days - self._salts.keys()):
            self._salts[day] = secrets.token_bytes(_SALT_BYTES)
            connection.execute(insert(DaySalt).values(day=day, salt=self._salts[day]))

    def visitor_keys(self, report: PageReport) -> list[int]:
        """The keys of a visitor, best first: the hash of the visitor id that they consented to, today's hash,
        yesterday's hash.
        """
        today = from_micros(report.at).date()
        found = [_hash_of_allowed_id(report.visitor_id)] if report.visitor_id else []
        for day in (today, today - _DAY):
            if day in self._salts:
                found.append(_daily_hash(self._salts[day], report))
        return found


def _daily_hash(salt: bytes, report: PageReport) -> int:
    hashed = b"\0".join((report.host.encode(), str(report.network).encode(), report.user_agent))
    return _to_63_bits(blake2b(hashed, key=salt, digest_size=8).digest())


def _hash_of_allowed_id(id: str) -> int:
    return _to_63_bits(bytes.fromhex(keyring().keyed_hash(Purpose.VISITOR, id)[:16]))


def _to_63_bits(digest: bytes) -> int:
    """63 bits of the digest: a positive BIGINT on both databases."""
    return int.from_bytes(digest) >> 1
