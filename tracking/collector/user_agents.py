"""Dictionary of user agent strings: an event stores an id instead of the text."""

from hashlib import blake2b

from sqlalchemy import Connection

from campaigns.i18n import N_
from tracking.counters import bulk_sql

_MAX_CACHED = 50_000


_CLIENTS = (
    ("GoogleImageProxy", N_("Gmail's image proxy")),
    ("Edge/12.246", N_("Gmail's prefetch")),
    ("Thunderbird", "Thunderbird"),
    ("Outlook", "Outlook"),
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS", "Chrome"),
    ("Safari/", "Safari"),
    ("AppleWebKit", "Apple Mail"),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


def client_and_system(text: str) -> tuple[str, str]:
    """Program family (a msgid) and operating system in a user agent; "" for what it does not contain."""
    if text == "Mozilla/5.0":
        return N_("Apple Mail's prefetch"), ""
    family = next((name for sign, name in _CLIENTS if sign in text), "")
    system = next((name for sign, name in _SYSTEMS if sign in text), "")
    return (family, system) if family else (text.split("/")[0][:40], system)


def _digest(user_agent: bytes) -> bytes:
    return blake2b(user_agent, digest_size=16).digest()


def _text(user_agent: bytes) -> str:
    """The text as stored and displayed. PostgreSQL rejects NUL characters."""
    return user_agent.decode("utf-8", "replace").replace("\0", "�")[:500]


class UserAgentCache:
    """User agent ids, cached between chunks once their transaction has committed."""

    def __init__(self) -> None:
        self._committed_ids: dict[bytes, int] = {}
        self._uncommitted_ids: dict[bytes, int] = {}

    def id_of(self, connection: Connection, user_agent: bytes) -> int:
        """The id of a user agent; inserts a new one."""
        found = self._committed_ids.get(user_agent) or self._uncommitted_ids.get(user_agent)
        if found is None:
            p, digest = "%s" if bulk_sql.is_postgres(connection) else "?", _digest(user_agent)
            connection.exec_driver_sql(
                f"INSERT INTO user_agents (digest, text) VALUES ({p}, {p}) ON CONFLICT (digest) DO NOTHING",  # noqa: S608
                (digest, _text(user_agent)),
            )
            statement = f"SELECT id FROM user_agents WHERE digest = {p}"  # noqa: S608
            found = self._uncommitted_ids[user_agent] = int(
                connection.exec_driver_sql(statement, (digest,)).scalar_one()
            )
        return found

    def commit(self) -> None:
        """Keep the ids of this transaction: it was committed."""
        if len(self._committed_ids) + len(self._uncommitted_ids) > _MAX_CACHED:
            self._committed_ids.clear()
        self._committed_ids.update(self._uncommitted_ids)
        self._uncommitted_ids.clear()

    def rollback(self) -> None:
        """Drop the ids of this transaction: its inserts were rolled back."""
        self._uncommitted_ids.clear()
