"""The queue as the shrinker sees it: which huge pages it may split, and what a split costs and frees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.jit.page import PB_ORDER, PB_PAGES
from mmfw.mm.huge_memory import aligned_run_order
from mmfw_deferred_split.zeroes import zero_filled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw import Mm
    from mmfw_deferred_split.kernels import DeferredSplitKernel

SUBSYSTEM: Final = "deferred_split"


@dataclass(slots=True)
class SplitStats:
    """What came of splitting.

    Attributes
    ----------
    splits, failures : int
        Huge pages split by the shrinker, and those that it could not split.
    underused_splits : int
        Of the former, those of which nothing was unmapped (``thp_underused_split_page`` of 6.12).
    pages_freed, pages_left : int
        Pages that splits freed, and pages that they left behind as single ones.
    free_run_orders : list of int
        By order 0 to 9: splits whose largest aligned free run was of that order.
    """

    splits: int = 0
    failures: int = 0
    underused_splits: int = 0
    pages_freed: int = 0
    pages_left: int = 0
    free_run_orders: list[int] = field(default_factory=lambda: [0] * (PB_ORDER + 1))


class SplitQueue:
    """Huge pages waiting to be split, with the rules of one kernel.

    Parameters
    ----------
    mm : Mm
        The machine.
    rules : DeferredSplitKernel
        Of its kernel.
    """

    def __init__(self, mm: Mm, rules: DeferredSplitKernel) -> None:
        self._mm = mm
        self._queue = mm.memory.deferred_split
        self._zeroes = zero_filled(mm)
        self.rules = rules
        self.stats = SplitStats()

    @property
    def heads(self) -> tuple[int, ...]:
        """Their first pfns, first queued first."""
        return self._queue.split_queue

    def _zero_pages(self, pfn: int) -> NDArray[np.bool_]:
        """Which of its mapped pages hold zeroes only; none on kernels that do not look."""
        if not self.rules.splits_underused:
            return np.zeros(PB_PAGES, dtype=np.bool_)
        vma, first = self._queue.mapping_of(pfn)
        return self._zeroes.pages(vma, first, PB_PAGES) & self._queue.mapped_pages(pfn)

    def underused(self, pfn: int) -> bool:
        """Whether more pages are zero-filled than khugepaged would fill in anyway (``thp_underused()``).

        With khugepaged's default, 511, no huge page is.
        """
        most = self._mm.memory.thp.max_ptes_none
        return most < PB_PAGES - 1 and int(self._zero_pages(pfn).sum()) > most

    def eligible(self, pfn: int, order: int, *, underused_too: bool) -> bool:
        """Whether splitting could give a block of an order: the rule proposed for passes that seek contiguity.

        Parameters
        ----------
        pfn : int
            Head of a queued huge page.
        order : int
            Order wanted, above 0. Of huge pages that are no larger nothing can be had.
        underused_too : bool
            Whether huge pages without an unmapped page count by their zero-filled ones.
        """
        if order >= PB_ORDER:
            return False
        if self._queue.partially_mapped(pfn):
            return self._queue.unmapped_order(pfn) >= order
        return underused_too and self.underused(pfn) and aligned_run_order(self._zero_pages(pfn)) >= order

    def split(self, pfn: int) -> int:
        """Split one (``split_folio()`` and what ``deferred_split_scan()`` does around it).

        Returns
        -------
        int
            Pages freed; -1 if it was not split. A huge page that turns out to be in use, or is underused and cannot be
            split now, leaves the queue; one that is partially mapped becomes its last.
        """
        queue, stats = self._queue, self.stats
        partially_mapped = queue.partially_mapped(pfn)
        if not partially_mapped and not self.underused(pfn):
            queue.forget(pfn)
            return -1
        vma, first = queue.mapping_of(pfn)
        zero = self._zero_pages(pfn)
        free_run = aligned_run_order(~queue.mapped_pages(pfn) | zero)
        freed = queue.split_huge_page(pfn)
        if freed < 0:
            stats.failures += 1
            if not partially_mapped:
                queue.forget(pfn)
            return -1
        if zero.any():
            # The zero page takes their place, which for a mapping is as good as none; the kernel frees them in one loop
            # with the unmapped ones, here they go after those.
            zapped, _ = self._mm.lruvec.zap(vma.base_slot + first + np.flatnonzero(zero))
            freed += zapped
        stats.splits += 1
        stats.underused_splits += not partially_mapped
        stats.pages_freed += freed
        stats.pages_left += PB_PAGES - freed
        stats.free_run_orders[max(free_run, 0)] += 1
        self._mm.ledger.evicted(
            SUBSYSTEM, nr_objects=1, nr_pages=freed, pfns=np.arange(pfn, pfn + PB_PAGES, dtype=np.int64)
        )
        return freed

    def charge(self, nr_splits: int, nr_freed: int) -> None:
        """Let the time of splits pass.

        An estimate: each page is unmapped, mapped again and put on the LRU, taken to cost as much as isolating it.
        """
        costs = self._mm.costs
        self._mm.charge(
            nr_splits * PB_PAGES * costs.lru_isolate_page + nr_freed * costs.free_pcp, "split_huge_page"
        )
