"""Who wakes kswapd, and for what (``wakeup_kswapd()``, ``kswapd()``, mm/vmscan.c of 6.1).

All that asks for kswapd comes here: the slow path and boosted watermarks with `KswapdRequests.wakeup_kswapd`, direct
reclaim that finds the reserves low with `KswapdRequests.wake_for_reserves`; and kswapd itself, which takes what was asked
and, woken from its nap, puts it back. What is asked lies in the node, as in the kernel; what a waker's wish becomes, and
what policies remember of wakers, are decision hooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw.gfp import DIRECT_RECLAIM
from mmfw.mm.throttle import MAX_RECLAIM_RETRIES
from mmfw.mm.trace import MmVmscanWakeupKswapd, Tracepoints
from mmfw.state import MAX_NR_ZONES, ZoneType
from mmfw.types import KswapdRequest, KswapdWake, WakeReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfw.mm.context import WaitQueueHead
    from mmfw.mm.mmzone import PglistData
    from mmfw.types import MmOps


class KswapdRequests:
    """What one node's kswapd is asked for.

    Parameters
    ----------
    pgdat : PglistData
        The node, whose ``kswapd_order``, ``kswapd_highest_zoneidx`` and ``kswapd_min_free_pages`` hold it.
    wakeup_kcompactd : callable
        Asks kcompactd, ``(order, highest_zoneidx)``, where kswapd could do nothing.
    ops : MmOps
        Decisions: whether and for what kswapd is woken.
    wait : WaitQueueHead
        Where kswapd sleeps.
    trace : Tracepoints
        Where events go.
    """

    def __init__(
        self,
        pgdat: PglistData,
        wakeup_kcompactd: Callable[[int, int], object],
        ops: MmOps,
        wait: WaitQueueHead,
        trace: Tracepoints,
    ) -> None:
        self._pgdat = pgdat
        self._wakeup_kcompactd = wakeup_kcompactd
        self._ops = ops
        self._wait = wait
        self._trace = trace
        self._wakes: dict[tuple[int, int, int, WakeReason], KswapdWake] = {}

    # --- asking -----------------------------------------------------------------------------------------

    @property
    def kswapd_is_awake(self) -> bool:
        """Whether kswapd is at work, or about to be."""
        return not self._wait.waitqueue_active()

    def wakeup_kswapd(self, gfp_mask: int, order: int, highest_zoneidx: int, reason: WakeReason) -> bool:
        """Ask kswapd for an order (``wakeup_kswapd()``); what that becomes is a decision hook.

        Returns
        -------
        bool
            Whether it slept and has been woken.
        """
        pgdat = self._pgdat
        asked = order, gfp_mask, highest_zoneidx, reason
        wake = self._wakes.get(asked)
        if wake is None:
            wake = self._wakes[asked] = KswapdWake(*asked)
        plan = self._ops.plan_wakeup(pgdat, wake)
        if plan.kcompactd_order is not None:
            self._wakeup_kcompactd(plan.kcompactd_order, highest_zoneidx)
        if plan.kswapd_order is None:
            return False
        order = plan.kswapd_order
        current = pgdat.kswapd_highest_zoneidx
        if current == MAX_NR_ZONES or current < highest_zoneidx:
            pgdat.kswapd_highest_zoneidx = highest_zoneidx
        pgdat.kswapd_order = max(pgdat.kswapd_order, order)
        beyond = plan.kswapd_min_free_pages
        pgdat.kswapd_min_free_pages = max(pgdat.kswapd_min_free_pages, beyond)
        if self._ops.fold_kswapd_waker is not None:
            self._ops.fold_kswapd_waker(pgdat, wake)
        if not self._wait.waitqueue_active():
            return False
        if pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES or (
            pgdat.pgdat_balanced(order, highest_zoneidx, beyond)
            and not pgdat.pgdat_watermark_boosted(highest_zoneidx)
        ):
            if not gfp_mask & DIRECT_RECLAIM:
                self._wakeup_kcompactd(order, highest_zoneidx)
            return False
        self._trace.fire(MmVmscanWakeupKswapd, pgdat.node_id, highest_zoneidx, order, gfp_mask)
        self._wait.wake_up()
        return True

    def wake_for_reserves(self) -> None:
        """Wake a sleeping kswapd for whatever it was asked, Normal and below (``allow_direct_reclaim()``)."""
        if self._wait.waitqueue_active():
            pgdat = self._pgdat
            pgdat.kswapd_highest_zoneidx = min(pgdat.kswapd_highest_zoneidx, ZoneType.NORMAL)
            self._wait.wake_up()

    # --- kswapd's side ------------------------------------------------------------------------------------

    def peek(self, highest_zoneidx: int) -> KswapdRequest:
        """What is asked for now; `highest_zoneidx` where nobody named one (``kswapd_highest_zoneidx()``)."""
        asked = self._pgdat.kswapd_highest_zoneidx
        return KswapdRequest(self._pgdat.kswapd_order, highest_zoneidx if asked == MAX_NR_ZONES else asked)

    def take(self, highest_zoneidx: int) -> tuple[KswapdRequest, int]:
        """Take what is asked for, and the free pages beyond the high watermark that are asked for; policies are told."""
        pgdat = self._pgdat
        request = self.peek(highest_zoneidx)
        beyond = pgdat.kswapd_min_free_pages
        pgdat.kswapd_order = pgdat.kswapd_min_free_pages = 0
        pgdat.kswapd_highest_zoneidx = MAX_NR_ZONES
        if self._ops.kswapd_begin is not None:
            self._ops.kswapd_begin(pgdat, request)
        return request, beyond

    def put_back(self, request: KswapdRequest, beyond: int) -> None:
        """Add what kswapd had taken to what was asked for since; policies are told (``kswapd_try_to_sleep()``)."""
        pgdat = self._pgdat
        pgdat.kswapd_highest_zoneidx = self.peek(request.highest_zoneidx).highest_zoneidx
        pgdat.kswapd_order = max(pgdat.kswapd_order, request.order)
        pgdat.kswapd_min_free_pages = max(pgdat.kswapd_min_free_pages, beyond)
        if self._ops.kswapd_requeue is not None:
            self._ops.kswapd_requeue(pgdat, request)
