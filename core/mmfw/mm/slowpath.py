"""What happens when an allocation misses the free lists: ``__alloc_pages_slowpath()`` of 6.1, every branch of it.

Left out, since one node without cpusets is simulated: cpuset retries and nodemasks. Real-time tasks, softirqs,
core dumps and suspend are not modelled either; each only widens or narrows access to reserves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from mmfw import gfp
from mmfw.gfp import show_gfp_flags
from mmfw.jit import page as pg
from mmfw.kernels import KERNEL_6_1, KernelProfile
from mmfw.mm.freelist import PF_MEMALLOC, Freelist, Request
from mmfw.mm.mmzone import min_wmark_pages
from mmfw.mm.oom_kill import OutOfMemory
from mmfw.mm.throttle import MAX_RECLAIM_RETRIES
from mmfw.mm.trace import CompactRetry, ReclaimRetryZone, Tracepoints
from mmfw.mm.vmscan import PAGE_ALLOC_COSTLY_ORDER
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.state import ZoneType
from mmfw.types import CompactPriority, CompactResult

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.context import ExecContext
    from mmfw.mm.mmzone import Zone
    from mmfw.mm.vmscan import Vmscan

MAX_COMPACT_RETRIES: Final = 16
#: Rounds without progress after which a ``__GFP_NOFAIL`` request is said to loop for ever, as it does in the kernel.
NOFAIL_ROUNDS: Final = 1000


class DirectCompactor(Protocol):
    """Compaction, as the slow path uses it."""

    def try_to_compact_pages(
        self, gfp_mask: int, order: int, alloc_flags: int, highest_zoneidx: int, prio: CompactPriority
    ) -> tuple[CompactResult, int]:
        """Compact zones until one succeeds; the result, and a captured pfn or -1."""
        ...

    def compaction_zonelist_suitable(self, order: int, alloc_flags: int, highest_zoneidx: int) -> bool:
        """Whether reclaim could make some zone fit for compaction."""
        ...

    def compaction_defer_reset(self, zone: Zone, order: int, alloc_success: bool) -> None:
        """Note that an order can be had again."""
        ...

    def clear_blockskip_flush(self, zone: Zone) -> None:
        """Take back the wish that skip bits be recomputed."""
        ...


class OomKiller(Protocol):
    """The OOM killer, as the slow path uses it."""

    def mutex_trylock(self) -> bool:
        """Take ``oom_lock`` if it is free."""
        ...

    def unlock(self) -> None:
        """Give ``oom_lock`` back."""
        ...

    def out_of_memory(self, gfp_mask: int, order: int, highest_zoneidx: int) -> bool:
        """Kill somebody; whether memory is on its way."""
        ...

    def current_is_victim(self) -> bool:
        """Whether the running task is being killed for memory (``tsk_is_oom_victim()``)."""
        ...

    def wait_for_other(self) -> None:
        """Sleep a tick while another task holds ``oom_lock``."""
        ...


@dataclass(slots=True)
class _Attempt:
    """What one trip through the slow path carries along."""

    request: Request
    order: int
    flags: int
    prio: CompactPriority = CompactPriority.SYNC_LIGHT
    result: CompactResult = CompactResult.SKIPPED
    compaction_retries: int = 0
    no_progress_loops: int = 0

    @property
    def costly(self) -> bool:
        return self.order > PAGE_ALLOC_COSTLY_ORDER


class Slowpath:
    """``__alloc_pages_slowpath()`` of one node.

    Parameters
    ----------
    freelist : Freelist
        Attempts at the free lists.
    vmscan : Vmscan
        Direct reclaim.
    compaction : DirectCompactor or None
        Direct compaction; None on a machine where no request may compact.
    oom : OomKiller or None
        None on a machine where no request may end there.
    context, trace, vmstat, costs
        The running task; where events and counts go; what the path costs.
    kernel : KernelProfile
        Whose rules.
    """

    def __init__(
        self,
        freelist: Freelist,
        vmscan: Vmscan,
        compaction: DirectCompactor | None,
        oom: OomKiller | None,
        context: ExecContext,
        trace: Tracepoints,
        vmstat: VmStat,
        costs: CostProfile | None = None,
        kernel: KernelProfile = KERNEL_6_1,
    ) -> None:
        self._freelist = freelist
        self._skipped_ends_noretry = kernel.skipped_compaction_ends_noretry
        self._vmscan = vmscan
        self._compaction = compaction
        self.oom = oom
        self._context = context
        self._trace = trace
        self._vmstat = vmstat
        self._entry_ns = 0 if costs is None else costs.alloc_slowpath
        self._wake_ns = 0 if costs is None else costs.wakeup_kswapd
        self._failed_ns = 0 if costs is None else costs.alloc_failed
        self._reclaim_ns = 0 if costs is None else costs.direct_reclaim
        self._drain_ns = 0 if costs is None else costs.free_buddy

    def alloc_pages(self, request: Request, order: int, *, asked: bool = False) -> int:
        """Answer a request that the fast path could not (``__alloc_pages_slowpath()``).

        Parameters
        ----------
        request, order
            What is wanted.
        asked : bool
            Whether kswapd has just been asked for it.

        Returns
        -------
        int
            First pfn, or -1.

        Raises
        ------
        OutOfMemory
            ``__GFP_NOFAIL``, or nobody left to kill.
        """
        if self._freelist.preferred_zone(request.highest_zoneidx) < 0:
            return -1
        attempt = _Attempt(request, order, request.slow_flags)
        pfn, retry = self._first_attempts(attempt, asked)
        if retry:
            pfn = self._retry_loop(attempt)
        if pfn < 0:
            self._context.charge(self._failed_ns, "alloc_pages_slowpath")
        if pfn >= 0 or not request.gfp_mask & gfp.NOFAIL or not request.gfp_mask & gfp.DIRECT_RECLAIM:
            return pfn
        for _ in range(NOFAIL_ROUNDS):
            pfn = self._freelist.get_page(request, order, pg.ALLOC_MIN_RESERVE | pg.ALLOC_CPUSET)
            if pfn >= 0:
                return pfn
            self._context.might_sleep()
            pfn = self._retry_loop(attempt)
            if pfn >= 0:
                return pfn
        raise OutOfMemory(
            f"an order-{order} request with {show_gfp_flags(request.gfp_mask)} may not fail, and "
            f"{NOFAIL_ROUNDS} rounds of reclaim brought nothing; the kernel would loop for ever. Give the machine "
            "more memory, or a shrinker that frees some"
        )

    def ask_in_company(self, request: Request) -> bool:
        """Ask kswapd for single pages if it is awake, which wakes nobody, and other CPUs run; whether that is so."""
        if self._freelist.memory.nr_cpus == 1:
            return False
        if request.slow_flags & pg.ALLOC_KSWAPD:
            if not self._freelist.kswapd.kswapd_is_awake:
                return False
            self._freelist.wake_all_kswapds(request, 0)
        return True

    def charge_entries(self, nr: int) -> None:
        """Let the time of so many entries pass, each met at its first attempt."""
        self._context.charge(nr * self._entry_ns, "alloc_pages_slowpath")

    def _first_attempts(self, attempt: _Attempt, asked: bool) -> tuple[int, bool]:
        """Up to the label ``retry``: a pfn or -1, and whether to go on to it."""
        request, order = attempt.request, attempt.order
        woken = False
        if attempt.flags & pg.ALLOC_KSWAPD and not asked:
            woken = self._freelist.wake_all_kswapds(request, order)
        self._context.charge(self._entry_ns + (self._wake_ns if woken else 0), "alloc_pages_slowpath")
        pfn = self._freelist.get_page(request, order, attempt.flags)
        if pfn >= 0:
            return pfn, False
        if self._compacts_first(attempt):
            pfn = self._direct_compact(attempt, CompactPriority.ASYNC)
            if pfn >= 0:
                return pfn, False
            if attempt.costly and request.gfp_mask & gfp.NORETRY:
                hopeless = self._skipped_ends_noretry and attempt.result in (
                    CompactResult.SKIPPED,
                    CompactResult.DEFERRED,
                )
                if hopeless or request.gfp_mask & gfp.THISNODE:
                    return -1, False
                attempt.prio = CompactPriority.ASYNC
        return -1, True

    def _compacts_first(self, attempt: _Attempt) -> bool:
        request = attempt.request
        return bool(
            request.gfp_mask & gfp.DIRECT_RECLAIM
            and request.gfp_mask & gfp.IO
            and (attempt.costly or (attempt.order > 0 and request.migratetype != pg.MOVABLE))
            and not self._pfmemalloc_flags(request.gfp_mask)
        )

    def _retry_loop(self, attempt: _Attempt) -> int:
        """From the label ``retry`` to ``nopage``."""
        request, order, gfp_mask = attempt.request, attempt.order, attempt.request.gfp_mask
        can_compact = bool(gfp_mask & gfp.IO)
        while True:
            if attempt.flags & pg.ALLOC_KSWAPD:
                self._freelist.wake_all_kswapds(request, order)
            reserve = self._pfmemalloc_flags(gfp_mask)
            if reserve:
                attempt.flags = reserve | attempt.flags & pg.ALLOC_KSWAPD
            pfn = self._freelist.get_page(request, order, attempt.flags)
            if pfn >= 0:
                return pfn
            if not gfp_mask & gfp.DIRECT_RECLAIM or self._context.task_flags & PF_MEMALLOC:
                return -1
            pfn, progress = self._direct_reclaim(attempt)
            if pfn < 0:
                pfn = self._direct_compact(attempt, attempt.prio)
            if pfn >= 0:
                return pfn
            if gfp_mask & gfp.NORETRY or (
                attempt.costly and not (can_compact and gfp_mask & gfp.RETRY_MAYFAIL)
            ):
                return -1
            if self._should_reclaim_retry(attempt, progress > 0):
                continue
            if progress > 0 and can_compact and self._should_compact_retry(attempt):
                continue
            pfn, oom_progress = self._may_oom(attempt)
            if pfn >= 0:
                return pfn
            victim = self.oom is not None and self.oom.current_is_victim()
            if victim and (attempt.flags & pg.ALLOC_OOM or gfp_mask & gfp.NOMEMALLOC):
                return -1
            if not oom_progress:
                return -1
            attempt.no_progress_loops = 0

    # --- its steps ----------------------------------------------------------------------------------

    def _direct_compact(self, attempt: _Attempt, prio: CompactPriority) -> int:
        """``__alloc_pages_direct_compact()``; leaves the result in the attempt."""
        request, order = attempt.request, attempt.order
        if order == 0 or self._compaction is None:
            return -1
        attempt.result, pfn = self._compaction.try_to_compact_pages(
            request.gfp_mask, order, attempt.flags, request.highest_zoneidx, prio
        )
        if attempt.result == CompactResult.SKIPPED:
            return -1
        self._vmstat.count(VmEvent.compact_stall)
        if pfn < 0:
            pfn = self._freelist.get_page(request, order, attempt.flags)
        if pfn >= 0:
            zone = self._zone_of(pfn)
            self._compaction.clear_blockskip_flush(zone)
            self._compaction.compaction_defer_reset(zone, order, True)
            self._vmstat.count(VmEvent.compact_success)
            return pfn
        self._vmstat.count(VmEvent.compact_fail)
        self._context.might_sleep()
        return -1

    def _zone_of(self, pfn: int) -> Zone:
        zones = self._freelist.pgdat.node_zones
        return next(zone for zone in zones if zone.zone_start_pfn <= pfn < zone.zone_end_pfn)

    def _direct_reclaim(self, attempt: _Attempt) -> tuple[int, int]:
        """``__alloc_pages_direct_reclaim()``: a pfn or -1, and the pages reclaimed."""
        request, order = attempt.request, attempt.order
        self._context.might_sleep()
        self._context.charge(self._reclaim_ns, "direct_reclaim")
        progress = self._vmscan.try_to_free_pages(order, request.gfp_mask)
        self._context.charge(self._reclaim_ns, "direct_reclaim")
        self._context.might_sleep()
        if not progress:
            return -1, 0
        pfn = self._freelist.get_page(request, order, attempt.flags)
        if pfn < 0:
            self._freelist.unreserve_highatomic_pageblock(request, force=False)
            drained = self._freelist.drain_all_pages()
            self._context.charge(drained * self._drain_ns, "drain_pages")
            pfn = self._freelist.get_page(request, order, attempt.flags)
        return pfn, progress

    def _pfmemalloc_flags(self, gfp_mask: int) -> int:
        """``__gfp_pfmemalloc_flags()``: who may use the reserves whole."""
        if gfp_mask & gfp.NOMEMALLOC:
            return 0
        if gfp_mask & gfp.MEMALLOC or self._context.task_flags & PF_MEMALLOC:
            return pg.ALLOC_NO_WATERMARKS
        if self.oom is not None and self.oom.current_is_victim():
            return pg.ALLOC_OOM
        return 0

    def _should_reclaim_retry(self, attempt: _Attempt, progress: bool) -> bool:
        """``should_reclaim_retry()``: whether the request could be met if everything reclaimable were."""
        request, order = attempt.request, attempt.order
        if progress and not attempt.costly:
            attempt.no_progress_loops = 0
        else:
            attempt.no_progress_loops += 1
        retry = False
        if attempt.no_progress_loops <= MAX_RECLAIM_RETRIES:
            for zone in self._freelist.zonelist(request.highest_zoneidx):
                reclaimable = self._vmscan.zone_reclaimable_pages(zone)
                available = reclaimable + zone.free_pages_snapshot()
                mark = min_wmark_pages(zone)
                retry = self._freelist.watermark_ok(
                    zone, order, mark, request.highest_zoneidx, attempt.flags, available
                )
                if self._trace.enabled(ReclaimRetryZone):
                    self._trace.emit(
                        ReclaimRetryZone(
                            zone.node,
                            zone.index,
                            order,
                            reclaimable,
                            available,
                            mark,
                            attempt.no_progress_loops,
                            retry,
                        )
                    )
                if retry:
                    break
            self._context.might_sleep()
        return retry or self._freelist.unreserve_highatomic_pageblock(request, force=True)

    def _should_compact_retry(self, attempt: _Attempt) -> bool:
        """``should_compact_retry()``: whether compaction deserves another round, maybe a harder one."""
        order = attempt.order
        if order == 0 or self._compaction is None or self._context.fatal_signal_pending:
            return False
        prio, retries, max_retries = attempt.prio, attempt.compaction_retries, MAX_COMPACT_RETRIES
        if attempt.result == CompactResult.SUCCESS:
            attempt.compaction_retries += 1
        if attempt.result == CompactResult.SKIPPED:
            retry = self._compaction.compaction_zonelist_suitable(
                order, attempt.flags, attempt.request.highest_zoneidx
            )
        elif attempt.result != CompactResult.SUCCESS:
            retry = self._raise_compact_priority(attempt)
        else:
            if attempt.costly:
                max_retries //= 4
            retry = attempt.compaction_retries <= max_retries or self._raise_compact_priority(attempt)
        self._trace.fire(CompactRetry, order, prio, attempt.result, retries, max_retries, retry)
        return retry

    @staticmethod
    def _raise_compact_priority(attempt: _Attempt) -> bool:
        floor = CompactPriority.SYNC_LIGHT if attempt.costly else CompactPriority.SYNC_FULL
        if attempt.prio <= floor:
            return False
        attempt.prio = CompactPriority(attempt.prio - 1)
        attempt.compaction_retries = 0
        return True

    def _may_oom(self, attempt: _Attempt) -> tuple[int, bool]:
        """``__alloc_pages_may_oom()``: a pfn or -1, and whether memory is on its way."""
        request, oom = attempt.request, self.oom
        if oom is None:
            return -1, False
        if not oom.mutex_trylock():
            oom.wait_for_other()
            return -1, True
        try:
            pfn = self._freelist.get_page(request, attempt.order, pg.ALLOC_WMARK_HIGH | pg.ALLOC_CPUSET)
            if (
                pfn >= 0
                or attempt.costly
                or request.gfp_mask & (gfp.RETRY_MAYFAIL | gfp.THISNODE)
                or request.highest_zoneidx < ZoneType.NORMAL
            ):
                return pfn, False
            progress = oom.out_of_memory(request.gfp_mask, attempt.order, request.highest_zoneidx)
            if request.gfp_mask & gfp.NOFAIL:
                return self._freelist.get_page(request, attempt.order, pg.ALLOC_NO_WATERMARKS), True
            return -1, progress
        finally:
            oom.unlock()
