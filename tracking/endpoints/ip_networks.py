"""IP networks as numbers: the /24 of an IPv4 address, the /48 of an IPv6 address.

An IPv4 network is the address shifted right by 8 bits; an IPv6 network is the address shifted right by 80 bits, with
bit 48 set. 0 stands for an unknown network. The full address never leaves memory.
"""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from campaigns import config
from campaigns.web.client_ip import client_ip

_IPV6_FLAG = 1 << 48
UNKNOWN_NETWORK = 0


def network_of(remote: str, forwarded: str) -> int:
    """The network number of the client. ``forwarded`` (``X-Forwarded-For``) is used only behind a trusted proxy."""
    trusted = config.settings().trusted_proxies
    return network_resolver(trusted)(remote, forwarded if trusted else "")


@lru_cache(maxsize=1)
def network_resolver(_trusted: tuple[object, ...]) -> Callable[..., int]:
    """Returns the function that maps (``REMOTE_ADDR``, ``X-Forwarded-For``) to a network number. It caches 65,536
    results and is rebuilt when the trusted proxies of the settings change.
    """
    return lru_cache(maxsize=65_536)(_network_number)


def _network_number(remote: str, forwarded: str = "") -> int:
    text = client_ip({"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded})
    if not text:
        return UNKNOWN_NETWORK
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return int(address) >> 8
    return _IPV6_FLAG | int(address) >> 80


def format_network(network: int) -> str:
    """The network in CIDR notation ("203.0.113.0/24"); "" for an unknown network."""
    if network == UNKNOWN_NETWORK:
        return ""
    if network < _IPV6_FLAG:
        return f"{IPv4Address(network << 8)}/24"
    return str(IPv6Network((IPv6Address((network - _IPV6_FLAG) << 80), 48)))


@lru_cache(maxsize=65_536)
def is_shared(network: int) -> bool:
    """Whether many unrelated clients share the network number: unknown, private, or an internal address of a proxy."""
    return network == UNKNOWN_NETWORK or not ip_network(format_network(network)).is_global
