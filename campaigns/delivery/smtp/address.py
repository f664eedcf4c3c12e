"""Where a relay is and how it wants to be reached."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import parse_qs, unquote, urlsplit

from campaigns import config
from campaigns.i18n import N_


class TlsMode(StrEnum):
    """How a connection is protected. There is no "if offered": whoever strips the offer would read along."""

    OFF = "off"
    VERIFY = "verify"  # STARTTLS, with a certificate that holds
    IMPLICIT = "implicit"  # TLS from the first byte, with a certificate that holds

    @property
    def label(self) -> str:
        return {self.OFF: N_("None"), self.VERIFY: N_("STARTTLS, verified"), self.IMPLICIT: N_("TLS, verified")}[self]


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """A relay as a worker uses it. 0 means no limit."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    tls: TlsMode = TlsMode.VERIFY
    connections: int = 4
    """At most so many at once in each worker."""
    per_connection: int = 0
    """Mails until a connection is closed and another one opened."""
    per_second: float = 0.0
    """Mails a second, of all workers together."""
    priority: int = 0
    """The lowest that works is used; the others wait for its failure."""

    public: bool = False
    """Whether only addresses of the public internet will do."""

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


def relay_address() -> RelayAddress:
    """The relay of the settings: ``smtp[s]://user:password@host:port?tls=verify|off&connections=4``."""
    parts = urlsplit(config.settings().smtp_url)
    host = parts.hostname or "127.0.0.1"
    asked = parse_qs(parts.query)
    told = asked.get("tls", ["off" if is_loopback(host) else "verify"])[0]
    tls = TlsMode.IMPLICIT if parts.scheme == "smtps" else TlsMode.OFF if told == "off" else TlsMode.VERIFY
    port = parts.port or (465 if tls is TlsMode.IMPLICIT else 25)
    connections = asked.get("connections", ["4"])[0]
    return RelayAddress(
        host,
        port,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        tls,
        max(1, min(int(connections) if connections.isdecimal() else 4, 100)),
    )


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
