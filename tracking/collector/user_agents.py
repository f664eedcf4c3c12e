"""Dictionary of user agent strings: an event stores an id instead of the text."""

from hashlib import blake2b

from sqlalchemy import Connection

from campaigns.i18n import N_
from tracking.counters import bulk_sql

_REMEMBERED = 50_000


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


def client(text: str) -> tuple[str, str]:
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
        self._known: dict[bytes, int] = {}
        self._fresh: dict[bytes, int] = {}

    def number(self, connection: Connection, user_agent: bytes) -> int:
        """The id of a user agent; inserts a new one."""
        found = self._known.get(user_agent) or self._fresh.get(user_agent)
        if found is None:
            p, digest = "%s" if bulk_sql.is_postgres(connection) else "?", _digest(user_agent)
            connection.exec_driver_sql(
                f"INSERT INTO user_agents (digest, text) VALUES ({p}, {p}) ON CONFLICT (digest) DO NOTHING",  # noqa: S608
                (digest, _text(user_agent)),
            )
            statement = f"SELECT id FROM user_agents WHERE digest = {p}"  # noqa: S608
            found = self._fresh[user_agent] = int(connection.exec_driver_sql(statement, (digest,)).scalar_one())
        return found

    def committed(self) -> None:
        """Keep the ids of this transaction: it was committed."""
        if len(self._known) + len(self._fresh) > _REMEMBERED:
            self._known.clear()
        self._known.update(self._fresh)
        self._fresh.clear()

    def rolled_back(self) -> None:
        """Drop the ids of this transaction: its inserts were rolled back."""
        self._fresh.clear()
