"""A catcher and a broker, and settings that know them."""

import dataclasses
from collections.abc import Iterator

import pytest
from redis import Redis

from campaigns import config
from campaigns.delivery.throttling import rate_limits, redis_scripts
from campaigns.delivery.worker import provider_pacing
from campaigns.mail_catcher.smtp_server import Faults
from campaigns.mail_catcher.store import catching
from tests import servers


@pytest.fixture
def faults() -> Faults:
    """What goes wrong at the catcher, by address; filled by the test."""
    return {}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process learns rates, brokers, and which domains to leave alone; a test must not learn it from another."""
    monkeypatch.setattr(rate_limits, "_full", {})
    monkeypatch.setattr(redis_scripts, "_known", None)
    monkeypatch.setattr(rate_limits.brakes, "_domains", {})
    monkeypatch.setattr(provider_pacing, "_line", {})


@pytest.fixture
def broker(settings: config.Settings) -> Iterator[Redis]:
    """A running broker of this test's own that the settings know."""
    with servers.valkey() as url:
        config.install(dataclasses.replace(settings, redis_url=url))
        with Redis.from_url(f"unix://{config.settings().broker_socket}") as client:
            yield client
            client.close()
        if redis_scripts._known is not None and redis_scripts._known[1] is not None:
            redis_scripts._known[1].close()


@pytest.fixture
def catcher(settings: config.Settings, faults: Faults) -> Iterator[int]:
    """A running catcher that ``settings().smtp_url`` points to; its port."""
    with catching(faults=faults) as port:
        config.install(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{port}"))
        yield port
