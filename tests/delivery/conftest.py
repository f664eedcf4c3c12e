"""A catcher, and settings that know it."""

import dataclasses
from collections.abc import Iterator

import pytest

from campaigns import config
from campaigns.delivery import throttle
from campaigns.demo.catcher import catching
from campaigns.demo.reception import Faults


@pytest.fixture
def faults() -> Faults:
    """What goes wrong at the catcher, by address; filled by the test."""
    return {}


@pytest.fixture(autouse=True)
def no_brakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process learns which domains to leave alone; a test must not learn it from another."""
    monkeypatch.setattr(throttle.brakes, "_domains", {})


@pytest.fixture
def catcher(settings: config.Settings, faults: Faults) -> Iterator[int]:
    """A running catcher that ``settings().smtp_url`` points to; its port."""
    with catching(faults=faults) as port:
        config.install(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{port}"))
        yield port
