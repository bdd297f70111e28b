"""Where boot's own pages lie: the pageblocks that an idle, freshly booted kernel has claimed by type.

The first allocator traces of each boot of the reference build (6.1.192, one node, virtual machines of 256M
to 6G) agree on it: in the zone that serves boot, pairs of pageblocks were claimed in turn for Unmovable
and Reclaimable pages, from a fixed place upwards and filled from their starts; pages of the initramfs (shmem,
on the LRU) fill Movable blocks next to them; everything above is free, in order-10 blocks. Blocks that are claimed
and not full keep their free pages on lists of their own type. The parts of the kernel's image that boot gives back lie
where that build has them, which is the same for all sizes, and on the first CPU's list where that is long enough.
What this leaves out: that the processes' pages lie scattered, not in a run; a few dozen pages on small machines; and the
types of the blocks that memblock kept at the zone's top. It costs little: from 1G on, pagetypeinfo and zoneinfo of a
captured machine are hit to the page, or to 12 on 2G, 62 of type Unmovable on 4G and 2 on 16G.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np

from mmfw.machine.image import (
    INITRD_PAGES,
    LATE_FREED_PAGES,
    LOW_BLOCKS,
    LOW_REST,
    PageRange,
    given_back,
    initrd,
    nr_pages,
)
from mmfw.machine.layout import ZoneMap, fresh_boot_zone
from mmfw.machine.pageblocks import ZoneSpan
from mmfw.rawrandom import IntArray
from mmfw.state import PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, MigrateType, ZoneType

#: Pages of the initramfs on the LRU on an idle system right after boot, those of the first processes among them.
INITRAMFS_PAGES: Final = 921
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
    """A zone that served boot, or holds the kernel's image.

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


@dataclass(frozen=True, slots=True)
class _Boot:
    """What boot did in the zone that served it.

    Attributes
    ----------
    first : int
        First pfn past the image and what early boot took.
    end : int
        First pfn past the managed pages, but for the initrd.
    elsewhere : int
        Managed pages in use before `first` and where the initrd was.
    first_used : int
        Pages of the first Movable block that are not the initramfs's.
    free, lru : list of (int, int)
        Ranges outside ``first..end`` that are on the buddy lists, and ranges on the LRU.
    listed : int64[n]
        Movable pages on the first CPU's list.
    again : (int, int)
        Where the initrd was, if its pages are in use again.
    refill_left : int
        Pages of the second Movable block that the initramfs had no need of.
    pcp_unmovable : dict of int to int
        Unmovable blocks on the first CPU's lists, by order.
    """

    first: int
    end: int
    elsewhere: int
    first_used: int
    free: list[PageRange]
    lru: list[PageRange]
    listed: IntArray
    again: PageRange
    refill_left: int
    pcp_unmovable: dict[int, int]


def _boot_in_dma32(span: ZoneSpan, pcp_high: int) -> _Boot:
    small = span.managed < _SECOND_LAST_BELOW
    back = given_back(span, pcp_high, initramfs=True, initrd_free=False)
    below = LOW_BLOCKS * PAGEBLOCK_NR_PAGES + LOW_REST - back.nr_free
    # On a small machine less is reserved than lies below; boot's own pages fill the rest.
    reserved = min(span.present - span.managed, below - nr_pages(back.lru))
    where = initrd(span)
    long_lists = pcp_high > LATE_FREED_PAGES
    return _Boot(
        first=span.start_pfn + below + back.nr_free,
        end=span.start_pfn + reserved + span.managed - INITRD_PAGES,
        elsewhere=below - reserved + (0 if small else INITRD_PAGES),
        first_used=LOW_REST,
        free=back.in_buddy + ([where] if small else []),
        lru=back.lru,
        listed=back.listed,
        again=(where[0], where[0]) if small else where,
        refill_left=_REFILL_LEFT if long_lists else 0,
        pcp_unmovable=dict(enumerate(_PCP_UNMOVABLE if long_lists else _by_size(_PCP_UNMOVABLE_SHORT, span))),
    )


