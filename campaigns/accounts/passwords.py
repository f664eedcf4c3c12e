"""Passwords: hashing and checking with argon2id, in the same time whether the person exists or not."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argon2 import PasswordHasher

NO_PASSWORD = "!"


@cache
def hasher() -> "PasswordHasher":
    """RFC 9106's second recommendation: 64 MiB, 3 passes. Loaded by whom passwords are told only, not by workers."""
    from argon2 import PasswordHasher

    return PasswordHasher()


def hashed(password: str) -> str:
    return hasher().hash(password)


@cache
def _somebody() -> str:
    return hasher().hash("nobody knows this one")


def matches(kept: str | None, password: str) -> bool:
    """Whether ``password`` made the hash ``kept``; takes as long when nothing is kept."""
    from argon2.exceptions import Argon2Error, InvalidHashError

    known = kept is not None and kept != NO_PASSWORD
    try:
        hasher().verify(kept if known and kept else _somebody(), password)
    except (Argon2Error, InvalidHashError):
        return False
    return known


def outdated(kept: str) -> bool:
    """Whether it was hashed with weaker parameters than today's."""
    return hasher().check_needs_rehash(kept)
