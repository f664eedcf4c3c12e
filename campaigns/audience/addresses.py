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

LONGEST = 254  # octets; RFC 5321, 4.5.3.1.3, as corrected by erratum 1690
_LONGEST_LOCAL = 64

# Invisible characters that spreadsheets and right-to-left exports leave around an address.
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_AROUND = _INVISIBLE + " \t\r\n\v\f\u00a0\u2007\u202f\u3000"

# Fast path for ordinary addresses, because every row of an import passes here (measured by
# tests/benchmarks/contact_import.py): the library parses far more. Cases that only
# the library judges correctly (A-labels, odd hyphens, digits in the top-level domain) do not match.
_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"(?=[^.]{1,63}\.)[a-z0-9]+(?:-[a-z0-9]+)*\."
_PLAIN = re.compile(rf"(?P<local>{_ATOM}(?:\.{_ATOM})*)@(?P<domain>(?:{_LABEL})+(?P<top>[a-z]{{2,63}}))")
_NOWHERE = frozenset({"arpa", "invalid", "local", "localhost", "onion"})  # RFC 6761 and related: never deliverable


def normalise(text: str) -> str:
    """Return the canonical spelling of an address.

    Idempotent: ``normalise(normalise(x)) == normalise(x)``. Raises ValidationFailed when ``text`` is not an address.
    """
    text = text.strip(_AROUND)
    lower = text.lower()
    plain = _PLAIN.fullmatch(lower) if text.isascii() and len(text) <= LONGEST else None
    if plain and len(plain["local"]) <= _LONGEST_LOCAL and plain["top"] not in _NOWHERE:
        return lower
    return _by_the_book(text)


def is_address(text: str) -> bool:
    """Return whether :func:`normalise` accepts ``text``."""
    try:
        normalise(text)
    except ValidationFailed:
        return False
    return True


def _by_the_book(text: str) -> str:
    from email_validator import EmailNotValidError, validate_email  # imported here because most processes never need it

    if message := _plainly_wrong(text):
        raise ValidationFailed(ValidationProblem(message, field="email", params={"address": _shown(text)}))
    try:
        # test_environment accepts the reserved top-level domain "test" (RFC 6761), which the demo and tests use.
        found = validate_email(text, check_deliverability=False, test_environment=True, allow_smtputf8=True)
    except (EmailNotValidError, ValueError) as error:
        message = N_("“%(address)s” is not an e-mail address.")
        raise ValidationFailed(ValidationProblem(message, field="email", params={"address": _shown(text)})) from error
    local = unicodedata.normalize("NFC", found.local_part.lower())
    address = f"{local}@{(found.ascii_domain or found.domain).lower()}"
    if len(address.encode()) > LONGEST or len(local.encode()) > _LONGEST_LOCAL:
        raise ValidationFailed(ValidationProblem(_TOO_LONG, field="email", params={"address": _shown(text)}))
    return address


_TOO_LONG = N_("“%(address)s” is too long for an e-mail address.")


def _plainly_wrong(text: str) -> str | None:
    if not text:
        return N_("The e-mail address is missing.")
    if len(text) > LONGEST:
        return _TOO_LONG
    if "@" not in text:
        return N_("“%(address)s” is not an e-mail address: it has no @.")
    if any(mark in text for mark in ",; \t\r\n"):
        return N_("“%(address)s” is not one e-mail address: only one belongs here, without blanks or commas.")
    return None


def _shown(text: str) -> str:
    printable = "".join(sign if sign.isprintable() else "\ufffd" for sign in text[:80])
    return printable + ("…" if len(text) > 80 else "")
