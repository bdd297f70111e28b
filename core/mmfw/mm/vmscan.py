"""Reclaim: kswapd's wake-up and priority loop, and direct reclaim (mm/vmscan.c of 6.1).

What this version reclaims is what the shrinkers give up and a thin page cache
(`mmfw.mm.filemap`). Not here yet: the four LRU lists, swap-out of anonymous memory, throttling,
memory cgroups, and compaction, so kcompactd is asked and does nothing. The cost: a pass makes
progress on fewer kinds of pages than a real one, and no pass is ended by compaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mmfw import gfp
from mmfw.gfp import GFP_KERNEL, gfp_zone
from mmfw.jit import page as pg
from mmfw.jit.alloc import zone_watermark_ok_free
from mmfw.mm.mmzone import PglistData, Zone, high_wmark_pages
from mmfw.mm.trace import (
    MmVmscanDirectReclaimBegin,
    MmVmscanDirectReclaimEnd,
    MmVmscanKswapdSleep,
    MmVmscanKswapdWake,
    MmVmscanWakeupKswapd,
    Tracepoints,
)
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.state import MAX_NR_ZONES, PAGEBLOCK_ORDER
from mmfw.types import (
    DEF_PRIORITY,
    SWAP_CLUSTER_MAX,
    KswapdWake,
    MmOps,
    ReclaimContext,
    Reclaimer,
    ScanControl,
    WakeReason,
)

if TYPE_CHECKING:
    from mmfw.mm.context import ExecContext, WaitQueueHead
    from mmfw.mm.shrinker import ShrinkerList

MAX_RECLAIM_RETRIES: Final = 16
PAGE_ALLOC_COSTLY_ORDER: Final = 3


def compact_gap(order: int) -> int:
    """Free pages that compaction wants as slack (include/linux/compaction.h)."""
    return 2 << order


class Lruvec(Protocol):
    """Pages that reclaim may take besides what shrinkers hold."""

    def shrink_lruvec(self, sc: ScanControl) -> tuple[int, int]:
        """Scan ``size >> priority`` pages; return (scanned, reclaimed), in pages."""
        ...


class Vmscan:
    """Reclaim on one node.

    Parameters
    ----------
    pgdat : PglistData
        The node.
    shrinkers : ShrinkerList
        Registered shrinkers.
    lruvec : Lruvec or None
        Reclaimable pages outside shrinkers; None if there are none.
    ops : MmOps
        Decisions: whether and for what kswapd is woken, whether shrinkers are called.
    kswapd_wait : WaitQueueHead
        Where kswapd sleeps.
    context : ExecContext
        The running task and the clock.
    trace, vmstat
        Where events and counts go.
    """

    def __init__(
        self,
        pgdat: PglistData,
        shrinkers: ShrinkerList,
        lruvec: Lruvec | None,
        ops: MmOps,
        kswapd_wait: WaitQueueHead,
        context: ExecContext,
        trace: Tracepoints,
        vmstat: VmStat,
    ) -> None:
        self.pgdat = pgdat
        self._shrinkers = shrinkers
        self._lruvec = lruvec
        self._ops = ops
        self._kswapd_wait = kswapd_wait
        self._context = context
        self._trace = trace
        self._vmstat = vmstat

    # --- waking kswapd ------------------------------------------------------------------------------

    def zone_watermark_ok_safe(self, zone: Zone, order: int, mark: int, highest_zoneidx: int) -> bool:
        """Whether a zone can serve an order with this much left (``zone_watermark_ok_safe()``)."""
        memory = self.pgdat.memory
        free = zone.drift_free_pages()
        return zone_watermark_ok_free(
            memory.page, memory.S, zone.index, order, mark, highest_zoneidx, 0, free
        )

    def pgdat_balanced(self, order: int, highest_zoneidx: int) -> bool:
        """Whether some zone up to an index has an order at its high watermark (``pgdat_balanced()``)."""
        any_managed = False
        for zone in self.pgdat.managed_zones(highest_zoneidx):
            any_managed = True
            if self.zone_watermark_ok_safe(zone, order, high_wmark_pages(zone), highest_zoneidx):
                return True
        return not any_managed

    def pgdat_watermark_boosted(self, highest_zoneidx: int) -> bool:
        """Whether a zone up to an index has a boosted watermark (``pgdat_watermark_boosted()``)."""
        return any(zone.watermark_boost for zone in self.pgdat.managed_zones(highest_zoneidx))

    def wakeup_kswapd(
        self, zone: Zone, gfp_mask: int, order: int, highest_zoneidx: int, reason: WakeReason
    ) -> None:
        """Ask kswapd for an order (``wakeup_kswapd()``); what that becomes is a decision hook."""
        if not zone.managed_pages:
            return
        pgdat = self.pgdat
        plan = self._ops.plan_wakeup(pgdat, KswapdWake(order, gfp_mask, highest_zoneidx, reason))
        if plan.kcompactd_order is not None:
            self.wakeup_kcompactd(plan.kcompactd_order, highest_zoneidx)
        if plan.kswapd_order is None:
            return
        order = plan.kswapd_order
        current = pgdat.kswapd_highest_zoneidx
        if current == MAX_NR_ZONES or current < highest_zoneidx:
            pgdat.kswapd_highest_zoneidx = highest_zoneidx
        pgdat.kswapd_order = max(pgdat.kswapd_order, order)
        if not self._kswapd_wait.waitqueue_active():
            return
        if pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES or (
            self.pgdat_balanced(order, highest_zoneidx) and not self.pgdat_watermark_boosted(highest_zoneidx)
        ):
            if not gfp_mask & gfp.DIRECT_RECLAIM:
                self.wakeup_kcompactd(order, highest_zoneidx)
            return
        if self._trace.enabled(MmVmscanWakeupKswapd):
            self._trace.emit(MmVmscanWakeupKswapd(pgdat.node_id, highest_zoneidx, order, gfp_mask))
        self._kswapd_wait.wake_up()

    def wakeup_kcompactd(self, order: int, highest_zoneidx: int) -> None:
        """Note what kcompactd is asked for (``wakeup_kcompactd()``); it does not run in this version."""
        if order:
            self.pgdat.kcompactd_max_order = max(self.pgdat.kcompactd_max_order, order)
            self.pgdat.kcompactd_highest_zoneidx = highest_zoneidx

    # --- kswapd's pass ------------------------------------------------------------------------------

    def balance_pgdat(self, order: int, highest_zoneidx: int) -> int:
        """Reclaim until the node is balanced for an order, or every priority was tried (``balance_pgdat()``).

        Returns
        -------
        int
            The order it ended with: 0 once enough was reclaimed to leave the rest to compaction.
        """
        pgdat = self.pgdat
        sc = ScanControl(
            nr_to_reclaim=0,
            order=order,
            priority=DEF_PRIORITY,
            reclaim_idx=highest_zoneidx,
            gfp_mask=GFP_KERNEL,
            may_writepage=False,
            may_unmap=True,
            may_swap=True,
        )
        self._vmstat.count(VmEvent.pageoutrun)
        boosts = [(z, z.watermark_boost) for z in pgdat.managed_zones(highest_zoneidx)]
        nr_boost_reclaim = sum(boost for _, boost in boosts)
        boosted = nr_boost_reclaim > 0
        zones = [z for z, _ in boosts]
        for zone in zones:
            zone.set_flag(pg.ZF_RECLAIM_ACTIVE, True)
        balanced = False
        while sc.priority >= 1:
            raise_priority = True
            before = sc.nr_reclaimed
            balanced = self.pgdat_balanced(sc.order, highest_zoneidx)
            if not balanced and nr_boost_reclaim:
                nr_boost_reclaim = 0
                sc.priority = DEF_PRIORITY
                continue
            if not nr_boost_reclaim and balanced:
                break
            if nr_boost_reclaim and sc.priority == DEF_PRIORITY - 2:
                raise_priority = False
            sc.may_writepage = not nr_boost_reclaim or sc.priority < DEF_PRIORITY - 2
            sc.may_swap = not nr_boost_reclaim
            sc.nr_scanned = 0
            if self.kswapd_shrink_node(sc, zones):
                raise_priority = False
            progress = sc.nr_reclaimed - before
            nr_boost_reclaim -= min(nr_boost_reclaim, progress)
            if nr_boost_reclaim and not progress:
                break
            if raise_priority or not progress:
                sc.priority -= 1
        if not balanced and sc.nr_reclaimed == 0:
            pgdat.kswapd_failures += 1
        for zone in zones:
            zone.set_flag(pg.ZF_RECLAIM_ACTIVE, False)
        if boosted:
            for zone, boost in boosts:
                zone.watermark_boost -= min(zone.watermark_boost, boost)
            self.wakeup_kcompactd(PAGEBLOCK_ORDER, highest_zoneidx)
        return sc.order

    def kswapd_shrink_node(self, sc: ScanControl, zones: list[Zone]) -> bool:
        """One priority's turn; whether it scanned enough to stay at it (``kswapd_shrink_node()``)."""
        sc.nr_to_reclaim = sum(max(high_wmark_pages(zone), SWAP_CLUSTER_MAX) for zone in zones)
        self.shrink_node(sc, Reclaimer.KSWAPD)
        if sc.order and sc.nr_reclaimed >= compact_gap(sc.order):
            sc.order = 0
        return sc.nr_scanned >= sc.nr_to_reclaim

    def shrink_node(self, sc: ScanControl, caller: Reclaimer) -> None:
        """Scan the page cache, then call the shrinkers if the hook says so (``shrink_node()``)."""
        before = sc.nr_reclaimed
        if self._lruvec is not None:
            scanned, reclaimed = self._lruvec.shrink_lruvec(sc)
            sc.nr_scanned += scanned
            sc.nr_reclaimed += reclaimed
            kswapd = caller is Reclaimer.KSWAPD
            self._vmstat.count(VmEvent.pgscan_kswapd if kswapd else VmEvent.pgscan_direct, scanned)
            self._vmstat.count(VmEvent.pgsteal_kswapd if kswapd else VmEvent.pgsteal_direct, reclaimed)
            self._vmstat.count(VmEvent.pgscan_file, scanned)
            self._vmstat.count(VmEvent.pgsteal_file, reclaimed)
        if self._ops.should_shrink_slab(ReclaimContext(self.pgdat, sc, caller)):
            self._shrinkers.shrink_slab(sc.gfp_mask, self.pgdat.node_id, sc.priority)
        if sc.nr_reclaimed > before:
            self.pgdat.kswapd_failures = 0

    # --- direct reclaim -----------------------------------------------------------------------------

    def try_to_free_pages(self, order: int, gfp_mask: int) -> int:
        """Reclaim 32 pages for a request, walking all priorities (``try_to_free_pages()``).

        Returns
        -------
        int
            Pages reclaimed from the page cache; what shrinkers freed does not count, as in the kernel.
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
        if self._trace.enabled(MmVmscanDirectReclaimBegin):
            self._trace.emit(MmVmscanDirectReclaimBegin(order, gfp_mask))
        self._vmstat.count(VmEvent(VmEvent.allocstall_dma + min(sc.reclaim_idx, 3)))
        while sc.priority >= 0:
            sc.nr_scanned = 0
            self.shrink_node(sc, Reclaimer.DIRECT)
            if sc.nr_reclaimed >= sc.nr_to_reclaim:
                break
            sc.priority -= 1
        if self._trace.enabled(MmVmscanDirectReclaimEnd):
            self._trace.emit(MmVmscanDirectReclaimEnd(sc.nr_reclaimed))
        return sc.nr_reclaimed

    # --- hooks for the kthread that runs this (mmfw.mm.kswapd) ---------------------------------------

    def prepare_kswapd_sleep(self, order: int, highest_zoneidx: int) -> bool:
        """Whether kswapd may sleep: the node is hopeless or balanced (``prepare_kswapd_sleep()``)."""
        if self.pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES:
            return True
        return self.pgdat_balanced(order, highest_zoneidx)

    def note_kswapd_wake(self, order: int, highest_zoneidx: int) -> None:
        """Trace the start of a pass."""
        if self._trace.enabled(MmVmscanKswapdWake):
            self._trace.emit(MmVmscanKswapdWake(self.pgdat.node_id, highest_zoneidx, order))

    def note_kswapd_sleep(self) -> None:
        """Trace the full sleep."""
        if self._trace.enabled(MmVmscanKswapdSleep):
            self._trace.emit(MmVmscanKswapdSleep(self.pgdat.node_id))

    def note_hit_quickly(self, low: bool) -> None:
        """Count a sleep that was cut short (kswapd_low/high_wmark_hit_quickly)."""
        self._vmstat.count(
            VmEvent.kswapd_low_wmark_hit_quickly if low else VmEvent.kswapd_high_wmark_hit_quickly
        )
