"""The shrinker "xfs-buf:<device>" (fs/xfs/xfs_buf.c), and what it would do for compaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw import hookimpl
from mmfw_xfs_buf.backing import MAX_FOLIO_ORDER
from mmfw_xfs_buf.table import BACKING_FOLIO, LOCKED, Slots

if TYPE_CHECKING:
    from mmfw import CompactionScan, Mm, ShrinkControl
    from mmfw_xfs_buf.buftarg import XfsBuftarg

#: Highest ``b_lru_ref`` that a compaction which must free takes: a buffer that one more scan would have made free.
_MUST_FREE_REF: Final = 1


class XfsBufShrinker:
    """Counts and frees buffers, whatever their size and the mask.

    Parameters
    ----------
    mm : Mm
        Where looking at a buffer costs time.
    buftarg : XfsBuftarg
        Whose buffers.
    """

    seeks = 2
    batch = 0

    def __init__(self, mm: Mm, buftarg: XfsBuftarg) -> None:
        self._mm = mm
        self._buftarg = buftarg

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Buffers on the LRU; 0 and not SHRINK_EMPTY if there is none, as in the kernel."""
        return self._buftarg.nr_lru

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Look at the oldest ``nr_to_scan`` buffers; buffers taken off the list, never SHRINK_STOP."""
        self._mm.charge(sc.nr_to_scan * self._mm.costs.scan_object, "xfs-buf walk")
        return self._buftarg.shrink(sc.nr_to_scan)

    @hookimpl
    def compaction_scan(self, cs: CompactionScan) -> int:
        """Give up large folios that no scan would spare any more (proposed; see policy "compaction scan").

        Opportunistic: unused buffers on the LRU with a folio of order ``min(cs.order, 4)`` or above in the range, whose
        ``b_lru_ref`` is 0. One that must free goes on to those at 1. So hot metadata stays, however large. Among
        equals the smallest folio that will do goes first, then the lowest pfn, until ``nr_to_free`` pages have gone:
        buffers of 64 KiB do not pay for every request. A folio of order 4 is no block of order 9; its neighbours must
        go too.

        No lock is waited for in any mode. ``cs.nr_scanned`` is the number of large folios in use and not.
        """
        buftarg = self._buftarg
        table = buftarg.table
        large = self._large_folios(min(cs.order, MAX_FOLIO_ORDER))
        cs.nr_scanned = len(large)
        self._mm.charge(len(large) * self._mm.costs.scan_object, "xfs-buf compaction scan")
        pfn = table.pages[large, 0].astype(np.int64)
        fits = (pfn >= cs.pfn_lo) & (pfn < cs.pfn_hi) & (table.hold[large] == 0)
        fits &= (table.flags[large] & LOCKED) == 0
        fits &= table.lru_ref[large] <= (0 if cs.opportunistic else _MUST_FREE_REF)
        fits &= buftarg.lru.holds(large)
        slots, pfn = large[fits], pfn[fits]
        slots = slots[np.lexsort((pfn, table.order[slots], table.lru_ref[slots]))]
        pages = np.cumsum(table.nr_pages(slots))
        slots = slots[: int(np.searchsorted(pages, cs.nr_to_free)) + 1]
        freed = int(table.nr_pages(slots).sum())
        buftarg.stats.compaction_freed_pages += freed
        buftarg.give_up(slots)
        return freed

    def _large_folios(self, min_order: int) -> Slots:
        """Buffers with a folio of an order or above."""
        table = self._buftarg.table
        return np.flatnonzero((table.backing == BACKING_FOLIO) & (table.order >= min_order))
