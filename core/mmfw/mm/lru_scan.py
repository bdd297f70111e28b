"""How much of each LRU list a pass scans, and the scan itself (``shrink_lruvec()``, mm/vmscan.c of 6.1)."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.jit import shrink_folio as jit
from mmfw.jit import shrink_lists as lists
from mmfw.mm.mmzone import PglistData, high_wmark_pages
from mmfw.mm.trace import (
    MmVmscanLruIsolate,
    MmVmscanLruShrinkActive,
    MmVmscanLruShrinkInactive,
    MmVmscanWriteFolio,
    Tracepoints,
)
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.state import PAGEBLOCK_NR_PAGES
from mmfw.types import DEF_PRIORITY, SWAP_CLUSTER_MAX, Reclaimer, ScanControl

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.context import ExecContext
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.rmap import RmapSpace

_INACTIVE: Final = (pg.LRU_INACTIVE_ANON, pg.LRU_INACTIVE_FILE)
#: Events that come for each batch.
_BATCH_EVENTS: Final = (
    MmVmscanLruIsolate,
    MmVmscanLruShrinkInactive,
    MmVmscanLruShrinkActive,
    MmVmscanWriteFolio,
)


class PageIo(Protocol):
    """The devices that reclaim writes to."""

    def submit(self, pfns: NDArray[np.int64], *, file: bool) -> None:
        """Write folios that are marked `PG_WRITEBACK`; on completion they are unmarked."""
        ...

    def wakeup_flusher_threads(self) -> None:
        """Have dirty file pages written."""
        ...


class _Buffers:
    """What one scan keeps between its batches: `mmfw.jit.shrink_lists` says what is where."""

    __slots__ = ("batch", "out", "state", "written")

    def __init__(self) -> None:
        room = 4 * SWAP_CLUSTER_MAX
        self.state = np.zeros(lists.W_SIZE, dtype=np.int64)
        self.batch = np.empty(room, dtype=np.int64)
        self.out = np.zeros(jit.R_SIZE, dtype=np.int64)
        # A huge page among the last of a batch may be written page by page.
        self.written = np.empty(room + PAGEBLOCK_NR_PAGES, dtype=np.int64)


class LruScan:
    """Scans of the node's lruvec.

    Parameters
    ----------
    pgdat, lruvec, rmap
        The node, its lists, and where pages are.
    page_io : PageIo or None
        Where dirty pages go; None if none is ever dirty.
    context, trace, vmstat, costs
        The running task; where events and counts go; what work costs.
    """

    def __init__(
        self,
        pgdat: PglistData,
        lruvec: Lruvec,
        rmap: RmapSpace,
        page_io: PageIo | None,
        context: ExecContext,
        trace: Tracepoints,
        vmstat: VmStat,
        costs: CostProfile | None,
    ) -> None:
        self._pgdat = pgdat
        self._memory = pgdat.memory
        self._lruvec = lruvec
        self._rmap = rmap
        self.page_io = page_io
        self._context = context
        self._trace = trace
        self._vmstat = vmstat
        self._costs = costs
        self._refaults = [0, 0]
        # Spare ones: reclaim does not nest in one task, but tasks may alternate.
        self._buffers: list[_Buffers] = []

    # --- what to scan -------------------------------------------------------------------------------

    def inactive_is_low(self, file: bool) -> bool:
        """Whether the inactive list is small beside the active one (``inactive_is_low()``)."""
        base = pg.LRU_INACTIVE_FILE if file else pg.LRU_INACTIVE_ANON
        inactive, active = self._lruvec.size(base), self._lruvec.size(base + 1)
        gb = (inactive + active) >> (30 - 12)
        ratio = isqrt(10 * gb) if gb else 1
        return inactive * ratio < active

    def _workingset_activate(self, file: bool) -> int:
        return self._vmstat[VmEvent.workingset_activate_file if file else VmEvent.workingset_activate_anon]

    def snapshot_refaults(self) -> None:
        """Remember the activations, to see new ones in the next pass (``snapshot_refaults()``)."""
        self._refaults = [self._workingset_activate(False), self._workingset_activate(True)]

    def can_age_anon_pages(self) -> bool:
        """Whether there is swap (``can_age_anon_pages()``)."""
        return self._memory.total_swap_pages > 0

    def can_reclaim_anon_pages(self) -> bool:
        """Whether free swap is left (``can_reclaim_anon_pages()``)."""
        return self._lruvec.node_stat(pg.NS_FREE_SWAP) > 0

    def prepare_scan_count(self, sc: ScanControl) -> None:
        """Judge the lists before a pass (``prepare_scan_count()``)."""
        S, lruvec = self._memory.S, self._lruvec
        sc.anon_cost, sc.file_cost = int(S[pg.S_ANON_COST]), int(S[pg.S_FILE_COST])
        if sc.force_deactivate:
            sc.may_deactivate_anon = sc.may_deactivate_file = True
        else:
            sc.may_deactivate_anon = self._workingset_activate(False) != self._refaults[
                0
            ] or self.inactive_is_low(False)
            sc.may_deactivate_file = self._workingset_activate(True) != self._refaults[
                1
            ] or self.inactive_is_low(True)
        inactive_file = lruvec.size(pg.LRU_INACTIVE_FILE)
        sc.cache_trim_mode = bool(inactive_file >> sc.priority) and not sc.may_deactivate_file
        free = sum(zone.nr_free_pages for zone in self._pgdat.node_zones)
        file = lruvec.size(pg.LRU_ACTIVE_FILE) + inactive_file
        total_high = sum(high_wmark_pages(zone) for zone in self._pgdat.managed_zones(4))
        anon = lruvec.size(pg.LRU_INACTIVE_ANON)
        sc.file_is_tiny = (
            file + free <= total_high and not sc.may_deactivate_anon and bool(anon >> sc.priority)
        )

    def get_scan_count(self, sc: ScanControl) -> list[int]:
        """Pages to scan of each list (``get_scan_count()``)."""
        anon_fraction = file_fraction = denominator = 1
        if not sc.may_swap or not self.can_reclaim_anon_pages():
            anon_fraction = 0
        elif sc.priority == 0:
            pass
        elif sc.file_is_tiny:
            file_fraction = 0
        elif sc.cache_trim_mode:
            anon_fraction = 0
        else:
            total = sc.anon_cost + sc.file_cost
            anon_cost, file_cost = total + sc.anon_cost, total + sc.file_cost
            total = anon_cost + file_cost
            swappiness = self._memory.vm.swappiness
            anon_fraction = swappiness * (total + 1) // (anon_cost + 1)
            file_fraction = (200 - swappiness) * (total + 1) // (file_cost + 1)
            denominator = anon_fraction + file_fraction
        counts = []
        for lru in range(pg.LRU_UNEVICTABLE):
            fraction = file_fraction if lru >= pg.LRU_INACTIVE_FILE else anon_fraction
            scan = self._lruvec.size(lru, sc.reclaim_idx) >> sc.priority if fraction else 0
            counts.append(scan * fraction // denominator)
        return counts

    # --- scanning -----------------------------------------------------------------------------------

    def shrink_lruvec(self, sc: ScanControl, caller: Reclaimer) -> None:
        """Scan the lists by their counts, until enough was reclaimed (``shrink_lruvec()``)."""
        kswapd = caller is Reclaimer.KSWAPD
        whole = not kswapd and sc.priority == DEF_PRIORITY
        may_deactivate = bool(sc.may_deactivate_anon) << pg.LRU_ACTIVE_ANON
        may_deactivate |= bool(sc.may_deactivate_file) << pg.LRU_ACTIVE_FILE
        buffers = self._take_buffers()
        state = buffers.state
        state[lists.W_CLUSTER] = SWAP_CLUSTER_MAX
        state[lists.W_NR : lists.W_NR + pg.LRU_UNEVICTABLE] = self.get_scan_count(sc)
        state[lists.W_TARGET : lists.W_TARGET + pg.LRU_UNEVICTABLE] = state[: pg.LRU_UNEVICTABLE]
        state[lists.W_NR_TO_RECLAIM] = lists.NO_GOAL if whole else sc.nr_to_reclaim
        self._shrink_lists(sc, buffers, may_deactivate, kswapd=kswapd)
        if state[lists.W_SKIPPED_DEACTIVATE]:
            sc.skipped_deactivate = True
        self._buffers.append(buffers)
        if self.can_age_anon_pages() and self.inactive_is_low(False):
            self.shrink_active_list(pg.LRU_ACTIVE_ANON, SWAP_CLUSTER_MAX, sc)

    def shrink_inactive_list(self, lru: int, nr_to_scan: int, sc: ScanControl, *, kswapd: bool) -> int:
        """One batch of an inactive list (``shrink_inactive_list()``); pages reclaimed."""
        return self._one_batch(lru, nr_to_scan, sc, kswapd=kswapd)

    def shrink_active_list(self, lru: int, nr_to_scan: int, sc: ScanControl) -> None:
        """Move one batch from an active list to the inactive one (``shrink_active_list()``)."""
        self._one_batch(lru, nr_to_scan, sc, kswapd=False)

    def _one_batch(self, lru: int, nr_to_scan: int, sc: ScanControl, *, kswapd: bool) -> int:
        buffers = self._take_buffers()
        state = buffers.state
        state[lists.W_CLUSTER] = state[lists.W_NR + lru] = nr_to_scan
        state[lists.W_LRU] = lru
        state[lists.W_NR_TO_RECLAIM] = lists.NO_GOAL
        self._shrink_lists(sc, buffers, 1 << lru, kswapd=kswapd, sleeps=False)
        reclaimed = int(state[lists.W_RECLAIMED])
        self._buffers.append(buffers)
        return reclaimed

    def _shrink_lists(
        self, sc: ScanControl, buffers: _Buffers, may_deactivate: int, *, kswapd: bool, sleeps: bool = True
    ) -> None:
        """The rounds over the lists, in compiled code for as long as nobody else does anything.

        `may_deactivate` has the bits of the active lists that may be shrunk; the caller may give way after a round if it
        `sleeps`.
        """
        memory, context, costs = self._memory, self._context, self._costs
        isolate_ns = skip_ns = shrink_ns = 0
        if costs is not None:
            isolate_ns, skip_ns, shrink_ns = (
                costs.lru_isolate_page,
                costs.lru_skip_page,
                costs.lru_shrink_page,
            )
        # Who listens hears of each batch at its own time.
        heard = bool(memory.S[pg.S_TRACE_MASK]) or any(map(self._trace.enabled, _BATCH_EVENTS))
        status = lists.LISTS_ROUND
        while status != lists.LISTS_DONE:
            status = lists.shrink_lists(
                memory.page,
                memory.pb,
                memory.S,
                self._rmap.slots,
                context.cpu,
                buffers.state,
                sc.reclaim_idx,
                self._bits(sc, kswapd=kswapd),
                may_deactivate,
                isolate_ns,
                skip_ns,
                shrink_ns,
                0 if heard else context.quiet_ns,
                sleeps and context.need_resched(),
                buffers.batch,
                buffers.out,
                buffers.written,
            )
            done = buffers.state.tolist()
            if done[lists.W_LAST_LRU] != lists.NO_LRU:
                if heard:
                    self._emit_isolated(done, sc, buffers.out.tolist())
                if costs is not None:
                    context.charge(done[lists.W_NS], "reclaim")
                self._take_in(done, sc, buffers)
                if heard:
                    self._emit_shrunk(done, sc, buffers.out.tolist())
            if status == lists.LISTS_ROUND:
                context.might_sleep()

    def _take_in(self, done: list[int], sc: ScanControl, buffers: _Buffers) -> None:
        """Have written what the last batch says, and add up what all of them met."""
        file = done[lists.W_LAST_LRU] == pg.LRU_INACTIVE_FILE
        nr_written = int(buffers.out[jit.R_NR_WRITTEN])
        if nr_written and self.page_io is not None:
            # The device keeps them for longer than this batch.
            to_write = buffers.written[:nr_written].copy()
            if self._trace.enabled(MmVmscanWriteFolio):
                for pfn in to_write:
                    self._trace.emit(MmVmscanWriteFolio(int(pfn), file))
            self.page_io.submit(to_write, file=file)
        got = done[lists.W_SUM : lists.W_SUM_FILE]
        sc.nr_reclaimed += got[jit.R_RECLAIMED]
        sc.nr_scanned += got[jit.R_NR_SCANNED]
        sc.nr.dirty += got[jit.R_DIRTY]
        sc.nr.congested += got[jit.R_CONGESTED]
        sc.nr.unqueued_dirty += got[jit.R_UNQUEUED_DIRTY]
        sc.nr.writeback += got[jit.R_WRITEBACK]
        sc.nr.immediate += got[jit.R_IMMEDIATE]
        sc.nr.taken += got[jit.R_TAKEN]
        sc.nr.file_taken += done[lists.W_SUM_FILE]
        if done[lists.W_ALL_DIRTY] and self.page_io is not None:
            self.page_io.wakeup_flusher_threads()

    def _bits(self, sc: ScanControl, *, kswapd: bool) -> int:
        bits = jit.MAY_UNMAP if sc.may_unmap else 0
        bits |= jit.MAY_WRITEPAGE if sc.may_writepage and self.page_io is not None else 0
        bits |= jit.MAY_IO if sc.gfp_mask & gfp.IO else 0
        bits |= jit.MAY_FS if sc.gfp_mask & gfp.FS else 0
        if kswapd:
            bits |= jit.IS_KSWAPD
        bits |= jit.PGDAT_WRITEBACK if self._pgdat.under_writeback else 0
        bits |= jit.PGDAT_DIRTY if self._pgdat.many_dirty else 0
        return bits

    def _take_buffers(self) -> _Buffers:
        if not self._buffers:
            return _Buffers()
        buffers = self._buffers.pop()
        buffers.state[:] = 0
        return buffers

    # --- for who listens ------------------------------------------------------------------------------

    def _emit_isolated(self, done: list[int], sc: ScanControl, got: list[int]) -> None:
        lru = done[lists.W_LAST_LRU]
        if self._trace.enabled(MmVmscanLruIsolate):
            self._trace.emit(
                MmVmscanLruIsolate(
                    0 if sc.may_unmap else 2,
                    sc.reclaim_idx,
                    sc.order,
                    done[lists.W_LAST_NR],
                    got[jit.R_SCANNED],
                    got[jit.R_SKIPPED],
                    got[jit.R_TAKEN],
                    lru,
                )
            )
        if lru not in _INACTIVE and self._trace.enabled(MmVmscanLruShrinkActive):
            self._trace.emit(
                MmVmscanLruShrinkActive(
                    self._pgdat.node_id,
                    got[jit.R_TAKEN],
                    got[jit.R_ACTIVATE_FILE],
                    got[jit.R_RECLAIMED],
                    got[jit.R_REF_KEEP],
                    sc.priority,
                    lru == pg.LRU_ACTIVE_FILE,
                )
            )

    def _emit_shrunk(self, done: list[int], sc: ScanControl, got: list[int]) -> None:
        lru = done[lists.W_LAST_LRU]
        if lru in _INACTIVE and got[jit.R_TAKEN] and self._trace.enabled(MmVmscanLruShrinkInactive):
            self._trace.emit(
                MmVmscanLruShrinkInactive(
                    self._pgdat.node_id,
                    got[jit.R_SCANNED],
                    got[jit.R_RECLAIMED],
                    got[jit.R_DIRTY],
                    got[jit.R_WRITEBACK],
                    got[jit.R_CONGESTED],
                    got[jit.R_IMMEDIATE],
                    got[jit.R_ACTIVATE_ANON],
                    got[jit.R_ACTIVATE_FILE],
                    got[jit.R_REF_KEEP],
                    got[jit.R_UNMAP_FAIL],
                    sc.priority,
                    lru == pg.LRU_INACTIVE_FILE,
                )
            )
