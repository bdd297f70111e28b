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

#: Pages of the initramfs on the LRU on an idle system right after boot.
INITRAMFS_PAGES: Final = 921
#: Pages that boot frees after it has set watermarks: initrd and unused parts of the image, all in DMA32.
LATE_FREED_PAGES: Final = 2571
#: Pages of reclaimable slabs, by managed pages of the zone, and in Normal.
_RECLAIMABLE_PAGES: Final = ((100_000, 2296), (200_000, 2315), (1 << 40, 2283))
_RECLAIMABLE_NORMAL: Final = 2391
#: Pages in use of the second Movable block, by managed pages of the zone; what the initramfs has beyond them lies among
#: memblock's pages at the zone's top. As the captures of 256M, 512M, 1G and 2G show (pagetypeinfo: the free pages of type
#: Movable below order 9), and in Normal.
_SECOND_MOVABLE: Final = ((100_000, 183), (200_000, 54), (400_000, 327), (1 << 40, 199))
_SECOND_MOVABLE_NORMAL: Final = 327
#: Below this many managed pages those of that block lie scattered; from there on at its start.
_SCATTERED_BELOW: Final = 200_000
#: From this many managed pages on, the block in which memblock's pages begin has no free page left; below, the second
#: Movable block is that one, or the last one before it.
_TOP_BLOCK_FROM: Final = 100_000
#: Blocks at the start of DMA32 that the kernel's image and early boot take.
_LOW_BLOCKS: Final = 20
#: What boot gives back of them (initrd, unused parts of the image): (block, first page, end), as in the 256M traces.
_LOW_FREE: Final = ((7, 8, 512), (12, 64, 512), (16, 32, 512), (17, 0, 160), (19, 16, 512))
#: The same from 1G on, where a per-CPU list holds them all and little of it is in use again.
_LOW_FREE_LARGE: Final = ((7, 8, 512), (12, 64, 512), (16, 32, 512), (17, 0, 512), (19, 16, 512))
#: The order in which their pages came to the per-CPU list, last freed first; a list too short for all keeps so many.
_LATE_ORDER: Final = (12, 16, 17, 19, 7)
_LATE_KEPT: Final = 249
#: Unmovable blocks on the per-CPU lists of a large zone, by order (46 to 60, 26, 10 and 2 in the 1G traces); as many
#: pages of what boot gave back are in use in their stead.
_PCP_UNMOVABLE: Final = (60, 26, 10, 2)
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


@dataclass(frozen=True, slots=True)
class BootedZone:
    """The zone that served boot.

    Attributes
    ----------
    zone_map : ZoneMap
        Its pageblocks and free lists; its ``pcp_pages`` are Movable.
    lru : int64[m, 2]
        (block index, pages on the LRU), as `mmfw.state.ZoneState.pageblock_lru`.
    pcp_unmovable : list of int64[n]
        Unmovable blocks on the first CPU's lists, by order, head first.
    """

    zone_map: ZoneMap
    lru: IntArray
    pcp_unmovable: list[IntArray]


