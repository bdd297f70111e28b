"""``/proc/pagetypeinfo``: free blocks and pageblocks by migratetype (``pagetypeinfo_show()``, mm/vmstat.c).

The kernel prints the whole text once for every node that has memory. It stops counting a free list at
100000 blocks and marks such a count with ``>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mmfw.errors import InputError
from mmfw.proc.text import Line, split_lines
from mmfw.state import MAX_ORDER

_FREE_HEADER: Final = re.compile(r"Free pages count per migrate type at order((?: +[0-9]+)+)", re.ASCII)
_FREE_ROW: Final = re.compile(r"Node +([0-9]{1,6}), +zone +(\w+), +type +(\w+)((?: +\S+)*)", re.ASCII)
_BLOCKS_HEADER: Final = re.compile(r"Number of (?:mixed blocks|blocks type)((?: +\w+)+)", re.ASCII)
_BLOCKS_ROW: Final = re.compile(r"Node +([0-9]{1,6}), +zone +(\w+)((?: +\S+)*)", re.ASCII)
_PAGE_BLOCK_ORDER: Final = re.compile(r"Page block order: +(\S+)", re.ASCII)
_PAGES_PER_BLOCK: Final = re.compile(r"Pages per block: +(\S+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class FreeTypeRow:
    """Free lists of one migratetype in one zone.

    Attributes
    ----------
    node : int
        NUMA node.
    zone, migratetype : str
        Names as printed.
    counts : tuple of int
        Free blocks by order.
    capped : tuple of bool
        By order, whether the kernel stopped counting (``>``), so that the count is a lower bound.
    line : int
        Line the row stood on.
    """

    node: int
    zone: str
    migratetype: str
    counts: tuple[int, ...]
    capped: tuple[bool, ...]
    line: int = 0


@dataclass(frozen=True, slots=True)
class BlockRow:
    """Pageblocks of one zone by migratetype, in the order of `NodePageTypes.migratetypes`."""

    node: int
    zone: str
    counts: tuple[int, ...]
    line: int = 0


@dataclass(frozen=True, slots=True)
class NodePageTypes:
    """One node's text.

    Attributes
    ----------
    pageblock_order : int
        Order of a pageblock.
    pages_per_block : int
        Pages in a pageblock.
    migratetypes : tuple of str
        Names heading the block counts; a CMA kernel has one more.
    free, blocks, mixed_blocks : tuple
        Rows as printed; `mixed_blocks` only from kernels with CONFIG_PAGE_OWNER, else None.
    """

    pageblock_order: int
    pages_per_block: int
    migratetypes: tuple[str, ...]
    free: tuple[FreeTypeRow, ...]
    blocks: tuple[BlockRow, ...]
    mixed_blocks: tuple[BlockRow, ...] | None = None


@dataclass(frozen=True, slots=True)
class PageTypeInfo:
    """The file: one part for each node with memory, and its name for messages."""

    nodes: tuple[NodePageTypes, ...]
    file: str = "pagetypeinfo"


class _Cursor:
    """Lines that are not blank, taken one by one."""

    def __init__(self, lines: list[Line], file: str) -> None:
        self._lines = [line for line in lines if line.text]
        self._next = 0
        self._end = Line("", file, lines[-1].number)

    def peek(self) -> Line | None:
        return self._lines[self._next] if self._next < len(self._lines) else None

    def take(self, pattern: re.Pattern[str], what: str) -> tuple[Line, re.Match[str]]:
        line = self.peek()
        if line is None:
            raise self._end.error(f"the file ends where {what} should follow; copy the whole file")
        match = pattern.fullmatch(line.text)
        if match is None:
            raise line.error(f"{what} should stand here")
        self._next += 1
        return line, match

    def take_while(self, pattern: re.Pattern[str]) -> list[tuple[Line, re.Match[str]]]:
        found = []
        while (line := self.peek()) is not None and (match := pattern.fullmatch(line.text)) is not None:
            found.append((line, match))
            self._next += 1
        return found


def parse_pagetypeinfo(text: str, file: str = "pagetypeinfo", first_line: int = 1) -> PageTypeInfo:
    """Read ``/proc/pagetypeinfo``.

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
        A part is missing, a row has another number of columns than its header, a row occurs twice, or
        the two tables name different zones.
    """
    cursor = _Cursor(split_lines(text, file, first_line), file)
    nodes: list[NodePageTypes] = []
    seen: dict[tuple[int, str], int] = {}
    while not nodes or cursor.peek() is not None:
        node = _parse_node(cursor)
        for row in node.blocks:
            if (row.node, row.zone) in seen:
                raise InputError(
                    f"node {row.node}, zone {row.zone} was already on line {seen[row.node, row.zone]}",
                    file=file,
                    line=row.line,
                )
            seen[row.node, row.zone] = row.line
        nodes.append(node)
    return PageTypeInfo(tuple(nodes), file)


def _parse_node(cursor: _Cursor) -> NodePageTypes:
    line, match = cursor.take(_PAGE_BLOCK_ORDER, "'Page block order:'")
    order = line.unsigned(match[1], "the pageblock order")
    line, match = cursor.take(_PAGES_PER_BLOCK, "'Pages per block:'")
    pages = line.unsigned(match[1], "pages per block")
    if order > 63 or pages != 1 << order:
        raise line.error(f"a pageblock of order {order} does not have {pages} pages")
    line, match = cursor.take(_FREE_HEADER, "'Free pages count per migrate type at order'")
    if match[1].split() != [str(o) for o in range(MAX_ORDER)]:
        raise line.error(f"the header should list the orders 0..{MAX_ORDER - 1}")
    free = tuple(_free_row(line, match) for line, match in cursor.take_while(_FREE_ROW))
    line, match = cursor.take(_BLOCKS_HEADER, "a row of free counts or 'Number of blocks type'")
    if not line.text.startswith("Number of blocks type"):
        raise line.error("'Number of blocks type' should stand here")
    names = tuple(match[1].split())
    blocks = _block_rows(cursor, len(names))
    mixed = None
    following = cursor.peek()
    if following is not None and following.text.startswith("Number of mixed blocks"):
        cursor.take(_BLOCKS_HEADER, "'Number of mixed blocks'")
        mixed = _block_rows(cursor, len(names))
    _check(line, names, free, blocks)
    return NodePageTypes(order, pages, names, free, blocks, mixed)


def _free_row(line: Line, match: re.Match[str]) -> FreeTypeRow:
    words = match[4].split()
    if len(words) != MAX_ORDER:
        raise line.error(f"the row has {len(words)} counts, but there are {MAX_ORDER} orders")
    counts = tuple(line.unsigned(w.removeprefix(">"), f"order {o}") for o, w in enumerate(words))
    capped = tuple(w.startswith(">") for w in words)
    return FreeTypeRow(int(match[1]), match[2], match[3], counts, capped, line.number)


def _block_rows(cursor: _Cursor, columns: int) -> tuple[BlockRow, ...]:
    rows = []
    for line, match in cursor.take_while(_BLOCKS_ROW):
        words = match[3].split()
        if len(words) != columns:
            raise line.error(f"the row has {len(words)} counts, but its header names {columns} migratetypes")
        rows.append(
            BlockRow(
                int(match[1]),
                match[2],
                tuple(line.unsigned(w, "a number of blocks") for w in words),
                line.number,
            )
        )
    return tuple(rows)


def _check(
    header: Line, names: tuple[str, ...], free: tuple[FreeTypeRow, ...], blocks: tuple[BlockRow, ...]
) -> None:
    """Refuse tables that no kernel prints: other names, missing or doubled rows."""
    if len(dict.fromkeys(names)) != len(names):
        raise header.error("a migratetype is named twice")
    if not blocks:
        raise header.error("no row of block counts follows; copy the whole file")
    zones = [(row.node, row.zone) for row in blocks]
    expected = dict.fromkeys((node, zone, name) for node, zone in zones for name in names)
    seen: dict[tuple[int, str, str], int] = {}
    for row in free:
        key = (row.node, row.zone, row.migratetype)
        if key in seen:
            raise InputError(
                f"node {row.node}, zone {row.zone}, type {row.migratetype} was already on line {seen[key]}",
                file=header.file,
                line=row.line,
            )
        if key not in expected:
            raise InputError(
                f"node {row.node}, zone {row.zone}, type {row.migratetype} is not among the block counts",
                file=header.file,
                line=row.line,
            )
        seen[key] = row.line
    for node, zone, name in expected:
        if (node, zone, name) not in seen:
            raise header.error(f"node {node}, zone {zone} has no row of free counts for type {name}")


def format_pagetypeinfo(info: PageTypeInfo) -> str:
    """Text as the kernel prints it, trailing blanks included."""
    out: list[str] = []
    for node in info.nodes:
        out.append(f"Page block order: {node.pageblock_order}\nPages per block:  {node.pages_per_block}\n\n")
        out.append(f"{'Free pages count per migrate type at order':<43} ")
        out.append("".join(f"{order:6d} " for order in range(MAX_ORDER)) + "\n")
        for free in node.free:
            out.append(f"Node {free.node:4d}, zone {free.zone:>8}, type {free.migratetype:>12} ")
            cells = zip(free.counts, free.capped, strict=True)
            out.append("".join(f"{'>' if capped else ''}{n:6d} " for n, capped in cells) + "\n")
        out.append(_format_blocks("Number of blocks type ", node.migratetypes, node.blocks))
        if node.mixed_blocks is not None:
            out.append(_format_blocks("Number of mixed blocks ", node.migratetypes, node.mixed_blocks))
    return "".join(out)


def _format_blocks(title: str, names: tuple[str, ...], rows: tuple[BlockRow, ...]) -> str:
    text = f"\n{title:<23}" + "".join(f"{name:>12} " for name in names) + "\n"
    for row in rows:
        text += f"Node {row.node}, zone {row.zone:>8} " + "".join(f"{n:12d} " for n in row.counts) + "\n"
    return text
