"""Tracking consent as of the time of each hit."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection

from campaigns.audience.models import ConsentLevel, ConsentPurpose
from tracking.counters import bulk_sql
from tracking.spool.record_codec import Hit

_SEQUENCE_MASK = 0xFFFFFFFF  # The sequence number in a send's id. 0 marks a token that is the same for all recipients.
_FULL, _NONE = ConsentLevel.FULL, ConsentLevel.NONE
_LEVELS = {None: _NONE} | {level.value: level for level in ConsentLevel}

# One query for all sends of a chunk: the contact, and the last consent entry before the newest hit.
_SENDS_SQL = """
    WITH asked (id) AS {{ids}}
    SELECT s.id, s.contact_id, s.trackable AND substr(s.recipient_key, 1, 2) = 'a:', c.level, c.at > {{p}}
    FROM asked JOIN sends s ON s.id = asked.id LEFT JOIN {theirs}
"""
_NEWEST_ENTRY_SQL = f"""
    FROM consent_log l
    WHERE l.contact_id = s.contact_id AND l.purpose = '{ConsentPurpose.TRACKING.value}' AND l.at <= {{p}}
    ORDER BY l.at DESC, l.id DESC LIMIT 1
"""
_LAST_LEVEL_SQL = {
    "sqlite": _SENDS_SQL.format(theirs=f"consent_log c ON c.id = (SELECT l.id {_NEWEST_ENTRY_SQL})"),
    "postgresql": _SENDS_SQL.format(theirs=f"LATERAL (SELECT l.level, l.at {_NEWEST_ENTRY_SQL}) c ON true"),
}
_LEDGER_SQL = f"""
    SELECT contact_id, {{at}}, level FROM consent_log
    WHERE contact_id IN {{ids}} AND purpose = '{ConsentPurpose.TRACKING.value}' ORDER BY at, id
"""  # noqa: S608

ConsentLookup = tuple[dict[int, ConsentLevel], Callable[[int, int], ConsentLevel]]


def consent_levels(connection: Connection, hits: Sequence[tuple[int, Hit]]) -> ConsentLookup:
    """The consent level of each hit: a dict by send for sends whose level did not change during the chunk, and a
    function (send, microseconds) for all others. Sends without a recipient have level NONE.

    A send without a contact (a test mail to an address) has the level that it was composed with. A send that was
    deleted, or whose contact was, has level NONE.
    """
    oldest, newest = min(hit[0] for _, hit in hits), max(hit[0] for _, hit in hits)
    levels: dict[int, ConsentLevel] = {}
    changed_contacts: dict[int, int] = {}
    send_ids = sorted({hit[3] for _, hit in hits if hit[3] & _SEQUENCE_MASK})  # In the order of the table's key.
    span = (bulk_sql.to_driver_instant(connection, at) for at in (oldest, newest))
    last = _LAST_LEVEL_SQL[connection.dialect.name]
    for send_id, contact_id, as_composed, level, is_new in bulk_sql.select_by_ids(connection, last, send_ids, *span):
        if contact_id is None:
            levels[send_id] = _FULL if as_composed else _NONE
        elif not is_new:
            levels[send_id] = _LEVELS[level]
        else:
            changed_contacts[send_id] = contact_id
    ledgers = _consent_ledgers(connection, set(changed_contacts.values())) if changed_contacts else {}

    def as_of(send_id: int, at: int) -> ConsentLevel:
        if send_id not in changed_contacts:
            return levels.get(send_id, _NONE)
        entries = ledgers[changed_contacts[send_id]]
        place = bisect_right(entries, at, key=lambda entry: entry[0])
        return entries[place - 1][1] if place else _NONE

    return levels, as_of


def _consent_ledgers(connection: Connection, contact_ids: Collection[int]) -> dict[int, list[tuple[int, ConsentLevel]]]:
    """The complete consent entries, oldest first, of contacts whose consent changed during the chunk."""
    found = defaultdict[int, list[tuple[int, ConsentLevel]]](list)
    for contact_id, at, level in bulk_sql.select_by_ids(connection, _LEDGER_SQL, contact_ids):
        found[contact_id].append((at, _LEVELS[level]))
    return found
