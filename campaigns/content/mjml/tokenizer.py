"""MJML tokenizer: splits a source into tags, text and comments with offsets, without interpreting them.

MRML reports neither line nor column, and deep nesting crashes its whole process, so every source passes this
tokenizer and the validator first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from campaigns.i18n import N_

VOID = frozenset(["area", "br", "col", "hr", "img", "meta", "wbr"])
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9:._-]*")
_ATTRIBUTE = re.compile(r"\s+([^\s=<>\"'/]+)(\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'<>]+)))?")
_TAG_END = re.compile(r"\s*(/?)>")


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    value: str | None
    start: int
    """Offset of the value; of the name when there is no value."""
    quoted: bool = True


@dataclass(frozen=True, slots=True)
class StartTag:
    name: str
    attributes: tuple[Attribute, ...]
    self_closing: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class EndTag:
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Text:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Comment:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ParseError:
    """Malformed markup; tokenizing continues after it."""

    message: str
    start: int
    end: int


Token = StartTag | EndTag | Text | Comment | ParseError

_FORBIDDEN = {
    "<![CDATA[": N_("CDATA sections are not possible; write the text itself, with &lt; for <."),
    "<!": N_("Declarations such as <!DOCTYPE> or <!ENTITY> are not possible."),
    "<?": N_("An XML declaration or processing instruction is not possible; begin with <mjml>."),
}
_FORBIDDEN_ENDS = {"<![CDATA[": "]]>", "<!": ">", "<?": ">"}


def tokenize(source: str, raw: frozenset[str] = frozenset()) -> Iterator[Token]:
    """Yield the tokens of ``source`` in order; every character belongs to exactly one token.

    The content of elements named in ``raw`` (style sheets) is one text token.
    """
    position, length = 0, len(source)
    while position < length:
        if source[position] != "<":
            end = source.find("<", position)
            end = length if end < 0 else end
            yield Text(position, end)
            position = end
            continue
        token = _token_at(source, position)
        yield token
        position = token.end
        if isinstance(token, StartTag) and token.name in raw and not token.self_closing:
            end = source.find(f"</{token.name}", position)
            end = length if end < 0 else end
            if end > position:
                yield Text(position, end)
            position = end


def _token_at(source: str, start: int) -> Token:
    if source.startswith("<!--", start):
        end = source.find("-->", start + 4)
        if end < 0:
            return ParseError(N_("This comment is never closed with -->."), start, len(source))
        return Comment(start, end + 3)
    for opening, message in _FORBIDDEN.items():
        if source.startswith(opening, start):
            end = source.find(_FORBIDDEN_ENDS[opening], start)
            return ParseError(message, start, len(source) if end < 0 else end + len(_FORBIDDEN_ENDS[opening]))
    if source.startswith("</", start):
        return _parse_end_tag(source, start)
    return _parse_start_tag(source, start)


def _parse_end_tag(source: str, start: int) -> Token:
    name = _NAME.match(source, start + 2)
    end = _TAG_END.match(source, name.end()) if name else None
    if name is None or end is None or end[1]:
        return ParseError(N_("This closing tag cannot be read."), start, _resume_offset(source, start))
    return EndTag(_lower_name(name[0]), start, end.end())


def _parse_start_tag(source: str, start: int) -> Token:
    name = _NAME.match(source, start + 1)
    if name is None:
        return ParseError(N_("A single < begins a tag; write &lt; for the sign itself."), start, start + 1)
    attributes = []
    position = name.end()
    while match := _ATTRIBUTE.match(source, position):
        group = next((number for number in (3, 4, 5) if match[number] is not None), None)
        attributes.append(
            Attribute(
                match[1].lower(),
                None if group is None else match[group],
                match.start(group or 1),
                quoted=group != 5,
            )
        )
        position = match.end()
    end = _TAG_END.match(source, position)
    if end is None:
        return ParseError(
            N_("This tag cannot be read; is a quote or a > missing?"), start, _resume_offset(source, start)
        )
    return StartTag(_lower_name(name[0]), tuple(attributes), bool(end[1]), start, end.end())


def _resume_offset(source: str, start: int) -> int:
    """Offset to continue at after a malformed tag: after its ``>``, or at the next ``<``."""
    ends = [end for end in (source.find(">", start) + 1, source.find("<", start + 1)) if end > 0]
    return min(ends, default=len(source))


def _lower_name(name: str) -> str:
    return name.lower()
