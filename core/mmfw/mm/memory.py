"""Anonymous memory: faults, MADV_DONTNEED, munmap (mm/memory.c, mm/mmap.c of 6.1).

Each page has one mapping. Page tables are pages too: one for every 512 mapped pages is allocated when the first of
them is touched and freed with the mapping; upper levels are left out (one page for 262144). Swapped pages come back by
`mmfw.mm.swap_state`, huge pages are `mmfw.mm.huge_memory`, the order of freeing is `mmfw.mm.mmu_gather`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from mmfw.jit import page as pg
from mmfw.mm.huge_memory import (
    DeferredSplit,
    ThpSettings,
    do_huge_pmd_anonymous_page,
    transhuge_vma_suitable,
)
from mmfw.mm.khugepaged import MmSlots
from mmfw.mm.mmu_gather import unmap_vmas
from mmfw.mm.swap_state import SwapReadahead, do_swap_page
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.sched import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmfw.costs import CostProfile
    from mmfw.mm.block import BlockDevice
    from mmfw.mm.context import SchedContext
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.page_alloc import PageAllocator
    from mmfw.mm.rmap import RmapSpace
    from mmfw.sched import Scheduler, Task

Indices = NDArray[np.int64]

#: Mask of an anonymous page (``vma_alloc_zeroed_movable_folio()``) and of a page table (``GFP_PGTABLE_USER``).
ANON_GFP: Final = GFP_HIGHUSER_MOVABLE | gfp.ZERO
PGTABLE_GFP: Final = GFP_KERNEL | gfp.ZERO | gfp.ACCOUNT
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
    mm : AnonMemory
        What it belongs to.
    thp : bool
        Whether aligned 2 MiB may be huge pages.
    madvised : bool
        Whether MADV_HUGEPAGE was given (``VM_HUGEPAGE``).
    page_tables : dict of int to int
        Pfn of the page table of each 512 pages that has one, a huge page's deposited one included.
    swap_ra : SwapReadahead
        How much is read ahead from swap.
    dead : bool
        Whether it was unmapped.
    """

    def __init__(
        self, mm: AnonMemory, nr_pages: int, task: Task, *, thp: bool, madvised: bool, oom_score_adj: int
    ) -> None:
        self.nr_pages = nr_pages
        self.task = task
        self.oom_score_adj = oom_score_adj
        self.mm = mm
        self.thp = thp
        self.madvised = madvised
        self.base_slot = mm.rmap.register(self, nr_pages)
        self.page_tables: dict[int, int] = {}
        self.swap_ra = SwapReadahead()
        self.dead = False

    def words(self) -> NDArray[np.uint32]:
        """Its slots, as a view."""
        return self.mm.rmap.part(self.base_slot, self.nr_pages)

    @property
    def nr_resident(self) -> int:
        """Pages in memory, those in the swap cache included."""
        return int((self.words() < pg.SLOT_SHADOW).sum())

    @property
    def nr_swapped(self) -> int:
        """Pages on the swap device only."""
        words = self.words()
        return int(((words >= pg.SLOT_SHADOW) & (words != pg.SLOT_EMPTY)).sum())

    @property
    def nr_page_tables(self) -> int:
        """Pages of its page tables."""
        return len(self.page_tables)

    def pfns(self) -> Indices:
        """Where its resident pages are, by ascending index."""
        words = self.words()
        return words[words < pg.SLOT_SHADOW].astype(np.int64)

    # --- faults ---------------------------------------------------------------------------------------

    def touch(self, start: int, nr_pages: int = 1) -> int:
        """Write to pages in ascending order; absent ones fault in (``handle_mm_fault()``).

        Returns
        -------
        int
            Pages that were touched, from the first on; fewer than asked only if the task is killed, the mapping is
            gone, or memory ran out.
        """
        mm, base = self.mm, self.base_slot
        end = min(start + nr_pages, self.nr_pages)
        index = start
        while index < end and not self.dead and not mm.context.fatal_signal_pending:
            index += mm.lruvec.touch_range(base + index, base + end)
            if index >= end:
                break
            if self.words()[index] != pg.SLOT_EMPTY:
                got = int(do_swap_page(self, index))
            else:
                got = self._do_anonymous_page(index, end)
            if not got:
                break
            index += got
        return index - start

    def _do_anonymous_page(self, index: int, end: int) -> int:
        """First touches of pages; how many were met, 0 if memory ran out.

        Where there is no page table yet, a huge page is tried first; once there is one, it never is.
        """
        mm = self.mm
        table = index // _PTRS_PER_PTE
        if table not in self.page_tables and transhuge_vma_suitable(self, index):
            huge = do_huge_pmd_anonymous_page(self, index)
            if huge is not False:
                mm.vmstat.count(VmEvent.pgfault)
                return int(huge is not None)
        if not self.pte_alloc(index):
            return 0
        limit = min(end, (table + 1) * _PTRS_PER_PTE, index + _FAULT_BATCH)
        empty = self.words()[index:limit] == pg.SLOT_EMPTY
        run = len(empty) if empty.all() else int(np.argmin(empty))
        pfns = mm.allocator.alloc_pages_batch(ANON_GFP, 0, run)
        if self.dead:
            mm.allocator.free_pages_batch(pfns, 0)
            return 0
        # Another task may have touched the same pages while this one waited for memory.
        absent = self.words()[index : index + len(pfns)] == pg.SLOT_EMPTY
        if not absent.all():
            mm.allocator.free_pages_batch(pfns[~absent], 0)
        slots = self.base_slot + np.arange(index, index + len(pfns), dtype=np.int64)
        mm.lruvec.insert(pfns[absent], slots[absent], flags=_ANON_FLAGS)
        mm.vmstat.count(VmEvent.pgfault, len(pfns))
        mm.context.charge(len(pfns) * (mm.costs.zero_page + mm.costs.page_fault), "page fault")
        return len(pfns)

    def pte_alloc(self, index: int) -> bool:
        """See to it that a page's table is there (``pte_alloc()``); False without memory, or if the mapping is gone."""
        table = index // _PTRS_PER_PTE
        if table in self.page_tables:
            return True
        pfn = self.mm.allocator.alloc_pages(PGTABLE_GFP, 0)
        if pfn < 0:
            return False
        if self.dead or table in self.page_tables:
            self.mm.allocator.free_pages(pfn, 0)
            return not self.dead
        self.page_tables[table] = pfn
        self.mm.nr_page_table_pages += 1
        return True

    # --- going away -------------------------------------------------------------------------------------

    def madvise_dontneed(self, indices: Indices) -> int:
        """One ``madvise(MADV_DONTNEED)`` for each page, in order; pages freed.

        Of a huge page nothing is freed before all of its pages are dropped, or it is split: it is queued for that
        (`AnonMemory.deferred_split`).
        """
        mm = self.mm
        freed, partial = mm.lruvec.zap(self.base_slot + indices)
        mm.deferred_split.deferred_split_huge_page(partial)
        mm.context.charge(len(indices) * (mm.costs.free_pcp + mm.costs.syscall), "madvise")
        mm.context.might_sleep()
        return freed

    def munmap(self) -> int:
        """Drop the mapping and its page tables (``unmap_region()``); pages freed, tables not counted.

        Nothing is left to drop of one that the OOM killer has taken.
        """
        return self.mm.exit_mmap([self])