def _boot_in_normal(span: ZoneSpan, pcp_high: int) -> _Boot:
    long_lists = pcp_high > LATE_FREED_PAGES
    pcp_unmovable = dict(enumerate(_PCP_UNMOVABLE_NORMAL)) if long_lists else {}
    if long_lists and span.managed >= _PCP_HUGE_FROM:
        pcp_unmovable |= {0: pcp_unmovable[0] + 64, PAGEBLOCK_ORDER: 1}
    return _Boot(
        first=span.start_pfn,
        end=span.start_pfn + span.managed,
        elsewhere=0,
        first_used=0,
        free=[],
        lru=[],
        listed=np.empty(0, dtype=np.int64),
        again=(span.start_pfn, span.start_pfn),
        refill_left=_REFILL_LEFT_NORMAL if long_lists else 0,
        pcp_unmovable=pcp_unmovable,
    )


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
    in_normal = span.zone == ZoneType.NORMAL
    boot = (_boot_in_normal if in_normal else _boot_in_dma32)(span, pcp_high)
    base, block = span.first_block_pfn, PAGEBLOCK_NR_PAGES
    # What memblock keeps ends where the zone ends; boot uses up the managed pages that share its first block.
    at_top = (boot.end - base) % block
    end = boot.end - at_top
    claims = _CLAIMS[ZoneType(span.zone)]
    initramfs = claims.initramfs
    if span.managed < _SECOND_LAST_BELOW:
        initramfs = (initramfs[0], max(initramfs[1], (end - base) // block - 1))
    second = _second_movable(span, boot, at_top, long_lists=pcp_high > LATE_FREED_PAGES)
    refill_left = min(boot.refill_left, second)
    starts = [base + at * block for at in initramfs]
    lru = list(boot.lru)
    # The rest lies above: in the block at the top as far as it goes, and else where the initrd was.
    for low, high in (
        (starts[0] + boot.first_used, starts[0] + block),
        (starts[1], starts[1] + second - refill_left),
        (end, boot.end),
        boot.again,
    ):
        lru.append((low, min(high, low + INITRAMFS_PAGES - nr_pages(lru))))
    nr_reclaimable = _RECLAIMABLE_NORMAL if in_normal else _by_size(_RECLAIMABLE_PAGES, span)
    movable = block - boot.first_used + second - refill_left
    listed = sum(count << order for order, count in boot.pcp_unmovable.items())
    unmovable = nr_allocated - boot.elsewhere - at_top - movable - nr_reclaimable + listed
    claimed = _claim(claims.first, initramfs, max(0, unmovable), nr_reclaimable)
    if span.managed in _HALF_PAIR:
        claimed.leave_last_if_unused()
    taken = {initramfs[0]: block, initramfs[1]: second} | claimed.taken
    zone_map = _zone_map(span, base, boot.first, end, taken, claimed.kinds, boot.free)
    left_over = np.arange(starts[1] + second - refill_left, starts[1] + second, dtype=np.int64)
    return BootedZone(
        replace(zone_map, pcp_pages=np.concatenate([boot.listed, left_over])),
        np.sort(np.concatenate([np.arange(low, high, dtype=np.int64) for low, high in lru])),
        _runs(claimed.unmovable_ranges(base), boot.pcp_unmovable),
    )


def _second_movable(span: ZoneSpan, boot: _Boot, at_top: int, *, long_lists: bool) -> int:
    """Pages that left the buddy lists for the initramfs in its second block."""
    if span.zone == ZoneType.NORMAL:
        return _SECOND_MOVABLE_NORMAL
    if not long_lists:
        return _by_size(_SECOND_MOVABLE_SHORT, span)
    before = PAGEBLOCK_NR_PAGES - boot.first_used + (at_top - _TOP_OTHERS) % PAGEBLOCK_NR_PAGES
    return max(0, _REFILLED - before)


@dataclass(frozen=True, slots=True)
class _Claimed:
    """Claimed blocks: pages taken from their starts, and types, by index."""

    taken: dict[int, int]
    kinds: dict[int, MigrateType]

    def leave_last_if_unused(self) -> None:
        """Leave the last block Movable if no page of it is in use."""
        last = max(self.kinds)
        if not self.taken[last]:
            del self.kinds[last]

    def unmovable_ranges(self, base: int) -> list[PageRange]:
        """What was taken of the Unmovable ones, the last first."""
        starts = [
            (base + at * PAGEBLOCK_NR_PAGES, self.taken[at])
            for at, kind in sorted(self.kinds.items(), reverse=True)
            if kind == MigrateType.UNMOVABLE
        ]
        return [(start, start + pages) for start, pages in starts]


def _claim(first: int, initramfs: tuple[int, int], unmovable: int, reclaimable: int) -> _Claimed:
    """Claim pairs of blocks from `first` on, around the initramfs's, for so many pages."""
    left = {MigrateType.UNMOVABLE: unmovable, MigrateType.RECLAIMABLE: reclaimable}
    claimed = _Claimed({first: 0}, {})
    index, pair = first, 0
    while any(left.values()):
        if index in initramfs or index + 1 in initramfs:
            index += 2
            continue
        kind = MigrateType.RECLAIMABLE if pair in _RECLAIMABLE_PAIRS else MigrateType.UNMOVABLE
        for one in (index, index + 1):
            pages = min(left[kind], PAGEBLOCK_NR_PAGES)
            left[kind] -= pages
            claimed.taken[one] = pages
            claimed.kinds[one] = kind
        index, pair = index + 2, pair + 1
    return claimed


def _runs(ranges: list[PageRange], counts: dict[int, int]) -> dict[int, IntArray]:
    """So many blocks of each order, a run for each, from the ranges' ends downwards with some pages between the runs.

    A list is what was taken last, so `ranges` begin with the last one. Runs for which they have no room are left out.
    """
    runs = {}
    left = iter(ranges)
    low, top = next(left, (0, 0))
    for order, count in sorted(counts.items()):
        while True:
            start = top - (count << order)
            start -= (start - _PCP_STARTS.get(order, 0)) % max(32, 1 << order)
            if start >= low:
                runs[order] = np.arange(start, start + (count << order), 1 << order, dtype=np.int64)
                top = start
                break
            following = next(left, None)
            if following is None:
                return runs
            low, top = following
    return runs


def _by_size(table: tuple[tuple[int, _Figure], ...], span: ZoneSpan) -> _Figure:
    """Figure of a table for a zone of this many managed pages."""
    return next(figure for limit, figure in table if span.managed < limit)


def zone_beside_boot(span: ZoneSpan, nr_allocated: int, pcp_high: int) -> BootedZone:
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
    base = span.first_block_pfn
    back = given_back(span, pcp_high, initramfs=False, initrd_free=True)
    first = base + LOW_BLOCKS * PAGEBLOCK_NR_PAGES + LOW_REST
    claimed = _CLAIMS[ZoneType.DMA32].first
    taken = {claimed: nr_allocated, claimed + 1: 0}
    kinds = dict.fromkeys(taken, MigrateType.UNMOVABLE)
    listed = {}
    if nr_allocated == PAGEBLOCK_NR_PAGES:
        # Lists serve order 9, and refill by two blocks at least: the second one is still there.
        taken[claimed + 1] = PAGEBLOCK_NR_PAGES
        listed[PAGEBLOCK_ORDER] = np.array([base + (claimed + 1) * PAGEBLOCK_NR_PAGES], dtype=np.int64)
    end = first + span.managed - back.nr_free
    zone_map = _zone_map(span, base, first, end, taken, kinds, back.in_buddy)
    return BootedZone(replace(zone_map, pcp_pages=back.listed), np.empty(0, dtype=np.int64), listed)


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