def booted_zone(span: ZoneSpan, nr_allocated: int, pcp_high: int) -> BootedZone:
    """Lay out the zone that served boot.

    Parameters
    ----------
    span : ZoneSpan
        DMA32, or Normal.
    nr_allocated : int
        Managed pages in use.
    pcp_high : int
        Pages that a CPU's list may hold: what boot frees late, page by page, stays there if it fits.
    """
    claims = _CLAIMS[ZoneType(span.zone)]
    block = PAGEBLOCK_NR_PAGES
    base = span.first_block_pfn
    reserved = span.present - span.managed
    low_free: list[tuple[int, int]] = []
    low = elsewhere = given_back = 0
    pcp_unmovable: tuple[int, ...] = ()
    late = np.empty(0, dtype=np.int64)
    if span.zone == ZoneType.DMA32:
        low_free, late = _given_back(base, pcp_high)
        given_back = sum(last - first for first, last in low_free)
        large = pcp_high > LATE_FREED_PAGES
        pcp_unmovable = _PCP_UNMOVABLE if large else ()
        used = LATE_FREED_PAGES - given_back if span.managed > _TOP_BLOCK_FROM else 0
        low = min(reserved, _LOW_BLOCKS * block - given_back - used)
        # On a small machine less is reserved than lies below; boot's own pages fill the rest.
        elsewhere = _LOW_BLOCKS * block - given_back - low
    # What memblock keeps ends where the zone ends; boot uses up the managed pages that share its first block.
    end = span.start_pfn + low + span.managed
    at_top = (end - base) % block if span.managed > _TOP_BLOCK_FROM else 0
    end -= at_top
    second = _by_size(_SECOND_MOVABLE, span)
    if span.zone == ZoneType.NORMAL:
        second = _SECOND_MOVABLE_NORMAL
    movable = [block, second]
    initramfs = claims.initramfs
    if span.managed <= _TOP_BLOCK_FROM:
        full = (end - base) // block
        last = full if (end - base) % block > movable[1] else full - 1
        initramfs = (initramfs[0], max(initramfs[1], last))
    lru = [min(INITRAMFS_PAGES, block), min(movable[1], max(0, INITRAMFS_PAGES - block))]
    taken = dict(zip(initramfs, movable, strict=True))
    kinds: dict[int, MigrateType] = {}
    nr_reclaimable = _by_size(_RECLAIMABLE_PAGES, span)
    if span.zone == ZoneType.NORMAL:
        nr_reclaimable = _RECLAIMABLE_NORMAL
    left = {
        MigrateType.UNMOVABLE: max(0, nr_allocated - elsewhere - sum(movable) - at_top - nr_reclaimable),
        MigrateType.RECLAIMABLE: nr_reclaimable,
    }
    index, pair = claims.first, 0
    last_unmovable = claims.first
    taken.setdefault(last_unmovable, 0)
    while left[MigrateType.UNMOVABLE] or left[MigrateType.RECLAIMABLE]:
        if index in initramfs or index + 1 in initramfs:
            index += 2
            continue
        reclaimable = pair in _RECLAIMABLE_PAIRS
        kind = MigrateType.RECLAIMABLE if reclaimable else MigrateType.UNMOVABLE
        for one in (index, index + 1):
            pages = min(left[kind], block)
            left[kind] -= pages
            taken[one] = pages
            kinds[one] = kind
            if pages and not reclaimable:
                last_unmovable = one
        index, pair = index + 2, pair + 1
    if span.managed < _SCATTERED_BELOW and movable[1] < block // 2 and initramfs[1] < (end - base) // block:
        # A few pages lie scattered: neither half of the block is whole.
        start, used = base + initramfs[1] * block, movable[1] // 2
        low_free = [*low_free, (start + used, start + block // 2)]
        low_free.append((start + block // 2 + movable[1] - used, start + block))
        taken[initramfs[1]] = block
    first = span.start_pfn + low + elsewhere + given_back
    zone_map = _zone_map(span, base, first, end, taken, kinds, _without(low_free, late))
    # The lists' pages are the last ones that were taken from the Unmovable blocks.
    top = base + last_unmovable * block + taken[last_unmovable]
    lists = []
    for order, count in enumerate(pcp_unmovable):
        top = (top >> order << order) - (count << order)
        lists.append(np.arange(top, top + (count << order), 1 << order, dtype=np.int64))
    nr_pcp_unmovable = sum(count << order for order, count in enumerate(pcp_unmovable))
    return BootedZone(
        replace(zone_map, pcp_pages=late[nr_pcp_unmovable:]),
        np.array(list(zip(initramfs, lru, strict=True)), dtype=np.int64),
        lists,
    )


def _by_size(table: tuple[tuple[int, int], ...], span: ZoneSpan) -> int:
    """Figure of a table for a zone of this many managed pages."""
    return next(pages for limit, pages in table if span.managed < limit)


def _given_back(base: int, pcp_high: int) -> tuple[list[tuple[int, int]], IntArray]:
    """Ranges of pages that boot gave back, and those of them that the per-CPU list holds, the last one first."""
    large = pcp_high > LATE_FREED_PAGES
    ranges = {
        at: (base + at * PAGEBLOCK_NR_PAGES + low, base + at * PAGEBLOCK_NR_PAGES + high)
        for at, low, high in (_LOW_FREE_LARGE if large else _LOW_FREE)
    }
    late = np.concatenate([np.arange(ranges[at][1] - 1, ranges[at][0] - 1, -1) for at in _LATE_ORDER])
    return list(ranges.values()), late if large else late[:_LATE_KEPT]


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


def zone_beside_boot(span: ZoneSpan, nr_allocated: int, pcp_high: int) -> ZoneMap:
    """Lay out DMA32 where Normal served boot: it has the kernel's image at its start and one pair of claimed blocks.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    nr_allocated : int
        Pages of the atomic DMA pool.
    pcp_high : int
        As for `booted_zone`.
    """
    base, block = span.first_block_pfn, PAGEBLOCK_NR_PAGES
    low_free, late = _given_back(base, pcp_high)
    given_back = sum(last - first for first, last in low_free)
    first = base + _LOW_BLOCKS * block
    claimed = _CLAIMS[ZoneType.DMA32].first
    taken = {claimed: nr_allocated, claimed + 1: 0}
    kinds = dict.fromkeys(taken, MigrateType.UNMOVABLE)
    end = first + span.managed - given_back
    zone_map = _zone_map(span, base, first, end, taken, kinds, _without(low_free, late))
    return replace(zone_map, pcp_pages=late)


def booted_dma_zone(span: ZoneSpan, first: int, nr_allocated: int) -> ZoneMap:
    """Lay out zone DMA, whose first block is Unmovable, since its first pfn is absent.

    Parameters
    ----------
    span : ZoneSpan
        The zone.
    first : int
        First managed pfn.
    nr_allocated : int
        Pages in use, from there on.
    """
    block = PAGEBLOCK_NR_PAGES
    used = first + nr_allocated - span.first_block_pfn
    taken = {at: min(block, used - at * block) for at in range(-(-used // block))}
    end = first + span.managed
    kinds = dict.fromkeys(taken, MigrateType.UNMOVABLE)
    return _zone_map(span, span.first_block_pfn, first, end, taken, kinds)


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
        at = min(start + PAGEBLOCK_NR_PAGES, end)
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
