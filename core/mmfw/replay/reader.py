"""Reads a captured trace line by line: JSON lines, gzip or plain, one at a time.

Whatever is wrong with the text (cut short, a flipped bit, a hand-made slip) ends in an `InputError` that
names file and line. Whether the numbers agree with the simulator is not decided here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mmfw.errors import InputError
from mmfw.jit.page import TR_EXTFRAG, TR_PCPU_DRAIN, TR_WAKEUP_KSWAPD, TR_ZONE_LOCKED
from mmfw.jit.replay import OP_ALLOC, OP_DRAIN, OP_FREE
from mmfw.proc.stream import LineStream
from mmfw.state import MAX_NR_ZONES, MAX_ORDER, MIGRATE_TYPES

MAX_PFN: Final = (1 << 32) - 1

#: gfp masks of the classes, by the names in a trace's header (shared with the capture module).
CLASS_GFP: Final[dict[str, int]] = {
    "K": 0x20C0,
    "R": 0x20D0,
    "M": 0x1020CA,
    "A": 0x2220,
    "D32": 0x20C4,
    "N": 0x820C0,
    "RN": 0x820D0,
    "MN": 0x1820CA,
    "W": 0x28C0,
    "MW": 0x1028CA,
    "DMA": 0x20C1,
}


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a trace."""

    mode: str
    verbose: bool
    watermark_boost_factor: int
    gfp_classes: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation with the events that came before its line.

    Attributes
    ----------
    kind, order, gfp_class, pfn : int
        ``OP_*``; order; index into the header's classes; expected or freed pfn (-1: NULL).
    events : tuple of 6-tuples of int
        Rows as the compiled loops write them (`mmfw.jit.page`).
    line : int
        Of the operation.
    text : str
        The line, for reports.
    """

    kind: int
    order: int
    gfp_class: int
    pfn: int
    events: tuple[tuple[int, ...], ...]
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A state dump, not yet interpreted."""

    label: int
    record: dict[str, Any]
    line: int


@dataclass(frozen=True, slots=True)
class Check:
    """Last line: the capture's own counts."""

    ops: int
    allocs_ok: int
    allocs_failed: int
    frees: int
    line: int


Record = Header | Operation | StateRecord | Check


