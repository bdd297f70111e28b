"""Where boot's own pages lie: the pageblocks that an idle, freshly booted kernel has claimed by type.

The first allocator traces of each boot of the reference build (6.1.192, one node, virtual machines of 256M
to 6G) agree on it: in the zone that serves boot, pairs of pageblocks were claimed in turn for Unmovable
and Reclaimable pages, from a fixed place upwards and filled from their starts; pages of the initramfs (shmem,
on the LRU) fill Movable blocks next to them; everything above is free, in order-10 blocks. Blocks that are claimed
and not full keep their free pages on lists of their own type. The parts of the kernel's image that boot gives back lie
where that build has them, which is the same for all sizes, and on the first CPU's list where that is long enough.
What this leaves out: that the processes' pages lie scattered, not in a run; a few dozen pages on small machines; and the
types of the blocks that memblock kept at the zone's top. It costs little: from 1G on, pagetypeinfo and zoneinfo of a
captured machine are hit to the page, or to 12 on 2G and 62 of type Unmovable on 4G.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np

from mmfw.machine.layout import ZoneMap, fresh_boot_zone
from mmfw.machine.pageblocks import ZoneSpan
from mmfw.rawrandom import IntArray
from mmfw.state import PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, MigrateType, ZoneType

#: Pages of the initramfs on the LRU on an idle system right after boot, those of the first processes among them.
INITRAMFS_PAGES: Final = 921
#: Pages that boot frees after it has set watermarks: initrd and unused parts of the image, all in DMA32.
LATE_FREED_PAGES: Final = 2571
#: Pages of reclaimable slabs, by managed pages of the zone, and in Normal.
_RECLAIMABLE_PAGES: Final = ((100_000, 2296), (200_000, 2315), (1 << 40, 2283))
_RECLAIMABLE_NORMAL: Final = 2391
#: Pages that left the buddy lists for the initramfs, 15 refills of 63 pages, the smallest free blocks first: what
#: memblock left of the block in which its pages begin, less what other users got of it; the rest of the first Movable
#: block; the second one. As pagetypeinfo of 1G and 2G shows (free pages of type Movable below order 9).
_REFILLED: Final = 945
_TOP_OTHERS: Final = 198
#: The same in the second block where lists are short, by managed pages of the zone, as 256M and 512M show, and in Normal.
_SECOND_MOVABLE_SHORT: Final = ((100_000, 304), (1 << 40, 322))
_SECOND_MOVABLE_NORMAL: Final = 424
#: Of those, the last refill's that the initramfs had no need of: on a long per-CPU list still.
_REFILL_LEFT: Final = 52
_REFILL_LEFT_NORMAL: Final = 24
#: Below this many managed pages the second Movable block is the last one below memblock's pages.
_SECOND_LAST_BELOW: Final = 100_000
#: Blocks at the start of DMA32 that the kernel's image and early boot take, and pages that they take of the next.
_LOW_BLOCKS: Final = 20
_LOW_REST: Final = 17
#: Parts of the image that boot gives back: (block, first page, end). All reference traces agree on the pfns, and the
#: kernel's log on the sizes: text/rodata gap 2040K, rodata/data gap 1892K, initmem 2612K (two blocks), decrypted 2036K.
_TEXT_GAP: Final = (7, 2, 512)
_DATA_GAP: Final = (12, 39, 512)
_INITMEM: Final = ((16, 26, 512), (17, 0, 167))
_DECRYPTED: Final = (19, 3, 512)
#: What boot gives back first (SMP alternatives, 36K), and so the first pages that the initramfs is unpacked to.
_ALTERNATIVES: Final = (17, 167, 176)
#: Pages at the end of what boot gives back last that the first processes hold, where the initramfs lies there too.
_PROCESS_PAGES: Final = 19
#: The initrd's pages, and present pages above them. Where the zone served boot and is not small, boot uses them again.
_INITRD_PAGES: Final = 426
_ABOVE_INITRD: Final = 13
#: A list too short for all that boot gives back holds the ends of those parts, below 8 or 32 pages each, and what the
#: processes left of the last one: (block, first page, end), the last first. So pagetypeinfo of 256M and 512M, where no
#: free block but these is missing, and the first trace of 256M.
_KEPT: Final = ((12, 480, 512), (12, 39, 40), (7, 2, 8), (17, 160, 167), (16, 26, 32), (19, 3, 8))
#: Unmovable blocks on the per-CPU lists of a large zone, by order (4 to 46, 26, 10 and 2 in the 1G traces; by zoneinfo,
#: whose count is 2450 pages, more single ones on an idle system).
_PCP_UNMOVABLE: Final = (164, 26, 10, 2)
#: The same where lists are short, by managed pages of the zone: 182 and 268 pages with the Movable ones.
_PCP_UNMOVABLE_SHORT: Final = ((100_000, (114, 9, 1, 1)), (1 << 40, (200, 9, 1, 1)))
#: The same in Normal (40, 23, 12 and 3 in the 6G traces; by zoneinfo, and with the Reclaimable ones, 329 pages), and from
#: this many managed pages on 64 single pages and one block of order 9 more.
_PCP_UNMOVABLE_NORMAL: Final = (211, 23, 12, 3)
_PCP_HUGE_FROM: Final = 400_000
#: Where their runs start, pages modulo 32, by order: it decides what they merge to once they are drained (1G traces).
_PCP_STARTS: Final = {1: 4, 2: 12, 3: 16}
#: Pages of zone DMA that boot takes, from the start of what it manages.
DMA_PAGES: Final = 32
#: The order in which boot claims pairs of blocks: U U R R U U R R R R U U ...
_RECLAIMABLE_PAIRS: Final = (1, 3, 4)
#: Zones of so many managed pages, between them 512M's, claimed no more than a block of the last pair.
_HALF_PAIR: Final = range(100_000, 180_000)


_Figure = TypeVar("_Figure")


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
    lru_pfns : int64[n]
        Pages on the LRU, ascending.
    pcp_unmovable : dict of int to int64[n]
        Unmovable blocks on the first CPU's lists, by order, head first.
    """

    zone_map: ZoneMap
    lru_pfns: IntArray
    pcp_unmovable: dict[int, IntArray]


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
    lru: list[tuple[int, int]] = []
    low = elsewhere = given_back = first_used = refill_left = 0
    pcp_unmovable: dict[int, int] = {}
    late = np.empty(0, dtype=np.int64)
    long_lists = pcp_high > LATE_FREED_PAGES
    initrd = used_again = 0
    if span.zone == ZoneType.DMA32:
        low_free, late = _given_back(base, pcp_high, in_use=_PROCESS_PAGES)
        given_back = sum(last - first for first, last in low_free)
        processes = _pfns(base, _DATA_GAP)[1]
        lru = [_pfns(base, _ALTERNATIVES), (processes - _PROCESS_PAGES, processes)]
        first_used = _LOW_REST
        initrd = _INITRD_PAGES
        if long_lists:
            pcp_unmovable, refill_left = dict(enumerate(_PCP_UNMOVABLE)), _REFILL_LEFT
        else:
            pcp_unmovable = dict(enumerate(_by_size(_PCP_UNMOVABLE_SHORT, span)))
        if span.managed < _SECOND_LAST_BELOW:
            low_free.append(_initrd(span))
        else:
            used_again = initrd
        # On a small machine less is reserved than lies below; boot's own pages fill the rest.
        below = _LOW_BLOCKS * block + _LOW_REST - given_back
        low = min(reserved, below - sum(last - first for first, last in lru))
        elsewhere = below - low
    elif long_lists:
        pcp_unmovable, refill_left = dict(enumerate(_PCP_UNMOVABLE_NORMAL)), _REFILL_LEFT_NORMAL
        if span.managed >= _PCP_HUGE_FROM:
            pcp_unmovable |= {0: pcp_unmovable[0] + 64, PAGEBLOCK_ORDER: 1}
    # What memblock keeps ends where the zone ends; boot uses up the managed pages that share its first block.
    end = span.start_pfn + low + span.managed - initrd
    at_top = (end - base) % block
    end -= at_top
    if span.zone == ZoneType.NORMAL:
        second = _SECOND_MOVABLE_NORMAL
    elif long_lists:
        second = max(0, _REFILLED - (block - first_used) - (at_top - _TOP_OTHERS) % block)
        refill_left = min(refill_left, second)
    else:
        second = _by_size(_SECOND_MOVABLE_SHORT, span)
    initramfs = claims.initramfs
    if span.managed < _SECOND_LAST_BELOW:
        initramfs = (initramfs[0], max(initramfs[1], (end - base) // block - 1))
    start = base + initramfs[0] * block
    lru.append((start + first_used, start + block))
    lru_second = min(second - refill_left, INITRAMFS_PAGES - sum(last - first for first, last in lru))
    taken = {initramfs[0]: block, initramfs[1]: second}
    kinds: dict[int, MigrateType] = {}
    nr_reclaimable = _by_size(_RECLAIMABLE_PAGES, span)
    if span.zone == ZoneType.NORMAL:
        nr_reclaimable = _RECLAIMABLE_NORMAL
    nr_pcp_unmovable = sum(count << order for order, count in pcp_unmovable.items())
    boots = nr_allocated - elsewhere - used_again - at_top - (block - first_used) - (second - refill_left)
    left = {
        MigrateType.UNMOVABLE: max(0, boots - nr_reclaimable + nr_pcp_unmovable),
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
    if span.managed in _HALF_PAIR and not taken[index - 1]:
        del kinds[index - 1]
    start = base + initramfs[1] * block
    lru.append((start, start + lru_second))
    # The rest lies above: in that block as far as it goes, and else where the initrd was.
    for above, pages in ((end, at_top), (_initrd(span)[0], used_again)):
        rest = min(pages, INITRAMFS_PAGES - sum(last - first for first, last in lru))
        lru.append((above, above + rest))
    first = span.start_pfn + low + elsewhere + given_back
    zone_map = _zone_map(span, base, first, end, taken, kinds, _without(low_free, late))
    # The lists' pages are the last ones that were taken from the Unmovable blocks, with some in use between the runs.
    top = base + last_unmovable * block + taken[last_unmovable]
    lists = {}
    for order, count in sorted(pcp_unmovable.items()):
        top -= count << order
        top -= (top - _PCP_STARTS.get(order, 0)) % max(32, 1 << order)
        lists[order] = np.arange(top, top + (count << order), 1 << order, dtype=np.int64)
    left_over = np.arange(start + second - refill_left, start + second, dtype=np.int64)
    return BootedZone(
        replace(zone_map, pcp_pages=np.concatenate([late, left_over])),
        np.sort(np.concatenate([np.arange(low, high, dtype=np.int64) for low, high in lru])),
        lists,
    )


def _by_size(table: tuple[tuple[int, _Figure], ...], span: ZoneSpan) -> _Figure:
    """Figure of a table for a zone of this many managed pages."""
    return next(figure for limit, figure in table if span.managed < limit)


def _pfns(base: int, part: tuple[int, int, int]) -> tuple[int, int]:
    """First pfn and end of a part of the image."""
    at, low, high = part
    return base + at * PAGEBLOCK_NR_PAGES + low, base + at * PAGEBLOCK_NR_PAGES + high


def _initrd(span: ZoneSpan) -> tuple[int, int]:
    """First pfn and end of the initrd, which lies at the end of the low memory."""
    end = span.start_pfn + span.present - _ABOVE_INITRD
    return end - _INITRD_PAGES, end


def _given_back(
    base: int, pcp_high: int, *, first: tuple[tuple[int, int], ...] = (), in_use: int = 0
) -> tuple[list[tuple[int, int]], IntArray]:
    """Ranges of pages that boot gave back, ascending, and those of them that the per-CPU list holds, the last one first.

    `first` are ranges that it gave back before those of the image; of the last one of these, `in_use` pages at its end
    were taken again.
    """
    ranges = [*first, *(_pfns(base, part) for part in (_DECRYPTED, *_INITMEM, _TEXT_GAP, _DATA_GAP))]
    ranges[-1] = ranges[-1][0], ranges[-1][1] - in_use
    kept = ranges[::-1]
    if pcp_high <= LATE_FREED_PAGES:
        kept = [_pfns(base, part) for part in _KEPT]
        kept[0] = kept[0][0], kept[0][1] - in_use
    late = np.concatenate([np.arange(high - 1, low - 1, -1) for low, high in kept])
    return sorted(ranges), late


def _without(ranges: list[tuple[int, int]], pages: IntArray) -> list[tuple[int, int]]:
    """Ranges less a set of pages that is a whole range, or its start, or its end."""
    held = set(pages.tolist())
    left = []
    for low, high in ranges:
        while high > low and low in held:
            low += 1
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
    early = _pfns(base, _ALTERNATIVES), _initrd(span)
    low_free, late = _given_back(base, pcp_high, first=early)
    given_back = sum(last - first for first, last in low_free)
    first = base + _LOW_BLOCKS * block + _LOW_REST
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
    merged = fresh_boot_zone(span, sorted(ranges[MigrateType.MOVABLE]))
    for kind in (MigrateType.UNMOVABLE, MigrateType.RECLAIMABLE):
        own = fresh_boot_zone(span, ranges[kind])
        for order, row in enumerate(own.free_lists):
            merged.free_lists[order][kind] = row[MigrateType.MOVABLE]
            merged.nr_free[order] += len(row[MigrateType.MOVABLE])
    for index, kind in kinds.items():
        merged.pageblock_mt[index] = kind
    return merged
