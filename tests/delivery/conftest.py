"""Fixtures of the delivery tests: mail catcher, broker, reset of per-process state."""

import dataclasses
from collections.abc import Iterator

import pytest
from redis import Redis

from campaigns import config
from campaigns.delivery.throttling import rate_limits, redis_scripts
from campaigns.delivery.worker import provider_pacing
from campaigns.mail_catcher.smtp_server import Faults
from campaigns.mail_catcher.store import running_catcher
from tests import servers


@pytest.fixture
def faults() -> Faults:
    """Simulated failures of the mail catcher by recipient address; filled by the test."""
    return {}


@pytest.fixture(autouse=True)
def reset_process_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset what a process remembers about rates, the broker and paused domains, so that tests are independent."""
    monkeypatch.setattr(rate_limits, "_full_at", {})
    monkeypatch.setattr(redis_scripts, "_cached", None)
    monkeypatch.setattr(rate_limits.domain_backoff, "_domains", {})
    monkeypatch.setattr(provider_pacing, "_last_slot", {})


@pytest.fixture
def broker(settings: config.Settings) -> Iterator[Redis]:
    """A Valkey server of this test's own; REDIS_URL points to it."""
    with servers.valkey() as url:
        config.set_settings(dataclasses.replace(settings, redis_url=url))
        with Redis.from_url(f"unix://{config.settings().broker_socket}") as client:
            yield client
            client.close()
        if redis_scripts._cached is not None and redis_scripts._cached[1] is not None:
            redis_scripts._cached[1].close()


@pytest.fixture
def catcher(settings: config.Settings, faults: Faults) -> Iterator[int]:
    """The port of a running mail catcher; SMTP_URL points to it."""
    with running_catcher(faults=faults) as port:
        config.set_settings(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{port}"))
        yield port
