"""A relay tried out: what is said, what it offers, how it is protected. No mail is sent."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from campaigns.delivery.answers import printable
from campaigns.delivery.greeting import RelayDown, greet
from campaigns.delivery.relay import RelayAddress

_PATIENCE = 20.0


@dataclass(slots=True)
class Trial:
    """``dialogue``: who speaks (C or S) and what, secrets as ***. ``error`` is empty when mail would go."""

    dialogue: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""
    extensions: Sequence[tuple[str, str]] = ()
    tls: str = ""
    certificate: Sequence[tuple[str, str]] = ()


def attempt(relay: RelayAddress) -> Trial:
    """Connect, greet, sign in, say goodbye; at most 20 seconds. Talks to the network: no transaction."""
    return asyncio.run(_attempt(relay))


async def _attempt(relay: RelayAddress) -> Trial:
    trial = Trial()
    try:
        async with asyncio.timeout(_PATIENCE):
            wire, offers = await greet(relay, lambda who, what: trial.dialogue.append((who, what)))
    except (RelayDown, TimeoutError) as error:
        trial.error = str(error) or "no answer in time"
        return trial
    trial.extensions = sorted(offers.extensions.items())
    secured = wire.transport.get_extra_info("ssl_object")
    if secured is not None:
        cipher = secured.cipher()
        trial.tls = f"{secured.version()} {cipher[0] if cipher else ''}"
        trial.certificate = _certificate(secured.getpeercert() or {})
    trial.dialogue.append(("C", "QUIT"))
    wire.write(b"QUIT\r\n")
    wire.transport.close()
    await wire.gone(1.0)
    return trial


def _certificate(found: dict[str, Any]) -> list[tuple[str, str]]:
    names = ", ".join(value for kind, value in found.get("subjectAltName", ()) if kind == "DNS")
    issuer = ", ".join(value for part in found.get("issuer", ()) for _, value in part)
    return [(key, printable(str(value))) for key, value in (
        ("names", names), ("issuer", issuer), ("until", found.get("notAfter", "")),
    )]  # fmt: skip
