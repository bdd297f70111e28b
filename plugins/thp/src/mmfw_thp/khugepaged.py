"""The thread khugepaged: its pace and its cursor (mm/khugepaged.c of 6.1). What it does to 2 MiB is core's.

Simplified: a mapping's place in the slot table stands for its address; ``mmap_lock`` is never taken, so no address
space is passed over because of it; the thread runs at the usual nice value, not at 19.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mmfw.jit.page import PB_PAGES
from mmfw.mm.khugepaged import ScanResult, collapse_huge_page, khugepaged_gfp_mask, scan_pmd

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.memory import Vma
    from mmfw.sched import Task

NSEC_PER_MSEC: Final = 1_000_000


@dataclass(slots=True)
class KhugepagedStats:
    """What the thread has done.

    Attributes
    ----------
    pages_collapsed : int
        Huge pages made (``khugepaged/pages_collapsed``).
    full_scans : int
        Times that all address spaces were gone through (``khugepaged/full_scans``).
    results : Counter of ScanResult
        What became of each 2 MiB looked at.
    """

    pages_collapsed: int = 0
    full_scans: int = 0
    results: Counter[ScanResult] = field(default_factory=Counter)


class Khugepaged:
    """The thread.

    Parameters
    ----------
    mm : Mm
        The machine.
    pages_to_scan : int
        Pages of address space (and mappings) to pass in one go (``khugepaged/pages_to_scan``).
    scan_sleep_millisecs, alloc_sleep_millisecs : int
        Pause between two goes, and after a huge page was not to be had, ms.
    """

    def __init__(
        self, mm: Mm, *, pages_to_scan: int, scan_sleep_millisecs: int, alloc_sleep_millisecs: int
    ) -> None:
        self._mm = mm
        self._slots = mm.memory.mm_slots
        self._pages_to_scan = pages_to_scan
        self._scan_sleep_ns = scan_sleep_millisecs * NSEC_PER_MSEC
        self._alloc_sleep_ns = alloc_sleep_millisecs * NSEC_PER_MSEC
        self._mm_slot: Task | None = None
        self._address = 0
        self.stats = KhugepagedStats()

    def run(self) -> None:
        """Scan, sleep, and so on for ever (``khugepaged()``)."""
        while True:
            self._do_scan()
            self._wait_work()

    def _wait_work(self) -> None:
        if len(self._slots):
            self._mm.sched.sleep(max(1, self._scan_sleep_ns))
        else:
            self._slots.wait.wait_event(lambda: len(self._slots) > 0)

    def _do_scan(self) -> None:
        """One go (``khugepaged_do_scan()``); after a failed allocation it is taken up again once, a minute later."""
        progress = pass_through_head = 0
        wait = True
        while True:
            self._mm.cond_resched()
            if self._mm_slot is None:
                pass_through_head += 1
            if not len(self._slots) or pass_through_head >= 2:
                return
            passed, result = self._scan_mm_slot(self._pages_to_scan - progress)
            progress += passed
            if progress >= self._pages_to_scan:
                return
            if result is ScanResult.ALLOC_HUGE_PAGE_FAIL:
                if not wait:
                    return
                wait = False
                self._mm.sched.sleep(max(1, self._alloc_sleep_ns))

    def _scan_mm_slot(self, pages: int) -> tuple[int, ScanResult]:
        """Go on in one address space (``khugepaged_scan_mm_slot()``).

        Returns
        -------
        (int, ScanResult)
            How far it got, in pages and mappings; and the last result.
        """
        if self._mm_slot is None:
            self._mm_slot, self._address = self._slots.tasks[0], 0
        task = self._mm_slot
        result = ScanResult.FAIL
        progress = 1
        at_end = True
        for vma in self._mappings(task):
            self._mm.cond_resched()
            end = vma.base_slot + vma.nr_pages // PB_PAGES * PB_PAGES
            if vma.dead or not vma.thp or self._address > end:
                progress += 1
                continue
            self._address = max(self._address, vma.base_slot)
            while self._address < end:
                if vma.dead:
                    break
                tried, result = self._scan(vma, self._address - vma.base_slot)
                self._address += PB_PAGES
                progress += PB_PAGES
                at_end = not tried and progress < pages
                if not at_end:
                    break
            if not at_end:
                break
        if at_end:
            self._next_mm_slot(task)
        return progress, result

    def _scan(self, vma: Vma, first: int) -> tuple[bool, ScanResult]:
        """Look at 2 MiB, and collapse them if they are worth it; whether that was tried, and the result."""
        result = scan_pmd(vma, first)
        tried = result is ScanResult.SUCCEED
        if tried:
            result = collapse_huge_page(vma, first, khugepaged_gfp_mask(self._mm.memory.thp))
        self.stats.results[result] += 1
        self.stats.pages_collapsed += result is ScanResult.SUCCEED
        return tried, result

    def _mappings(self, task: Task) -> list[Vma]:
        """Mappings of an address space that end behind the cursor, by address."""
        mine = [
            vma
            for vma in self._mm.memory.vmas
            if vma.task is task and vma.base_slot + vma.nr_pages > self._address
        ]
        return sorted(mine, key=lambda vma: vma.base_slot)

    def _next_mm_slot(self, task: Task) -> None:
        """Go to the next address space; this one is dropped if its task is gone (``collect_mm_slot()``)."""
        tasks = self._slots.tasks
        after = tasks.index(task) + 1 if task in tasks else len(tasks)
        if after < len(tasks):
            self._mm_slot, self._address = tasks[after], 0
        else:
            self._mm_slot = None
            self.stats.full_scans += 1
        self._slots.collect_mm_slot(task)
