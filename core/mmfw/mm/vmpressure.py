"""Memory pressure told to user space: who is run for it (mm/vmpressure.c of 6.1).

Nobody listens here. What remains is that a kernel with memory cgroups wakes a worker after each window of scanned
pages: the worker preempts kswapd, and when it is done the scheduler may well run somebody else first. On one CPU that
decides whether a task takes its pages back before kswapd has gone to sleep.
"""

from __future__ import annotations

from typing import Final

from mmfw import gfp
from mmfw.sched import PF_KTHREAD, Scheduler, WaitQueue
from mmfw.types import SWAP_CLUSTER_MAX

#: Pages scanned for one run of the worker (``vmpressure_win``).
VMPRESSURE_WIN: Final = 16 * SWAP_CLUSTER_MAX
_USER_PAGES: Final = gfp.HIGHMEM | gfp.MOVABLE | gfp.IO | gfp.FS


class VmPressure:
    """The root group's window of scanned pages, and the worker that empties it.

    It is one task, not a pool's worker bound to the CPU that scheduled it: on several CPUs an idle one runs it.

    Parameters
    ----------
    sched : Scheduler
        Where the worker runs.
    """

    def __init__(self, sched: Scheduler) -> None:
        self._sched = sched
        self._wait = WaitQueue(sched, "vmpressure work")
        self._tree_scanned = 0
        self._queued = False

    def start(self) -> None:
        """Start the worker."""
        self._sched.spawn(self._main, name="kworker/0:1", flags=PF_KTHREAD)

    def vmpressure(self, gfp_mask: int, nr_scanned: int) -> None:
        """Count pages scanned for a request with this mask; a full window wakes the worker (``vmpressure()``)."""
        if not gfp_mask & _USER_PAGES or not nr_scanned:
            return
        self._tree_scanned += nr_scanned
        if self._tree_scanned >= VMPRESSURE_WIN and not self._queued:
            self._queued = True
            self._wait.wake_up()

    def _main(self) -> None:
        """``vmpressure_work_fn()``, each time it is scheduled."""
        while True:
            self._wait.wait_event(lambda: self._queued)
            self._queued = False
            self._tree_scanned = 0
            self._sched.charge(self._sched.costs.vmpressure_work, "vmpressure")
