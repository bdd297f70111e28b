"""Collapsing single pages of a mapping into a huge page, and whom khugepaged scans (mm/khugepaged.c of 6.1).

The thread itself, its pace and its cursor are a plugin's. Simplified: each page has one mapping and is writable, so the
tests for shared and read-only pages always pass; ``mmap_lock`` is not modelled, so a collapse is never refused because
somebody holds it; of a page that has to be read from swap, the kernel leaves the page that it waited for in the swap
cache, here it is mapped. Files and shmem are never collapsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.huge_memory import ThpSettings, map_huge_page
from mmfw.mm.swap_state import do_swap_page
from mmfw.mm.vmstat import VmEvent
from mmfw.sched import TaskState, WaitQueue
from mmfw.state import PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from mmfw.mm.memory import Vma
    from mmfw.sched import Scheduler, Task


class ScanResult(Enum):
    """``enum scan_result`` (mm/khugepaged.c): what became of 2 MiB; those that can occur here."""

    SUCCEED = auto()
    PMD_NULL = auto()
    PMD_MAPPED = auto()
    EXCEED_NONE_PTE = auto()
    EXCEED_SWAP_PTE = auto()
    PTE_NON_PRESENT = auto()
    LACK_REFERENCED_PAGE = auto()
    PAGE_LRU = auto()
    PAGE_LOCK = auto()
    PAGE_COUNT = auto()
    VMA_NULL = auto()
    ALLOC_HUGE_PAGE_FAIL = auto()
    FAIL = auto()


class MmSlots:
    """The address spaces that khugepaged would scan (``khugepaged_scan.mm_head``): tasks, in order of their first fault.

    Attributes
    ----------
    wait : WaitQueue
        Woken when the first of them appears (``khugepaged_wait``).
    """

    def __init__(self, sched: Scheduler) -> None:
        self.wait = WaitQueue(sched, "khugepaged_wait")
        self._tasks: dict[int, Task] = {}

    def khugepaged_enter_vma(self, task: Task) -> None:
        """Add the address space of a task, once (``__khugepaged_enter()``)."""
        if task.pid in self._tasks:
            return
        self._tasks[task.pid] = task
        if len(self._tasks) == 1:
            self.wait.wake_up()

    def collect_mm_slot(self, task: Task) -> None:
        """Drop an address space if its task is gone."""
        if task.state is TaskState.DEAD:
            self._tasks.pop(task.pid, None)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those added, first added first; some may be gone (`collect_mm_slot`)."""
        return tuple(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)


@dataclass(frozen=True, slots=True)
class _Ptes:
    """What the 512 entries of a page table hold.

    Attributes
    ----------
    none, swapped : bool[512]
        Nothing; a page on the swap device or in the swap cache only.
    flags : uint32[512]
        Page word of the folio that is mapped, 0 where none is.
    """

    none: NDArray[np.bool_]
    swapped: NDArray[np.bool_]
    flags: NDArray[np.uint32]

    @classmethod
    def of(cls, vma: Vma, first: int) -> _Ptes:
        words = vma.words()[first : first + PAGEBLOCK_NR_PAGES]
        none = words == pg.SLOT_EMPTY
        resident = words < pg.SLOT_SHADOW
        flags = np.zeros(PAGEBLOCK_NR_PAGES, dtype=np.uint32)
        lruvec = vma.mm.lruvec
        flags[resident] = lruvec.words(lruvec.heads(words[resident].astype(np.int64)))
        mapped = (flags & np.uint32(pg.PG_MAPPED)) != 0
        flags[~mapped] = 0
        return cls(none, ~none & ~mapped, flags)

    def has(self, flags: int) -> NDArray[np.bool_]:
        """Which mapped pages have any of these flags."""
        found: NDArray[np.bool_] = (self.flags & np.uint32(flags)) != 0
        return found

    @property
    def huge(self) -> bool:
        """Whether one entry of the PMD maps a huge page here."""
        word = int(self.flags[0])
        return word & pg.ORDER_MASK == PAGEBLOCK_ORDER and not word & pg.PG_PTE_MAPPED

    @property
    def nr_referenced(self) -> int:
        """Mapped pages that were used lately."""
        return int(self.has(pg.PTE_YOUNG | pg.PG_REFERENCED).sum())


def _first(where: NDArray[np.bool_]) -> int:
    """Index of the first True, 512 if there is none."""
    return int(np.argmax(where)) if where.any() else PAGEBLOCK_NR_PAGES


def _check_ptes(
    vma: Vma, ptes: _Ptes, max_ptes_none: int, max_ptes_swap: int, in_the_way: ScanResult
) -> ScanResult:
    """What the walk over the entries comes upon first; counts what vmstat counts."""
    faults = (
        (_first(np.cumsum(ptes.swapped) > max_ptes_swap), in_the_way),
        (_first(np.cumsum(ptes.none) > max_ptes_none), ScanResult.EXCEED_NONE_PTE),
        (_first((ptes.flags != 0) & ~ptes.has(pg.PG_LRU)), ScanResult.PAGE_LRU),
        (_first(ptes.has(pg.PG_LOCKED)), ScanResult.PAGE_LOCK),
        (_first(ptes.has(pg.PG_PINNED)), ScanResult.PAGE_COUNT),
    )
    at, result = min(faults, key=lambda fault: fault[0])
    if at == PAGEBLOCK_NR_PAGES:
        return ScanResult.SUCCEED
    if result is ScanResult.EXCEED_NONE_PTE:
        vma.mm.vmstat.count(VmEvent.thp_scan_exceed_none_pte)
    elif result is ScanResult.EXCEED_SWAP_PTE:
        vma.mm.vmstat.count(VmEvent.thp_scan_exceed_swap_pte)
    return result


