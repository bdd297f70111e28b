"""The worker that moves idle objects of Xe out of small blocks, when there are large ones. Loaded only with Xe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw import gfp
from mmfw.costs import TICK_NSEC
from mmfw.sched import schedule_timeout_jiffies
from mmfw_policy_reclaim_backoff.blocks import nr_free_blocks
from mmfw_policy_reclaim_backoff.budget import Budget
from mmfw_ttm_pool import defragment_gfp_mask, nr_fragmented_pages
from mmfw_xe_shrinker import defragment_bo, fragmented_bos

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_ttm_pool import TtmTt
    from mmfw_xe_shrinker import XeBo, XeDevice


class Defragmenter:
    """A kernel thread that wakes at intervals, moves objects, most fragmented first, and sleeps again.

    It asks for nothing that is not there: the pool's blocks, and what zones can give above their low watermarks. It waits
    for no reservation and for no job.

    Parameters
    ----------
    device : XeDevice
        Whose objects.
    order : int
        Order of the blocks that it moves them to.
    pages_per_second : int
        How much it may copy.
    interval_ns : int
        Sleep between two passes, at least, as the timer wheel keeps time.

    Attributes
    ----------
    started : int
        When it was made, ns.
    nr_moved_pages : int
        Pages that it copied.
    """

    def __init__(self, device: XeDevice, *, order: int, pages_per_second: int, interval_ns: int) -> None:
        self._device = device
        self._mm: Mm = device.mm
        self._order = order
        self._interval_ns = -(-interval_ns // TICK_NSEC) * TICK_NSEC
        self.started = self._mm.sched.now
        # The timer wheel is late, so that more than one interval's pages are due at a pass.
        self._budget = Budget(pages_per_second, 2 * self._interval_ns, self.started)
        self.nr_moved_pages = 0

    def run(self) -> None:
        """Sleep, make a pass, and so on for ever."""
        while True:
            schedule_timeout_jiffies(self._mm.sched, self._interval_ns)
            self.do_pass()

    def do_pass(self) -> None:
        """Move objects until the budget, the blocks or the objects end."""
        self._budget.refill(self._mm.sched.now)
        if not self._may_go_on():
            return
        for bo in fragmented_bos(self._device, self._order):
            if not self._may_go_on():
                return
            self._move(bo)
            self._mm.cond_resched()

    def _may_go_on(self) -> bool:
        """Whether there are pages to spend, and a block for any object at all."""
        if not self._budget:
            return False
        pooled = any(pt.nr_blocks for pt in self._device.pool.types if pt.order == self._order)
        return pooled or nr_free_blocks(self._mm, self._order, gfp.GFP_HIGHUSER) > 0

    def _nr_blocks_for(self, tt: TtmTt) -> int:
        """Blocks that an object could be given at once."""
        pool = self._device.pool
        pt = pool.select_type(tt.caching, tt.dma32, self._order)
        pooled = 0 if pt is None else pt.nr_blocks
        return pooled + nr_free_blocks(self._mm, self._order, defragment_gfp_mask(pool, tt, self._order))

    def _move(self, bo: XeBo) -> None:
        """Move one object, unless somebody has its reservation or it wants more blocks than there are."""
        if not bo.vm.resv.trylock():
            return
        try:
            if nr_fragmented_pages(bo.tt, self._order) >> self._order > self._nr_blocks_for(bo.tt):
                return
            nr_pages = defragment_bo(self._device, bo, self._order)
        finally:
            bo.vm.resv.unlock()
        self._budget.spend(nr_pages)
        self.nr_moved_pages += nr_pages
