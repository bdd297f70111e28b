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
from mmfw.types import KswapdRequest

if TYPE_CHECKING:
    from mmfw.mm.balance import Balancer
    from mmfw.mm.wakeup import KswapdRequests

#: HZ/10 in ns: the nap before the full sleep.
NAP_NS: Final = 100_000_000


class Kswapd:
    """One node's kswapd.

    Parameters
    ----------
    sched : Scheduler
        Where it runs.
    requests : KswapdRequests
        What it is asked for.
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
        requests: KswapdRequests,
        balancer: Balancer,
        wait: WaitQueue,
        trace: Tracepoints,
        vmstat: VmStat,
    ) -> None:
        self._sched = sched
        self._pgdat = balancer.pgdat
        self._requests = requests
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
        node_id = self._pgdat.node_id
        request, beyond = KswapdRequest(0, MAX_NR_ZONES - 1), 0
        while True:
            request = self._requests.peek(request.highest_zoneidx)
            reclaim_order = request.order
            while True:
                self._try_to_sleep(request, reclaim_order, beyond)
                request, beyond = self._requests.take(request.highest_zoneidx)
                self._busy_since = self._sched.now
                self._sched.charge(self._sched.costs.kswapd_wake, "kswapd")
                self._trace.fire(MmVmscanKswapdWake, node_id, request.highest_zoneidx, request.order)
                pass_ns = self._sched.costs.balance_pgdat
                self._sched.charge(self._sched.costs.kswapd_wake + self._first_pass_ns + pass_ns, "kswapd")
                self._first_pass_ns = 0
                reclaim_order = self._balancer.balance_pgdat(request.order, request.highest_zoneidx, beyond)
                self._sched.charge(pass_ns, "kswapd")
                self._busy_ns += self._sched.now - self._busy_since
                self._busy_since = None
                if reclaim_order >= request.order:
                    break

    def _try_to_sleep(self, request: KswapdRequest, reclaim_order: int, beyond: int) -> None:
        """``kswapd_try_to_sleep()``: a nap of HZ/10, then, if nobody came, the full sleep."""
        balancer, highest_zoneidx = self._balancer, request.highest_zoneidx
        remaining = 0
        self._sched.charge(self._sched.costs.kswapd_try_to_sleep, "kswapd")
        self._wait.prepare_to_wait()
        if balancer.prepare_kswapd_sleep(reclaim_order, highest_zoneidx, beyond):
            compaction = balancer.vmscan.compaction
            if compaction is not None:
                compaction.reset_isolation_suitable()
                compaction.wakeup_kcompactd(request.order, highest_zoneidx)
            remaining = schedule_timeout_jiffies(self._sched, NAP_NS, self._wait)
            if remaining:
                self._requests.put_back(KswapdRequest(reclaim_order, highest_zoneidx), beyond)
            self._wait.finish_wait()
            self._wait.prepare_to_wait()
        if not remaining and balancer.prepare_kswapd_sleep(reclaim_order, highest_zoneidx, beyond):
            self._trace.fire(MmVmscanKswapdSleep, self._pgdat.node_id)
            self._sched.schedule_timeout(MAX_SCHEDULE_TIMEOUT, self._wait)
        else:
            self._vmstat.count(
                VmEvent.kswapd_low_wmark_hit_quickly if remaining else VmEvent.kswapd_high_wmark_hit_quickly
            )
        self._wait.finish_wait()
