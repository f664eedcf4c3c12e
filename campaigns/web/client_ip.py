"""Client addresses behind trusted proxies; independent of Flask, so that plain WSGI code uses it too."""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from campaigns import config


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip().strip("[]"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _is_trusted_proxy(text: str) -> bool:
    address = _parse_address(text)
    return address is not None and any(address in network for network in config.settings().trusted_proxies)


def client_ip(environ: dict[str, Any]) -> str:
    """The client's address, "" when unknown.

    ``X-Forwarded-For`` is read from its right end for as long as the sender of that part is a trusted proxy; anything
    further left can be forged by the client.
    """
    nearest = str(environ.get("REMOTE_ADDR", ""))
    for hop in reversed(str(environ.get("HTTP_X_FORWARDED_FOR", "")).split(",")):
        if not _is_trusted_proxy(nearest):
            break
        if _parse_address(hop) is None:
            break
        nearest = hop
    address = _parse_address(nearest)
    return str(address) if address else ""


def network_of(ip: str) -> str:
    """The network that is likely one household or company: /24 (IPv4) or /56 (IPv6, RIPE-690), else "unknown"."""
    address = _parse_address(ip)
    if address is None:
        return "unknown"
    packed = address.packed[:3] if isinstance(address, IPv4Address) else address.packed[:7]
    return f"{packed.hex()}/{len(packed) * 8}"


WsgiApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]


def behind_proxies(application: WsgiApplication) -> WsgiApplication:
    """WSGI middleware: trusted proxies, and nobody else, set the client's address and the URL scheme."""

    def proxied_application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if _is_trusted_proxy(str(environ.get("REMOTE_ADDR", ""))):
            proto = str(environ.get("HTTP_X_FORWARDED_PROTO", "")).rpartition(",")[2].strip()
            if proto in ("http", "https"):
                environ["wsgi.url_scheme"] = proto
            environ = {**environ, "REMOTE_ADDR": client_ip(environ) or environ["REMOTE_ADDR"]}
            environ.pop("HTTP_X_FORWARDED_FOR", None)
        return application(environ, start_response)

    return proxied_application
