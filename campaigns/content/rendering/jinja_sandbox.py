"""Sandboxed Jinja environments for templates that coordinators write.

Variables are dictionaries of strings; filters are those of :data:`FILTERS`. HTML is escaped, subjects and text
parts are not; inside a URL every value is percent-encoded.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from jinja2 import Template, Undefined
from jinja2.filters import do_truncate
from jinja2.sandbox import ImmutableSandboxedEnvironment

from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_

MAX_OUTPUT_LENGTH = 1_000_000
_SPLIT_LIMIT = 50


class MergeEnvironment(ImmutableSandboxedEnvironment):
    """Sandbox in which a dot reads dictionary entries, never Python attributes, except those of ``loop``."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return obj.get(attribute, "")
        if type(obj).__name__ == "LoopContext":
            return super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def is_safe_callable(self, obj: Any) -> bool:
        return obj is range or getattr(obj, "__name__", "") == "safe_range"


def _default(value: Any, otherwise: Any = "", _boolean: bool = False) -> Any:
    # Unlike Jinja's default(): a field that is known but empty also gets the fallback.
    return otherwise if isinstance(value, Undefined) or value in ("", None) else value


def _to_text(value: Any) -> str:
    return "" if isinstance(value, Undefined) or value is None else str(value)


def _truncate(value: Any, length: int = 255, killwords: bool = False, end: str = "…") -> str:
    return do_truncate(TEXT_ENVIRONMENT, _to_text(value), max(int(length), len(end)), killwords, end, 0)


def _capitalized_words(value: Any) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in _to_text(value).split(" "))


def _split(value: Any, separator: str = ",") -> list[str]:
    parts = _to_text(value).split(separator or ",", _SPLIT_LIMIT)[:_SPLIT_LIMIT]
    return [part.strip() for part in parts if part.strip()]


def _urlencode(value: Any) -> str:
    return quote(_to_text(value), safe="")


FILTERS: dict[str, Any] = {
    "default": _default,
    "d": _default,
    "upper": lambda value: _to_text(value).upper(),
    "lower": lambda value: _to_text(value).lower(),
    "capitalize": lambda value: _to_text(value).capitalize(),
    "title": _capitalized_words,
    "trim": lambda value: _to_text(value).strip(),
    "truncate": _truncate,
    "split": _split,
    "first": lambda value: next(iter(value or ()), ""),
    "length": lambda value: len(_to_text(value)) if not isinstance(value, list) else len(value),
    "urlencode": _urlencode,
}


def _environment(*, autoescape: bool, **options: Any) -> MergeEnvironment:
    environment = MergeEnvironment(autoescape=autoescape, keep_trailing_newline=True, cache_size=0, **options)
    environment.filters = dict(FILTERS)
    environment.globals = {"range": environment.globals["range"]}
    return environment


def _none_to_empty(value: Any) -> Any:
    return "" if value is None else value


HTML_ENVIRONMENT = _environment(autoescape=True, finalize=_none_to_empty)
TEXT_ENVIRONMENT = _environment(autoescape=False, finalize=_none_to_empty, trim_blocks=True, lstrip_blocks=True)
LINE_ENVIRONMENT = _environment(autoescape=False, finalize=_none_to_empty)
URL_ENVIRONMENT = _environment(autoescape=False, finalize=_urlencode)
URL_ENVIRONMENT.filters["urlencode"] = _to_text  # finalize already encodes; a second encoding would be wrong


def output_too_large() -> ValidationFailed:
    return ValidationFailed(ValidationProblem(N_("The merged message grows beyond every measure.")))


def render_limited(template: Template, names: Mapping[str, object]) -> str:
    """Return the template's output. Raises ValidationFailed when it exceeds ``MAX_OUTPUT_LENGTH``."""
    parts, size = [], 0
    for part in template.generate(names):
        size += len(part)
        if size > MAX_OUTPUT_LENGTH:
            raise output_too_large()
        parts.append(part)
    return "".join(parts)
