"""The kcompactd thread: compaction in the background, asked for or proactive (``kcompactd()``, mm/compaction.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.mm.compact_defer import COMPACT_MAX_DEFER_SHIFT
from mmfw.mm.fragmentation import fragmentation_score_node
from mmfw.mm.trace import MmCompactionKcompactdSleep, Tracepoints
from mmfw.sched import PF_KTHREAD, Scheduler, Task, WaitQueue, schedule_timeout_jiffies

if TYPE_CHECKING:
    from mmfw.mm.compaction import Compaction

#: ``HPAGE_FRAG_CHECK_INTERVAL_MSEC``, in ns.
FRAG_CHECK_INTERVAL_NS: Final = 500_000_000


class Kcompactd:
    """One node's kcompactd.

    Parameters
    ----------
    sched : Scheduler
        Where it runs.
    compaction : Compaction
        What it does when awake.
    wait : WaitQueue
        ``kcompactd_wait``.
    trace : Tracepoints
        Where its events go.
    """

    def __init__(self, sched: Scheduler, compaction: Compaction, wait: WaitQueue, trace: Tracepoints) -> None:
        self._sched = sched
        self._compaction = compaction
        self._wait = wait
        self._trace = trace
        self._busy_since: int | None = None
        self._busy_ns = 0

    def kthread_run(self) -> Task:
        """Start the thread (``kcompactd_run()``)."""
        pgdat = self._compaction.pgdat
        pgdat.kcompactd_max_order = 0
        pgdat.kcompactd_highest_zoneidx = pgdat.nr_zones - 1
        return self._sched.spawn(self._main, name=f"kcompactd{pgdat.node_id}", flags=PF_KTHREAD)

    @property
    def asleep(self) -> bool:
        """Whether it waits for work."""
        return self._busy_since is None

    @property
    def busy_ns(self) -> int:
        """Virtual time spent awake, waits inside included."""
        running = 0 if self._busy_since is None else self._sched.now - self._busy_since
        return self._busy_ns + running

    def _main(self) -> None:
        pgdat, compaction = self._compaction.pgdat, self._compaction
        timeout = FRAG_CHECK_INTERVAL_NS
        while True:
            self._trace.fire(MmCompactionKcompactdSleep, pgdat.node_id)
            asked = self._wait_for_work(timeout)
            self._busy_since = self._sched.now
            timeout = FRAG_CHECK_INTERVAL_NS
            if asked:
                compaction.kcompactd_do_work()
            elif compaction.should_proactive_compact_node():
                before = fragmentation_score_node(pgdat)
                compaction.compact_node(proactive=True)
                if fragmentation_score_node(pgdat) >= before:
                    timeout = FRAG_CHECK_INTERVAL_NS << COMPACT_MAX_DEFER_SHIFT
            self._busy_ns += self._sched.now - self._busy_since
            self._busy_since = None

    def _wait_for_work(self, timeout: int) -> bool:
        """``wait_event_freezable_timeout(kcompactd_work_requested())``."""
        pgdat = self._compaction.pgdat
        while pgdat.kcompactd_max_order == 0 and timeout > 0:
            self._wait.prepare_to_wait()
            if pgdat.kcompactd_max_order == 0:
                timeout = schedule_timeout_jiffies(self._sched, timeout, self._wait)
            self._wait.finish_wait()
        return pgdat.kcompactd_max_order > 0
