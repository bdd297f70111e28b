"""``compact_zone()``: one run of both scanners over a zone (mm/compaction.c of 6.1).

The scanners and the moving of pages are compiled (`mmfw.jit.compact_migrate`, `compact_free`, `compact_run`); this
is the loop around them. Pages isolated for migration are moved or put back before anything else can run, so no other
task meets a page that is on no list; free pages that the run holds stay with it to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.gfp import gfp_migratetype
from mmfw.jit import compact_control as cct
from mmfw.jit import compact_migrate as jit_migrate
from mmfw.jit import compact_run as jit
from mmfw.jit import page as pg
from mmfw.jit.pcp import drain_pages_zone
from mmfw.kernels import KERNEL_6_1, KernelProfile
from mmfw.mm.compact_fields import load_control, store_control
from mmfw.mm.contiguity import has_unmovable
from mmfw.mm.fragmentation import fragmentation_score_wmark, fragmentation_score_zone
from mmfw.mm.trace import MmCompactionBegin, MmCompactionEnd, MmCompactionFinished, Tracepoints
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.state import PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER
from mmfw.types import CompactControl, CompactResult, MigrateMode, ScanPhase

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.compact_shrinkers import Shrinkers
    from mmfw.mm.context import ExecContext
    from mmfw.mm.mmzone import Zone
    from mmfw.mm.pages import Memory
    from mmfw.mm.rmap import RmapSpace
    from mmfw.mm.shrinker import Shrinker

#: Room for the pages isolated at once: a whole block when it is scanned a second time.
_ROOM: Final = PAGEBLOCK_NR_PAGES + cct.COMPACT_CLUSTER_MAX
#: With several CPUs, time for which the scan for movable pages goes on before others may act, ns. It is a few pageblocks,
#: and there somebody else always acts within one.
SCAN_STRETCH_NS: Final = 5_000
#: Pages moved before somebody else may have the CPU; the kernel asks after each.
_YIELD_PAGES: Final = 4


class CompactRun:
    """A ``struct compact_control`` and the loop that works on it.

    Parameters
    ----------
    memory, rmap, context, trace, vmstat, costs
        Pages; where they are; the running task; where events and counts go; what work costs.
    control : CompactControl
        What to do: zone, order, mode and so on. Its results are filled in after each zone.
    kswapd_is_running : callable
        Whether proactive compaction should give way.
    shrinkers : Shrinkers, optional
        Whether and how shrinkers are asked for memory; None asks none.
    kernel : KernelProfile
        Whose rules.
    """

    def __init__(
        self,
        memory: Memory,
        rmap: RmapSpace,
        context: ExecContext,
        trace: Tracepoints,
        vmstat: VmStat,
        costs: CostProfile | None,
        control: CompactControl,
        kswapd_is_running: Callable[[], bool],
        shrinkers: Shrinkers | None = None,
        kernel: KernelProfile = KERNEL_6_1,
    ) -> None:
        self.control = control
        self.captured = -1
        self._memory = memory
        self._rmap = rmap
        self._context = context
        self._trace = trace
        self._vmstat = vmstat
        self._costs = costs
        self._kswapd_is_running = kswapd_is_running
        self._shrinkers = shrinkers
        self._kernel = kernel
        self._stopped: set[Shrinker] = set()
        self._zone_row = 0
        self._capture = False
        self._exact = memory.nr_cpus == 1
        self._cc = np.zeros(cct.CC_SIZE, dtype=np.int64)
        self._fields = self._cc.data  # the same numbers as Python's own: a block's loop reads dozens
        self._finished_event: MmCompactionFinished | None = None
        self._pages = np.empty(_ROOM, dtype=np.int64)
        self._charged = (0, 0, 0)
        self._pageblock_ns = 0

    @property
    def nr_blocks(self) -> int:
        """Pageblocks that the scanners visited in the last zone."""
        return int(self._cc[cct.CC_NR_BLOCKS])

    # --- one zone -----------------------------------------------------------------------------------

    def compact_zone(
        self,
        zone: Zone,
        suitable: Callable[[], CompactResult],
        restarting: bool,
        *,
        capture: bool,
        pageblock_ns: int = 0,
    ) -> CompactResult:
        """Compact a zone (``compact_zone()``).

        Parameters
        ----------
        zone : Zone
            The zone.
        suitable : callable
            ``compaction_suitable()`` for this request.
        restarting : bool
            Whether skip bits are to be recomputed first (``compaction_restarting()``).
        capture : bool
            Whether the running task takes a block of the wanted order as it is freed; `captured` tells.
        pageblock_ns : int
            What visiting a pageblock costs, virtual ns.
        """
        self._pageblock_ns = pageblock_ns
        self._cc[cct.CC_NR_BLOCKS] = 0
        memory, control = self._memory, self.control
        S, z, row = memory.S, memory.zone_offset(zone.index), zone.index
        control.zone = zone
        control.migratetype = 0 if S[pg.S_MOBILITY_OFF] else gfp_migratetype(control.gfp_mask)
        control.total_migrate_scanned = control.total_free_scanned = 0
        self._zone_row, self._capture = row, capture
        self._stopped.clear()
        self._ask_shrinkers(ScanPhase.ENTRY)
        if self.captured >= 0:
            return CompactResult.SUCCESS
        result = suitable()
        if result in (CompactResult.SUCCESS, CompactResult.SKIPPED):
            return result
        if restarting and S[z + pg.Z_BLOCKSKIP_FLUSH]:
            S[z + pg.Z_BLOCKSKIP_FLUSH] = 0
            jit.reset_isolation_suitable(memory.page, memory.pb, S, row)
        self._place_scanners(z)
        load_control(self._cc, control, row, self._kernel)
        self._charged = (0, 0, 0)
        self._finished_event = None
        memory_list = memory.take_owner_list()
        self._cc[cct.CC_LIST] = memory_list
        self._trace.fire(MmCompactionBegin, *self._scanners(zone), control.mode != MigrateMode.ASYNC)
        if self._costs is not None:
            self._context.charge(self._costs.compact_zone, "compaction")
        try:
            result = self._loop(zone, z, capture=capture)
            if self._cc[cct.CC_NR_FREEPAGES] > 0:
                self._capturing(row, on=capture)
                jit.release_freepages(memory.page, memory.pb, S, self._context.cpu, self._cc)
                self._capturing(row, on=False)
        finally:
            memory.put_owner_list(memory_list)
        store_control(self._cc, control)
        self._vmstat.count(VmEvent.compact_migrate_scanned, control.total_migrate_scanned)
        self._vmstat.count(VmEvent.compact_free_scanned, control.total_free_scanned)
        self._charge()
        self._trace.fire(MmCompactionEnd, *self._scanners(zone), control.mode != MigrateMode.ASYNC, result)
        return result

    def _scanners(self, zone: Zone) -> tuple[int, int, int, int]:
        control = self.control
        return zone.zone_start_pfn, control.migrate_pfn, control.free_pfn, zone.zone_end_pfn

    def _place_scanners(self, z: int) -> None:
        """Where the scanners start: at the zone's ends, or where the last run left off."""
        S, control = self._memory.S, self.control
        start, end = int(S[z + pg.Z_START]), int(S[z + pg.Z_END])
        last_block = (end - 1) & -PAGEBLOCK_NR_PAGES
        sync = int(control.mode != MigrateMode.ASYNC)
        control.fast_start_pfn = 0
        if control.whole_zone:
            control.migrate_pfn, control.free_pfn = start, last_block
            return
        control.migrate_pfn = int(S[z + pg.Z_CACHED_MIGRATE + sync])
        control.free_pfn = int(S[z + pg.Z_CACHED_FREE])
        if not start <= control.free_pfn < end:
            control.free_pfn = last_block
            S[z + pg.Z_CACHED_FREE] = last_block
        if not start <= control.migrate_pfn < end:
            control.migrate_pfn = start
            S[z + pg.Z_CACHED_MIGRATE] = S[z + pg.Z_CACHED_MIGRATE + 1] = start
        if control.migrate_pfn <= S[z + pg.Z_INIT_MIGRATE]:
            control.whole_zone = True

    def _loop(self, zone: Zone, z: int, *, capture: bool) -> CompactResult:
        memory, cc, fields, pages, control = self._memory, self._cc, self._fields, self._pages, self.control
        S, row, order = memory.S, zone.index, control.order
        direct_async = control.direct_compaction and control.mode == MigrateMode.ASYNC
        update_cached = control.mode == MigrateMode.ASYNC and (
            S[z + pg.Z_CACHED_MIGRATE] == S[z + pg.Z_CACHED_MIGRATE + 1]
        )
        last_migrated = 0
        finish = False
        # A block after which somebody is asked cannot be passed over; one that is seen need not be, where that is exact.
        asks = self._shrinkers_may_hold()
        seen = self._trace.enabled(MmCompactionFinished) or bool(S[pg.S_TRACE_MASK])
        singly = control.proactive_compaction or (seen and self._exact)
        while True:
            finishing, finish = finish, False
            if not finishing:
                result = self._compact_finished(zone, z)
                if result != CompactResult.CONTINUE:
                    return result
            iteration_start = fields[cct.CC_MIGRATE_PFN]
            fields[cct.CC_RESCAN] = (
                finishing or last_migrated >> pg.PB_ORDER == iteration_start >> pg.PB_ORDER
            )
            self._context.might_sleep()
            if self._context.fatal_signal_pending:
                return CompactResult.CONTENDED
            if asks or singly or last_migrated or finishing:
                found = jit_migrate.isolate_migratepages(memory.page, memory.pb, S, cc, pages, False)
            else:
                found = self._scan_fruitless_blocks(update_cached=update_cached)
                iteration_start = fields[cct.CC_ITERATION_PFN]
            while found == jit_migrate.ISOLATE_AGAIN:
                self._charge()
                self._context.might_sleep()
                found = self._resume_isolation()
            if found == jit_migrate.ISOLATE_SUCCESS:
                update_cached = False
                last_migrated = iteration_start
                self._capturing(row, on=capture)
                moved, failed = jit.migrate_pages(
                    memory.page, memory.pb, S, self._rmap.slots, self._context.cpu, cc, pages
                )
                if failed:
                    jit_migrate.putback_pages(memory.page, memory.pb, S, cc, pages)
                self._capturing(row, on=False)
                self._charge(moved)
                if failed == jit.MIGRATE_ENOMEM and not cct.scanners_met(cc):
                    return CompactResult.CONTENDED
                if failed and self._kernel.failed_migration_skips_chunk:
                    if direct_async:
                        cc[cct.CC_MIGRATE_PFN] = cct.block_end_pfn(fields[cct.CC_MIGRATE_PFN] - 1, order)
                        last_migrated = 0
                elif failed and self._may_finish_pageblock():
                    finish = True
                    if order == PAGEBLOCK_ORDER:
                        last_migrated = 0
                    self._charge()
                    continue
            elif update_cached:
                S[z + pg.Z_CACHED_MIGRATE + 1] = S[z + pg.Z_CACHED_MIGRATE]
            if order > 0 and last_migrated and last_migrated < fields[cct.CC_MIGRATE_PFN] >> order << order:
                self._capturing(row, on=capture)
                drain_pages_zone(memory.page, memory.pb, S, self._context.cpu, row)
                self._capturing(row, on=False)
                last_migrated = 0
            self._charge()
            if asks and self._left_unmovable(iteration_start):
                asks = self._ask_shrinkers(ScanPhase.PAGEBLOCK) is not None and self._shrinkers_may_hold()
            if self.captured >= 0:
                return CompactResult.SUCCESS

    def _may_finish_pageblock(self) -> bool:
        """Whether the block in which a migration failed is scanned to its end, so that it is left alone then."""
        control, fields = self.control, self._fields
        return bool(
            fields[cct.CC_MIGRATE_PFN] % PAGEBLOCK_NR_PAGES
            and not control.ignore_skip_hint
            and not fields[cct.CC_RESCAN]
            and control.mode < MigrateMode.SYNC
        )

    def _resume_isolation(self) -> int:
        """Go on after `ISOLATE_AGAIN` for as long as nobody else does anything; a listener to rows hears of each stop."""
        memory, costs, context = self._memory, self._costs, self._context
        heard = bool(memory.S[pg.S_TRACE_MASK])
        return int(
            jit_migrate.resume_isolation(
                memory.page,
                memory.pb,
                memory.S,
                self._cc,
                self._pages,
                self._pageblock_ns,
                0 if costs is None else costs.compact_scan_page,
                0 if costs is None else costs.compact_isolate_page,
                0 if heard or context.need_resched() else context.quiet_ns,
            )
        )

    def _scan_fruitless_blocks(self, *, update_cached: bool) -> int:
        """Iterations that isolate nothing, in one go for as long as nobody else does anything.

        With several CPUs somebody does something all the time. There it goes on for `SCAN_STRETCH_NS` at least: others
        see the pages of that stretch as they were at its begin.
        """
        memory, costs, quiet_ns = self._memory, self._costs, self._context.quiet_ns
        if memory.S[pg.S_TRACE_MASK]:
            memory.flush_trace()
        found = jit.scan_fruitless_blocks(
            memory.page,
            memory.pb,
            memory.S,
            self._cc,
            self._pages,
            update_cached,
            self._pageblock_ns,
            0 if costs is None else costs.compact_scan_page,
            quiet_ns if self._exact else max(quiet_ns, SCAN_STRETCH_NS),
        )
        if self._trace.enabled(MmCompactionFinished):
            control = self.control
            event = MmCompactionFinished(
                control.zone.node, self._zone_row, control.order, CompactResult.NO_SUITABLE_PAGE
            )
            for _ in range(self._fields[cct.CC_NR_ITERATIONS] - 1):
                self._trace.emit(event)
        return int(found)

    # --- the finish test ----------------------------------------------------------------------------

    def _compact_finished(self, zone: Zone, z: int) -> CompactResult:
        """``compact_finished()``; the FINISH call of the shrinkers may change the answer."""
        result = self._finished(zone, z)
        if result in (CompactResult.COMPLETE, CompactResult.PARTIAL_SKIPPED):
            memory = self._memory
            if self._ask_shrinkers(ScanPhase.FINISH) and self.control.order > 0:
                free = jit.suitable_page_free(memory.page, memory.S, self._cc)
                if free or self.captured >= 0:
                    result = CompactResult.SUCCESS
        if self._trace.enabled(MmCompactionFinished):
            event = self._finished_event
            if event is None or event.ret is not result:
                event = MmCompactionFinished(zone.node, zone.index, self.control.order, result)
                self._finished_event = event
            self._trace.emit(event)
        return CompactResult.CONTINUE if result == CompactResult.NO_SUITABLE_PAGE else result

    def _finished(self, zone: Zone, z: int) -> CompactResult:
        """``__compact_finished()``."""
        S, fields, control = self._memory.S, self._fields, self.control
        if fields[cct.CC_FREE_PFN] >> pg.PB_ORDER <= fields[cct.CC_MIGRATE_PFN] >> pg.PB_ORDER:
            S[z + pg.Z_CACHED_MIGRATE] = S[z + pg.Z_CACHED_MIGRATE + 1] = S[z + pg.Z_START]
            S[z + pg.Z_CACHED_FREE] = (S[z + pg.Z_END] - 1) & -PAGEBLOCK_NR_PAGES
            if control.direct_compaction:
                S[z + pg.Z_BLOCKSKIP_FLUSH] = 1
            return CompactResult.COMPLETE if control.whole_zone else CompactResult.PARTIAL_SKIPPED
        if control.proactive_compaction:
            if self._kswapd_is_running():
                return CompactResult.PARTIAL_SKIPPED
            wmark = fragmentation_score_wmark(True, self._memory.vm.compaction_proactiveness)
            if fragmentation_score_zone(zone) > wmark:
                return CompactResult.CONTINUE
            return CompactResult.SUCCESS
        if control.order == -1 or fields[cct.CC_MIGRATE_PFN] % PAGEBLOCK_NR_PAGES:
            return CompactResult.CONTINUE
        if jit.suitable_page_free(self._memory.page, S, self._cc):
            return CompactResult.SUCCESS
        return CompactResult.NO_SUITABLE_PAGE

    # --- between Python and the compiled loops --------------------------------------------------------

    def _capturing(self, row: int, *, on: bool) -> None:
        """Set or clear ``current->capture_control`` around a stretch in which nobody else runs."""
        S = self._memory.S
        if on and self.captured < 0:
            S[pg.S_CAPC_ROW] = row + 1
            S[pg.S_CAPC_ORDER] = self.control.order
            S[pg.S_CAPC_PFN] = 0
        elif S[pg.S_CAPC_ROW]:
            S[pg.S_CAPC_ROW] = 0
            if S[pg.S_CAPC_PFN]:
                self.captured = int(S[pg.S_CAPC_PFN]) - 1
                S[pg.S_CAPC_PFN] = 0

    def _charge(self, moved: int = 0) -> None:
        """Charge what the scanners did since the last time, and pages moved one after another.

        ``migrate_pages()`` and both scanners give way as they go along (``cond_resched()``). The compiled loops have done
        the whole stretch by now; whoever is waiting gets the CPU in the midst of its time all the same.
        """
        costs, fields = self._costs, self._fields
        blocks, isolated = fields[cct.CC_NR_BLOCKS], fields[cct.CC_NR_ISOLATED]
        scanned = fields[cct.CC_MIGRATE_SCANNED] + fields[cct.CC_FREE_SCANNED]
        before, self._charged = self._charged, (blocks, scanned, isolated)
        if costs is None:
            return
        context = self._context
        ns = (blocks - before[0]) * self._pageblock_ns + (scanned - before[1]) * costs.compact_scan_page
        ns += (isolated - before[2]) * costs.compact_isolate_page
        if ns:
            context.charge(ns, "compaction")
        page_ns = costs.migrate_page + costs.copy_page
        few_ns = max(1, _YIELD_PAGES * page_ns)
        while moved > 0:
            context.might_sleep()
            # Nobody comes in between as long as nothing happens elsewhere.
            unseen = 0 if context.need_resched() else (context.quiet_ns - 1) // few_ns
            pages = min(moved, _YIELD_PAGES * max(1, 1 + unseen))
            context.charge(pages * page_ns, "compaction")
            moved -= pages

    # --- the shrinkers' third method ------------------------------------------------------------------

    def arm_capture(self, on: bool) -> None:
        """Begin or end a stretch in which what the compacting task frees may be captured."""
        self._capturing(self._zone_row, on=on and self._capture)

    def _shrinkers_may_hold(self) -> bool:
        """Whether there is anybody to ask after a pageblock."""
        return self._shrinkers is not None and self._shrinkers.may_hold(self._stopped)

    def _left_unmovable(self, iteration_start: int) -> bool:
        """Whether the migration scanner has finished a pageblock in which it had to leave something for ever."""
        pfn = self._fields[cct.CC_MIGRATE_PFN]
        return (
            pfn % PAGEBLOCK_NR_PAGES == 0
            and pfn > iteration_start
            and has_unmovable(self._memory, pfn - PAGEBLOCK_NR_PAGES)
        )

    def _ask_shrinkers(self, phase: ScanPhase) -> int | None:
        """Have the shrinkers free memory; pages freed, this CPU's lists drained of them; None if no policy wants it."""
        asked = self._shrinkers
        if asked is None:
            return None
        if phase is not ScanPhase.ENTRY:
            # The scanners work on the array; a decision sees where they stand.
            self.control.migrate_pfn = self._fields[cct.CC_MIGRATE_PFN]
            self.control.free_pfn = self._fields[cct.CC_FREE_PFN]
        scan = asked.plan(self.control, phase)
        if scan is None:
            return None
        if self._capture:
            asked.capture.set_current(self)
        try:
            # kcompactd has no PF_MEMALLOC of its own: what a shrinker allocates here must not reclaim.
            with self._context.memalloc_noreclaim():
                freed = asked.compaction_scan(scan, self._stopped)
        finally:
            if self._capture:
                asked.capture.clear_current()
        if freed:
            memory = self._memory
            self.arm_capture(True)
            drain_pages_zone(memory.page, memory.pb, memory.S, self._context.cpu, self._zone_row)
            self.arm_capture(False)
        return freed
