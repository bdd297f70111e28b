"""Transparent huge pages of anonymous mappings: faults, splitting, partly unmapped ones (mm/huge_memory.c of 6.1).

Not modelled: khugepaged, the huge zero page, huge pages of files and shmem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent
from mmfw.state import PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.memory import Vma
    from mmfw.mm.vmstat import VmStat

#: Masks of a huge page fault (``vma_thp_gfp_mask()``): with and without MADV_HUGEPAGE under defrag=madvise.
THP_MADVISED_GFP: Final = gfp.GFP_TRANSHUGE
THP_GFP: Final = gfp.GFP_TRANSHUGE_LIGHT
_HUGE: Final = pg.T_ALLOC | PAGEBLOCK_ORDER


def transhuge_vma_suitable(vma: Vma, index: int) -> bool:
    """Whether the 2 MiB around a page may be a huge page: all of them belong to the mapping, and it allows them."""
    return vma.thp and index // PAGEBLOCK_NR_PAGES * PAGEBLOCK_NR_PAGES + PAGEBLOCK_NR_PAGES <= vma.nr_pages


def do_huge_pmd_anonymous_page(vma: Vma, index: int) -> bool | None:
    """Fault a huge page in where no page table is (``do_huge_pmd_anonymous_page()``).

    The huge page is allocated first, then the page table that is deposited for its split.

    Returns
    -------
    bool or None
        True if it is there, False if the fault should fall back to single pages, None if there is no memory for it.
    """
    mm = vma.mm
    first = index // PAGEBLOCK_NR_PAGES * PAGEBLOCK_NR_PAGES
    pfn = mm.allocator.alloc_pages(vma.thp_gfp, PAGEBLOCK_ORDER)
    if pfn < 0:
        mm.vmstat.count(VmEvent.thp_fault_fallback)
        return False
    if not vma.pte_alloc(index):
        mm.allocator.free_pages(pfn, PAGEBLOCK_ORDER)
        return None
    slots = vma.words()[first : first + PAGEBLOCK_NR_PAGES]
    if vma.dead or (slots != pg.SLOT_EMPTY).any():
        # Somebody was faster while this task waited for memory.
        mm.allocator.free_pages(pfn, PAGEBLOCK_ORDER)
        return not vma.dead
    mm.deferred_split.forget(pfn)
    slot = np.array([vma.base_slot + first], dtype=np.int64)
    flags = pg.PG_SWAPBACKED | pg.PG_MAPPED | pg.PTE_YOUNG
    mm.lruvec.insert(np.array([pfn], dtype=np.int64), slot, order=PAGEBLOCK_ORDER, flags=flags)
    mm.vmstat.count(VmEvent.thp_fault_alloc)
    mm.context.charge(PAGEBLOCK_NR_PAGES * mm.costs.zero_page, "page fault")
    return True


class DeferredSplit:
    """Huge pages of which part is unmapped (``struct deferred_split``): their memory comes back when they are split.

    The kernel's shrinker ``thp-deferred_split`` is left to a plugin; this is what it counts and scans.

    Parameters
    ----------
    lruvec, vmstat
        Where they lie; the counters.
    """

    def __init__(self, lruvec: Lruvec, vmstat: VmStat) -> None:
        self._lruvec = lruvec
        self._vmstat = vmstat
        # A dict keeps the order. Reclaim and unmapping take pages away without a word, so an entry may be stale.
        self._queue: dict[int, None] = {}

    def deferred_split_huge_page(self, heads: Iterable[int]) -> None:
        """Queue huge pages, those that are queued already where they are (``deferred_split_huge_page()``)."""
        for pfn in heads:
            if pfn not in self._queue:
                self._queue[pfn] = None
                self._vmstat.count(VmEvent.thp_deferred_split_page)

    def forget(self, pfn: int) -> None:
        """Note that a page is another one now, whatever it was before."""
        self._queue.pop(pfn, None)

    @property
    def split_queue(self) -> tuple[int, ...]:
        """Their heads, first queued first."""
        if self._queue:
            pfns = np.fromiter(self._queue, dtype=np.int64)
            mask = np.uint32(pg.TYPE_MASK | pg.ORDER_MASK | pg.PG_PTE_MAPPED)
            there = (self._lruvec.words(pfns) & mask) == _HUGE | pg.PG_PTE_MAPPED
            for pfn in pfns[~there].tolist():
                del self._queue[pfn]
        return tuple(self._queue)

    @property
    def split_queue_len(self) -> int:
        """Huge pages queued (``split_queue_len``)."""
        return len(self.split_queue)

    def split_huge_page(self, pfn: int) -> int:
        """Split a huge page into single pages on the LRU; those that nobody maps are freed (``split_huge_page()``).

        Returns
        -------
        int
            Pages freed; -1 if it cannot be split now, being written, locked or held. Then it stays queued, as the last.
        """
        queued = self._queue.pop(pfn, self) is None
        freed = self._lruvec.split_huge_page(pfn)
        if freed < 0 and queued:
            self._queue[pfn] = None
        return freed