class AnonMemory:
    """All anonymous mappings of a machine.

    Attributes
    ----------
    page_cluster : int
        ``vm.page-cluster``.
    deferred_split : DeferredSplit
        Huge pages of which part is unmapped.
    thp : ThpSettings
        How huge pages are asked for; to be set before time starts.
    mm_slots : MmSlots
        Whom khugepaged would scan.
    nr_page_table_pages : int
        Page tables of all mappings.
    """

    def __init__(
        self,
        allocator: PageAllocator,
        lruvec: Lruvec,
        rmap: RmapSpace,
        swap_device: BlockDevice,
        sched: Scheduler,
        context: SchedContext,
        costs: CostProfile,
        vmstat: VmStat,
        page_cluster: int,
    ) -> None:
        self.page_cluster = page_cluster
        self.allocator = allocator
        self.lruvec = lruvec
        self.rmap = rmap
        self.swap_device = swap_device
        self.sched = sched
        self.context = context
        self.costs = costs
        self.vmstat = vmstat
        self.nr_page_table_pages = 0
        self.deferred_split = DeferredSplit(lruvec, rmap, vmstat)
        self.thp = ThpSettings()
        self.mm_slots = MmSlots(sched)
        self._uptodate = WaitQueue(sched, "folio_wait_locked")
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
            Whether MADV_HUGEPAGE was given; what that means to a fault is for `ThpSettings.defrag` to say.
        oom_score_adj : int
            For the OOM killer.
        """
        vma = Vma(self, nr_pages, self.sched.current, thp=thp, madvised=madvised, oom_score_adj=oom_score_adj)
        self._vmas.append(vma)
        return vma

    def mmap_again(self, vma: Vma) -> None:
        """Map what was unmapped at the same address again, empty, for the running task (munmap, then mmap).

        As `mmap`, but for the name space of slots, which has 2^31 for all mappings that ever were: a load that maps and
        unmaps for ever should come back to what it had.

        Raises
        ------
        CallerError
            It is still mapped.
        """
        if not vma.dead:
            raise CallerError("the mapping still exists; munmap() it first")
        vma.dead = False
        vma.task = self.sched.current
        vma.swap_ra = SwapReadahead()
        self._vmas.append(vma)

    def exit_mmap(self, vmas: Iterable[Vma]) -> int:
        """Drop mappings together, as the end of their task does (``exit_mmap()``); pages freed, tables not counted."""
        going = [vma for vma in vmas if not vma.dead]
        for vma in going:
            vma.dead = True
            self._vmas.remove(vma)
        return unmap_vmas(self, going) if going else 0

    # --- pages from the device --------------------------------------------------------------------------

    def end_read(self, pfns: Indices) -> None:
        """The swap device has read pages (``end_swap_bio_read()``)."""
        self.lruvec.end_read(pfns)
        self._uptodate.wake_up()

    def wait_locked(self, vma: Vma, index: int) -> bool:
        """Wait until a page has been read (``folio_lock_or_retry()``); False if that was not necessary."""
        if self.context.time_stands_still or not self.is_locked(vma, index):
            return False
        self._uptodate.wait_event(lambda: not self.is_locked(vma, index))
        return True

    def is_locked(self, vma: Vma, index: int) -> bool:
        """Whether a resident page is being read, or locked by somebody."""
        word = vma.words()[index : index + 1]
        if word[0] >= pg.SLOT_SHADOW:
            return False
        return bool(self.lruvec.words(self.lruvec.heads(word.astype(np.int64)))[0] & pg.PG_LOCKED)

    @property
    def vmas(self) -> tuple[Vma, ...]:
        """Mappings that exist, in order of creation."""
        return tuple(self._vmas)

    def split_huge_page(self, pfn: int) -> int:
        """Split a huge page; see `DeferredSplit.split_huge_page`."""
        return self.deferred_split.split_huge_page(pfn)
