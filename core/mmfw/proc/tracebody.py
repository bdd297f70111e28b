"""Bodies of trace lines: a frozen dataclass and a template each, for parser and formatter alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, Final

from mmfw.gfp import parse_gfp_flags, show_gfp_flags


@dataclass(frozen=True, slots=True)
class Body:
    """What a line says after its timestamp.

    Subclasses give their fields in the order in which the template prints them. How a field is printed
    goes by its name (`mmfw.proc.tracebody`'s table); most are decimal integers.
    """

    event: ClassVar[str] = ""
    template: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Text(Body):
    """A body of which nothing is known."""

    template: ClassVar[str] = "{text}"
    text: str


@dataclass(frozen=True, slots=True)
class _Field:
    """How a field is matched, read and printed."""

    pattern: str
    read: Callable[[str], object]
    show: Callable[[object], str]


def _show_gfp(value: object) -> str:
    return show_gfp_flags(value) if isinstance(value, int) else str(value)


def _show_hex(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


# A number as %ld prints it: what is read prints back as it was.
_INTEGER: Final = _Field(r"0|-?[1-9][0-9]{0,18}", int, str)
_WORD: Final = _Field(r"\S+", str, str)
_FIELDS: Final = {
    "shrink": _Field(r"\S+(?: \[\w+\])?", str, str),
    "shr": _Field(r"[0-9a-f]{8,16}", str, str),
    "gfp_flags": _Field(r"\S+", parse_gfp_flags, _show_gfp),
    "gfp": _Field(r"0|0x[0-9a-f]{1,8}", lambda text: int(text, 16), _show_hex),
    "page": _Field(r"[0-9a-f]{8,16}", str, str),
    "hex_pfn": _Field(r"0x[0-9a-f]{1,16}", lambda text: int(text, 16), _show_hex),
    "lru": _WORD,
    "flags": _WORD,
    "reason": _WORD,
    "name": _WORD,
    "comm": _Field(r".{1,15}", str, str),
    "text": _Field(r".*", str, str),
}


#: Filled as classes are met; compiling them all would be work at import.
_COMPILED: Final[dict[type[Body], tuple[re.Pattern[str], tuple[_Field, ...]]]] = {}


def _compiled(cls: type[Body]) -> tuple[re.Pattern[str], tuple[_Field, ...]]:
    found = _COMPILED.get(cls)
    if found is not None:
        return found
    pattern = re.escape(cls.template)
    columns = []
    for field in fields(cls):
        column = _FIELDS.get(field.name, _INTEGER)
        pattern = pattern.replace(re.escape(f"{{{field.name}}}"), f"({column.pattern})")
        columns.append(column)
    _COMPILED[cls] = re.compile(pattern, re.ASCII), tuple(columns)
    return _COMPILED[cls]


def parse_body(cls: type[Body], text: str) -> Body:
    """Read a body.

    Raises
    ------
    ValueError
        The text is not what the event prints; the message says what would be.
    """
    pattern, columns = _compiled(cls)
    match = pattern.fullmatch(text)
    if match is None:
        shown = text if len(text) <= 120 else text[:120] + "..."
        raise ValueError(f"{shown!r} is not of the form {cls.template!r}")
    return cls(*(column.read(part) for column, part in zip(columns, match.groups(), strict=True)))


def format_body(body: Body) -> str:
    """Text of a body as the kernel prints it."""
    cls = type(body)
    _, columns = _compiled(cls)
    shown = {
        field.name: column.show(getattr(body, field.name))
        for field, column in zip(fields(cls), columns, strict=True)
    }
    return cls.template.format_map(shown)
