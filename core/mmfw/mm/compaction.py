"""Memory compaction: whether, where and for whom (mm/compaction.c of 6.1); `mmfw.mm.compact_zone` does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmfw import gfp
from mmfw.gfp import GFP_KERNEL
from mmfw.jit import compact_run as jit
from mmfw.jit import page as pg
from mmfw.jit.alloc import zone_watermark_ok_free
from mmfw.jit.pcp import drain_pages_zone
from mmfw.kernels import KERNEL_6_1, KernelProfile
from mmfw.mm.compact_defer import Deferral
from mmfw.mm.compact_shrinkers import Shrinkers
from mmfw.mm.compact_zone import CompactRun
from mmfw.mm.fragmentation import (
    fragmentation_index,
    fragmentation_score_node,
    fragmentation_score_wmark,
)
from mmfw.mm.mmzone import PglistData, Zone, low_wmark_pages, min_wmark_pages
from mmfw.mm.trace import (
    MmCompactionKcompactdWake,
    MmCompactionSuitable,
    MmCompactionTryToCompactPages,
    MmCompactionWakeupKcompactd,
    Tracepoints,
)
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.state import MAX_NR_ZONES
from mmfw.types import (
    CompactControl,
    CompactPriority,
    CompactResult,
    KcompactdRequest,
    KcompactdWork,
    MigrateMode,
)

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.capture import TaskCapture
    from mmfw.mm.context import ExecContext, WaitQueueHead
    from mmfw.mm.rmap import RmapSpace
    from mmfw.mm.shrinker import ShrinkerList
    from mmfw.types import MmOps

PAGE_ALLOC_COSTLY_ORDER: Final = 3
#: How long the struct pages of a zone's pageblocks stay in the caches after a sweep over them, ns: in the captured
#: loop a sweep 0.2 ms after another is still fast, one 1.1 ms after it is slow.
_WARM_NS: Final = 500_000


def compact_gap(order: int) -> int:
    """Free pages that compaction wants as slack (include/linux/compaction.h)."""
    return 2 << order


class Compaction:
    """Compaction on one node.

    Parameters
    ----------
    pgdat : PglistData
        The node.
    rmap : RmapSpace
        Where pages are.
    shrinkers : ShrinkerList
        Asked for memory where a policy wants that.
    capture : TaskCapture
        Told who captures what a shrinker frees.
    ops : MmOps
        Decisions.
    kcompactd_wait : WaitQueueHead
        Where kcompactd sleeps.
    context, trace, vmstat, costs
        The running task; where events and counts go; what work costs.
    kernel : KernelProfile
        Whose rules.
    """

    def __init__(
        self,
        pgdat: PglistData,
        rmap: RmapSpace,
        shrinkers: ShrinkerList,
        capture: TaskCapture,
        ops: MmOps,
        kcompactd_wait: WaitQueueHead,
        context: ExecContext,
        trace: Tracepoints,
        vmstat: VmStat,
        costs: CostProfile | None = None,
        kernel: KernelProfile = KERNEL_6_1,
    ) -> None:
        self.pgdat = pgdat
        self._kernel = kernel
        self.deferral = Deferral(pgdat.memory, trace)
        self._memory = pgdat.memory
        self._rmap = rmap
        plan = ops.plan_compaction_scan
        self._shrinkers = (
            None
            if plan is None
            else Shrinkers(plan, shrinkers.may_hold_for_compaction, shrinkers.compaction_scan, capture)
        )
        self._should_wake_kcompactd = ops.should_wake_kcompactd
        self._plan_kcompactd_work = ops.plan_kcompactd_work
        self._wait = kcompactd_wait
        self._context = context
        self._trace = trace
        self._vmstat = vmstat
        self._costs = costs
        self._swept_at: dict[int, int] = {}
        self.kswapd_is_running: Callable[[], bool] = lambda: False
        self.zone_reclaimable_pages: Callable[[Zone], int] = lambda zone: 0

    # --- suitability --------------------------------------------------------------------------------

    def _suitable(self, zone: Zone, order: int, flags: int, hzi: int, free: int) -> CompactResult:
        """``__compaction_suitable()``."""
        if order == -1:
            return CompactResult.CONTINUE
        memory = self._memory
        mark = zone.wmark_pages(flags & pg.ALLOC_WMARK_MASK)
        if zone_watermark_ok_free(
            memory.page, memory.S, zone.index, order, mark, hzi, flags, zone.nr_free_pages
        ):
            return CompactResult.SUCCESS
        mark = low_wmark_pages(zone) if order > PAGE_ALLOC_COSTLY_ORDER else min_wmark_pages(zone)
        mark += compact_gap(order)
        if not zone_watermark_ok_free(memory.page, memory.S, zone.index, 0, mark, hzi, 0, free):
            return CompactResult.SKIPPED
        return CompactResult.CONTINUE

    def compaction_suitable(
        self, zone: Zone, order: int, alloc_flags: int, highest_zoneidx: int
    ) -> CompactResult:
        """Whether a zone should be compacted: SUCCESS, SKIPPED or CONTINUE (``compaction_suitable()``)."""
        result = self._suitable(zone, order, alloc_flags, highest_zoneidx, zone.nr_free_pages)
        costly = order > PAGE_ALLOC_COSTLY_ORDER
        if result == CompactResult.CONTINUE and costly:
            index = fragmentation_index(zone.nr_free_by_order(), order)
            if 0 <= index <= self._memory.vm.extfrag_threshold:
                result = CompactResult.NOT_SUITABLE_ZONE
        self._trace.fire(MmCompactionSuitable, zone.node, zone.index, order, result)
        return CompactResult.SKIPPED if result == CompactResult.NOT_SUITABLE_ZONE else result

    def compaction_zonelist_suitable(self, order: int, alloc_flags: int, highest_zoneidx: int) -> bool:
        """Whether reclaim could make some zone fit for compaction (``compaction_zonelist_suitable()``)."""
        for zone in self._zones_down(highest_zoneidx):
            free = self.zone_reclaimable_pages(zone) // order + zone.free_pages_snapshot()
            if self._suitable(zone, order, alloc_flags, highest_zoneidx, free) == CompactResult.CONTINUE:
                return True
        return False

    def _zones_down(self, highest_zoneidx: int) -> list[Zone]:
        return [zone for zone in self.pgdat.node_zones[highest_zoneidx::-1] if zone.managed_pages]

    def _zones_up(self, highest_zoneidx: int) -> list[Zone]:
        return [zone for zone in self.pgdat.node_zones[: highest_zoneidx + 1] if zone.present_pages]

    def _is_warm(self, zone: Zone) -> bool:
        """Whether the first struct pages of a zone's pageblocks are in the caches."""
        swept_at = self._swept_at.get(zone.index)
        return swept_at is not None and self._context.now - swept_at < _WARM_NS

    def _pageblock_ns(self, zone: Zone) -> int:
        """What visiting one pageblock of a zone costs now."""
        if self._costs is None:
            return 0
        return self._costs.compact_pageblock_warm if self._is_warm(zone) else self._costs.compact_pageblock

    def _note_sweep(self, zone: Zone, nr_blocks: int) -> None:
        """Remember that most pageblocks of a zone have just been looked at."""
        if 2 * nr_blocks > zone.spanned_pages >> pg.PB_ORDER:
            self._swept_at[zone.index] = self._context.now

    def _compact_zone(self, run: CompactRun, zone: Zone, hzi: int, *, capture: bool) -> CompactResult:
        """Let a run work on a zone."""
        control = run.control
        order, flags = control.order, control.alloc_flags
        result = run.compact_zone(
            zone,
            lambda: self.compaction_suitable(zone, order, flags, hzi),
            order > 0 and self.deferral.compaction_restarting(zone, order),
            capture=capture,
            pageblock_ns=self._pageblock_ns(zone),
        )
        self._note_sweep(zone, run.nr_blocks)
        return result

    def _run(self, control: CompactControl) -> CompactRun:
        return CompactRun(
            self._memory,
            self._rmap,
            self._context,
            self._trace,
            self._vmstat,
            self._costs,
            control,
            self.kswapd_is_running,
            self._shrinkers,
            self._kernel,
        )

    # --- direct compaction --------------------------------------------------------------------------

    def try_to_compact_pages(
        self, gfp_mask: int, order: int, alloc_flags: int, highest_zoneidx: int, prio: CompactPriority
    ) -> tuple[CompactResult, int]:
        """Compact zones until one can serve a request (``try_to_compact_pages()``).

        Returns
        -------
        (CompactResult, int)
            The largest result of the zones, and a captured block's first pfn or -1.
        """
        if not gfp_mask & gfp.IO:
            return CompactResult.SKIPPED, -1
        self._trace.fire(MmCompactionTryToCompactPages, order, gfp_mask, prio)
        result = CompactResult.SKIPPED
        with self._context.memalloc_noreclaim():
            for zone in self._zones_down(highest_zoneidx):
                if prio > CompactPriority.SYNC_FULL and self.deferral.compaction_deferred(zone, order):
                    result = max(result, CompactResult.DEFERRED)
                    continue
                status, captured = self._compact_zone_order(
                    zone, order, gfp_mask, prio, alloc_flags, highest_zoneidx
                )
                result = max(result, status)
                if status == CompactResult.SUCCESS:
                    self.deferral.compaction_defer_reset(zone, order, False)
                    return result, captured
                met = status in (CompactResult.COMPLETE, CompactResult.PARTIAL_SKIPPED)
                if prio != CompactPriority.ASYNC and met:
                    self.deferral.defer_compaction(zone, order)
                if (
                    prio == CompactPriority.ASYNC and self._context.need_resched()
                ) or self._context.fatal_signal_pending:
                    break
        return result, -1

    def _compact_zone_order(
        self,
        zone: Zone,
        order: int,
        gfp_mask: int,
        prio: CompactPriority,
        alloc_flags: int,
        highest_zoneidx: int,
    ) -> tuple[CompactResult, int]:
        """``compact_zone_order()``."""
        full = prio == CompactPriority.SYNC_FULL
        run = self._run(
            CompactControl(
                zone=zone,
                order=order,
                gfp_mask=gfp_mask,
                migratetype=0,
                alloc_flags=alloc_flags,
                highest_zoneidx=highest_zoneidx,
                mode=MigrateMode.ASYNC if prio == CompactPriority.ASYNC else MigrateMode.SYNC_LIGHT,
                search_order=order,
                whole_zone=full,
                ignore_skip_hint=full,
                ignore_block_suitable=full,
                direct_compaction=True,
            )
        )
        status = self._compact_zone(run, zone, highest_zoneidx, capture=True)
        if run.captured >= 0:
            if gfp_mask & gfp.COMP:
                self._memory.page[4 * run.captured + pg.WORD] |= pg.PG_COMPOUND
            status = CompactResult.SUCCESS
        return status, run.captured

    def compaction_defer_reset(self, zone: Zone, order: int, alloc_success: bool) -> None:
        """Note that an order can be had again."""
        self.deferral.compaction_defer_reset(zone, order, alloc_success)

    def clear_blockskip_flush(self, zone: Zone) -> None:
        """Take back the wish that skip bits be recomputed."""
        self._memory.S[self._memory.zone_offset(zone.index) + pg.Z_BLOCKSKIP_FLUSH] = 0

    def reset_isolation_suitable(self) -> None:
        """Recompute skip bits where a full compaction asked for it; kswapd does so before it sleeps."""
        memory = self._memory
        for zone in self._zones_up(MAX_NR_ZONES - 1):
            z = memory.zone_offset(zone.index)
            if memory.S[z + pg.Z_BLOCKSKIP_FLUSH]:
                memory.S[z + pg.Z_BLOCKSKIP_FLUSH] = 0
                # cond_resched() before each block: a kcompactd woken just before goes first. It finds the wish taken
                # back and the scanners still where they were.
                self._context.might_sleep()
                jit.reset_isolation_suitable(memory.page, memory.pb, memory.S, zone.index)
                if self._costs is not None:
                    warm, nr_blocks = self._is_warm(zone), zone.spanned_pages >> pg.PB_ORDER
                    ns = self._costs.reset_pageblock_warm if warm else self._costs.reset_pageblock
                    self._context.charge(nr_blocks * ns, "reset_isolation")
                    self._note_sweep(zone, nr_blocks)

    # --- kcompactd's work -----------------------------------------------------------------------------

    def wakeup_kcompactd(self, order: int, highest_zoneidx: int) -> None:
        """Ask kcompactd for an order (``wakeup_kcompactd()``); recorded even if it is not woken.

        A policy may object to either.
        """
        if order == 0:
            return
        pgdat, should_wake = self.pgdat, self._should_wake_kcompactd
        if should_wake is not None and not should_wake(pgdat, KcompactdRequest(order, highest_zoneidx)):
            return
        pgdat.kcompactd_max_order = max(pgdat.kcompactd_max_order, order)
        pgdat.kcompactd_highest_zoneidx = min(pgdat.kcompactd_highest_zoneidx, highest_zoneidx)
        if not self._wait.waitqueue_active():
            return
        asked = pgdat.kcompactd_highest_zoneidx
        if not any(
            self.compaction_suitable(zone, pgdat.kcompactd_max_order, 0, asked) == CompactResult.CONTINUE
            for zone in self._zones_up(asked)
        ):
            return
        self._trace.fire(MmCompactionWakeupKcompactd, pgdat.node_id, order, highest_zoneidx)
        self._wait.wake_up()

    def kcompactd_do_work(self) -> None:
        """Compact for the order that was asked (``kcompactd_do_work()``)."""
        pgdat = self.pgdat
        order, hzi = pgdat.kcompactd_max_order, pgdat.kcompactd_highest_zoneidx
        self._trace.fire(MmCompactionKcompactdWake, pgdat.node_id, order, hzi)
        self._vmstat.count(VmEvent.compact_daemon_wake)
        plan = self._plan_kcompactd_work
        if plan is None:
            self._kcompactd_compact(KcompactdWork(order, hzi))
        else:
            self._kcompactd_compact(plan(pgdat, KcompactdRequest(order, hzi)))
        if pgdat.kcompactd_max_order <= order:
            pgdat.kcompactd_max_order = 0
        if pgdat.kcompactd_highest_zoneidx >= hzi:
            pgdat.kcompactd_highest_zoneidx = pgdat.nr_zones - 1

    def _kcompactd_compact(self, work: KcompactdWork) -> None:
        """The loop over zones of ``kcompactd_do_work()``."""
        memory, order, hzi = self._memory, work.order, work.highest_zoneidx
        run: CompactRun | None = None
        for zone in self._zones_up(hzi) if order else []:
            if self.deferral.compaction_deferred(zone, order):
                continue
            if self.compaction_suitable(zone, order, 0, zone.index) != CompactResult.CONTINUE:
                continue
            if run is None:
                run = self._run(
                    CompactControl(zone, order, GFP_KERNEL, 0, 0, hzi, work.mode, search_order=order)
                )
            status = self._compact_zone(run, zone, hzi, capture=False)
            if status == CompactResult.SUCCESS:
                self.deferral.compaction_defer_reset(zone, order, False)
            elif status in (CompactResult.COMPLETE, CompactResult.PARTIAL_SKIPPED):
                for cpu in range(memory.nr_cpus):
                    drain_pages_zone(memory.page, memory.pb, memory.S, cpu, zone.index)
                self.deferral.defer_compaction(zone, order)
            self._vmstat.count(VmEvent.compact_daemon_migrate_scanned, run.control.total_migrate_scanned)
            self._vmstat.count(VmEvent.compact_daemon_free_scanned, run.control.total_free_scanned)

    def should_proactive_compact_node(self) -> bool:
        """Whether the node is fragmented enough (``should_proactive_compact_node()``)."""
        proactiveness = self._memory.vm.compaction_proactiveness
        if not proactiveness or self.kswapd_is_running():
            return False
        return fragmentation_score_node(self.pgdat) > fragmentation_score_wmark(False, proactiveness)

    def compact_node(self, *, proactive: bool) -> None:
        """Compact every zone: proactively, or as /proc/sys/vm/compact_memory asks (``compact_node()``)."""
        run = self._run(
            CompactControl(
                zone=self.pgdat.node_zones[0],
                order=-1,
                gfp_mask=GFP_KERNEL,
                migratetype=0,
                alloc_flags=0,
                highest_zoneidx=0,
                mode=MigrateMode.SYNC_LIGHT if proactive else MigrateMode.SYNC,
                whole_zone=True,
                ignore_skip_hint=True,
                proactive_compaction=proactive,
            )
        )
        for zone in self._zones_up(MAX_NR_ZONES - 1):
            self._compact_zone(run, zone, MAX_NR_ZONES - 1, capture=False)
