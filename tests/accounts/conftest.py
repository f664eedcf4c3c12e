from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from campaigns.accounts import passwords


@pytest.fixture(autouse=True)
def _quick_hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """argon2 with its minimum parameters: the real ones make each hash slow."""
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "hasher", lambda: quick)
    passwords._somebody.cache_clear()
    yield
    passwords._somebody.cache_clear()
