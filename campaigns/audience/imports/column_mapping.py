"""Column mapping of an import: guessed from the header names, validated before use.

A mapping has one target per column: '' (skip), a contact column, or ``attributes.<key>``.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from campaigns.audience.addresses import is_address
from campaigns.audience.contacts import ATTRIBUTE_KEY, MAX_ATTRIBUTES
from campaigns.audience.imports.csv_reader import CsvDialect
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_

ATTRIBUTE_PREFIX = "attributes."
TARGETS = {
    "email": N_("E-mail address"),
    "first_name": N_("First name"),
    "last_name": N_("Last name"),
    "language": N_("Language"),
    "timezone": N_("Time zone"),
}
# In wider files, columns with unknown headers are skipped unless the user maps them.
_MAX_COLUMNS_TO_GUESS = 20


def _normalise_header(header: str) -> str:
    return re.sub(r"[\s_\-.:*]+", " ", unicodedata.normalize("NFKC", header).casefold()).strip()


def _header_set(text: str) -> frozenset[str]:
    return frozenset(_normalise_header(word) for word in text.split("|"))


# English, French, Georgian, Azerbaijani, Russian, Persian, German, Spanish.
_KNOWN_HEADERS = {
    "email": _header_set(
        "email|e-mail|mail|email address|e-mail address|emailaddress|email 1|primary email|work email|subscriber"
        "|adresse e-mail|adresse email|adresse mail|courriel|adresse électronique"
        "|ელფოსტა|ელ ფოსტა|ელ-ფოსტა|ელექტრონული ფოსტა|იმეილი|მეილი|e-poçt|epoçt|elektron poçt|e-poçt ünvanı"
        "|почта|эл. почта|электронная почта|адрес электронной почты|email адрес|имейл|емейл|эл адрес"
        "|ایمیل|آدرس ایمیل|نشانی ایمیل|پست الکترونیک|پست الکترونیکی|رایانامه"
        "|e-mail-adresse|mailadresse|correo|correo electrónico"
    ),
    "first_name": _header_set(
        "first name|firstname|first|given name|forename|fname|prénom|prenom|სახელი|ad|adı|имя|نام|نام کوچک"
        "|vorname|nombre"
    ),
    "last_name": _header_set(
        "last name|lastname|last|surname|family name|lname|nom|nom de famille|გვარი|soyad|soyadı|фамилия"
        "|نام خانوادگی|فامیلی|nachname|apellido|apellidos"
    ),
    "language": _header_set("language|lang|locale|preferred language|langue|ენა|dil|язык|زبان|sprache|idioma"),
    "timezone": _header_set(
        "timezone|time zone|fuseau horaire|დროის სარტყელი|saat qurşağı|часовой пояс|منطقه زمانی|zeitzone|zona horaria"
    ),
    # Technical columns of Mailchimp and HubSpot exports: skipped.
    "": _header_set(
        "member rating|optin time|optin ip|confirm time|confirm ip|latitude|longitude|gmtoff|dstoff|cc|region"
        "|last changed|leid|euid|notes|tags|unsub time|unsub campaign title|unsub campaign id|unsub reason|clean time"
        "|record id|contact owner|lead status|create date|lifecycle stage|last activity date|associated company ids"
    ),
}
_TARGET_BY_HEADER = {word: target for target, words in _KNOWN_HEADERS.items() for word in words}


def guess_mapping(dialect: CsvDialect) -> list[str]:
    """Guess one target per column, each target at most once; '' skips the column."""
    targets: list[str] = []
    for number, header in enumerate(dialect.columns, 1):
        target = _TARGET_BY_HEADER.get(_normalise_header(header)) if header else ""
        if target is None:
            target = (
                ATTRIBUTE_PREFIX + attribute_key(header, number)
                if len(dialect.columns) <= _MAX_COLUMNS_TO_GUESS
                else ""
            )
        targets.append("" if target in targets else target)
    if "email" not in targets and (email_column := _detect_email_column(dialect)) is not None:
        targets[email_column] = "email"
    return targets


def _detect_email_column(dialect: CsvDialect) -> int | None:
    counts = [sum(is_address(cells[n]) for cells in dialect.samples) for n in range(len(dialect.columns))]
    highest = max(counts, default=0)
    return counts.index(highest) if highest else None


def attribute_key(header: str, number: int) -> str:
    """Return an attribute key from the header's Latin letters that merge fields can use, else ``column_<number>``."""
    plain = unicodedata.normalize("NFKD", header).encode("ascii", "ignore").decode().lower()
    key = re.sub(r"[^a-z0-9]+", "_", plain).strip("_").lstrip("0123456789_")[:50].rstrip("_")
    return key if ATTRIBUTE_KEY.fullmatch(key) else f"column_{number}"


def validate_mapping(mapping: Sequence[str], width: int) -> list[str]:
    """Return the mapping if it is valid for a file of ``width`` columns. Raises ValidationFailed with every problem."""
    problems = [*_invalid_targets(mapping), *_duplicate_targets(mapping)]
    if len(mapping) != width:
        problems.append(ValidationProblem(N_("The file's columns have changed: choose again."), field="mapping"))
    if "email" not in mapping:
        problems.append(ValidationProblem(N_("Choose the column that holds the e-mail address."), field="mapping"))
    if sum(target.startswith(ATTRIBUTE_PREFIX) for target in mapping) > MAX_ATTRIBUTES:
        message = N_("A contact has at most %(most)s further fields.")
        problems.append(ValidationProblem(message, field="mapping", params={"most": MAX_ATTRIBUTES}))
    if problems:
        raise ValidationFailed(problems)
    return list(mapping)


def _invalid_targets(mapping: Iterable[str]) -> Iterable[ValidationProblem]:
    for number, target in enumerate(mapping, 1):
        key = target.removeprefix(ATTRIBUTE_PREFIX)
        if target and target not in TARGETS and (key == target or not ATTRIBUTE_KEY.fullmatch(key)):
            message = N_("Column %(number)s: name the field in small letters a–z, digits and _, a letter first.")
            yield ValidationProblem(message, field="mapping", params={"number": number})


def _duplicate_targets(mapping: Iterable[str]) -> Iterable[ValidationProblem]:
    seen: dict[str, int] = {}
    for number, target in enumerate(mapping, 1):
        if target and target in seen:
            message = N_("Columns %(first)s and %(number)s both go to the same field.")
            yield ValidationProblem(message, field="mapping", params={"first": seen[target], "number": number})
        seen.setdefault(target, number)