def scan_pmd(vma: Vma, first: int) -> ScanResult:
    """Whether 2 MiB of a mapping should become a huge page (``hpage_collapse_scan_pmd()`` up to the collapse).

    Parameters
    ----------
    vma : Vma
        An anonymous mapping.
    first : int
        Index of the first of 512 pages, a multiple of 512.

    Returns
    -------
    ScanResult
        SUCCEED: `collapse_huge_page` is worth trying.
    """
    mm = vma.mm
    if first // PAGEBLOCK_NR_PAGES not in vma.page_tables:
        return ScanResult.PMD_NULL
    ptes = _Ptes.of(vma, first)
    if ptes.huge:
        return ScanResult.PMD_MAPPED
    mm.context.charge(PAGEBLOCK_NR_PAGES * mm.costs.compact_scan_page, "khugepaged")
    thp = mm.thp
    result = _check_ptes(vma, ptes, thp.max_ptes_none, thp.max_ptes_swap, ScanResult.EXCEED_SWAP_PTE)
    if result is not ScanResult.SUCCEED:
        return result
    referenced = ptes.nr_referenced
    if not referenced or (ptes.swapped.any() and referenced < PAGEBLOCK_NR_PAGES // 2):
        return ScanResult.LACK_REFERENCED_PAGE
    return ScanResult.SUCCEED


def khugepaged_gfp_mask(thp: ThpSettings) -> int:
    """Mask of khugepaged's requests (``alloc_hugepage_khugepaged_gfpmask()``)."""
    return gfp.GFP_TRANSHUGE if thp.khugepaged_defrag else gfp.GFP_TRANSHUGE_LIGHT


def collapse_huge_page(vma: Vma, first: int, gfp_mask: int) -> ScanResult:
    """Make a huge page of 512 pages of a mapping (``collapse_huge_page()``).

    The huge page is allocated first; what is on the swap device is read; then all that is mapped is copied, its pages
    are freed one after another, and the huge page is mapped with the page table that is there already.

    Parameters
    ----------
    vma, first
        As `scan_pmd` found them good.
    gfp_mask : int
        Of the huge page: `khugepaged_gfp_mask`, or `mmfw.gfp.GFP_TRANSHUGE` for MADV_COLLAPSE.

    Returns
    -------
    ScanResult
        SUCCEED, or why nothing was changed but for pages read from swap.
    """
    mm = vma.mm
    pfn = mm.allocator.alloc_pages(gfp_mask, PAGEBLOCK_ORDER)
    if pfn < 0:
        mm.vmstat.count(VmEvent.thp_collapse_alloc_failed)
        return ScanResult.ALLOC_HUGE_PAGE_FAIL
    mm.vmstat.count(VmEvent.thp_collapse_alloc)
    result = ScanResult.FAIL
    try:
        result = _collapse(vma, first, pfn)
    finally:
        if result is not ScanResult.SUCCEED:
            mm.allocator.free_pages(pfn, PAGEBLOCK_ORDER)
    if result is ScanResult.SUCCEED:
        cost = mm.costs.copy_page + mm.costs.lru_isolate_page + mm.costs.free_pcp
        mm.context.charge(PAGEBLOCK_NR_PAGES * cost, "khugepaged")
    return result


def _collapse(vma: Vma, first: int, pfn: int) -> ScanResult:
    result = _revalidate(vma, first)
    if result is ScanResult.SUCCEED:
        result = _swap_in(vma, first)
    if result is ScanResult.SUCCEED:
        result = _revalidate(vma, first)
    if result is not ScanResult.SUCCEED:
        return result
    mm = vma.mm
    ptes = _Ptes.of(vma, first)
    result = _check_ptes(vma, ptes, mm.thp.max_ptes_none, 0, ScanResult.PTE_NON_PRESENT)
    if result is not ScanResult.SUCCEED:
        return result
    if not ptes.nr_referenced:
        return ScanResult.LACK_REFERENCED_PAGE
    # From here on nothing sleeps.
    mm.lruvec.zap(vma.base_slot + first + np.flatnonzero(~ptes.none))
    map_huge_page(vma, first, pfn)
    return ScanResult.SUCCEED


def _revalidate(vma: Vma, first: int) -> ScanResult:
    """Whether the 2 MiB are what they were before this task may have slept (``hugepage_vma_revalidate()``)."""
    if vma.dead or not vma.thp:
        return ScanResult.VMA_NULL
    if first // PAGEBLOCK_NR_PAGES not in vma.page_tables:
        return ScanResult.PMD_NULL
    return ScanResult.PMD_MAPPED if _Ptes.of(vma, first).huge else ScanResult.SUCCEED


def _swap_in(vma: Vma, first: int) -> ScanResult:
    """Bring swapped pages back, up to the first that has to be waited for (``__collapse_huge_page_swapin()``)."""
    mm = vma.mm
    for index in (first + np.flatnonzero(_Ptes.of(vma, first).swapped)).tolist():
        at_once = int(vma.words()[index]) < pg.SLOT_SHADOW and not mm.is_locked(vma, index)
        if vma.dead or not do_swap_page(vma, index):
            return ScanResult.FAIL
        if not at_once:
            return ScanResult.PAGE_LOCK
    return ScanResult.SUCCEED
