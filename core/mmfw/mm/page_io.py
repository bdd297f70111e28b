"""What reclaim and the flusher write: swap and file pages on their way to a device (mm/page_io.c, mm/page-writeback.c).

Dirty throttling is simplified: a writer that finds more dirty pages than ``vm.dirty_ratio`` (20%) of free and file
memory waits until the flusher has written enough, without the kernel's rate estimates; the flusher runs from
``vm.dirty_background_ratio`` (10%) on. The cost: writers are stopped later and more abruptly than by
``balance_dirty_pages()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.sched import PF_KTHREAD, WaitQueue
from mmfw.state import PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from mmfw.mm.block import BlockDevice
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.pages import Memory
    from mmfw.sched import Scheduler

Pfns = NDArray[np.int64]

DIRTY_BACKGROUND_RATIO: Final = 10
DIRTY_RATIO: Final = 20
#: Pages the flusher writes before it looks again (``MIN_WRITEBACK_PAGES``).
_WRITEBACK_CHUNK: Final = 1024


class PageIo:
    """Writeback of one machine.

    Parameters
    ----------
    sched, memory, lruvec, vmstat
        The clock, the pages, their lists, the counters.
    swap_device, file_device : BlockDevice
        Where they go.
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
        self._file_device = file_device
        self._flusher_wait = WaitQueue(sched, "flusher")
        self._dirty_wait = WaitQueue(sched, "balance_dirty_pages")
        self._flush_all = False

    def submit(self, pfns: Pfns, *, file: bool) -> None:
        """Write folios that are marked `PG_WRITEBACK` (``swap_writepage()``, ``->writepage()``)."""
        orders = self._memory.page[4 * pfns + pg.WORD] & pg.ORDER_MASK
        nr_pages = int((1 << orders.astype(np.int64)).sum())
        device = self._file_device if file else self._swap_device
        device.submit(nr_pages, lambda: self._written(pfns, nr_pages))
        self._vmstat.count(VmEvent.pgpgout if file else VmEvent.pswpout, nr_pages * (4 if file else 1))
        if not file:
            self._vmstat.count(VmEvent.thp_swpout, int((orders == PAGEBLOCK_ORDER).sum()))

    def _written(self, pfns: Pfns, nr_pages: int) -> None:
        # Until now none of these has moved or got another owner: writeback holds a page.
        self._lruvec.end_writeback(pfns)
        self._memory.S[pg.S_NODE_STAT + pg.NS_WRITTEN] += nr_pages
        self._dirty_wait.wake_up()

    # --- dirty file pages -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the flusher (``wb_workfn()``)."""
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

    def balance_dirty_pages(self) -> None:
        """Stop a writer while too much is dirty (``balance_dirty_pages()``, simplified)."""
        if self._dirty() > self._dirtyable() * DIRTY_BACKGROUND_RATIO // 100:
            self._flusher_wait.wake_up()
        while self._dirty() > self._dirtyable() * DIRTY_RATIO // 100:
            self._flusher_wait.wake_up()
            self._dirty_wait.wait_timeout(100_000_000)

    def _flusher(self) -> None:
        while True:
            background = self._dirtyable() * DIRTY_BACKGROUND_RATIO // 100
            dirty = self._lruvec.node_stat(pg.NS_FILE_DIRTY)
            if dirty and (self._flush_all or dirty > background):
                self._write_chunk()
                continue
            self._flush_all = False
            self._flusher_wait.wait()

    def _write_chunk(self) -> None:
        memory = self._memory
        words = memory.page[pg.WORD : 4 * memory.nr_pfns : 4]
        wanted = (words & (pg.TYPE_MASK | pg.PG_DIRTY | pg.PG_SWAPBACKED | pg.PG_WRITEBACK)) == (
            pg.T_ALLOC | pg.PG_DIRTY
        )
        pfns = np.flatnonzero(wanted)[:_WRITEBACK_CHUNK]
        self._lruvec.set_flags(pfns, on=pg.PG_WRITEBACK, off=pg.PG_DIRTY)
        nr_pages = int((1 << (words[pfns] & pg.ORDER_MASK).astype(np.int64)).sum())
        memory.S[pg.S_NODE_STAT + pg.NS_FILE_DIRTY] -= nr_pages
        memory.S[pg.S_NODE_STAT + pg.NS_WRITEBACK] += nr_pages
        done = self._file_device.submit(nr_pages, lambda: self._written(pfns, nr_pages))
        self._vmstat.count(VmEvent.pgpgout, 4 * nr_pages)
        self._sched.sleep(max(1, done - self._sched.now))
