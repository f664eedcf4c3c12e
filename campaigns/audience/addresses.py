"""E-mail address normalisation: one spelling per mailbox.

One person must be one contact row, one consent history and one suppression. The domain is lower-cased
and converted to A-labels (IDNA), as SMTP requires. The local part is lower-cased too: RFC 5321 lets a
server distinguish ``Ann@`` from ``ann@``, but no server in use does, and keeping both would mail Ann
twice and let her unsubscribe only one of the two. Dots and ``+tags`` are kept, because most servers
treat them as part of the mailbox name. Nothing here uses the network (no DNS lookups).
"""

import re
import unicodedata

from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_

MAX_ADDRESS_BYTES = 254  # octets; RFC 5321, 4.5.3.1.3, as corrected by erratum 1690
_MAX_LOCAL_BYTES = 64

# Invisible characters that spreadsheets and right-to-left exports leave around an address.
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_STRIPPED_CHARACTERS = _INVISIBLE + " \t\r\n\v\f\u00a0\u2007\u202f\u3000"

# Fast path for ordinary addresses, because every row of an import passes here (measured by
# tests/benchmarks/contact_import.py): the library parses far more. Cases that only
# the library judges correctly (A-labels, odd hyphens, digits in the top-level domain) do not match.
_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"(?=[^.]{1,63}\.)[a-z0-9]+(?:-[a-z0-9]+)*\."
_ORDINARY_ADDRESS = re.compile(rf"(?P<local>{_ATOM}(?:\.{_ATOM})*)@(?P<domain>(?:{_LABEL})+(?P<top>[a-z]{{2,63}}))")
_SPECIAL_USE_DOMAINS = frozenset(
    {"arpa", "invalid", "local", "localhost", "onion"}
)  # RFC 6761 and related: never deliverable


def normalise(text: str) -> str:
    """Return the canonical spelling of an address.

    Idempotent: ``normalise(normalise(x)) == normalise(x)``. Raises ValidationFailed when ``text`` is not an address.
    """
    text = text.strip(_STRIPPED_CHARACTERS)
    lower = text.lower()
    match = _ORDINARY_ADDRESS.fullmatch(lower) if text.isascii() and len(text) <= MAX_ADDRESS_BYTES else None
    if match and len(match["local"]) <= _MAX_LOCAL_BYTES and match["top"] not in _SPECIAL_USE_DOMAINS:
        return lower
    return _normalise_with_library(text)


def is_address(text: str) -> bool:
    """Return whether :func:`normalise` accepts ``text``."""
    try:
        normalise(text)
    except ValidationFailed:
        return False
    return True


def _normalise_with_library(text: str) -> str:
    from email_validator import EmailNotValidError, validate_email  # imported here because most processes never need it

    if message := _obvious_problem(text):
        raise ValidationFailed(ValidationProblem(message, field="email", params={"address": _printable_excerpt(text)}))
    try:
        # test_environment accepts the reserved top-level domain "test" (RFC 6761), which the demo and tests use.
        validated = validate_email(text, check_deliverability=False, test_environment=True, allow_smtputf8=True)
    except (EmailNotValidError, ValueError) as error:
        message = N_("“%(address)s” is not an e-mail address.")
        raise ValidationFailed(
            ValidationProblem(message, field="email", params={"address": _printable_excerpt(text)})
        ) from error
    local = unicodedata.normalize("NFC", validated.local_part.lower())
    address = f"{local}@{(validated.ascii_domain or validated.domain).lower()}"
    if len(address.encode()) > MAX_ADDRESS_BYTES or len(local.encode()) > _MAX_LOCAL_BYTES:
        raise ValidationFailed(
            ValidationProblem(_TOO_LONG, field="email", params={"address": _printable_excerpt(text)})
        )
    return address


_TOO_LONG = N_("“%(address)s” is too long for an e-mail address.")


def _obvious_problem(text: str) -> str | None:
    if not text:
        return N_("The e-mail address is missing.")
    if len(text) > MAX_ADDRESS_BYTES:
        return _TOO_LONG
    if "@" not in text:
        return N_("“%(address)s” is not an e-mail address: it has no @.")
    if any(mark in text for mark in ",; \t\r\n"):
        return N_("“%(address)s” is not one e-mail address: only one belongs here, without blanks or commas.")
    return None


def _printable_excerpt(text: str) -> str:
    printable = "".join(sign if sign.isprintable() else "\ufffd" for sign in text[:80])
    return printable + ("…" if len(text) > 80 else "")
