"""Validators for account and organisation fields; each returns the clean value.

Problems are collected, so that a form shows all of them together.
"""

import re
from datetime import time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_

LANGUAGES = ("en", "fa")
MIN_PASSWORD_LENGTH = 10
MAX_PASSWORD_LENGTH = 200  # characters; argon2 accepts more, but an attacker must not make us hash megabytes
_HOST = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


class FieldValidator:
    """Collects problems field by field; :meth:`raise_problems` raises ValidationFailed when there are any."""

    def __init__(self) -> None:
        self.problems: list[ValidationProblem] = []

    def add_problem(self, field: str, message: str, **params: object) -> None:
        self.problems.append(ValidationProblem(message, field=field, params=params))

    def raise_problems(self) -> None:
        if self.problems:
            raise ValidationFailed(self.problems)

    def text(self, field: str, value: str, *, max_length: int = 200, required: bool = True) -> str:
        """``value`` without control characters and surrounding blanks; line feeds stay."""
        clean = re.sub(r"[\x00-\x09\x0b-\x1f\x7f]+", " ", value or "").strip()
        if required and not clean:
            self.add_problem(field, N_("Please fill this in."))
        if len(clean) > max_length:
            self.add_problem(field, N_("At most %(longest)s characters fit here."), longest=max_length)
        return clean

    def name(self, field: str, value: str) -> str:
        """A text of one line, since it is used in mail headers."""
        return re.sub(r"\s+", " ", self.text(field, value))

    def email(self, field: str, value: str) -> str:
        clean = normalise_email(value)
        if clean is None:
            self.add_problem(field, N_("This is not an e-mail address."))
        return clean or ""

    def password(self, field: str, value: str) -> str:
        if len(value) < MIN_PASSWORD_LENGTH:
            self.add_problem(
                field, N_("A password has at least %(shortest)s characters."), shortest=MIN_PASSWORD_LENGTH
            )
        elif len(value) > MAX_PASSWORD_LENGTH:
            self.add_problem(field, N_("A password has at most %(longest)s characters."), longest=MAX_PASSWORD_LENGTH)
        elif len(set(value)) < 4:
            self.add_problem(field, N_("Please use more different characters."))
        return value

    def language(self, field: str, value: str) -> str:
        if value not in LANGUAGES:
            self.add_problem(field, N_("We do not speak this language yet."))
        return value

    def timezone(self, field: str, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.add_problem(field, N_("This time zone is not known."))
        return value

    def currency(self, field: str, value: str) -> str:
        clean = value.strip().upper()
        if not re.fullmatch(r"[A-Z]{3}", clean):
            self.add_problem(field, N_("A currency is three letters, like EUR."))
        return clean

    def quiet_hours(self, start_field: str, start: time | None, end_field: str, end: time | None) -> None:
        """Check quiet hours: both times or neither, and not equal."""
        if (start is None) != (end is None):
            self.add_problem(end_field if end is None else start_field, N_("Please give both hours, or neither."))
        elif start is not None and start == end:
            self.add_problem(end_field, N_("The end lies at the start."))

    def integer(self, field: str, value: int | None, low: int, high: int) -> int:
        if value is None or not low <= value <= high:
            self.add_problem(field, N_("From %(low)s to %(high)s."), low=low, high=high)
        return value or 0

    def hosts(self, field: str, values: list[str]) -> list[str]:
        """Host names as A-labels (RFC 5890), lower case, without duplicates, in the given order."""
        clean: list[str] = []
        for value in values:
            name = value.strip().lower().rstrip(".")
            try:
                name = name if name.isascii() else name.encode("idna").decode()
            except UnicodeError:
                pass
            if not name:
                continue
            if not _HOST.fullmatch(name):
                self.add_problem(
                    field, N_("“%(host)s” is not a host name like www.example.org."), host=value.strip()[:60]
                )
            elif name not in clean:
                clean.append(name)
        if len(clean) > 50:
            self.add_problem(field, N_("At most %(longest)s host names fit here."), longest=50)
        return clean


def normalise_email(value: str) -> str | None:
    """The normalised address, lower case; None when ``value`` is not an address. Makes no network requests."""
    from email_validator import EmailNotValidError, validate_email  # 3 MB that most processes never need

    try:
        # test_environment accepts the top-level domain "test", which is reserved (RFC 6761).
        validated = validate_email(value.strip(), check_deliverability=False, test_environment=True)
    except (EmailNotValidError, ValueError):
        return None
    clean = f"{validated.local_part}@{validated.ascii_domain or validated.domain}".lower()
    return clean if len(clean) <= 254 else None
