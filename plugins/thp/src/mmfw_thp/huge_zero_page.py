"""The huge zero page, which reads of untouched huge pages map, and its shrinker "thp-zero" (mm/huge_memory.c of 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw import DEFAULT_SEEKS, gfp, hookimpl
from mmfw.jit.page import PB_ORDER, PB_PAGES
from mmfw.mm.vmstat import VmEvent

if TYPE_CHECKING:
    from mmfw import CompactionScan, Mm, ShrinkControl

SUBSYSTEM: Final = "thp_zero"
#: Not movable, and as insistent as a madvised fault, whatever ``defrag`` says.
ZERO_PAGE_GFP: Final = (gfp.GFP_TRANSHUGE | gfp.ZERO) & ~gfp.MOVABLE


class HugeZeroPage:
    """One block of 2 MiB that all address spaces share; it stays after its last user until the shrinker takes it.

    Parameters
    ----------
    mm : Mm
        The machine.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._pfn = -1
        self._freed_at: int | None = None
        #: References, the shrinker's included: 0 if there is no page, 1 if nobody uses it (``huge_zero_refcount``).
        self.refcount = 0

    def get(self) -> bool:
        """Take a reference for an address space, making the page if there is none (``get_huge_zero_page()``).

        Returns
        -------
        bool
            False if there is no memory for it: the reader falls back to small zero pages.
        """
        mm = self._mm
        if not self.refcount:
            pfn = mm.alloc_pages(ZERO_PAGE_GFP, PB_ORDER)
            if pfn < 0:
                mm.vmstat.count(VmEvent.thp_zero_page_alloc_failed)
                return False
            if self.refcount:
                # Somebody was faster while this task waited for memory.
                mm.free_pages(pfn, PB_ORDER)
            else:
                self._pfn, self.refcount = pfn, 1
                mm.vmstat.count(VmEvent.thp_zero_page_alloc)
                if self._freed_at is not None:
                    age = mm.sched.now - self._freed_at
                    mm.ledger.recreated(SUBSYSTEM, nr_objects=1, nr_pages=PB_PAGES, age_ns=age)
                mm.charge(PB_PAGES * mm.costs.zero_page, "page fault")
        self.refcount += 1
        return True

    def put(self) -> None:
        """Drop a reference, as an address space ends (``put_huge_zero_page()``)."""
        self.refcount -= 1

    @property
    def nr_pages(self) -> int:
        """Pages held: 512 or none."""
        return PB_PAGES if self.refcount else 0

    def lies_in(self, pfn_lo: int, pfn_hi: int) -> bool:
        """Whether it lies in a range, end excluded."""
        return self.refcount > 0 and pfn_lo <= self._pfn < pfn_hi

    def shrink(self) -> int:
        """Free it if nobody uses it; pages freed (``shrink_huge_zero_page_scan()``)."""
        if self.refcount != 1:
            return 0
        pfn, self.refcount, self._freed_at = self._pfn, 0, self._mm.sched.now
        self._mm.free_pages(pfn, PB_ORDER)
        where = np.arange(pfn, pfn + PB_PAGES, dtype=np.int64)
        self._mm.ledger.evicted(SUBSYSTEM, nr_objects=1, nr_pages=PB_PAGES, pfns=where)
        return PB_PAGES

    def release(self) -> None:
        """Free it as the machine is taken down, its users gone."""
        if self.refcount:
            self._mm.free_pages(self._pfn, PB_ORDER)
            self.refcount = 0


class HugeZeroPageShrinker:
    """Counts 512 while nobody uses the page, and frees it whole, however little was asked for.

    Parameters
    ----------
    page : HugeZeroPage
        The page.
    """

    seeks: Final = DEFAULT_SEEKS
    batch: Final = 0

    def __init__(self, page: HugeZeroPage) -> None:
        self._page = page

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """512 if only the shrinker's reference is left, else 0 (``shrink_huge_zero_page_count()``)."""
        return PB_PAGES if self._page.refcount == 1 else 0

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Free it; 512, or 0 if somebody took it meanwhile."""
        return self._page.shrink()

    @hookimpl
    def compaction_scan(self, cs: CompactionScan) -> int:
        """Free it if it is unused, no smaller than what is wanted, and in the range; pages freed (not mainline)."""
        cs.nr_scanned += 1
        if cs.order > PB_ORDER or not self._page.lies_in(cs.pfn_lo, cs.pfn_hi):
            return 0
        return self._page.shrink()
