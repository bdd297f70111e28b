"""Reclaim of one node: who wakes kswapd, what one pass does, and direct reclaim (mm/vmscan.c of 6.1).

kswapd's loop over priorities is `mmfw.mm.balance`, the scan of the LRU lists `mmfw.mm.lru_scan`. One node and no
memory cgroups: ``shrink_node_memcgs()`` visits the root only, and there is no soft limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mmfw import gfp
from mmfw.costs import NSEC_PER_SEC
from mmfw.gfp import gfp_zone
from mmfw.jit import page as pg
from mmfw.kernels import KERNEL_6_1, KernelProfile
from mmfw.mm.mmzone import PglistData, Zone, high_wmark_pages, min_wmark_pages
from mmfw.mm.throttle import MAX_RECLAIM_RETRIES, VmscanThrottle, reclaim_throttle
from mmfw.mm.trace import (
    MmVmscanDirectReclaimBegin,
    MmVmscanDirectReclaimEnd,
    Tracepoints,
)
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.sched import MAX_SCHEDULE_TIMEOUT, PF_KTHREAD
from mmfw.state import ZoneType
from mmfw.types import (
    DEF_PRIORITY,
    SWAP_CLUSTER_MAX,
    CompactResult,
    MmOps,
    ReclaimContext,
    Reclaimer,
    ScanControl,
    ScanCounts,
    ShrinkControl,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfw.mm.context import ExecContext
    from mmfw.mm.lru_scan import LruScan
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.shrinker import ShrinkerList
    from mmfw.mm.vmpressure import VmPressure
    from mmfw.mm.wakeup import KswapdRequests
    from mmfw.sched import WaitQueue

PAGE_ALLOC_COSTLY_ORDER: Final = 3


def compact_gap(order: int) -> int:
    """Free pages that compaction wants as slack (include/linux/compaction.h)."""
    return 2 << order


class CompactionView(Protocol):
    """Compaction, as reclaim and kswapd see it."""

    def compaction_suitable(
        self, zone: Zone, order: int, alloc_flags: int, highest_zoneidx: int
    ) -> CompactResult:
        """Whether a zone should be compacted."""
        ...

    def wakeup_kcompactd(self, order: int, highest_zoneidx: int) -> None:
        """Ask kcompactd for an order."""
        ...

    def reset_isolation_suitable(self) -> None:
        """Recompute skip bits where that was asked for."""
        ...


class Vmscan:
    """Reclaim on one node.

    Parameters
    ----------
    pgdat : PglistData
        The node.
    shrinkers : ShrinkerList
        Registered shrinkers.
    lruvec, lru_scan : optional
        The LRU lists and the scan of them; None on a machine whose trace shows no pages on them.
    compaction : CompactionView or None
        Asked whether a zone is better compacted; None on a machine where nothing compacts.
    ops : MmOps
        Decisions: whether shrinkers are called, and what counts as kswapd's failure.
    kswapd : KswapdRequests
        Wakes kswapd for the reserves.
    pfmemalloc_wait : WaitQueue or None
        Where direct reclaim waits while reserves are low; None where nobody can wait.
    context : ExecContext
        The running task and the clock.
    trace, vmstat
        Where events and counts go.
    kernel : KernelProfile
        Whose rules.
    vmpressure : VmPressure or None
        Told what was scanned; None on a kernel without memory cgroups.
    direct_ns : int
        What direct reclaim's first look at the node costs beyond the scans, virtual ns.
    """

    def __init__(
        self,
        pgdat: PglistData,
        shrinkers: ShrinkerList,
        lruvec: Lruvec | None,
        lru_scan: LruScan | None,
        compaction: CompactionView | None,
        ops: MmOps,
        kswapd: KswapdRequests,
        pfmemalloc_wait: WaitQueue | None,
        context: ExecContext,
        trace: Tracepoints,
        vmstat: VmStat,
        kernel: KernelProfile = KERNEL_6_1,
        vmpressure: VmPressure | None = None,
        direct_ns: int = 0,
    ) -> None:
        self.pgdat = pgdat
        self._direct_ns = direct_ns
        self._vmpressure = vmpressure
        self._progress_revives_kswapd = kernel.progress_revives_kswapd
        self.lru_scan = lru_scan
        self.compaction = compaction
        self._shrinkers = shrinkers
        self._lruvec = lruvec
        self._ops = ops
        self._kswapd = kswapd
        self._context = context
        self._trace = trace
        self._vmstat = vmstat
        self._reclaimed_slab: dict[object, int] = {}
        self._pfmemalloc_wait = pfmemalloc_wait

    def counts_as_failure(self, sc: ScanControl) -> bool:
        """Whether a pass that reclaimed nothing brings kswapd nearer to giving up."""
        count = self._ops.should_count_kswapd_failure
        return count is None or count(self.pgdat, sc)

    # --- one pass -------------------------------------------------------------------------------------

    def zone_reclaimable_pages(self, zone: Zone) -> int:
        """Pages of a zone that reclaim could take; its free pages if there are none (``zone_reclaimable_pages()``)."""
        sizes = zone.lru_sizes
        nr = sizes[pg.LRU_INACTIVE_FILE] + sizes[pg.LRU_ACTIVE_FILE]
        if self.lru_scan is not None and self.lru_scan.can_reclaim_anon_pages():
            nr += sizes[pg.LRU_INACTIVE_ANON] + sizes[pg.LRU_ACTIVE_ANON]
        return nr or zone.free_pages_snapshot()

    def account_reclaimed_slab(self, nr_pages: int) -> None:
        """Credit pages that a slab or buffer cache gave back to the running task's reclaim (``reclaim_state``)."""
        task = self._context.current
        if task in self._reclaimed_slab:
            self._reclaimed_slab[task] += nr_pages

    def _take_reclaimed_slab(self) -> int:
        task = self._context.current
        nr_pages, self._reclaimed_slab[task] = self._reclaimed_slab.get(task, 0), 0
        return nr_pages

    def try_to_freeze(self) -> None:
        """Nothing is ever suspended here, but it is where kswapd lets others run (``try_to_freeze()``)."""
        self._context.might_sleep()

    def begin_reclaim(self) -> None:
        """Give the running task a ``reclaim_state`` (``set_task_reclaim_state()``)."""
        self._reclaimed_slab[self._context.current] = 0

    def end_reclaim(self) -> None:
        """Take the running task's ``reclaim_state`` away."""
        self._reclaimed_slab.pop(self._context.current, None)

    def shrink_node(self, sc: ScanControl, caller: Reclaimer) -> None:
        """Scan the LRU lists, then call the shrinkers if the hook says so (``shrink_node()``)."""
        pgdat, reclaimable = self.pgdat, False
        kswapd = caller is Reclaimer.KSWAPD
        while True:
            sc.nr = ScanCounts()
            before, scanned_before = sc.nr_reclaimed, sc.nr_scanned
            if self.lru_scan is not None:
                self.lru_scan.prepare_scan_count(sc)
                self.lru_scan.shrink_lruvec(sc, caller)
            reclaim_context = ReclaimContext(pgdat, sc, caller)
            if self._ops.should_shrink_slab(reclaim_context):
                amend = self._amendment(reclaim_context)
                self._shrinkers.shrink_slab(sc.gfp_mask, pgdat.node_id, sc.priority, amend)
            sc.nr_reclaimed += self._take_reclaimed_slab()
            if self._vmpressure is not None:
                self._vmpressure.vmpressure(sc.gfp_mask, sc.nr_scanned - scanned_before)
            progress = sc.nr_reclaimed - before
            reclaimable |= progress > 0
            nr = sc.nr
            if kswapd:
                pgdat.under_writeback |= nr.writeback > 0 and nr.writeback == nr.taken
                pgdat.many_dirty |= nr.unqueued_dirty == nr.file_taken
                if nr.immediate:
                    self._throttle(VmscanThrottle.WRITEBACK)
                pgdat.congested |= nr.dirty > 0 and nr.dirty == nr.congested
            elif pgdat.congested:
                self._throttle(VmscanThrottle.CONGESTED)
            if not self._should_continue_reclaim(progress, sc):
                break
        if reclaimable and (self._progress_revives_kswapd or pgdat.pgdat_balanced(sc.order, sc.reclaim_idx)):
            pgdat.kswapd_failures = 0

    def _amendment(self, reclaim_context: ReclaimContext) -> Callable[[ShrinkControl], object] | None:
        init = self._ops.init_shrink_control
        return None if init is None else lambda shrinkctl: init(shrinkctl, reclaim_context)

    def _throttle(self, reason: VmscanThrottle) -> None:
        flags = self._context.task_flags
        reclaim_throttle(
            self.pgdat,
            reason,
            self._context,
            self._trace,
            may_sleep=not flags & PF_KTHREAD or self._context.is_kswapd,
            skip_congested=self._skip_throttle_noprogress,
        )

    def _skip_throttle_noprogress(self) -> bool:
        """``skip_throttle_noprogress()``: the node is hopeless, or little is being written."""
        if self.pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES or self._lruvec is None:
            return True
        reclaimable = sum(self.zone_reclaimable_pages(zone) for zone in self.pgdat.managed_zones(4))
        pending = self._lruvec.node_stat(pg.NS_FILE_DIRTY) + self._lruvec.node_stat(pg.NS_WRITEBACK)
        return 2 * pending <= reclaimable

    def _should_continue_reclaim(self, progress: int, sc: ScanControl) -> bool:
        """Whether reclaim for compaction's sake goes on (``should_continue_reclaim()``)."""
        if not sc.gfp_mask & gfp.IO or not sc.order or self.compaction is None or self._lruvec is None:
            return False
        if sc.order <= PAGE_ALLOC_COSTLY_ORDER and sc.priority >= DEF_PRIORITY - 2:
            return False
        if progress == 0:
            return False
        for zone in self.pgdat.managed_zones(sc.reclaim_idx):
            suitable = self.compaction.compaction_suitable(zone, sc.order, 0, sc.reclaim_idx)
            if suitable in (CompactResult.SUCCESS, CompactResult.CONTINUE):
                return False
        inactive = self._lruvec.size(pg.LRU_INACTIVE_FILE)
        if self.lru_scan is not None and self.lru_scan.can_reclaim_anon_pages():
            inactive += self._lruvec.size(pg.LRU_INACTIVE_ANON)
        return inactive > compact_gap(sc.order)

    # --- direct reclaim -----------------------------------------------------------------------------

    def try_to_free_pages(self, order: int, gfp_mask: int) -> int:
        """Reclaim 32 pages for a request, walking all priorities (``try_to_free_pages()``).

        Returns
        -------
        int
            Pages reclaimed from the LRU lists and slabs, or 1 if compaction should go ahead. What other
            shrinkers freed does not count, as in the kernel.
        """
        sc = ScanControl(
            nr_to_reclaim=SWAP_CLUSTER_MAX,
            order=order,
            priority=DEF_PRIORITY,
            reclaim_idx=gfp_zone(gfp_mask),
            gfp_mask=gfp_mask,
            may_writepage=True,
            may_unmap=True,
            may_swap=True,
        )
        if self._throttle_direct_reclaim(gfp_mask):
            return 1
        self._trace.fire(MmVmscanDirectReclaimBegin, order, gfp_mask)
        with self._context.memalloc_noreclaim():
            self.begin_reclaim()
            nr_reclaimed = self._do_try_to_free_pages(sc)
            self.end_reclaim()
        self._trace.fire(MmVmscanDirectReclaimEnd, nr_reclaimed)
        return nr_reclaimed

    def _do_try_to_free_pages(self, sc: ScanControl) -> int:
        """``do_try_to_free_pages()``."""
        while True:
            self._vmstat.count(VmEvent(VmEvent.allocstall_dma + sc.reclaim_idx))
            sc.priority = DEF_PRIORITY
            while sc.priority >= 0:
                sc.nr_scanned = 0
                self._shrink_zones(sc)
                if sc.nr_reclaimed >= sc.nr_to_reclaim or sc.compaction_ready:
                    break
                sc.priority -= 1
            if self.lru_scan is not None:
                self.lru_scan.snapshot_refaults()
            if sc.nr_reclaimed:
                return sc.nr_reclaimed
            if sc.compaction_ready:
                return 1
            if not sc.skipped_deactivate:
                return 0
            sc.force_deactivate = True
            sc.skipped_deactivate = False

    def _shrink_zones(self, sc: ScanControl) -> None:
        """``shrink_zones()``: the node once, unless every zone is ready for compaction."""
        zones = [zone for zone in self.pgdat.node_zones[sc.reclaim_idx :: -1] if zone.managed_pages]
        shrunk = False
        for zone in zones:
            if sc.order > PAGE_ALLOC_COSTLY_ORDER and self._compaction_ready(zone, sc):
                sc.compaction_ready = True
                continue
            if not shrunk:
                if self._direct_ns and sc.priority == DEF_PRIORITY:
                    self._context.charge(self._direct_ns, "direct_reclaim")
                self.shrink_node(sc, Reclaimer.DIRECT)
                shrunk = True
        if shrunk and sc.nr_reclaimed <= sc.nr_scanned >> 3 and sc.priority == 1 and not sc.nr_reclaimed:
            self._throttle(VmscanThrottle.NOPROGRESS)

    def _compaction_ready(self, zone: Zone, sc: ScanControl) -> bool:
        """Whether to leave a zone to compaction (``compaction_ready()``)."""
        if not sc.gfp_mask & gfp.IO or self.compaction is None:
            return False
        suitable = self.compaction.compaction_suitable(zone, sc.order, 0, sc.reclaim_idx)
        if suitable != CompactResult.CONTINUE:
            return suitable == CompactResult.SUCCESS
        mark = high_wmark_pages(zone) + compact_gap(sc.order)
        return zone.zone_watermark_ok_safe(0, mark, sc.reclaim_idx)

    def allow_direct_reclaim(self) -> bool:
        """Whether half of the reserves are still free (``allow_direct_reclaim()``)."""
        if self.pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES:
            return True
        reserve = free = 0
        for zone in self.pgdat.managed_zones(ZoneType.NORMAL):
            if self.zone_reclaimable_pages(zone):
                reserve += min_wmark_pages(zone)
                free += zone.nr_free_pages
        if not reserve or free > reserve // 2:
            return True
        self._kswapd.wake_for_reserves()
        return False

    def wake_throttled(self) -> None:
        """Wake the tasks that wait for kswapd; those that find too little free sleep again."""
        if self._pfmemalloc_wait is not None:
            self._pfmemalloc_wait.wake_up_all()

    def wake_allowed(self) -> None:
        """Wake them if they may reclaim now, as kswapd does when it has reclaimed (``balance_pgdat()``)."""
        wait = self._pfmemalloc_wait
        if wait is not None and wait.waitqueue_active() and self.allow_direct_reclaim():
            wait.wake_up_all()

    def _throttle_direct_reclaim(self, gfp_mask: int) -> bool:
        """Wait until kswapd has refilled the reserves; True if the task was killed meanwhile.

        ``throttle_direct_reclaim()``. A signal does not end the wait here; kswapd does, at the latest when it goes to
        sleep.
        """
        if self._context.task_flags & PF_KTHREAD or self._context.fatal_signal_pending:
            return False
        if self._pfmemalloc_wait is None or self.allow_direct_reclaim():
            return False
        self._vmstat.count(VmEvent.pgscan_direct_throttle)
        limit = MAX_SCHEDULE_TIMEOUT if gfp_mask & gfp.FS else NSEC_PER_SEC
        self._pfmemalloc_wait.wait_event_timeout(
            lambda: self._context.fatal_signal_pending or self.allow_direct_reclaim(), limit
        )
        return self._context.fatal_signal_pending
