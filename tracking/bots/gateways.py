"""Published IP networks of mail security gateways. No person browses from them.

Compiled by hand in November 2026 from what the vendors publish for mail routing (SPF records and administrator
documentation); nothing is fetched at run time. Such a list is never complete and goes out of date, so it is one signal
among others. The sandboxes behind a gateway mostly run in public clouds, which are not listed because VPNs and office
proxies of people use them, too.
"""

from bisect import bisect_right
from functools import lru_cache
from ipaddress import IPv4Network

AS_OF = "2026-11"

_PUBLISHED_RANGES: dict[str, tuple[str, ...]] = {
    # learn.microsoft.com, "Microsoft 365 URLs and IP address ranges", Exchange Online, port 25
    "Exchange Online Protection": ("40.92.0.0/15", "40.94.0.0/15", "40.107.0.0/16", "52.100.0.0/14", "104.47.0.0/17"),
    # SPF of pphosted.com and ppe-hosted.com; Proofpoint Essentials, "Connection details"
    "Proofpoint": (
        "62.209.50.0/23",
        "66.159.224.0/19",
        "67.231.144.0/20",
        "91.207.212.0/23",
        "91.209.104.0/24",
        "148.163.128.0/19",
        "185.132.180.0/22",
        "185.183.28.0/22",
        "205.220.160.0/19",
    ),
    # Mimecast, "Data centers and URLs"; SPF of _netblocks.mimecast.com
    "Mimecast": (
        "41.74.192.0/20",
        "63.128.21.0/24",
        "91.220.42.0/24",
        "146.101.78.0/24",
        "170.10.128.0/21",
        "185.58.84.0/22",
        "193.7.206.0/23",
        "195.130.217.0/24",
        "205.139.110.0/23",
        "207.82.80.0/24",
        "207.211.30.0/23",
        "213.167.75.0/24",
        "213.167.81.0/24",
        "216.205.24.0/24",
    ),
    # Barracuda, "Email Gateway Defense IP ranges"; SPF of spf.ess.barracudanetworks.com
    "Barracuda": ("64.235.144.0/20", "209.222.80.0/21"),
    # Broadcom, "Email Security.cloud IP ranges" (MessageLabs)
    "Email Security.cloud": (
        "67.219.240.0/20",
        "85.158.136.0/21",
        "117.120.16.0/21",
        "193.109.254.0/23",
        "194.106.220.0/23",
        "195.245.230.0/23",
        "216.82.240.0/20",
    ),
}


def _ranges() -> list[tuple[int, int, str]]:
    """(first, last, vendor) as numbers of /24 networks, see :mod:`tracking.endpoints.ip_networks`."""
    found = []
    for vendor, blocks in _PUBLISHED_RANGES.items():
        for block in map(IPv4Network, blocks):
            found.append((int(block.network_address) >> 8, int(block.broadcast_address) >> 8, vendor))
    return sorted(found)


_RANGES = _ranges()
_RANGE_STARTS = [first for first, _, _ in _RANGES]


@lru_cache(maxsize=16_384)
def gateway_of(network: int) -> str:
    """The vendor whose gateways are in this network (see :mod:`tracking.endpoints.ip_networks`); "" for none."""
    place = bisect_right(_RANGE_STARTS, network) - 1
    if place < 0 or network > _RANGES[place][1]:
        return ""
    return _RANGES[place][2]
