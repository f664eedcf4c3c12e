"""The application's exceptions: domain code raises them, the web layer turns them into pages and status codes.

Messages are English msgids marked with :func:`campaigns.i18n.N_`. Their ``%(name)s`` placeholders are filled from
``params`` after translation.
"""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class ValidationProblem:
    """One invalid part of an input, and where it is: the field, the line or the row."""

    message: str
    field: str | None = None
    line: int | None = None
    column: int | None = None
    params: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return self.message % self.params if self.params else self.message


class KampaniaError(Exception):
    """Base of every exception raised on purpose. ``is_temporary`` errors may succeed when tried again later."""

    is_temporary = False

    def __init__(self, message: str, **params: object) -> None:
        super().__init__(message % params if params else message)
        self.message = message
        self.params = params


class ValidationFailed(KampaniaError):
    """Input that is not accepted; nothing was changed."""

    def __init__(self, problems: Sequence[ValidationProblem] | ValidationProblem) -> None:
        self.problems = (problems,) if isinstance(problems, ValidationProblem) else tuple(problems)
        super().__init__("; ".join(map(str, self.problems)).replace("%", "%%"))


class NotFound(KampaniaError):
    """The requested object does not exist."""


class Forbidden(KampaniaError):
    """The actor's role does not allow the action."""


class Unauthorized(KampaniaError):
    """The request has no credentials, or invalid ones."""


class Conflict(KampaniaError):
    """The object is in a state that does not allow the action (any more)."""


class InvalidTokenError(KampaniaError):
    """A token that is malformed, altered, expired, or made for another purpose."""


class TemporaryError(KampaniaError):
    """Something outside the application (a relay, a database) is unavailable: try again later."""

    is_temporary = True


class RateLimited(TemporaryError):
    """Too many requests; ``retry_after`` is the number of seconds after which the next one may succeed."""

    def __init__(self, message: str, seconds: float) -> None:
        self.retry_after = max(1, round(seconds))
        super().__init__(message, seconds=self.retry_after, minutes=-(-self.retry_after // 60))
