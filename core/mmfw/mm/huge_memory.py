"""Transparent huge pages of anonymous mappings: faults, splitting, partly unmapped ones (mm/huge_memory.c of 6.1).

Collapsing single pages into a huge one is `mmfw.mm.khugepaged`. Not modelled: the huge zero page (every first touch is
a write), huge pages of files and shmem, huge pages smaller than 2 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent
from mmfw.state import PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.memory import AnonMemory, Vma
    from mmfw.mm.rmap import RmapSpace
    from mmfw.mm.vmstat import VmStat

_HUGE: Final = pg.T_ALLOC | PAGEBLOCK_ORDER
_ON_ANON_LRU: Final = pg.PG_LRU | pg.PG_SWAPBACKED


class ThpDefrag(Enum):
    """``/sys/kernel/mm/transparent_hugepage/defrag``: how hard a fault tries for a huge page."""

    ALWAYS = "always"
    DEFER = "defer"
    DEFER_MADVISE = "defer+madvise"
    MADVISE = "madvise"
    NEVER = "never"


@dataclass(slots=True)
class ThpSettings:
    """What ``/sys/kernel/mm/transparent_hugepage`` says; the defaults are 6.1's.

    Attributes
    ----------
    defrag : ThpDefrag
        Of faults.
    khugepaged_defrag : bool
        Whether khugepaged's requests may reclaim and compact.
    max_ptes_none, max_ptes_swap : int
        Pages of 512 that may be absent, and that may be on the swap device, where khugepaged collapses.
    split_underused : bool
        Whether huge pages are queued for `DeferredSplit` as soon as they are mapped, because they might turn out to be
        mostly zeroes (``split_underused_thp`` of 6.12; 6.1 has no such thing).
    """

    defrag: ThpDefrag = ThpDefrag.MADVISE
    khugepaged_defrag: bool = True
    max_ptes_none: int = PAGEBLOCK_NR_PAGES - 1
    max_ptes_swap: int = PAGEBLOCK_NR_PAGES // 8
    split_underused: bool = False


def vma_thp_gfp_mask(defrag: ThpDefrag, *, madvised: bool) -> int:
    """Mask of a huge page fault (``vma_thp_gfp_mask()``).

    Examples
    --------
    >>> [hex(vma_thp_gfp_mask(ThpDefrag.DEFER_MADVISE, madvised=m) & gfp.RECLAIM) for m in (False, True)]
    ['0x800', '0x400']
    """
    light = gfp.GFP_TRANSHUGE_LIGHT
    if defrag is ThpDefrag.ALWAYS:
        return gfp.GFP_TRANSHUGE | (0 if madvised else gfp.NORETRY)
    if defrag is ThpDefrag.DEFER or (defrag is ThpDefrag.DEFER_MADVISE and not madvised):
        return light | gfp.KSWAPD_RECLAIM
    if defrag is ThpDefrag.NEVER or not madvised:
        return light
    return light | gfp.DIRECT_RECLAIM


def vma_alloc_huge_page(mm: AnonMemory, gfp_mask: int) -> int:
    """Pfn of a huge page, -1 for none (``vma_alloc_folio()`` for a huge page, mm/mempolicy.c).

    This node is asked first, without insisting; what may reclaim then asks again as its mask says, any node.
    """
    pfn = mm.allocator.alloc_pages(gfp_mask | gfp.THISNODE | gfp.NORETRY, PAGEBLOCK_ORDER)
    if pfn < 0 and gfp_mask & gfp.DIRECT_RECLAIM:
        pfn = mm.allocator.alloc_pages(gfp_mask, PAGEBLOCK_ORDER)
    return pfn


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
    mm.mm_slots.khugepaged_enter_vma(vma.task)
    pfn = vma_alloc_huge_page(mm, vma_thp_gfp_mask(mm.thp.defrag, madvised=vma.madvised))
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
    map_huge_page(vma, first, pfn)
    mm.vmstat.count(VmEvent.thp_fault_alloc)
    mm.context.charge(PAGEBLOCK_NR_PAGES * mm.costs.zero_page, "page fault")
    return True


def map_huge_page(vma: Vma, first: int, pfn: int) -> None:
    """Map a huge page over 512 empty slots and put it on the LRU (``page_add_new_anon_rmap()``, ``set_pmd_at()``)."""
    mm = vma.mm
    mm.deferred_split.forget(pfn)
    slot = np.array([vma.base_slot + first], dtype=np.int64)
    flags = pg.PG_SWAPBACKED | pg.PG_MAPPED | pg.PTE_YOUNG
    mm.lruvec.insert(np.array([pfn], dtype=np.int64), slot, order=PAGEBLOCK_ORDER, flags=flags)
    if mm.thp.split_underused:
        mm.deferred_split.queue_fully_mapped(pfn)


def aligned_run_order(free: NDArray[np.bool_]) -> int:
    """Order of the largest aligned run of 512 pages that is True throughout, -1 if none is.

    Examples
    --------
    The second half; every other page; all but the first:

    >>> at = np.arange(512)
    >>> aligned_run_order(at >= 256), aligned_run_order(at % 2 == 1), aligned_run_order(at > 0)
    (8, 0, 8)
    """
    order = -1
    while free.any():
        order += 1
        free = free[0::2] & free[1::2] if len(free) > 1 else free[:0]
    return order


@dataclass(slots=True)
class _Queued:
    """A huge page of the queue.

    Attributes
    ----------
    partially_mapped : bool
        Whether some of its pages are unmapped.
    unmapped_order : int or None
        `DeferredSplit.unmapped_order`, once it is known.
    """

    partially_mapped: bool
    unmapped_order: int | None = None


class DeferredSplit:
    """Huge pages that should be split when memory is short (``struct deferred_split``).

    Those of which part is unmapped: that part's memory comes back when they are split. Since 6.12 also others, in case
    they hold little but zeroes; only if `ThpSettings.split_underused` asks for it.

    The kernel's shrinker ``thp-deferred_split`` is left to a plugin; this is what it counts and scans.

    Parameters
    ----------
    lruvec, rmap, vmstat
        Where they lie; who maps them; the counters.
    """

    def __init__(self, lruvec: Lruvec, rmap: RmapSpace, vmstat: VmStat) -> None:
        self._lruvec = lruvec
        self._rmap = rmap
        self._vmstat = vmstat
        # A dict keeps the order. Reclaim and unmapping take pages away without a word, so an entry may be stale.
        self._queue: dict[int, _Queued] = {}

    def deferred_split_huge_page(self, heads: Iterable[int]) -> None:
        """Queue huge pages of which a page was unmapped, those that are queued already where they are.

        ``thp_deferred_split_page`` counts those that become partially mapped by it (``deferred_split_huge_page()``).
        """
        for pfn in heads:
            entry = self._queue.get(pfn)
            if entry is None or not entry.partially_mapped:
                self._queue[pfn] = _Queued(partially_mapped=True)
                self._vmstat.count(VmEvent.thp_deferred_split_page)
            else:
                entry.unmapped_order = None

    def queue_fully_mapped(self, pfn: int) -> None:
        """Queue a huge page that was just mapped (``deferred_split_folio()`` of 6.12, not partially mapped)."""
        self._queue[pfn] = _Queued(partially_mapped=False)

    def forget(self, pfn: int) -> None:
        """Take a page off the queue: it is another one now, or not to be looked at again."""
        self._queue.pop(pfn, None)

    @property
    def split_queue(self) -> tuple[int, ...]:
        """Their heads, first queued first."""
        if self._queue:
            pfns = np.fromiter(self._queue, dtype=np.int64)
            partly = np.fromiter((each.partially_mapped for each in self._queue.values()), dtype=np.bool_)
            words = self._lruvec.words(pfns)
            huge = (words & np.uint32(pg.TYPE_MASK | pg.ORDER_MASK)) == _HUGE
            mapped = (words & np.uint32(pg.PG_PTE_MAPPED)) != 0
            on_lru = (words & np.uint32(_ON_ANON_LRU)) == _ON_ANON_LRU
            for pfn in pfns[~(huge & np.where(partly, mapped, on_lru))].tolist():
                del self._queue[pfn]
        return tuple(self._queue)

    @property
    def split_queue_len(self) -> int:
        """Huge pages queued (``split_queue_len``)."""
        return len(self.split_queue)

    def partially_mapped(self, pfn: int) -> bool:
        """Whether part of a queued huge page is unmapped (``folio_test_partially_mapped()``)."""
        return self._queue[pfn].partially_mapped

    def mapping_of(self, pfn: int) -> tuple[Vma, int]:
        """Who maps a queued huge page, and at which index it begins there."""
        found = self._rmap.owner_of(pfn)
        if found is None:
            raise CallerError(f"pfn {pfn} is no huge page that a mapping has")
        return cast("tuple[Vma, int]", found)

    def mapped_pages(self, pfn: int) -> NDArray[np.bool_]:
        """Which of a huge page's 512 pages are mapped."""
        vma, first = self.mapping_of(pfn)
        words = vma.words()[first : first + PAGEBLOCK_NR_PAGES]
        mapped: NDArray[np.bool_] = words == pfn + np.arange(PAGEBLOCK_NR_PAGES, dtype=np.int64)
        return mapped

    def unmapped_order(self, pfn: int) -> int:
        """Order of the largest aligned run that a queued huge page would free if it were split; -1 for none."""
        entry = self._queue[pfn]
        if entry.unmapped_order is None:
            entry.unmapped_order = aligned_run_order(~self.mapped_pages(pfn))
        return entry.unmapped_order

    def split_huge_page(self, pfn: int) -> int:
        """Split a huge page into single pages on the LRU; those that nobody maps are freed (``split_huge_page()``).

        Returns
        -------
        int
            Pages freed; -1 if it cannot be split now, being written, locked or held. Then it stays queued, as the last.
        """
        entry = self._queue.pop(pfn, None)
        freed = self._lruvec.split_huge_page(pfn)
        if freed < 0 and entry is not None:
            self._queue[pfn] = entry
        return freed