class TraceReader:
    """The records of one trace file, in order.

    Parameters
    ----------
    path : Path
        A ``.jsonl`` or ``.jsonl.gz`` file; what it is is told by its first bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = LineStream(path)

    @property
    def _line(self) -> int:
        return self._stream.number

    def error(self, message: str, line: int | None = None) -> InputError:
        """An error about a line of this file."""
        return self._stream.error(message, line)

    def records(self) -> Iterator[Record]:
        """Header, then states and operations as they come, then the check line.

        Raises
        ------
        InputError
            The file cannot be read or a line is not what the format says.
        """
        header: Header | None = None
        classes: tuple[str, ...] = ()
        pending: list[tuple[int, ...]] = []
        checked = False
        for text in self._stream:
            if checked:
                raise self.error("a line after the check line, which must be the last")
            value = self._parse(text)
            if header is None:
                header = self._header(value)
                classes = header.gfp_classes
                yield header
                continue
            if isinstance(value, list):
                event = self._event(value)
                if event is not None:
                    pending.append(event)
                    continue
                yield self._operation(value, classes, tuple(pending), text)
                pending.clear()
                continue
            if pending:
                raise self.error(
                    "events that no operation follows; events stand before their operation's line"
                )
            if not isinstance(value, dict):
                raise self.error(f"a line must be an array or an object, not {type(value).__name__}")
            if "state" in value:
                yield StateRecord(self._int(value, "state", 0, 1 << 31), value, self._line)
            elif "check" in value:
                yield self._check(value)
                checked = True
            else:
                raise self.error("an object line has neither 'state' nor 'check'")
        if header is None:
            raise InputError(
                "the trace is empty; its first line must be the header", file=str(self.path), line=1
            )
        if not checked:
            raise self.error("the trace ends without its check line; it was cut short")

    # --- lines --------------------------------------------------------------------------------------

    def _parse(self, text: str) -> object:
        try:
            value: object = json.loads(text, parse_constant=self._no_constant)
        except RecursionError:
            raise self.error("not JSON: nested too deeply") from None
        except ValueError as fault:
            raise self.error(f"not JSON: {fault}") from None
        return value

    def _no_constant(self, name: str) -> object:
        raise ValueError(f"{name} is not a number")

    # --- values -------------------------------------------------------------------------------------

    def _int(self, record: dict[str, Any], key: str, low: int, high: int) -> int:
        value = record.get(key)
        if type(value) is not int:
            raise self.error(f"{key!r} must be a whole number, not {value!r}")
        if not low <= value <= high:
            raise self.error(f"{key!r} is {value}; {low} to {high} is possible")
        return value

    def _fields(self, value: list[Any], names: tuple[str, ...], limits: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) != len(names) + 1:
            raise self.error(
                f"{value[0]!r} takes {len(names)} numbers ({', '.join(names)}), not {len(value) - 1}"
            )
        for name, limit, item in zip(names, limits, value[1:], strict=True):
            if type(item) is not int:
                raise self.error(f"{value[0]!r}: {name} must be a whole number, not {item!r}")
            if not (-1 if name == "pfn" else 0) <= item <= limit:
                raise self.error(f"{value[0]!r}: {name} is {item}; 0 to {limit} is possible")
        return tuple(value[1:])

    def _header(self, value: object) -> Header:
        if not isinstance(value, dict) or "mode" not in value:
            raise self.error(
                "the first line must be the header object, with 'mode', 'verbose' and 'gfp_classes'"
            )
        classes = value.get("gfp_classes")
        if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
            raise self.error("'gfp_classes' must be a list of names")
        for name in classes:
            if name not in CLASS_GFP:
                raise self.error(f"gfp class {name!r} is unknown; known: {', '.join(CLASS_GFP)}")
        if not isinstance(value["mode"], str):
            raise self.error("'mode' must be a letter")
        return Header(
            mode=value["mode"],
            verbose=bool(self._int(value, "verbose", 0, 1)),
            watermark_boost_factor=self._int(value, "watermark_boost_factor", 0, 1 << 31),
            gfp_classes=tuple(classes),
            line=self._line,
        )

    def _event(self, value: list[Any]) -> tuple[int, ...] | None:
        o, m = MAX_ORDER - 1, MIGRATE_TYPES - 1
        match value[0] if value else None:
            case "x":
                fallback = ("pfn", "alloc_order", "fallback_order", "alloc_mt", "fallback_mt")
                return (TR_EXTFRAG, *self._fields(value, fallback, (MAX_PFN, o, o, m, m)))
            case "z":
                locked = ("pfn", "order", "mt", "percpu_refill")
                return (TR_ZONE_LOCKED, *self._fields(value, locked, (MAX_PFN, o, m, 1)), 0)
            case "p":
                return (TR_PCPU_DRAIN, *self._fields(value, ("pfn", "order", "mt"), (MAX_PFN, o, m)), 0, 0)
            case "w":
                order, hzi = self._fields(value, ("order", "highest_zone_index"), (o, MAX_NR_ZONES - 1))
                return (TR_WAKEUP_KSWAPD, order, hzi, 0, 0, 0)
        return None

    def _operation(
        self, value: list[Any], classes: tuple[str, ...], events: tuple[tuple[int, ...], ...], text: str
    ) -> Operation:
        o = MAX_ORDER - 1
        match value[0] if value else None:
            case "a":
                names = ("order", "class", "mt", "pfn")
                order, index, mt, pfn = self._fields(
                    value, names, (o, len(classes) - 1, MIGRATE_TYPES - 1, MAX_PFN)
                )
                wanted = (CLASS_GFP[classes[index]] >> 3) & 3
                if mt != wanted:
                    raise self.error(f"class {classes[index]} asks for migratetype {wanted}, not {mt}")
                return Operation(OP_ALLOC, order, index, pfn, events, self._line, text)
            case "f":
                order, pfn = self._fields(value, ("order", "pfn"), (o, MAX_PFN))
                return Operation(OP_FREE, order, 0, pfn, events, self._line, text)
            case "d":
                self._fields(value, (), ())
                return Operation(OP_DRAIN, 0, 0, -1, events, self._line, text)
            case kind:
                raise self.error(
                    f"unknown line {kind!r}; operations are 'a', 'f', 'd', events 'x', 'z', 'p', 'w'"
                )

    def _check(self, value: dict[str, Any]) -> Check:
        check = value["check"]
        if not isinstance(check, dict):
            raise self.error("'check' must be an object")
        most = 1 << 40
        if self._int(check, "overflow", 0, 1):
            raise self.error("the capture's buffer overflowed, so the trace is not whole")
        return Check(
            ops=self._int(check, "ops", 0, most),
            allocs_ok=self._int(check, "allocs_ok", 0, most),
            allocs_failed=self._int(check, "allocs_failed", 0, most),
            frees=self._int(check, "frees", 0, most),
            line=self._line,
        )
