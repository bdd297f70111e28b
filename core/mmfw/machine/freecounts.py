"""Free blocks and pageblocks of a zone by migratetype, from pagetypeinfo, buddyinfo, or both."""

from __future__ import annotations

from dataclasses import dataclass

from mmfw.errors import InputError, did_you_mean
from mmfw.proc.buddyinfo import BuddyInfo, BuddyRow
from mmfw.proc.pagetypeinfo import NodePageTypes, PageTypeInfo
from mmfw.proc.zoneinfo import ZoneInfo
from mmfw.state import MAX_ORDER, MIGRATE_TYPES, MIGRATETYPE_NAMES, PAGEBLOCK_ORDER, MigrateType

CountTable = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ZoneCounts:
    """Counts of one zone, and where they stand.

    Attributes
    ----------
    free : tuple of tuple of int
        ``[order][migratetype]``: free blocks.
    blocks : tuple of int or None
        Pageblocks by migratetype; None without pagetypeinfo.
    file, line
        Where they stand, for messages.
    """

    free: CountTable
    blocks: tuple[int, ...] | None
    file: str
    line: int

    @property
    def nr_free(self) -> tuple[int, ...]:
        """Free blocks by order."""
        return tuple(sum(row) for row in self.free)

    def free_pages(self, *, isolated: bool = True) -> int:
        """Pages in free blocks, with or without those of type Isolate."""
        return sum(
            n << order
            for order, row in enumerate(self.free)
            for mt, n in enumerate(row)
            if isolated or mt != MigrateType.ISOLATE
        )


def zone_counts(info: ZoneInfo, buddy: BuddyInfo | None, types: PageTypeInfo | None) -> ZoneCounts:
    """Counts of the zone that `info` describes.

    pagetypeinfo wins; what its capped lists hide is taken from buddyinfo's total. With buddyinfo alone,
    every free block is Movable and `ZoneCounts.blocks` is None.

    Raises
    ------
    InputError
        The zone is missing, a migratetype is unknown, pageblocks are not of order 9, or a list was capped
        and there is no buddyinfo.
    """
    here = (info.node, info.name)
    row = None if buddy is None else next((r for r in buddy.rows if (r.node, r.zone) == here), None)
    if types is not None:
        for node in types.nodes:
            for block_row in node.blocks:
                if (block_row.node, block_row.zone) == here:
                    free = _typed_counts(info, node, row, types.file)
                    blocks = _typed_blocks(node, block_row.counts, types.file, block_row.line)
                    return ZoneCounts(free, blocks, types.file, block_row.line)
        raise InputError(f"has no row for node {info.node}, zone {info.name}", file=types.file)
    if buddy is None or row is None:
        file = "buddyinfo" if buddy is None else buddy.file
        raise InputError(f"has no row for node {info.node}, zone {info.name}", file=file)
    movable = (
        tuple(n if mt == MigrateType.MOVABLE else 0 for mt in range(MIGRATE_TYPES)) for n in row.nr_free
    )
    return ZoneCounts(tuple(movable), None, buddy.file, row.line)


def _type_index(name: str, file: str, line: int) -> int:
    if name == "CMA":
        return MigrateType.MOVABLE
    if name not in MIGRATETYPE_NAMES:
        raise InputError(
            f"migratetype {name!r} is unknown; {did_you_mean(name, MIGRATETYPE_NAMES)}", file=file, line=line
        )
    return MIGRATETYPE_NAMES.index(name)


def _typed_blocks(node: NodePageTypes, counts: tuple[int, ...], file: str, line: int) -> tuple[int, ...]:
    if node.pageblock_order != PAGEBLOCK_ORDER:
        raise InputError(
            f"pageblocks have order {node.pageblock_order}; order {PAGEBLOCK_ORDER} (x86-64) is supported",
            file=file,
            line=line,
        )
    blocks = [0] * MIGRATE_TYPES
    for name, count in zip(node.migratetypes, counts, strict=True):
        blocks[_type_index(name, file, line)] += count
    return tuple(blocks)


def _typed_counts(info: ZoneInfo, node: NodePageTypes, buddy: BuddyRow | None, file: str) -> CountTable:
    """Counts of pagetypeinfo; what a capped list hides is taken from buddyinfo's total.

    Several capped lists of one order share what is hidden: Movable takes it if it is one of them, else the
    first of them.
    """
    counts = [[0] * MIGRATE_TYPES for _ in range(MAX_ORDER)]
    hidden: dict[int, int] = {}
    for row in node.free:
        if (row.node, row.zone) != (info.node, info.name):
            continue
        mt = _type_index(row.migratetype, file, row.line)
        for order, (count, capped) in enumerate(zip(row.counts, row.capped, strict=True)):
            counts[order][mt] += count
            if capped:
                if buddy is None:
                    raise InputError(
                        f"order {order} of type {row.migratetype} was not counted to its end ('>');"
                        " copy buddyinfo as well",
                        file=file,
                        line=row.line,
                    )
                if mt == MigrateType.MOVABLE:
                    hidden[order] = mt
                hidden.setdefault(order, mt)
    if buddy is not None:
        for order, mt in hidden.items():
            counts[order][mt] += max(buddy.nr_free[order] - sum(counts[order]), 0)
    return tuple(map(tuple, counts))
