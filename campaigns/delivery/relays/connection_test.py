"""Connection test of a relay: dialogue, capabilities, TLS and certificate. No mail is sent."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from campaigns.delivery.smtp.address import RelayAddress, TlsMode
from campaigns.delivery.smtp.handshake import RelayUnavailable, open_connection
from campaigns.delivery.smtp.replies import printable_line
from campaigns.i18n import N_

_TIMEOUT = 20.0


@dataclass(slots=True)
class ConnectionTest:
    """Result of a connection test.

    ``dialogue``: (side, line), side is C (client) or S (server), secrets are masked as ``***``. ``error``: '' on
    success, else the error or the relay's reply. ``advice``: what to change, as a msgid, '' if unknown.
    ``extensions``: (keyword, parameters). ``tls``: version and cipher. ``certificate``: (``names``, ``issuer`` or
    ``until``, value).
    """

    dialogue: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""
    advice: str = ""
    extensions: Sequence[tuple[str, str]] = ()
    tls: str = ""
    certificate: Sequence[tuple[str, str]] = ()


def try_connection(relay: RelayAddress) -> ConnectionTest:
    """Connect, authenticate and quit, within 20 seconds. Uses the network, so no transaction may be open."""
    return asyncio.run(_try_connection(relay))


async def _try_connection(relay: RelayAddress) -> ConnectionTest:
    result = ConnectionTest()
    try:
        async with asyncio.timeout(_TIMEOUT):
            protocol, capabilities = await open_connection(relay, lambda who, what: result.dialogue.append((who, what)))
    except (RelayUnavailable, TimeoutError) as error:
        result.error = str(error) or "no answer in time"
        result.advice = _advice(relay, error.__cause__ or error, result.dialogue)
        return result
    result.extensions = sorted(capabilities.extensions.items())
    tls_socket = protocol.transport.get_extra_info("ssl_object")
    if tls_socket is not None:
        cipher = tls_socket.cipher()
        result.tls = f"{tls_socket.version()} {cipher[0] if cipher else ''}"
        result.certificate = _certificate_facts(tls_socket.getpeercert() or {})
    result.dialogue.append(("C", "QUIT"))
    protocol.write(b"QUIT\r\n")
    protocol.transport.close()
    await protocol.wait_closed(1.0)
    return result


def _certificate_facts(certificate: dict[str, Any]) -> list[tuple[str, str]]:
    names = ", ".join(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    issuer = ", ".join(value for part in certificate.get("issuer", ()) for _, value in part)
    return [
        (key, printable_line(str(value)))
        for key, value in (
            ("names", names),
            ("issuer", issuer),
            ("until", certificate.get("notAfter", "")),
        )
    ]


def _advice(relay: RelayAddress, error: BaseException, dialogue: Sequence[tuple[str, str]]) -> str:
    last_command = next((what for who, what in reversed(dialogue) if who == "C"), "")
    match error:
        case socket.gaierror():
            return N_("Nobody knows a machine of that name: look how the host is spelt.")
        case ConnectionRefusedError():
            return N_("Nothing listens on that port. Sending services listen on 587 (STARTTLS) or 465 (TLS).")
        case ssl.SSLCertVerificationError():
            return N_("Its certificate does not prove this host: enter the very name for which it was issued.")
        case ssl.SSLError():
            return N_("That port does not begin with TLS: try STARTTLS, which most often is on 587.")
        case TimeoutError() if relay.tls is not TlsMode.IMPLICIT and relay.port == 465:
            return N_("Port 465 expects TLS from the first byte: choose “TLS, verified”.")
        case TimeoutError() if not dialogue:
            return N_("A firewall may stand between: many networks block port 25. Try 587 (STARTTLS) or 465 (TLS).")
    if last_command in ("***", "AUTH LOGIN", "AUTH PLAIN ***"):
        return N_("It refused the sign-in: look at user and password. Some services want a password made for programs.")
    return ""
