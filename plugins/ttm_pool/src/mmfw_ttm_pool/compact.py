"""What the pools give up to compaction: the third shrinker method, proposed in review of the series of 2026.

The posting says what a shrinker with the method is asked, not what TTM's body would do; the steps and their order are
this model's. What it costs to find a block is charged as one ``scan_object`` for each pooled block looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.mm.contiguity import nr_buddy_pages
from mmfw_ttm_pool.tt import Pfns

if TYPE_CHECKING:
    from mmfw import CompactionScan
    from mmfw_ttm_pool.pool import PoolType, TtmPool

#: Candidates whose pages are looked at together.
_CANDIDATES_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class _Pooled:
    """Blocks of one pool that lie in the zone."""

    pt: PoolType
    pfns: Pfns


def free_for_compaction(pool: TtmPool, cs: CompactionScan) -> int:
    """Free blocks for one scan of compaction (proposed ``compaction_scan()`` of "drm-ttm_pool").

    1. A pooled block of the wanted order or above, smallest such order first.
    2. All pooled blocks of an aligned block of the wanted order of which nothing else is in use: pooled buddies, or
       pooled blocks beside free ones. The block that costs the pool fewest pages goes first.
    3. Pooled blocks inside ``[pfn_lo, pfn_hi)``, where that is less than the zone; a range that spans the zone says
       "anywhere" and singles nothing out.
    4. If the scan must free (not `opportunistic`) and none of this made a block: the whole pool of the zone, largest
       blocks first.

    Steps 1 to 3 end at ``nr_to_free`` pages, always whole blocks. Nothing waits, so `mode` does not matter.

    Returns
    -------
    int
        Pages freed. ``cs.nr_scanned`` says how many pooled blocks were looked at.
    """
    zone = cs.zone
    lo, hi = zone.zone_start_pfn, zone.zone_start_pfn + zone.spanned_pages
    pooled = []
    for pt in pool.types:
        if pt.nr_blocks:
            pfns = pt.blocks()
            pooled.append(_Pooled(pt, pfns[(pfns >= lo) & (pfns < hi)]))
    pooled = [each for each in pooled if len(each.pfns)]
    cs.nr_scanned = sum(len(each.pfns) for each in pooled)
    pool.mm.charge(cs.nr_scanned * pool.mm.sched.costs.scan_object, "ttm compaction scan")
    freed = _free_large_blocks(pool, cs, pooled)
    if freed < cs.nr_to_free:
        freed += _complete_blocks(pool, cs, pooled, lo, hi, cs.nr_to_free - freed)
    made = freed > 0
    if freed < cs.nr_to_free and (cs.pfn_lo > lo or cs.pfn_hi < hi):
        freed += _free_in_range(pool, cs, cs.nr_to_free - freed)
    if not (made or cs.opportunistic):
        for pt in reversed(pool.types):
            pfns = pt.blocks()
            freed += pool.give_up(pt, pfns[(pfns >= lo) & (pfns < hi)])
    return freed


def _free_large_blocks(pool: TtmPool, cs: CompactionScan, pooled: list[_Pooled]) -> int:
    freed = 0
    for each in pooled:
        if each.pt.order < cs.order or freed >= cs.nr_to_free:
            continue
        enough = -(-(cs.nr_to_free - freed) >> each.pt.order)
        freed += pool.give_up(each.pt, each.pfns[:enough])
    return freed


def _complete_blocks(
    pool: TtmPool, cs: CompactionScan, pooled: list[_Pooled], lo: int, hi: int, nr_pages: int
) -> int:
    """Free the pooled parts of aligned blocks whose other parts are free (step 2)."""
    order = cs.order
    small = [each for each in pooled if each.pt.order < order]
    if not small:
        return 0
    bases = np.concatenate([each.pfns >> order for each in small])
    sizes = np.concatenate([np.full(len(each.pfns), 1 << each.pt.order, dtype=np.int64) for each in small])
    numbers, index = np.unique(bases, return_inverse=True)
    held = np.bincount(index, weights=sizes).astype(np.int64)
    inside = ((numbers << order) >= lo) & ((numbers + 1 << order) <= hi)
    numbers, held = numbers[inside], held[inside]
    freed = 0
    cheapest = np.lexsort((numbers, held))
    for at in range(0, len(cheapest), _CANDIDATES_AT_ONCE):
        part = cheapest[at : at + _CANDIDATES_AT_ONCE]
        free = nr_buddy_pages(pool.mm.pgdat.memory, numbers[part] << order, order)
        for candidate in part[held[part] + free == 1 << order].tolist():
            for each in small:
                blocks = each.pt.blocks()
                freed += pool.give_up(each.pt, blocks[blocks >> order == numbers[candidate]])
            if freed >= nr_pages:
                return freed
    return freed


def _free_in_range(pool: TtmPool, cs: CompactionScan, nr_pages: int) -> int:
    """Free pooled blocks near what compaction works on, largest first (step 3)."""
    freed = 0
    for pt in reversed(pool.types):
        if not pt.nr_blocks or freed >= nr_pages:
            continue
        pfns = pt.blocks()
        near = pfns[(pfns >= cs.pfn_lo) & (pfns < cs.pfn_hi)]
        freed += pool.give_up(pt, near[: -(-(nr_pages - freed) >> pt.order)])
    return freed
