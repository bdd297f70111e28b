"""How much of each LRU list a pass scans, and the scan itself (``shrink_lruvec()``, mm/vmscan.c of 6.1)."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.jit import reclaim
from mmfw.jit import shrink_folio as jit
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


class PageIo(Protocol):
    """The devices that reclaim writes to."""

    def submit(self, pfns: NDArray[np.int64], *, file: bool) -> None:
        """Write folios that are marked `PG_WRITEBACK`; on completion they are unmarked."""
        ...

    def wakeup_flusher_threads(self) -> None:
        """Have dirty file pages written."""
        ...


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
        # One set for each depth of nesting: reclaim does not nest in one task, but tasks may alternate.
        self._buffers: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []

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
        nr = self.get_scan_count(sc)
        targets = list(nr)
        before = sc.nr_reclaimed
        nr_to_reclaim = sc.nr_to_reclaim
        kswapd = caller is Reclaimer.KSWAPD
        proportional = not kswapd and sc.priority == DEF_PRIORITY
        while nr[pg.LRU_INACTIVE_ANON] or nr[pg.LRU_ACTIVE_FILE] or nr[pg.LRU_INACTIVE_FILE]:
            for lru in range(pg.LRU_UNEVICTABLE):
                if nr[lru]:
                    nr_to_scan = min(nr[lru], SWAP_CLUSTER_MAX)
                    nr[lru] -= nr_to_scan
                    sc.nr_reclaimed += self._shrink_list(lru, nr_to_scan, sc, kswapd=kswapd)
            self._context.might_sleep()
            if sc.nr_reclaimed - before < nr_to_reclaim or proportional:
                continue
            # The kind with less left is stopped, the other is brought to the same fraction of its target; so the next
            # round, which finds one kind at 0, is the last.
            file = nr[pg.LRU_INACTIVE_FILE] + nr[pg.LRU_ACTIVE_FILE]
            anon = nr[pg.LRU_INACTIVE_ANON] + nr[pg.LRU_ACTIVE_ANON]
            if not file or not anon:
                break
            small, large = (pg.LRU_INACTIVE_ANON, pg.LRU_INACTIVE_FILE)
            if file <= anon:
                small, large = large, small
            target = targets[small] + targets[small + 1] + 1
            percentage = min(file, anon) * 100 // target
            nr[small] = nr[small + 1] = 0
            for lru in (large, large + 1):
                done = targets[lru] - nr[lru]
                nr[lru] = targets[lru] * (100 - percentage) // 100
                nr[lru] -= min(nr[lru], done)
        if self.can_age_anon_pages() and self.inactive_is_low(False):
            self.shrink_active_list(pg.LRU_ACTIVE_ANON, SWAP_CLUSTER_MAX, sc)

    def _shrink_list(self, lru: int, nr_to_scan: int, sc: ScanControl, *, kswapd: bool) -> int:
        """``shrink_list()``; pages reclaimed."""
        if lru in _INACTIVE:
            return self._shrink_inactive_list(lru, nr_to_scan, sc, kswapd=kswapd)
        if sc.may_deactivate_file if lru == pg.LRU_ACTIVE_FILE else sc.may_deactivate_anon:
            self.shrink_active_list(lru, nr_to_scan, sc)
        else:
            sc.skipped_deactivate = True
        return 0

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

    def _take_buffers(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        if self._buffers:
            return self._buffers.pop()
        room = 4 * SWAP_CLUSTER_MAX
        return (
            np.empty(room, dtype=np.int64),
            np.zeros(jit.R_SIZE, dtype=np.int64),
            # A huge page among the last of a batch may be written page by page.
            np.empty(room + PAGEBLOCK_NR_PAGES, dtype=np.int64),
        )

    def _shrink_inactive_list(self, lru: int, nr_to_scan: int, sc: ScanControl, *, kswapd: bool) -> int:
        """``shrink_inactive_list()``: one batch; pages reclaimed."""
        memory, file = self._memory, lru == pg.LRU_INACTIVE_FILE
        buffers = batch, out, written = self._take_buffers()
        reclaim.shrink_inactive_list(
            memory.page,
            memory.pb,
            memory.S,
            self._rmap.slots,
            self._context.cpu,
            lru,
            nr_to_scan,
            sc.reclaim_idx,
            self._bits(sc, kswapd=kswapd),
            batch,
            out,
            written,
        )
        got = out.tolist()
        nr_written = got[jit.R_NR_WRITTEN]
        to_write = written[:nr_written].copy() if nr_written else None
        self._buffers.append(buffers)
        self._emit_isolate(lru, nr_to_scan, sc, got)
        if self._costs is not None:
            ns = self._isolation_ns(got, self._costs)
            self._context.charge(ns + got[jit.R_TAKEN] * self._costs.lru_shrink_page, "reclaim")
        if not got[jit.R_TAKEN]:
            return 0
        if to_write is not None and self.page_io is not None:
            if self._trace.enabled(MmVmscanWriteFolio):
                for pfn in to_write:
                    self._trace.emit(MmVmscanWriteFolio(int(pfn), file))
            self.page_io.submit(to_write, file=file)
        sc.nr_scanned += got[jit.R_NR_SCANNED]
        sc.nr.dirty += got[jit.R_DIRTY]
        sc.nr.congested += got[jit.R_CONGESTED]
        sc.nr.unqueued_dirty += got[jit.R_UNQUEUED_DIRTY]
        sc.nr.writeback += got[jit.R_WRITEBACK]
        sc.nr.immediate += got[jit.R_IMMEDIATE]
        sc.nr.taken += got[jit.R_TAKEN]
        if file:
            sc.nr.file_taken += got[jit.R_TAKEN]
        if got[jit.R_UNQUEUED_DIRTY] == got[jit.R_TAKEN] and self.page_io is not None:
            self.page_io.wakeup_flusher_threads()
        if self._trace.enabled(MmVmscanLruShrinkInactive):
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
                    file,
                )
            )
        return int(got[jit.R_RECLAIMED])

    def shrink_active_list(self, lru: int, nr_to_scan: int, sc: ScanControl) -> None:
        """Move one batch from an active list to the inactive one (``shrink_active_list()``)."""
        memory = self._memory
        buffers = batch, out, _ = self._take_buffers()
        reclaim.shrink_active_list(
            memory.page, memory.pb, memory.S, lru, nr_to_scan, sc.reclaim_idx, 0, batch, out
        )
        got = out.tolist()
        self._buffers.append(buffers)
        self._emit_isolate(lru, nr_to_scan, sc, got)
        if self._trace.enabled(MmVmscanLruShrinkActive):
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
        if self._costs is not None:
            self._context.charge(2 * self._isolation_ns(got, self._costs), "reclaim")

    @staticmethod
    def _isolation_ns(got: list[int], costs: CostProfile) -> int:
        """What an isolation took; pages put aside for their zone are looked at and moved, no more."""
        skipped = got[jit.R_SKIPPED]
        return skipped * costs.lru_skip_page + (got[jit.R_SCANNED] - skipped) * costs.lru_isolate_page

    def _emit_isolate(self, lru: int, nr_to_scan: int, sc: ScanControl, got: list[int]) -> None:
        if self._trace.enabled(MmVmscanLruIsolate):
            self._trace.emit(
                MmVmscanLruIsolate(
                    0 if sc.may_unmap else 2,
                    sc.reclaim_idx,
                    sc.order,
                    nr_to_scan,
                    got[jit.R_SCANNED],
                    got[jit.R_SKIPPED],
                    got[jit.R_TAKEN],
                    lru,
                )
            )
