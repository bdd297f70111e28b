"""What reclaim and the flusher write: swap and file pages on their way to a device (mm/page_io.c, mm/page-writeback.c).

The flusher writes from ``vm.dirty_background_ratio`` (10% of free and file memory) on, and what has been dirty for 30 s.
Writers are slowed down by `mmfw.mm.dirty_throttle`, from half way to ``vm.dirty_ratio`` (20%) on.

Simplified: one device takes all files. The flusher has 8 MiB in flight and not a request queue full, so reclaim meets
fewer pages under writeback than on a device with a long queue. The age that counts is a folio's, not a file's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw.costs import NSEC_PER_SEC, TICK_NSEC, nsecs_to_jiffies
from mmfw.jit import count
from mmfw.jit import page as pg
from mmfw.mm.dirty_throttle import Bandwidth, DirtyState, TaskDirty
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.sched import PF_KTHREAD, WaitQueue
from mmfw.state import PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from mmfw.mm.block import BlockDevice
    from mmfw.mm.dirty_folios import DirtyFolios
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.pages import Memory
    from mmfw.sched import Scheduler

Pfns = NDArray[np.int64]

#: ``vm.dirty_writeback_centisecs`` and ``vm.dirty_expire_centisecs``, ns.
DIRTY_WRITEBACK_NS: Final = 5 * NSEC_PER_SEC
DIRTY_EXPIRE_NS: Final = 30 * NSEC_PER_SEC
#: Requests that the swap device's queue holds (``nr_requests`` under mq-deadline). One call's pages, up to 32 and mostly
#: adjacent on the device, count as one.
SWAP_NR_REQUESTS: Final = 256
#: Pages the flusher writes before it looks again (``MIN_WRITEBACK_PAGES``).
_WRITEBACK_CHUNK: Final = 1024
#: Pages in flight beyond which the flusher waits for the device.
_MAX_IN_FLIGHT: Final = 2 * _WRITEBACK_CHUNK
#: Pages that a CPU's tasks together may dirty before one of them looks, at least (``ratelimit_pages``).
_MIN_RATELIMIT_PAGES: Final = 16


class PageIo:
    """Writeback of one machine.

    Parameters
    ----------
    sched, memory, lruvec, vmstat
        The clock, the pages, their lists, the counters.
    swap_device, file_device : BlockDevice
        Where they go.

    Attributes
    ----------
    dirty_folios : DirtyFolios or None
        Dirty file folios; the page cache's.
    bandwidth : Bandwidth
        Estimates of the file device.
    """

    def __init__(
        self,
        sched: Scheduler,
        memory: Memory,
        lruvec: Lruvec,
        vmstat: VmStat,
        swap_device: BlockDevice,
        file_device: BlockDevice,
    ) -> None:
        self._sched = sched
        self._memory = memory
        self._lruvec = lruvec
        self._vmstat = vmstat
        self._swap_device = swap_device
        self._swap_requests = 0
        self._swap_tags = WaitQueue(sched, "blk_mq_tags")
        self._file_device = file_device
        self._flusher_wait = WaitQueue(sched, "flusher")
        self._in_flight_wait = WaitQueue(sched, "writeback")
        self._in_flight = 0
        self.dirty_folios: DirtyFolios | None = None
        self.bandwidth = Bandwidth()
        self._tasks: dict[int, TaskDirty] = {}
        self._ratelimits = [0] * memory.nr_cpus
        self._flush_all = False
        self._flusher_idle = False
        self._started = False

    def submit(self, pfns: Pfns, *, file: bool) -> None:
        """Write folios that are marked `PG_WRITEBACK` (``swap_writepage()``, ``->writepage()``).

        A task sleeps here while the swap device's queue is full (``blk_mq_get_tag()``).
        """
        nr_pages, nr_huge = count.folio_pages(self._memory.page, pfns, PAGEBLOCK_ORDER)
        if file:
            self._in_flight += nr_pages
            self._file_device.submit(nr_pages, lambda: self._file_written(pfns, nr_pages))
            self._vmstat.count(VmEvent.pgpgout, 4 * nr_pages)
            return
        self._swap_requests += 1
        self._swap_device.submit(nr_pages, lambda: self._swap_written(pfns, nr_pages))
        self._vmstat.count(VmEvent.pswpout, nr_pages)
        if nr_huge:
            self._vmstat.count(VmEvent.thp_swpout, nr_huge)
        if self._sched.current.pid:
            self._swap_tags.wait_event(lambda: self._swap_requests < SWAP_NR_REQUESTS)

    def _swap_written(self, pfns: Pfns, nr_pages: int) -> None:
        self._written(pfns, nr_pages)
        self._swap_requests -= 1
        self._swap_tags.wake_up()

    def _written(self, pfns: Pfns, nr_pages: int) -> None:
        # Until now none of these has moved or got another owner: writeback holds a page.
        self._lruvec.end_writeback(pfns)
        self._memory.S[pg.S_NODE_STAT + pg.NS_WRITTEN] += nr_pages

    def _file_written(self, pfns: Pfns, nr_pages: int) -> None:
        self._written(pfns, nr_pages)
        self.bandwidth.written += nr_pages
        self._in_flight -= nr_pages
        self._in_flight_wait.wake_up()

    # --- dirty file pages -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the flusher (``wb_workfn()``); before that nobody is slowed down."""
        self._started = True
        self._sched.spawn(self._flusher, name="flusher-0", flags=PF_KTHREAD)

    def wakeup_flusher_threads(self) -> None:
        """Have every dirty file page written (``wakeup_flusher_threads()``)."""
        self._flush_all = True
        self._flusher_wait.wake_up()

    def _dirtyable(self) -> int:
        S = self._memory.S
        free = sum(int(S[self._memory.zone_offset(row) + pg.Z_FREE]) for row in self._memory.populated_rows)
        file = self._lruvec.size(pg.LRU_INACTIVE_FILE) + self._lruvec.size(pg.LRU_ACTIVE_FILE)
        return max(0, free - self._memory.totalreserve_pages) + file

    def _dirty(self) -> int:
        return self._lruvec.node_stat(pg.NS_FILE_DIRTY) + self._lruvec.node_stat(pg.NS_WRITEBACK)

    def _dirty_state(self) -> DirtyState:
        """``domain_dirty_limits()``."""
        available, vm = self._dirtyable(), self._memory.vm
        thresh = available * vm.dirty_ratio // 100
        background = available * vm.dirty_background_ratio // 100
        return DirtyState(self._dirty(), thresh, background if background < thresh else thresh // 2)

    def account_dirtied(self, nr_pages: int) -> None:
        """Note that the running task has made file pages dirty (``folio_account_dirtied()``)."""
        task = self._sched.current
        self._tasks.setdefault(task.pid, TaskDirty()).nr_dirtied += nr_pages
        self._ratelimits[task.cpu] += nr_pages
        self.bandwidth.dirtied += nr_pages
        if self._flusher_idle:
            # wb_wakeup_delayed()
            self._flusher_idle = False
            self._sched.call_at(self._sched.now + DIRTY_WRITEBACK_NS, self._flusher_wait.wake_up)

    def balance_dirty_pages_ratelimited(self) -> None:
        """Look now and then at what is dirty (``balance_dirty_pages_ratelimited()``)."""
        current = self._sched.current
        task = self._tasks.setdefault(current.pid, TaskDirty())
        ratelimit = task.nr_dirtied_pause
        if self.bandwidth.dirty_exceeded:
            ratelimit = min(ratelimit, 8)
        if task.nr_dirtied >= ratelimit:
            self._ratelimits[current.cpu] = 0
        elif self._ratelimits[current.cpu] >= self._ratelimit_pages():
            self._ratelimits[current.cpu] = 0
            ratelimit = 0
        if task.nr_dirtied >= ratelimit and self._started:
            self._balance_dirty_pages(task)

    def _ratelimit_pages(self) -> int:
        """``writeback_set_ratelimit()``, which the kernel calls as CPUs and zones come and go."""
        return max(_MIN_RATELIMIT_PAGES, self._dirty_state().thresh // (self._memory.nr_cpus * 32))

    def _balance_dirty_pages(self, task: TaskDirty) -> None:
        """Slow the running task down (``balance_dirty_pages()``)."""
        sched = self._sched
        again = True
        while again and not sched.current.fatal_signal_pending:
            state = self._dirty_state()
            if self._lruvec.node_stat(pg.NS_FILE_DIRTY) > state.bg_thresh or state.dirty > state.freerun:
                self._flusher_wait.wake_up()
            pause, again = self.bandwidth.pause(state, task, nsecs_to_jiffies(sched.now))
            if pause:
                sched.sleep(pause * TICK_NSEC)

    # --- the flusher ----------------------------------------------------------------------------------

    def _flusher(self) -> None:
        """Write what is too much or too old (``wb_workfn()``)."""
        last_old_flush = 0
        expired = False
        while True:
            dirty = self._lruvec.node_stat(pg.NS_FILE_DIRTY)
            queue = self.dirty_folios
            if queue is not None and dirty:
                now = self._sched.now
                if now >= last_old_flush + DIRTY_WRITEBACK_NS:
                    last_old_flush, expired = now, True
                old = expired and queue.oldest_ns <= now - DIRTY_EXPIRE_NS
                if (self._flush_all or old or dirty > self._dirty_state().bg_thresh) and self._write_chunk(
                    queue
                ):
                    continue
            self._flush_all = expired = False
            if dirty:
                self._flusher_wait.wait_timeout(DIRTY_WRITEBACK_NS)
            else:
                self._flusher_idle = True
                self._flusher_wait.wait()

    def _write_chunk(self, queue: DirtyFolios) -> bool:
        """Write what has been dirty for longest; False if nothing can be written now."""
        pfns = queue.take(_WRITEBACK_CHUNK)
        if len(pfns) == 0:
            return False
        memory = self._memory
        orders = self._lruvec.words(pfns) & pg.ORDER_MASK
        self._lruvec.set_flags(pfns, on=pg.PG_WRITEBACK, off=pg.PG_DIRTY)
        nr_pages = int((1 << orders.astype(np.int64)).sum())
        memory.S[pg.S_NODE_STAT + pg.NS_FILE_DIRTY] -= nr_pages
        memory.S[pg.S_NODE_STAT + pg.NS_WRITEBACK] += nr_pages
        self.submit(pfns, file=True)
        self.bandwidth.update(nsecs_to_jiffies(self._sched.now))
        self._in_flight_wait.wait_event(lambda: self._in_flight < _MAX_IN_FLIGHT)
        return True
