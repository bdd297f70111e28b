"""``/proc/buddyinfo``: free blocks of every order in every populated zone (``frag_show()``, mm/vmstat.c)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.text import split_lines
from mmfw.state import MAX_ORDER

_ROW: Final = re.compile(r"Node +([0-9]{1,6}), +zone +(\w+)((?: +\S+)*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class BuddyRow:
    """One zone's row.

    Attributes
    ----------
    node : int
        NUMA node.
    zone : str
        Zone name.
    nr_free : tuple of int
        ``free_area[order].nr_free``: free blocks, by order.
    line : int
        Line the row stood on; 0 if it was not read from a file.
    """

    node: int
    zone: str
    nr_free: tuple[int, ...]
    line: int = 0

    @property
    def free_pages(self) -> int:
        """Pages in all free blocks."""
        return sum(n << order for order, n in enumerate(self.nr_free))


@dataclass(frozen=True, slots=True)
class BuddyInfo:
    """The file: its rows in the order printed, and its name for messages."""

    rows: tuple[BuddyRow, ...]
    file: str = "buddyinfo"


def parse_buddyinfo(text: str, file: str = "buddyinfo", first_line: int = 1) -> BuddyInfo:
    """Read ``/proc/buddyinfo``.

    Parameters
    ----------
    text : str
        The file's text.
    file : str
        Name for error messages.
    first_line : int
        Number of the text's first line in `file`.

    Raises
    ------
    InputError
        A line is not a row of `MAX_ORDER` counts, or a zone occurs twice.
    """
    rows: list[BuddyRow] = []
    seen: dict[tuple[int, str], int] = {}
    for line in split_lines(text, file, first_line):
        if not line.text:
            continue
        match = _ROW.fullmatch(line.text)
        if match is None:
            raise line.error("not a row of buddyinfo: 'Node N, zone NAME' and 11 counts")
        node, zone = int(match[1]), match[2]
        counts = match[3].split()
        if len(counts) != MAX_ORDER:
            raise line.error(
                f"zone {zone} has {len(counts)} counts, but there are {MAX_ORDER} orders (0..{MAX_ORDER - 1})"
            )
        if (node, zone) in seen:
            raise line.error(f"node {node}, zone {zone} was already on line {seen[node, zone]}")
        seen[node, zone] = line.number
        nr_free = tuple(line.unsigned(word, f"order {order}") for order, word in enumerate(counts))
        rows.append(BuddyRow(node, zone, nr_free, line.number))
    if not rows:
        raise InputError("no row of a zone; copy the file again", file=file, line=first_line)
    return BuddyInfo(tuple(rows), file)


def format_buddyinfo(info: BuddyInfo) -> str:
    """Text as the kernel prints it, trailing blanks included."""
    return "".join(
        f"Node {row.node}, zone {row.zone:>8} " + "".join(f"{n:6d} " for n in row.nr_free) + "\n"
        for row in info.rows
    )
