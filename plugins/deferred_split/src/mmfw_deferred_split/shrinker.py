"""The shrinker "thp-deferred_split" (``deferred_split_count()``, ``deferred_split_scan()``, mm/huge_memory.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw import DEFAULT_SEEKS, SHRINK_EMPTY, SHRINK_STOP, attachment, hookimpl

if TYPE_CHECKING:
    from mmfw import CompactionScan, ShrinkControl
    from mmfw_deferred_split.queue import SplitQueue


@dataclass(frozen=True, slots=True)
class WantedOrder:
    """Field that the proposal adds to ``struct shrink_control``: order reclaim works for, 0 once kswapd dropped it."""

    order: int


class DeferredSplitShrinker:
    """Counts and splits huge pages of the queue; an object is a huge page, and what it frees is none of reclaim's credit.

    Parameters
    ----------
    queue : SplitQueue
        The queue.
    order_aware : bool
        In a pass for an order above 0, leave alone what could not give a block of that order (proposed, not mainline).
    """

    seeks: Final = DEFAULT_SEEKS
    batch: Final = 0

    def __init__(self, queue: SplitQueue, *, order_aware: bool) -> None:
        self._queue = queue
        self._order_aware = order_aware

    def _candidates(self, sc: ShrinkControl) -> tuple[int, ...]:
        queue = self._queue
        wanted = attachment(sc, WantedOrder)
        order = 0 if wanted is None else wanted.order
        heads = queue.heads
        if not self._order_aware or order == 0:
            return heads
        return tuple(pfn for pfn in heads if queue.eligible(pfn, order, underused_too=True))

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Huge pages queued; with `order_aware`, those that could help the pass (``deferred_split_count()``)."""
        nr = len(self._candidates(sc))
        if nr == 0 and self._queue.rules.empty_says_so and not self._queue.heads:
            return SHRINK_EMPTY
        return nr

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Split the first of the queue (``deferred_split_scan()``); how many were split.

        ``nr_scanned`` stays what was asked for. SHRINK_STOP only if nothing was split and nothing is left to try.
        """
        queue = self._queue
        # Nobody else runs until all are split, as the kernel holds a reference to each; time passes afterwards.
        freed = [queue.split(pfn) for pfn in self._candidates(sc)[: sc.nr_to_scan]]
        done = [nr for nr in freed if nr >= 0]
        queue.charge(len(done), sum(done))
        if not done and not self._candidates(sc):
            return SHRINK_STOP
        return len(done)

    @hookimpl
    def compaction_scan(self, cs: CompactionScan) -> int:
        """Split what could give a block of the order wanted, in the range wanted; pages freed (proposed, not mainline).

        Underused huge pages are split only where memory must be found. Locks are only tried, in any mode.
        """
        queue = self._queue
        freed = nr_splits = 0
        for pfn in queue.heads:
            if not cs.pfn_lo <= pfn < cs.pfn_hi:
                continue
            cs.nr_scanned += 1
            if not queue.eligible(pfn, cs.order, underused_too=not cs.opportunistic):
                continue
            pages = queue.split(pfn)
            if pages >= 0:
                freed, nr_splits = freed + pages, nr_splits + 1
            if freed >= cs.nr_to_free:
                break
        queue.charge(nr_splits, freed)
        return freed
