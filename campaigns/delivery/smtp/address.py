"""Relay addresses: host, port, credentials, TLS mode and limits."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import parse_qs, unquote, urlsplit

from campaigns import config
from campaigns.i18n import N_


class TlsMode(StrEnum):
    """TLS mode of a connection. There is no opportunistic mode, because an attacker could strip the STARTTLS offer."""

    OFF = "off"
    VERIFY = "verify"  # STARTTLS with a verified certificate
    IMPLICIT = "implicit"  # TLS from the first byte with a verified certificate

    @property
    def label(self) -> str:
        return {self.OFF: N_("None"), self.VERIFY: N_("STARTTLS, verified"), self.IMPLICIT: N_("TLS, verified")}[self]


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """Connection parameters of a relay. In limits, 0 means no limit."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    tls: TlsMode = TlsMode.VERIFY
    connections: int = 4
    """Maximum number of concurrent connections in each worker."""
    per_connection: int = 0
    """Mails per connection before it is replaced by a new one."""
    per_second: float = 0.0
    """Mails per second, across all workers."""
    priority: int = 0
    """The available relays with the lowest number are used; the others are fallbacks."""

    public_only: bool = False
    """Whether only public IP addresses are allowed (protects internal services against server-side requests)."""

    @property
    def name(self) -> str:
        """``host:port``, the key of the relay's health and statistics."""
        return f"{self.host}:{self.port}"


def relay_from_settings() -> RelayAddress:
    """The relay of the setting SMTP_URL: ``smtp[s]://user:password@host:port?tls=verify|off&connections=4``.

    Defaults: TLS is verified except on loopback; port 25, or 465 for ``smtps``; 4 connections, at most 100.
    """
    parts = urlsplit(config.settings().smtp_url)
    host = parts.hostname or "127.0.0.1"
    options = parse_qs(parts.query)
    tls_option = options.get("tls", ["off" if is_loopback(host) else "verify"])[0]
    tls = TlsMode.IMPLICIT if parts.scheme == "smtps" else TlsMode.OFF if tls_option == "off" else TlsMode.VERIFY
    port = parts.port or (465 if tls is TlsMode.IMPLICIT else 25)
    connections = options.get("connections", ["4"])[0]
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
