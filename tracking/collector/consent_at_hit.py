"""How much of a person each hit may carry: the consent ledger as of the hit's own instant."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection

from campaigns.audience.models import ConsentLevel, ConsentPurpose
from tracking.counters import bulk_sql
from tracking.spool.record_codec import Hit

_SEQUENCE = 0xFFFFFFFF  # The lower half of a send's id; 0: a token for everybody.
_FULL, _NONE = ConsentLevel.FULL, ConsentLevel.NONE
_LEVELS = {None: _NONE} | {level.value: level for level in ConsentLevel}

# One question for all sends of a portion: whom each was for, and what stood last in that person's ledger.
_SENDS = """
    WITH asked (id) AS {{ids}}
    SELECT s.id, s.contact_id, s.trackable AND substr(s.recipient_key, 1, 2) = 'a:', c.level, c.at > {{p}}
    FROM asked JOIN sends s ON s.id = asked.id LEFT JOIN {theirs}
"""
_NEWEST = f"""
    FROM consent_log l
    WHERE l.contact_id = s.contact_id AND l.purpose = '{ConsentPurpose.TRACKING.value}' AND l.at <= {{p}}
    ORDER BY l.at DESC, l.id DESC LIMIT 1
"""
_LAST = {
    "sqlite": _SENDS.format(theirs=f"consent_log c ON c.id = (SELECT l.id {_NEWEST})"),
    "postgresql": _SENDS.format(theirs=f"LATERAL (SELECT l.level, l.at {_NEWEST}) c ON true"),
}
_LEDGER = f"""
    SELECT contact_id, {{at}}, level FROM consent_log
    WHERE contact_id IN {{ids}} AND purpose = '{ConsentPurpose.TRACKING.value}' ORDER BY at, id
"""  # noqa: S608

Allowed = tuple[dict[int, ConsentLevel], Callable[[int, int], ConsentLevel]]


def allowed(connection: Connection, hits: Sequence[tuple[int, Hit]]) -> Allowed:
    """What may be kept of a person with a hit: by send, where it was the same all the time, and for all others
    by send and instant.

    A send without a contact (a test mail to an address) carries what it was composed with; one
    whose contact has gone, or that is gone itself, carries nobody.
    """
    oldest, newest = min(hit[0] for _, hit in hits), max(hit[0] for _, hit in hits)
    levels: dict[int, ConsentLevel] = {}
    changing: dict[int, int] = {}
    send_ids = sorted({hit[3] for _, hit in hits if hit[3] & _SEQUENCE})  # In the order of the table.
    span = (bulk_sql.instant(connection, at) for at in (oldest, newest))
    last = _LAST[connection.dialect.name]
    for send_id, contact_id, as_composed, level, is_new in bulk_sql.select_by_ids(connection, last, send_ids, *span):
        if contact_id is None:
            levels[send_id] = _FULL if as_composed else _NONE
        elif not is_new:
            levels[send_id] = _LEVELS[level]
        else:
            changing[send_id] = contact_id
    ledgers = _ledgers(connection, set(changing.values())) if changing else {}

    def as_of(send_id: int, at: int) -> ConsentLevel:
        if send_id not in changing:
            return levels.get(send_id, _NONE)
        entries = ledgers[changing[send_id]]
        place = bisect_right(entries, at, key=lambda entry: entry[0])
        return entries[place - 1][1] if place else _NONE

    return levels, as_of


def _ledgers(connection: Connection, people: Collection[int]) -> dict[int, list[tuple[int, ConsentLevel]]]:
    """The whole ledger of those who changed their mind while these hits came in, oldest first."""
    found = defaultdict[int, list[tuple[int, ConsentLevel]]](list)
    for contact_id, at, level in bulk_sql.select_by_ids(connection, _LEDGER, people):
        found[contact_id].append((at, _LEVELS[level]))
    return found
