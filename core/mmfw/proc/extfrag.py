"""``extfrag_index`` and ``unusable_index`` of debugfs: fragmentation by zone and order (mm/vmstat.c).

Both are in thousandths, printed with a point. -1.000 of ``extfrag_index`` says that a block is free, so that no request
of the order would fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.text import split_lines
from mmfw.state import MAX_ORDER

_ROW: Final = re.compile(r"Node ([0-9]{1,6}), zone +(\w+)((?: +\S+)*)", re.ASCII)
_INDEX: Final = re.compile(r"(-?)([01])\.([0-9]{3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One zone: its index for each order, in thousandths."""

    node: int
    zone: str
    index: tuple[int, ...]


def parse_index(text: str, file: str = "extfrag_index", first_line: int = 1) -> tuple[IndexRow, ...]:
    """Read either file.

    Raises
    ------
    InputError
        A line is not a row of `MAX_ORDER` indices, or there is none.
    """
    rows = []
    for line in split_lines(text, file, first_line):
        if not line.text:
            continue
        match = _ROW.fullmatch(line.text)
        found = [] if match is None else [_INDEX.fullmatch(word) for word in match[3].split()]
        if match is None or len(found) != MAX_ORDER:
            raise line.error(f"not a row of an index: 'Node N, zone NAME' and {MAX_ORDER} figures")
        index = []
        for order, figure in enumerate(found):
            if figure is None or (figure[1] and figure[2] + figure[3] != "1000"):
                raise line.error(f"order {order} is no index: from 0.000 to 1.000, or -1.000")
            index.append(int(figure[1] + figure[2] + figure[3]))
        rows.append(IndexRow(int(match[1]), match[2], tuple(index)))
    if not rows:
        raise InputError("no row of a zone; copy the file again", file=file, line=first_line)
    return tuple(rows)


def format_extfrag_index(rows: tuple[IndexRow, ...]) -> str:
    """Text of ``extfrag_index`` as the kernel prints it, trailing blanks included (``extfrag_show_print()``)."""
    return _format(rows, 2)


def format_unusable_index(rows: tuple[IndexRow, ...]) -> str:
    """Text of ``unusable_index`` as the kernel prints it (``unusable_show_print()``)."""
    return _format(rows, 0)


def _format(rows: tuple[IndexRow, ...], width: int) -> str:
    out = []
    for row in rows:
        out.append(f"Node {row.node}, zone {row.zone:>8} ")
        for value in row.index:
            # C's division: towards 0, the remainder with the sign of the dividend; only -1000 is negative.
            whole = -(-value // 1000) if value < 0 else value // 1000
            out.append(f"{whole:{width}d}.{value - whole * 1000:03d} ")
        out.append("\n")
    return "".join(out)
