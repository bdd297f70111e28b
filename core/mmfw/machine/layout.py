"""Memory maps from counts: free blocks placed so that a zone shows given figures in /proc.

`lay_out_zone` places any feasible number of free blocks by zone, order and migratetype, aligned, inside
present memory, never two free buddies of one order side by side. `fresh_boot_zone` lays out a zone as
boot leaves it. What is not free is allocated or absent; the map does not say which of the two.

Placement goes from order 10 down. A free block of order o needs a *slot*: a block of order o+1 that is
not inside a larger free block and has at least one half wholly present; one of its present halves
becomes free, and the other can never be. How many slots an order has depends only on how many larger
blocks are free, not on where they lie, so counts are feasible exactly if each order's count is at most
its slots. Choosing slots at random therefore never runs into a dead end.

No step handles pages one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import InputError
from mmfw.machine.pageblocks import ZoneSpan, pageblock_types
from mmfw.rawrandom import IntArray, Rng
from mmfw.state import (
    MAX_ORDER,
    MIGRATE_TYPES,
    PAGEBLOCK_ABSENT,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    MigrateType,
    PfnArray,
)

ListOrder = Literal["shuffled", "ascending"]

TOP: Final = MAX_ORDER - 1
#: Types in the order in which they choose slots: the scarcest first.
_PLACING_ORDER: Final = (
    MigrateType.HIGHATOMIC,
    MigrateType.ISOLATE,
    MigrateType.UNMOVABLE,
    MigrateType.RECLAIMABLE,
    MigrateType.MOVABLE,
)

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ZoneMap:
    """A zone's pageblocks and free lists, in the form of `mmfw.state.ZoneState`.

    Attributes
    ----------
    pageblock_mt : uint8[n]
        Migratetype of each pageblock.
    nr_free : int64[MAX_ORDER]
        Free blocks by order.
    free_lists : list of list of int64[n]
        ``[order][migratetype]``: first pfns, list head first.
    pcp_pages : int64[n]
        Order-0 pages set aside for per-CPU lists; neither free nor overlapping a free block.
    """

    pageblock_mt: NDArray[np.uint8]
    nr_free: IntArray
    free_lists: list[list[PfnArray]]
    pcp_pages: PfnArray


def _domains(ranges: tuple[tuple[int, int], ...], base: int, order: int) -> list[tuple[int, int, int, int]]:
    """For each present range: its slots of `order`, and the order-`order` blocks wholly present in it.

    Numbers count from `base`. A slot of order 10 is the block itself.
    """
    found = []
    for low, high in ranges:
        first, last = -(-(low - base) >> order), (high - base) >> order
        if last > first:
            slots = (first, last) if order == TOP else (first >> 1, -(-last >> 1))
            found.append((*slots, first, last))
    return found


def check_feasible(
    span: ZoneSpan, counts: Sequence[int], *, extra: int = 0, file: str | None = None, line: int | None = None
) -> None:
    """Refuse counts that no memory map of this zone can show.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    counts : sequence of int
        Free blocks by order.
    extra : int
        Managed pages that are neither free nor allocated: those on per-CPU lists.
    file, line
        Where the counts stand, for messages.

    Raises
    ------
    InputError
        Names the zone, the order, and by how much the count is too large.
    """
    free = sum(n << order for order, n in enumerate(counts))
    if free + extra > span.managed:
        on_lists = f" and {extra} pages on per-CPU lists" if extra else ""
        raise InputError(
            f"zone {span.name} has {free} pages in free blocks{on_lists}, but only {span.managed}"
            f" managed pages ({free + extra - span.managed} too many)",
            file=file,
            line=line,
        )
    base = span.start_pfn & -(1 << TOP)
    ranges = span.present_ranges()
    for order in range(TOP, -1, -1):
        slots = sum(stop - start for start, stop, _, _ in _domains(ranges, base, order))
        covered = sum(counts[k] << (k - order - 1) for k in range(order + 1, MAX_ORDER))
        if counts[order] > slots - covered:
            raise InputError(
                f"zone {span.name}, order {order}: {counts[order]} free blocks, but at most {slots - covered}"
                f" fit beside the larger ones without two free buddies"
                f" ({counts[order] - slots + covered} too many)",
                file=file,
                line=line,
            )


class _Placer:
    """Places free blocks of one zone, order by order from the top."""

    def __init__(self, span: ZoneSpan, types: NDArray[np.uint8], rng: Rng) -> None:
        self._rng = rng
        self._base = span.start_pfn & -(1 << TOP)
        self._ranges = span.present_ranges()
        end = self._ranges[-1][1] if self._ranges else self._base
        nr_top = -(-(end - self._base) >> TOP)
        # Type of every pageblock counted from the order-10 boundary below the zone.
        lead = (span.first_block_pfn - self._base) >> PAGEBLOCK_ORDER
        self._types = np.full(2 * nr_top, PAGEBLOCK_ABSENT, dtype=np.uint8)
        inside = types[: len(self._types) - lead]
        self._types[lead : lead + len(inside)] = inside
        # Slots of the order placed next that lie in no larger free block.
        self._open: BoolArray = np.ones(nr_top, dtype=np.bool_)
        self._usable = self._open

    def place(self, order: int, wanted: Sequence[int]) -> list[PfnArray]:
        """First pfns of `wanted[type]` free blocks of one order; called for every order from 10 to 0."""
        self._usable = usable = np.zeros_like(self._open)
        domains = _domains(self._ranges, self._base, order)
        for start, stop, _, _ in domains:
            usable[start:stop] = self._open[start:stop]
        chosen = [_no_slots() for _ in range(MIGRATE_TYPES)]
        for mt in _PLACING_ORDER:
            chosen[mt] = self._choose(order, mt, wanted[mt])
            usable[chosen[mt]] = False
        for mt in _PLACING_ORDER:
            missing = wanted[mt] - len(chosen[mt])
            if missing:
                more = self._rng.sample(np.flatnonzero(usable), missing)
                usable[more] = False
                chosen[mt] = np.concatenate((chosen[mt], more))
        if order != TOP:
            chosen = [self._halves(slots, order, mt, domains) for mt, slots in enumerate(chosen)]
            if order:
                # Each flag doubled: the same as np.repeat(..., 2), ten times as fast.
                self._open = (self._open.astype(np.uint16) * np.uint16(0x0101)).view(np.bool_)
        if order:
            for taken in chosen:
                self._open[taken] = False
        return [self._base + (numbers << order) for numbers in chosen]

    def spare_pages(self, wanted: int) -> PfnArray:
        """Up to `wanted` pages that are not free, Movable pageblocks first; called after order 0."""
        slots = self._choose(0, MigrateType.MOVABLE, wanted)
        self._usable[slots] = False
        missing = wanted - len(slots)
        if missing:
            slots = np.concatenate((slots, self._rng.sample(np.flatnonzero(self._usable), missing)))
        domains = _domains(self._ranges, self._base, 0)
        pages: PfnArray = self._base + self._halves(slots, 0, MigrateType.MOVABLE, domains)
        return pages

    def _choose(self, order: int, mt: int, wanted: int) -> IntArray:
        """Up to `wanted` usable slots in pageblocks of one type."""
        if not wanted:
            return _no_slots()
        if order >= PAGEBLOCK_ORDER:
            pairs = self._types.reshape(-1, 2) == mt
            fits = pairs.all(axis=1) if order == TOP else pairs.any(axis=1)
            return self._rng.sample(np.flatnonzero(self._usable & fits), wanted)
        per_block = 1 << (PAGEBLOCK_ORDER - order - 1)
        blocks = np.flatnonzero(self._types == mt)
        # A few out of many are drawn and looked up; only a dense choice pays for listing every slot.
        if wanted * 8 < len(blocks) * per_block:
            drawn = self._rng.below(len(blocks) * per_block, wanted * 2)
            slots = blocks[drawn // per_block] * per_block + drawn % per_block
            slots = self._rng.distinct(slots[self._usable[slots]], wanted)
            if len(slots) == wanted:
                return slots
        inside = np.flatnonzero(self._usable.reshape(-1, per_block)[blocks])
        slots = np.asarray(blocks[inside // per_block] * per_block + inside % per_block, dtype=np.int64)
        return self._rng.sample(slots, wanted)

    def _halves(
        self, slots: IntArray, order: int, mt: int, domains: list[tuple[int, int, int, int]]
    ) -> IntArray:
        """Number of one half of each slot: a present one, of the wanted type if the halves differ."""
        half = 2 * slots + self._rng.below(2, len(slots))
        if order == PAGEBLOCK_ORDER:
            swap = (self._types[half] != mt) & (self._types[half ^ 1] == mt)
            half = np.where(swap, half ^ 1, half)
        present = np.zeros(len(half), dtype=np.bool_)
        for _, _, first, last in domains:
            present |= (half >= first) & (half < last)
        return np.where(present, half, half ^ 1)


def _no_slots() -> IntArray:
    return np.empty(0, dtype=np.int64)


def lay_out_zone(
    span: ZoneSpan,
    counts: Sequence[Sequence[int]],
    blocks: Sequence[int] | None,
    rng: Rng,
    *,
    list_order: ListOrder = "shuffled",
    pcp_pages: int = 0,
    file: str | None = None,
    line: int | None = None,
) -> ZoneMap:
    """Lay out a zone that shows exactly the given counts.

    Free blocks lie in pageblocks of their own migratetype as far as these have room, else anywhere, as
    6.1 allows. Managed pages that are neither free nor set aside are allocated.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    counts : sequence of sequence of int
        ``[order][migratetype]``: free blocks.
    blocks : sequence of int or None
        Pageblocks by migratetype; None for boot's (see `pageblock_types`).
    rng : Rng
        Source of chance.
    list_order : {"shuffled", "ascending"}
        Order of every free list: at random, as on an aged machine, or ascending pfn, as after boot.
    pcp_pages : int
        Order-0 pages to set aside for per-CPU lists; fewer are set aside if every page's buddy is taken.
    file, line
        Where the counts stand, for messages.

    Raises
    ------
    InputError
        The counts are impossible; the message says which and by how much.
    """
    nr_free = [sum(row) for row in counts]
    check_feasible(span, nr_free, extra=pcp_pages, file=file, line=line)
    types = pageblock_types(span, blocks, rng, file=file, line=line)
    placer = _Placer(span, types, rng)
    lists: list[list[PfnArray]] = [[] for _ in range(MAX_ORDER)]
    for order in range(TOP, -1, -1):
        lists[order] = placer.place(order, counts[order])
    spare = placer.spare_pages(pcp_pages)
    for row in lists:
        for pfns in row:
            pfns.sort()
    if list_order == "shuffled":
        lists = [[rng.shuffled(pfns) for pfns in row] for row in lists]
    return ZoneMap(types, np.asarray(nr_free, dtype=np.int64), lists, spare)


def fresh_boot_zone(span: ZoneSpan, free_ranges: Sequence[tuple[int, int]]) -> ZoneMap:
    """Lay out a zone as boot leaves it: largest aligned blocks, ascending, on the Movable lists.

    As ``memblock_free_all()`` (mm/memblock.c) releases memory: each range is cut from its start into the
    largest naturally aligned blocks that fit, each put at the tail of its list.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    free_ranges : sequence of (int, int)
        Free pfns as half-open ranges, ascending, disjoint, in present memory and not touching one another.
    """
    runs: list[list[IntArray]] = [[_no_slots()] for _ in range(MAX_ORDER)]
    for low, high in free_ranges:
        pfn = low
        while pfn < high:
            order = min((pfn & -pfn).bit_length() - 1 if pfn else TOP, (high - pfn).bit_length() - 1, TOP)
            # Order-10 blocks come in one run; every smaller order occurs at most twice in a range.
            stop = pfn + ((high - pfn) >> TOP << TOP) if order == TOP else pfn + (1 << order)
            runs[order].append(np.arange(pfn, stop, 1 << order, dtype=np.int64))
            pfn = stop
    lists = [[_no_slots() for _ in range(MIGRATE_TYPES)] for _ in range(MAX_ORDER)]
    for order, run in enumerate(runs):
        lists[order][MigrateType.MOVABLE] = np.concatenate(run)
    nr_free = np.asarray([len(row[MigrateType.MOVABLE]) for row in lists], dtype=np.int64)
    return ZoneMap(pageblock_types(span, None, Rng(0)), nr_free, lists, _no_slots())


def lru_blocks(span: ZoneSpan, zone_map: ZoneMap, lru_pages: int) -> NDArray[np.int64]:
    """Guess which pageblocks hold a zone's LRU pages: allocated pages of Movable blocks, evenly.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    zone_map : ZoneMap
        Its map.
    lru_pages : int
        Pages on the zone's LRU lists; those that Movable blocks cannot hold are left out.

    Returns
    -------
    int64[m, 2]
        (block index, count), ascending, as `mmfw.state.ZoneState.pageblock_lru`.
    """
    base, total = span.first_block_pfn, span.nr_span_blocks
    used = np.zeros(total, dtype=np.int64)
    for low, high in span.present_ranges():
        starts = base + PAGEBLOCK_NR_PAGES * np.arange(total, dtype=np.int64)
        used += np.clip(np.minimum(starts + PAGEBLOCK_NR_PAGES, high) - np.maximum(starts, low), 0, None)
    for order, row in enumerate(zone_map.free_lists):
        for pfns in row:
            first = (pfns - base) >> PAGEBLOCK_ORDER
            size = min(1 << order, PAGEBLOCK_NR_PAGES)
            for block in range(max(1, (1 << order) >> PAGEBLOCK_ORDER)):
                used -= size * np.bincount(first + block, minlength=total)
    used -= np.bincount((zone_map.pcp_pages - base) >> PAGEBLOCK_ORDER, minlength=total)
    used[zone_map.pageblock_mt != MigrateType.MOVABLE] = 0
    room = int(used.sum())
    if not room or not lru_pages:
        return np.empty((0, 2), dtype=np.int64)
    ends = np.cumsum(used) * min(lru_pages, room) // room
    counts = np.diff(ends, prepend=0)
    held = np.flatnonzero(counts)
    pairs: IntArray = np.stack((held, counts[held]), axis=1)
    return pairs
