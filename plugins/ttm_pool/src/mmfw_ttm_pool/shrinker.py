"""The shrinker "drm-ttm_pool" (``ttm_pool_shrinker_scan()``, drivers/gpu/drm/ttm/ttm_pool.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw import SHRINK_EMPTY, SHRINK_STOP, hookimpl
from mmfw_ttm_pool.compact import free_for_compaction

if TYPE_CHECKING:
    from mmfw import CompactionScan, ShrinkControl
    from mmfw_ttm_pool.pool import TtmPool

#: ``TTM_SHRINKER_BATCH`` of 7.x: (1 << (MAX_PAGE_ORDER / 2)) * NR_PAGE_ORDERS.
TTM_SHRINKER_BATCH: Final = (1 << (10 // 2)) * 11


class TtmPoolShrinker:
    """Frees what the pools hold; counted in pages, freed in blocks, whatever the mask.

    Parameters
    ----------
    pool : TtmPool
        The pools.
    """

    seeks = 1

    def __init__(self, pool: TtmPool) -> None:
        self._pool = pool
        self.batch = 0 if pool.rules.shrinks_one_block else TTM_SHRINKER_BATCH

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Pages in all pools (``ttm_pool_shrinker_count()``)."""
        return self._pool.allocated_pages or SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Free types in turn until enough is free; 6.1 stops after the first block and reports no scan."""
        pool = self._pool
        freed = 0
        enough = 1 if pool.rules.shrinks_one_block else sc.nr_to_scan
        while True:
            freed += pool.shrink(sc.nr_to_scan)
            if freed >= enough or not pool.allocated_pages:
                break
        if pool.rules.shrinks_one_block:
            return freed
        sc.nr_scanned = freed
        return freed or SHRINK_STOP

    @hookimpl
    def compaction_scan(self, cs: CompactionScan) -> int:
        """Free pooled blocks that are, or complete, what compaction wants; see `mmfw_ttm_pool.compact`."""
        if not self._pool.allocated_pages:
            return SHRINK_STOP
        return free_for_compaction(self._pool, cs)

    @hookimpl
    def compaction_holds(self, cs: CompactionScan) -> int:
        """Pages of pooled blocks that begin in the range."""
        held = 0
        for pt in self._pool.types:
            if pt.nr_blocks:
                pfns = pt.blocks()
                held += int(((pfns >= cs.pfn_lo) & (pfns < cs.pfn_hi)).sum()) << pt.order
        return held
