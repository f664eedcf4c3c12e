from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from campaigns.accounts import passwords


@pytest.fixture(autouse=True)
def _fast_hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """argon2 with its minimum parameters: the real ones make each hash slow."""
    fast_hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "hasher", lambda: fast_hasher)
    passwords._dummy_hash.cache_clear()
    yield
    passwords._dummy_hash.cache_clear()
