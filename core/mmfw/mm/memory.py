"""Anonymous memory: faults, MADV_DONTNEED, munmap (mm/memory.c, mm/mmap.c of 6.1).

Each page has one mapping. Page tables are pages too: one for every 512 mapped pages is allocated when the first of
them is touched and freed with the mapping; upper levels are left out (one page for 262144).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.state import PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.block import BlockDevice
    from mmfw.mm.context import ExecContext
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.page_alloc import PageAllocator
    from mmfw.mm.rmap import RmapSpace
    from mmfw.sched import Scheduler, Task

Indices = NDArray[np.int64]

#: Mask of an anonymous page (``vma_alloc_zeroed_movable_folio()``) and of a page table (``GFP_PGTABLE_USER``).
ANON_GFP: Final = GFP_HIGHUSER_MOVABLE | gfp.ZERO
PGTABLE_GFP: Final = GFP_KERNEL | gfp.ZERO | gfp.ACCOUNT
#: Masks of a huge page fault (``vma_thp_gfp_mask()``): with and without MADV_HUGEPAGE under defrag=madvise.
THP_MADVISED_GFP: Final = gfp.GFP_TRANSHUGE
THP_GFP: Final = gfp.GFP_TRANSHUGE_LIGHT
#: ``vm.page-cluster``: a swap-in brings that power of two of neighbours along.
PAGE_CLUSTER: Final = 3
#: Pages freed at once when a mapping goes (``MAX_GATHER_BATCH``, mm/mmu_gather.c).
MAX_GATHER_BATCH: Final = 510
_ANON_FLAGS: Final = pg.PG_SWAPBACKED | pg.PG_MAPPED | pg.PTE_YOUNG
_FAULT_BATCH: Final = 32
_PTRS_PER_PTE: Final = 512


class Vma:
    """An anonymous mapping (``struct vm_area_struct``); made by `AnonMemory.mmap`.

    Attributes
    ----------
    nr_pages : int
        Its size.
    task : Task
        Who made it.
    oom_score_adj : int
        -1000 to 1000, for the OOM killer.
    """

    def __init__(
        self, mm: AnonMemory, nr_pages: int, task: Task, *, thp: bool, madvised: bool, oom_score_adj: int
    ) -> None:
        self.nr_pages = nr_pages
        self.task = task
        self.oom_score_adj = oom_score_adj
        self._mm = mm
        self._thp = thp
        self._thp_gfp = THP_MADVISED_GFP if madvised else THP_GFP
        self.base_slot = mm.rmap.register(self, nr_pages)
        self._page_tables: dict[int, int] = {}
        self._dead = False

    def _words(self) -> NDArray[np.uint32]:
        return self._mm.rmap.part(self.base_slot, self.nr_pages)

    @property
    def nr_resident(self) -> int:
        """Pages in memory."""
        return int((self._words() < pg.SLOT_SHADOW).sum())

    @property
    def nr_swapped(self) -> int:
        """Pages on the swap device only."""
        words = self._words()
        return int(((words >= pg.SLOT_SHADOW) & (words != pg.SLOT_EMPTY)).sum())

    @property
    def nr_page_tables(self) -> int:
        """Pages of its page tables."""
        return len(self._page_tables)

    def pfns(self) -> Indices:
        """Where its resident pages are, by ascending index."""
        words = self._words()
        return words[words < pg.SLOT_SHADOW].astype(np.int64)

    # --- faults ---------------------------------------------------------------------------------------

    def touch(self, start: int, nr_pages: int = 1) -> int:
        """Access pages in ascending order; absent ones fault in (``do_anonymous_page()``, ``do_swap_page()``).

        Returns
        -------
        int
            Pages that are resident afterwards, from the first on; fewer than asked only if the task is killed
            or memory ran out.
        """
        mm = self._mm
        end = min(start + nr_pages, self.nr_pages)
        index = start
        while index < end:
            if self._dead or mm.context.fatal_signal_pending or not self._pte_alloc(index):
                break
            limit = min(end, (index // _PTRS_PER_PTE + 1) * _PTRS_PER_PTE, index + _FAULT_BATCH)
            words = self._words()[index:limit]
            present = words < pg.SLOT_SHADOW
            if present.all():
                mm.lruvec.touch(self.base_slot + np.arange(index, limit, dtype=np.int64))
                index = limit
                continue
            first = int(np.argmin(present))
            if first:
                mm.lruvec.touch(self.base_slot + np.arange(index, index + first, dtype=np.int64))
                index += first
                continue
            if words[0] != pg.SLOT_EMPTY:
                if not self._swap_in(index):
                    break
                index += 1
                continue
            if self._thp and index % PAGEBLOCK_NR_PAGES == 0 and self._huge_fault(index):
                index += PAGEBLOCK_NR_PAGES
                continue
            run = int(np.argmin(words == pg.SLOT_EMPTY)) if not (words == pg.SLOT_EMPTY).all() else len(words)
            got = self._fault(index, run)
            index += got
            if got < run:
                break
        return index - start

    def _pte_alloc(self, index: int) -> bool:
        table = index // _PTRS_PER_PTE
        if table in self._page_tables:
            return True
        pfn = self._mm.allocator.alloc_pages(PGTABLE_GFP, 0)
        if pfn < 0:
            return False
        if self._dead or table in self._page_tables:
            self._mm.allocator.free_pages(pfn, 0)
            return not self._dead
        self._page_tables[table] = pfn
        self._mm.nr_page_table_pages += 1
        return True

    def _fault(self, index: int, nr: int) -> int:
        mm = self._mm
        pfns = mm.allocator.alloc_pages_batch(ANON_GFP, 0, nr)
        if self._dead:
            mm.allocator.free_pages_batch(pfns, 0)
            return 0
        n = len(pfns)
        slots = self.base_slot + np.arange(index, index + n, dtype=np.int64)
        # Another task may have touched the same pages while this one waited for memory.
        absent = self._words()[index : index + n] == pg.SLOT_EMPTY
        if not absent.all():
            mm.allocator.free_pages_batch(pfns[~absent], 0)
        mm.lruvec.insert(pfns[absent], slots[absent], flags=_ANON_FLAGS)
        mm.vmstat.count(VmEvent.pgfault, n)
        mm.context.charge(n * (mm.costs.zero_page + mm.costs.page_fault), "page fault")
        return n

    def _huge_fault(self, index: int) -> bool:
        """``do_huge_pmd_anonymous_page()``; False falls back to single pages."""
        mm = self._mm
        whole = self._words()[index : index + PAGEBLOCK_NR_PAGES]
        if len(whole) < PAGEBLOCK_NR_PAGES or (whole != pg.SLOT_EMPTY).any():
            return False
        pfn = mm.allocator.alloc_pages(self._thp_gfp, PAGEBLOCK_ORDER)
        if pfn >= 0 and self._dead:
            mm.allocator.free_pages(pfn, PAGEBLOCK_ORDER)
            return False
        if pfn < 0:
            mm.vmstat.count(VmEvent.thp_fault_fallback)
            return False
        slots = np.array([self.base_slot + index], dtype=np.int64)
        mm.lruvec.insert(np.array([pfn], dtype=np.int64), slots, order=PAGEBLOCK_ORDER, flags=_ANON_FLAGS)
        mm.vmstat.count(VmEvent.thp_fault_alloc)
        mm.vmstat.count(VmEvent.pgfault)
        mm.context.charge(PAGEBLOCK_NR_PAGES * mm.costs.zero_page, "page fault")
        return True

    def _swap_in(self, index: int) -> bool:
        """Bring a page back, and its neighbours (``swapin_readahead()``)."""
        mm = self._mm
        first = index & -(1 << PAGE_CLUSTER)
        window = np.arange(first, min(first + (1 << PAGE_CLUSTER), self.nr_pages), dtype=np.int64)
        words = self._words()[window]
        swapped = window[(words >= pg.SLOT_SHADOW) & (words != pg.SLOT_EMPTY)]
        pfns = mm.allocator.alloc_pages_batch(GFP_HIGHUSER_MOVABLE, 0, len(swapped))
        swapped = swapped[: len(pfns)]
        words = self._words()[swapped]
        still = (words >= pg.SLOT_SHADOW) & (words != pg.SLOT_EMPTY) & (not self._dead)
        mm.allocator.free_pages_batch(pfns[~still], 0)
        swapped, pfns = swapped[still], pfns[still]
        if len(swapped) == 0:
            return bool(self._words()[index] < pg.SLOT_SHADOW)
        mm.lruvec.insert(pfns, self.base_slot + swapped, flags=_ANON_FLAGS)
        mm.lruvec.add_node_stat(pg.NS_FREE_SWAP, len(swapped))
        mm.vmstat.count(VmEvent.pswpin, len(swapped))
        mm.vmstat.count(VmEvent.swap_ra, len(swapped) - 1)
        mm.vmstat.count(VmEvent.pgmajfault)
        done = mm.swap_device.submit(len(swapped))
        mm.context.schedule_timeout(max(0, done - mm.sched.now))
        return True

    # --- going away -------------------------------------------------------------------------------------

    def madvise_dontneed(self, indices: Indices) -> int:
        """One ``madvise(MADV_DONTNEED)`` for each page, in order; pages freed.

        Part of a huge page makes it split first, as if under memory pressure: partially mapped huge pages and the
        queue that splits them later are not modelled here.
        """
        mm = self._mm
        words = self._words()[indices]
        present = indices[words < pg.SLOT_SHADOW]
        for head in self._huge_heads(present):
            mm.split_huge_page(head)
        swapped = int(((words >= pg.SLOT_SHADOW) & (words != pg.SLOT_EMPTY)).sum())
        freed = mm.lruvec.release(self.base_slot + indices)
        mm.lruvec.add_node_stat(pg.NS_FREE_SWAP, swapped)
        mm.context.charge(len(indices) * (mm.costs.free_pcp + mm.costs.syscall), "madvise")
        mm.context.might_sleep()
        return freed

    def _huge_heads(self, indices: Indices) -> list[int]:
        if not self._thp or len(indices) == 0:
            return []
        pfns = np.unique(self._words()[indices].astype(np.int64) & -PAGEBLOCK_NR_PAGES)
        words = self._mm.lruvec.words(pfns)
        return [
            int(p) for p in pfns[(words & (pg.TYPE_MASK | pg.ORDER_MASK)) == pg.T_ALLOC | PAGEBLOCK_ORDER]
        ]

    def munmap(self) -> int:
        """Drop the mapping and its page tables (``unmap_region()``); pages freed, tables not counted.

        Nothing is left to drop of one that the OOM killer has taken.
        """
        mm = self._mm
        if self._dead:
            return 0
        self._dead = True
        words = self._words()
        swapped = self.nr_swapped
        present = np.flatnonzero(words < pg.SLOT_SHADOW)
        freed = 0
        for first in range(0, len(present), MAX_GATHER_BATCH):
            batch = present[first : first + MAX_GATHER_BATCH]
            # release_pages() collects a batch on a stack, so its last page is freed first.
            freed += mm.lruvec.release(self.base_slot + batch[::-1])
            mm.context.charge(len(batch) * mm.costs.free_pcp, "munmap")
            mm.context.might_sleep()
        mm.lruvec.release(self.base_slot + np.arange(self.nr_pages, dtype=np.int64))
        mm.lruvec.add_node_stat(pg.NS_FREE_SWAP, swapped)
        tables = np.array(list(self._page_tables.values()), dtype=np.int64)
        self._page_tables.clear()
        mm.nr_page_table_pages -= len(tables)
        mm.allocator.free_pages_batch(tables, 0)
        mm.forget(self)
        return freed


class AnonMemory:
    """All anonymous mappings of a machine."""

    def __init__(
        self,
        allocator: PageAllocator,
        lruvec: Lruvec,
        rmap: RmapSpace,
        swap_device: BlockDevice,
        sched: Scheduler,
        context: ExecContext,
        costs: CostProfile,
        vmstat: VmStat,
    ) -> None:
        self.allocator = allocator
        self.lruvec = lruvec
        self.rmap = rmap
        self.swap_device = swap_device
        self.sched = sched
        self.context = context
        self.costs = costs
        self.vmstat = vmstat
        self.nr_page_table_pages = 0
        self._vmas: list[Vma] = []

    def mmap(
        self, nr_pages: int, *, thp: bool = False, madvised: bool = False, oom_score_adj: int = 0
    ) -> Vma:
        """A new anonymous mapping of the running task, nothing of it resident.

        Parameters
        ----------
        nr_pages : int
            Its size.
        thp : bool
            Whether aligned 2 MiB may be huge pages (``transparent_hugepage/enabled`` allows it).
        madvised : bool
            Whether MADV_HUGEPAGE was given, so that a fault may compact (``defrag`` = madvise).
        oom_score_adj : int
            For the OOM killer.
        """
        vma = Vma(self, nr_pages, self.sched.current, thp=thp, madvised=madvised, oom_score_adj=oom_score_adj)
        self._vmas.append(vma)
        return vma

    def forget(self, vma: Vma) -> None:
        """Take a mapping that is gone off the list."""
        self._vmas.remove(vma)

    @property
    def vmas(self) -> tuple[Vma, ...]:
        """Mappings that exist, in order of creation."""
        return tuple(self._vmas)

    def split_huge_page(self, pfn: int) -> None:
        """Turn a huge page into 512 pages on the LRU (``split_huge_page()``)."""
        self.lruvec.split_folio(pfn, PAGEBLOCK_ORDER)
        self.vmstat.count(VmEvent.thp_split_page)
