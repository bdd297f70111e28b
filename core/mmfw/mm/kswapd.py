"""The kswapd thread: when it sleeps, what request it takes, when it tries again (``kswapd()``, mm/vmscan.c of 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.mm.trace import MmVmscanKswapdSleep, MmVmscanKswapdWake, Tracepoints
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.sched import (
    MAX_SCHEDULE_TIMEOUT,
    PF_KSWAPD,
    PF_KTHREAD,
    PF_MEMALLOC,
    Scheduler,
    Task,
    TaskState,
    WaitQueue,
    schedule_timeout_jiffies,
)
from mmfw.state import MAX_NR_ZONES

if TYPE_CHECKING:
    from mmfw.mm.balance import Balancer
    from mmfw.mm.mmzone import PglistData

#: HZ/10 in ns: the nap before the full sleep.
NAP_NS: Final = 100_000_000


class Kswapd:
    """One node's kswapd.

    Parameters
    ----------
    sched : Scheduler
        Where it runs.
    pgdat : PglistData
        Its node, which holds the wakers' requests.
    balancer : Balancer
        What it does when awake.
    trace, vmstat
        Where events and counts go.
    wait : WaitQueue
        ``kswapd_wait``.
    """

    def __init__(
        self,
        sched: Scheduler,
        pgdat: PglistData,
        balancer: Balancer,
        wait: WaitQueue,
        trace: Tracepoints,
        vmstat: VmStat,
    ) -> None:
        self._sched = sched
        self._pgdat = pgdat
        self._balancer = balancer
        self._trace = trace
        self._vmstat = vmstat
        self._wait = wait
        self._task: Task | None = None
        self._busy_since: int | None = None
        self._busy_ns = 0
        self._first_pass_ns = sched.costs.kswapd_first_pass

    @property
    def running(self) -> bool:
        """``kswapd_is_running()``: whether its task is runnable, not whether a pass is under way."""
        return self._task is not None and self._task.state is TaskState.RUNNING

    def kthread_run(self) -> Task:
        """Start the thread (``kswapd_run()``)."""
        flags = PF_KTHREAD | PF_MEMALLOC | PF_KSWAPD
        self._task = self._sched.spawn(self._main, name=f"kswapd{self._pgdat.node_id}", flags=flags)
        return self._task

    @property
    def busy_ns(self) -> int:
        """Virtual time spent between a wake-up and the end of its pass, waits inside included."""
        running = 0 if self._busy_since is None else self._sched.now - self._busy_since
        return self._busy_ns + running

    @property
    def asleep(self) -> bool:
        """Whether no pass is under way."""
        return self._busy_since is None

    def _main(self) -> None:
        pgdat = self._pgdat
        highest_zoneidx, beyond = MAX_NR_ZONES - 1, 0
        while True:
            alloc_order = reclaim_order = pgdat.kswapd_order
            highest_zoneidx = self._highest_zoneidx(highest_zoneidx)
            while True:
                self._try_to_sleep(alloc_order, reclaim_order, highest_zoneidx, beyond)
                alloc_order = pgdat.kswapd_order
                highest_zoneidx = self._highest_zoneidx(highest_zoneidx)
                pgdat.kswapd_order = 0
                beyond, pgdat.kswapd_min_free_pages = pgdat.kswapd_min_free_pages, 0
                pgdat.kswapd_highest_zoneidx = MAX_NR_ZONES
                self._balancer.vmscan.kswapd_begins(alloc_order, highest_zoneidx)
                self._busy_since = self._sched.now
                self._sched.charge(self._sched.costs.kswapd_wake, "kswapd")
                if self._trace.enabled(MmVmscanKswapdWake):
                    self._trace.emit(MmVmscanKswapdWake(pgdat.node_id, highest_zoneidx, alloc_order))
                self._sched.charge(self._sched.costs.kswapd_wake + self._first_pass_ns, "kswapd")
                self._first_pass_ns = 0
                reclaim_order = self._balancer.balance_pgdat(alloc_order, highest_zoneidx, beyond)
                self._busy_ns += self._sched.now - self._busy_since
                self._busy_since = None
                if reclaim_order >= alloc_order:
                    break

    def _highest_zoneidx(self, previous: int) -> int:
        """``kswapd_highest_zoneidx()``: what the wakers asked, else what it was."""
        asked = self._pgdat.kswapd_highest_zoneidx
        return previous if asked == MAX_NR_ZONES else asked

    def _try_to_sleep(self, alloc_order: int, reclaim_order: int, highest_zoneidx: int, beyond: int) -> None:
        """``kswapd_try_to_sleep()``: a nap of HZ/10, then, if nobody came, the full sleep."""
        pgdat, balancer = self._pgdat, self._balancer
        remaining = 0
        self._wait.prepare_to_wait()
        if balancer.prepare_kswapd_sleep(reclaim_order, highest_zoneidx, beyond):
            compaction = balancer.vmscan.compaction
            if compaction is not None:
                compaction.reset_isolation_suitable()
                compaction.wakeup_kcompactd(alloc_order, highest_zoneidx)
            remaining = schedule_timeout_jiffies(self._sched, NAP_NS, self._wait)
            if remaining:
                pgdat.kswapd_highest_zoneidx = self._highest_zoneidx(highest_zoneidx)
                pgdat.kswapd_order = max(pgdat.kswapd_order, reclaim_order)
                pgdat.kswapd_min_free_pages = max(pgdat.kswapd_min_free_pages, beyond)
                balancer.vmscan.kswapd_requeues(reclaim_order, highest_zoneidx)
            self._wait.finish_wait()
            self._wait.prepare_to_wait()
        if not remaining and balancer.prepare_kswapd_sleep(reclaim_order, highest_zoneidx, beyond):
            if self._trace.enabled(MmVmscanKswapdSleep):
                self._trace.emit(MmVmscanKswapdSleep(pgdat.node_id))
            self._sched.schedule_timeout(MAX_SCHEDULE_TIMEOUT, self._wait)
        else:
            self._vmstat.count(
                VmEvent.kswapd_low_wmark_hit_quickly if remaining else VmEvent.kswapd_high_wmark_hit_quickly
            )
        self._wait.finish_wait()
