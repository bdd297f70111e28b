"""Where boot's own pages lie: the pageblocks that an idle, freshly booted kernel has claimed by type.

The first allocator traces of each boot of the reference build (6.1.192, one node, virtual machines of 256M
to 6G) agree on it: in the zone that serves boot, pairs of pageblocks were claimed in turn for Unmovable
and Reclaimable pages, from a fixed place upwards and filled from their starts; pages of the initramfs (shmem,
on the LRU) fill Movable blocks next to them; everything above is free, in order-10 blocks. Blocks that are claimed
and not full keep their free pages on lists of their own type. What this leaves out: a few dozen scattered
pages, and the blocks that memblock kept at the zone's top, of which only the number is right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from mmfw.machine.layout import ZoneMap, fresh_boot_zone
from mmfw.machine.pageblocks import ZoneSpan
from mmfw.rawrandom import IntArray
from mmfw.state import PAGEBLOCK_NR_PAGES, MigrateType, ZoneType

#: Pages of the initramfs on the LRU, and of reclaimable slabs, on an idle system right after boot.
INITRAMFS_PAGES: Final = 921
RECLAIMABLE_PAGES: Final = 2283
#: Blocks at the start of DMA32 that the kernel's image and early boot take.
_LOW_BLOCKS: Final = 20
#: What boot gives back of them (initrd, unused parts of the image): (block, first page, end), as in the 256M traces.
_LOW_FREE: Final = ((7, 8, 512), (12, 64, 512), (16, 32, 512), (17, 0, 160), (19, 16, 512))
#: The order in which their pages came to the per-CPU list, last freed first; a list too short for all keeps so many.
_LATE_ORDER: Final = (12, 16, 17, 19, 7)
_LATE_KEPT: Final = 249
#: Pages of zone DMA that boot takes, from the start of what it manages.
DMA_PAGES: Final = 32
#: The order in which boot claims pairs of blocks: U U R R U U R R R R U U ...
_RECLAIMABLE_PAIRS: Final = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class _Claims:
    """Blocks counted from the zone's first: where claims begin, and which two hold the initramfs."""

    first: int
    initramfs: tuple[int, int]


_CLAIMS: Final = {
    ZoneType.DMA32: _Claims(first=22, initramfs=(20, 21)),
    ZoneType.NORMAL: _Claims(first=0, initramfs=(16, 17)),
}


def booted_zone(span: ZoneSpan, nr_allocated: int, pcp_high: int) -> tuple[ZoneMap, IntArray]:
    """Lay out the zone that served boot.

    Parameters
    ----------
    span : ZoneSpan
        DMA32, or Normal.
    nr_allocated : int
        Managed pages in use.
    pcp_high : int
        Pages that a CPU's list may hold: what boot frees late, page by page, stays there if it fits.

    Returns
    -------
    ZoneMap
        Its pageblocks and free lists.
    int64[m, 2]
        (block index, pages on the LRU), as `mmfw.state.ZoneState.pageblock_lru`.
    """
    claims = _CLAIMS[ZoneType(span.zone)]
    block = PAGEBLOCK_NR_PAGES
    base = span.first_block_pfn
    reserved = span.present - span.managed
    low_free: list[tuple[int, int]] = []
    low = unplaced = given_back = 0
    if span.zone == ZoneType.DMA32:
        low_free = [(base + at * block + first, base + at * block + last) for at, first, last in _LOW_FREE]
        given_back = sum(last - first for first, last in low_free)
        low = min(reserved, _LOW_BLOCKS * block - given_back)
        # On a small machine less is reserved than lies below; boot's own pages fill the rest.
        unplaced = _LOW_BLOCKS * block - given_back - low
    end = span.start_pfn + low + span.managed
    lru = [min(INITRAMFS_PAGES, block), max(0, INITRAMFS_PAGES - block)]
    taken = dict(zip(claims.initramfs, lru, strict=True))
    kinds: dict[int, MigrateType] = {}
    left = {
        MigrateType.UNMOVABLE: max(0, nr_allocated - unplaced - INITRAMFS_PAGES - RECLAIMABLE_PAGES),
        MigrateType.RECLAIMABLE: RECLAIMABLE_PAGES,
    }
    index, pair = claims.first, 0
    while left[MigrateType.UNMOVABLE] or left[MigrateType.RECLAIMABLE]:
        if index in claims.initramfs:
            index += 2
            continue
        reclaimable = pair in _RECLAIMABLE_PAIRS
        kind = MigrateType.RECLAIMABLE if reclaimable else MigrateType.UNMOVABLE
        for one in (index, index + 1):
            pages = min(left[kind], block)
            left[kind] -= pages
            taken[one] = pages
            kinds[one] = kind
        index, pair = index + 2, pair + 1
    first = span.start_pfn + low + unplaced + given_back
    late = _late_pages(base) if low_free else np.empty(0, dtype=np.int64)
    if len(late) >= pcp_high:
        late = late[:_LATE_KEPT]
    zone_map = _zone_map(span, base, first, end, taken, kinds, _without(low_free, late))
    zone_map = replace(zone_map, pcp_pages=late)
    return zone_map, np.array([[one, taken[one]] for one in claims.initramfs], dtype=np.int64)


