"""Client addresses behind proxies, and rate limits."""

import dataclasses
from ipaddress import ip_network
from typing import Any

import pytest

from campaigns import config
from campaigns.errors import RateLimited
from campaigns.web.client_ip import behind_proxies, client_ip, network_of
from campaigns.web.security.rate_limits import RateLimit


@pytest.fixture
def proxied(settings: config.Settings) -> None:
    trusted = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"), ip_network("::1/128"))
    config.set_settings(dataclasses.replace(settings, trusted_proxies=trusted))


@pytest.mark.parametrize(
    ("remote", "forwarded", "expected"),
    [
        ("203.0.113.7", "", "203.0.113.7"),
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),  # not a trusted proxy: its claim is ignored
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1, 10.0.0.5", "198.51.100.1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1, nonsense", "127.0.0.1"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("", "198.51.100.1", ""),
        ("unix:", "", ""),
    ],
)
def test_the_client_behind_proxies(proxied: None, remote: str, forwarded: str, expected: str) -> None:
    assert client_ip({"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded}) == expected


def test_no_proxy_is_trusted_by_default() -> None:
    assert client_ip({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "198.51.100.1"}) == "127.0.0.1"


@pytest.mark.parametrize(("remote", "scheme"), [("127.0.0.1", "https"), ("203.0.113.7", "http")])
def test_only_a_trusted_proxy_sets_the_scheme(proxied: None, remote: str, scheme: str) -> None:
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], _start: Any) -> list[bytes]:
        seen.update(environ)
        return []

    environ = {"REMOTE_ADDR": remote, "wsgi.url_scheme": "http", "HTTP_X_FORWARDED_PROTO": "https"}
    behind_proxies(application)(environ, None)
    assert seen["wsgi.url_scheme"] == scheme


def test_networks_of_addresses() -> None:
    assert network_of("203.0.113.7") == network_of("203.0.113.200") != network_of("203.0.114.7")
    assert network_of("2001:db8:1:100::1") == network_of("2001:db8:1:1ff::2") != network_of("2001:db8:1:200::1")
    assert network_of("::ffff:203.0.113.7") == network_of("203.0.113.7")
    assert network_of("") == "unknown"


def test_a_rate_limit_refills() -> None:
    at = [0.0]
    limit = RateLimit(3, 30, lambda: at[0])
    for _ in range(3):
        limit.check_ip("203.0.113.7")
    with pytest.raises(RateLimited) as caught:
        limit.check_ip("203.0.113.8")
    assert caught.value.retry_after == 10
    limit.check_ip("198.51.100.1")
    at[0] += 10
    limit.check_ip("203.0.113.7")
    with pytest.raises(RateLimited):
        limit.check_ip("203.0.113.7")
    at[0] += 1000
    for _ in range(3):
        limit.check_ip("203.0.113.7")
