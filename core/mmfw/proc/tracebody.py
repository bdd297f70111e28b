"""Bodies of trace lines: a frozen dataclass and a template each, for parser and formatter alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Final

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
    """How a field is matched, read and printed: `conversion` of what `show` makes of it, if that is needed."""

    pattern: str
    read: Callable[[str], object]
    conversion: str = "%s"
    show: Callable[[Any], str] | None = None


def _show_alternate_hex(value: int) -> str:
    """C's ``%#x``: without a prefix for 0."""
    return f"{value:#x}" if value else "0"


# A number as %ld prints it: what is read prints back as it was.
_INTEGER: Final = _Field(r"0|-?[1-9][0-9]{0,18}", int, "%d")
_WORD: Final = _Field(r"\S+", str)
_HEX: Final = _Field(r"0x(?:0|[1-9a-f][0-9a-f]{0,15})", lambda text: int(text, 16), "%#x")
# %-8s of a zone's name; zone indices without a name are printed as numbers.
_ZONE: Final = _Field(r"(?=.{8}(?: |$))(?:[A-Z]\w*|0x\d) *", str.rstrip, "%-8s")
_FIELDS: Final = {
    "shrink": _Field(r"\S+(?: \[\w+\])?", str),
    "shr": _Field(r"[0-9a-f]{8,16}", str),
    "gfp_flags": _Field(r"\S+", parse_gfp_flags, show=lru_cache(maxsize=256)(show_gfp_flags)),
    "gfp": _Field(r"0|0x[1-9a-f][0-9a-f]{0,7}", lambda text: int(text, 16), show=_show_alternate_hex),
    "page": _Field(r"[0-9a-f]{8,16}", str),
    "hex_pfn": _HEX,
    "start_pfn": _HEX,
    "migrate_pfn": _HEX,
    "free_pfn": _HEX,
    "end_pfn": _HEX,
    "zone": _ZONE,
    "mode": _WORD,
    "status": _WORD,
    "result": _WORD,
    "prio": _WORD,
    "lru": _WORD,
    "flags": _WORD,
    "reason": _WORD,
    "name": _WORD,
    "comm": _Field(r".{1,15}", str),
    "text": _Field(r".*", str),
}


@dataclass(frozen=True, slots=True)
class _Compiled:
    """How the bodies of a class are read and printed."""

    pattern: re.Pattern[str]
    columns: tuple[_Field, ...]
    #: The template for ``%``, what reads the fields that it takes, and which of them are shown by a function.
    layout: str
    values: Callable[[Body], tuple[Any, ...]]
    shown: tuple[tuple[int, Callable[[Any], str]], ...]


#: Filled as classes are met; compiling them all would be work at import.
_COMPILED: Final[dict[type[Body], _Compiled]] = {}
_PLACE: Final = re.compile(r"\{(\w+)\}")


def _compiled(cls: type[Body]) -> _Compiled:
    found = _COMPILED.get(cls)
    if found is not None:
        return found
    pattern = re.escape(cls.template)
    columns = []
    for field in fields(cls):
        column = _FIELDS.get(field.name, _INTEGER)
        pattern = pattern.replace(re.escape(f"{{{field.name}}}"), f"({column.pattern})")
        columns.append(column)
    names: list[str] = _PLACE.findall(cls.template)
    if names != [field.name for field in fields(cls)]:
        raise TypeError(f"{cls.__name__}: the fields should be those of its template, in their order")
    layout = cls.template.replace("%", "%%")
    for name, column in zip(names, columns, strict=True):
        layout = layout.replace(f"{{{name}}}", column.conversion, 1)
    shown = tuple((at, column.show) for at, column in enumerate(columns) if column.show is not None)
    read: Any = attrgetter(*names)
    values = read if len(names) > 1 else lambda body: (read(body),)
    _COMPILED[cls] = _Compiled(re.compile(pattern, re.ASCII), tuple(columns), layout, values, shown)
    return _COMPILED[cls]


def parse_body(cls: type[Body], text: str) -> Body:
    """Read a body.

    Raises
    ------
    ValueError
        The text is not what the event prints; the message says what would be.
    """
    compiled = _compiled(cls)
    match = compiled.pattern.fullmatch(text)
    if match is None:
        shown = text if len(text) <= 120 else text[:120] + "..."
        raise ValueError(f"{shown!r} is not of the form {cls.template!r}")
    return cls(*(column.read(part) for column, part in zip(compiled.columns, match.groups(), strict=True)))


def format_body(body: Body) -> str:
    """Text of a body as the kernel prints it."""
    compiled = _compiled(type(body))
    values = compiled.values(body)
    if compiled.shown:
        printed = list(values)
        for at, show in compiled.shown:
            printed[at] = show(printed[at])
        values = tuple(printed)
    return compiled.layout % values
