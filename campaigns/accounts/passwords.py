"""Password hashing with argon2id; verification takes the same time whether the user exists or not."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argon2 import PasswordHasher

NO_PASSWORD = "!"


@cache
def hasher() -> "PasswordHasher":
    """RFC 9106's second recommendation: 64 MiB, 3 passes. Imported lazily: workers never load argon2."""
    from argon2 import PasswordHasher

    return PasswordHasher()


def hash_password(password: str) -> str:
    return hasher().hash(password)


@cache
def _dummy_hash() -> str:
    return hasher().hash("nobody knows this one")


def verify_password(stored_hash: str | None, password: str) -> bool:
    """Whether ``password`` matches ``stored_hash``. Without a stored hash a dummy is verified, which takes as long."""
    from argon2.exceptions import Argon2Error, InvalidHashError

    has_password = stored_hash is not None and stored_hash != NO_PASSWORD
    try:
        hasher().verify(stored_hash if has_password and stored_hash else _dummy_hash(), password)
    except (Argon2Error, InvalidHashError):
        return False
    return has_password


def needs_rehash(stored_hash: str) -> bool:
    """Whether the hash was made with weaker parameters than the current ones."""
    return hasher().check_needs_rehash(stored_hash)