def _late_pages(base: int) -> IntArray:
    """Pages that boot gave back, the last one first."""
    ranges = {
        at: (base + at * PAGEBLOCK_NR_PAGES + low, base + at * PAGEBLOCK_NR_PAGES + high)
        for at, low, high in _LOW_FREE
    }
    return np.concatenate([np.arange(ranges[at][1] - 1, ranges[at][0] - 1, -1) for at in _LATE_ORDER])


def _without(ranges: list[tuple[int, int]], pages: IntArray) -> list[tuple[int, int]]:
    """Ranges less a set of pages that is a whole range, or the end of one."""
    held = set(pages.tolist())
    left = []
    for low, high in ranges:
        while high > low and high - 1 in held:
            high -= 1
        if high > low:
            left.append((low, high))
    return left


def booted_dma_zone(span: ZoneSpan, first: int) -> ZoneMap:
    """Lay out zone DMA, whose first block is Unmovable, since its first pfn is absent.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    first : int
        First managed pfn.
    """
    taken = {0: first + DMA_PAGES - span.first_block_pfn}
    end = first + span.managed
    return _zone_map(span, span.first_block_pfn, first, end, taken, {0: MigrateType.UNMOVABLE})


def _zone_map(
    span: ZoneSpan,
    base: int,
    first: int,
    end: int,
    taken: dict[int, int],
    kinds: dict[int, MigrateType],
    low_free: list[tuple[int, int]] | None = None,
) -> ZoneMap:
    """Free lists of pfns ``first..end`` less the taken starts of blocks, each on the list of its block's type."""
    ranges: dict[MigrateType, list[tuple[int, int]]] = {kind: [] for kind in MigrateType}
    ranges[MigrateType.MOVABLE] += low_free or []
    at = first
    for index in sorted(taken):
        start = base + index * PAGEBLOCK_NR_PAGES
        if at < start:
            ranges[MigrateType.MOVABLE].append((at, start))
        at = start + PAGEBLOCK_NR_PAGES
        free = start + taken[index]
        if free < at:
            ranges[kinds.get(index, MigrateType.MOVABLE)].append((free, at))
    ranges[MigrateType.MOVABLE].append((at, end))
    merged = fresh_boot_zone(span, ranges[MigrateType.MOVABLE])
    for kind in (MigrateType.UNMOVABLE, MigrateType.RECLAIMABLE):
        own = fresh_boot_zone(span, ranges[kind])
        for order, row in enumerate(own.free_lists):
            merged.free_lists[order][kind] = row[MigrateType.MOVABLE]
            merged.nr_free[order] += len(row[MigrateType.MOVABLE])
    for index, kind in kinds.items():
        merged.pageblock_mt[index] = kind
    return merged
