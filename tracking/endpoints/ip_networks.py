"""Where a hit came from, as a number: the /24 of an IPv4 address, the /48 of an IPv6 one.

Nothing finer ever leaves memory.
"""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from campaigns import config
from campaigns.web.client_ip import client_ip

_V6 = 1 << 48
UNKNOWN = 0


def network_of(remote: str, forwarded: str) -> int:
    """The network of whoever asked; ``forwarded`` counts only behind a trusted proxy."""
    trusted = config.settings().trusted_proxies
    return reader(trusted)(remote, forwarded if trusted else "")


@lru_cache(maxsize=1)
def reader(_trusted: tuple[object, ...]) -> Callable[..., int]:
    """What reads networks behind these proxies, which are the settings'; it knows old acquaintances."""
    return lru_cache(maxsize=65_536)(_read)


def _read(remote: str, forwarded: str = "") -> int:
    text = client_ip({"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded})
    if not text:
        return UNKNOWN
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return int(address) >> 8
    return _V6 | int(address) >> 80


def name(network: int) -> str:
    """How a network is written; "" for an unknown one."""
    if network == UNKNOWN:
        return ""
    if network < _V6:
        return f"{IPv4Address(network << 8)}/24"
    return str(IPv6Network((IPv6Address((network - _V6) << 80), 48)))


@lru_cache(maxsize=65_536)
def is_shared(network: int) -> bool:
    """Whether this says nothing about who asks: unknown, private, or the inside of a proxy."""
    return network == UNKNOWN or not ip_network(name(network)).is_global
