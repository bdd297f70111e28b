"""The kcompactd thread: compaction in the background, asked for or proactive (``kcompactd()``, mm/compaction.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.costs import TICK_NSEC
from mmfw.mm.compact_defer import COMPACT_MAX_DEFER_SHIFT
from mmfw.mm.fragmentation import fragmentation_score_node
from mmfw.mm.trace import MmCompactionKcompactdSleep, Tracepoints
from mmfw.sched import PF_KTHREAD, Scheduler, Task, WaitQueue

if TYPE_CHECKING:
    from mmfw.mm.compaction import Compaction

#: ``HPAGE_FRAG_CHECK_INTERVAL_MSEC``, in ns.
FRAG_CHECK_INTERVAL_NS: Final = 500_000_000


def timer_wheel_delay(now: int, timeout: int) -> int:
    """How long a timeout really takes: long ones fire late (``calc_wheel_index()``, kernel/time/timer.c).

    A timeout of 64 jiffies or more is put off to the next multiple of 8, one of 512 or more of 64, and so on.

    Parameters
    ----------
    now, timeout : int
        Virtual ns.

    Examples
    --------
    >>> timer_wheel_delay(0, 500_000_000), timer_wheel_delay(0, 100_000_000)
    (512000000, 104000000)
    """
    jiffies = timeout // TICK_NSEC
    granularity = 1
    while jiffies >= 64 * granularity:
        granularity *= 8
    expires = (now // TICK_NSEC + jiffies + granularity) // granularity * granularity
    return expires * TICK_NSEC - now


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
        self._working = False

    def kthread_run(self) -> Task:
        """Start the thread (``kcompactd_run()``)."""
        pgdat = self._compaction.pgdat
        pgdat.kcompactd_max_order = 0
        pgdat.kcompactd_highest_zoneidx = pgdat.nr_zones - 1
        return self._sched.spawn(self._main, name=f"kcompactd{pgdat.node_id}", flags=PF_KTHREAD)

    @property
    def asleep(self) -> bool:
        """Whether it waits for work."""
        return not self._working

    def _main(self) -> None:
        pgdat, compaction = self._compaction.pgdat, self._compaction
        timeout = FRAG_CHECK_INTERVAL_NS
        while True:
            if self._trace.enabled(MmCompactionKcompactdSleep):
                self._trace.emit(MmCompactionKcompactdSleep(pgdat.node_id))
            asked = self._wait_for_work(timeout)
            self._working = True
            timeout = FRAG_CHECK_INTERVAL_NS
            if asked:
                compaction.kcompactd_do_work()
            elif compaction.should_proactive_compact_node():
                before = fragmentation_score_node(pgdat)
                compaction.compact_node(proactive=True)
                if fragmentation_score_node(pgdat) >= before:
                    timeout = FRAG_CHECK_INTERVAL_NS << COMPACT_MAX_DEFER_SHIFT
            self._working = False

    def _wait_for_work(self, timeout: int) -> bool:
        """``wait_event_freezable_timeout(kcompactd_work_requested())``."""
        pgdat = self._compaction.pgdat
        while pgdat.kcompactd_max_order == 0 and timeout > 0:
            self._wait.prepare_to_wait()
            if pgdat.kcompactd_max_order == 0:
                timeout = self._sched.schedule_timeout(
                    timer_wheel_delay(self._sched.now, timeout), self._wait
                )
            self._wait.finish_wait()
        return pgdat.kcompactd_max_order > 0
