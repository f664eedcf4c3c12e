"""A small error family. Domain code raises it, faces turn it into pages and status codes.

Messages are English msgids marked with :func:`campaigns.i18n.N_`, with ``%(name)s``
places filled from ``params`` after translation.
"""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class ValidationProblem:
    """One thing wrong with what somebody gave us, and where: the field, the line or the row."""

    message: str
    field: str | None = None
    line: int | None = None
    column: int | None = None
    params: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return self.message % self.params if self.params else self.message


class KampaniaError(Exception):
    """Whatever we raise on purpose. ``passing`` errors may go well when tried again later."""

    passing = False

    def __init__(self, message: str, **params: object) -> None:
        super().__init__(message % params if params else message)
        self.message = message
        self.params = params


class ValidationFailed(KampaniaError):
    """Input that cannot be accepted; nothing was changed."""

    def __init__(self, problems: Sequence[ValidationProblem] | ValidationProblem) -> None:
        self.problems = (problems,) if isinstance(problems, ValidationProblem) else tuple(problems)
        super().__init__("; ".join(map(str, self.problems)).replace("%", "%%"))


class NotFound(KampaniaError):
    """What was asked for does not exist."""


class Forbidden(KampaniaError):
    """The actor's role does not allow it."""


class Unauthorized(KampaniaError):
    """Nobody said who asks, or not in a way that we believe."""


class Conflict(KampaniaError):
    """The thing is in a state which does not allow it (any more)."""


class BadToken(KampaniaError):
    """A token that is malformed, altered, expired, or made for another purpose."""


class TemporaryError(KampaniaError):
    """The world is in the way just now (a relay, a database): try again later."""

    passing = True


class RateLimited(TemporaryError):
    """Asked too often; ``wait`` says after how many seconds it may go well."""

    def __init__(self, message: str, wait: float) -> None:
        self.wait = max(1, round(wait))
        super().__init__(message, seconds=self.wait, minutes=-(-self.wait // 60))
