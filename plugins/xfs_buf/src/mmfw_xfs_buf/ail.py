"""What writes dirty inodes: ``xfsaild``, and the reclaim worker beside it (fs/xfs/xfs_trans_ail.c, xfs_icache.c)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.sched import WaitQueue
from mmfw_xfs_buf.inode import INODES_PER_CLUSTER

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_xfs_buf.buftarg import XfsBuftarg
    from mmfw_xfs_buf.disk import MetaDisk
    from mmfw_xfs_buf.inode import XfsInodeCache

#: ``xfs_syncd_centisecs``, ns: how often the log's worker has the AIL pushed on an idle filesystem.
SYNCD_NS: Final = 30_000_000_000
#: ``xfs_reclaim_work_queue()``: a sixth of it.
RECLAIM_WORK_NS: Final = SYNCD_NS // 6
#: Clusters written at once, an assumption: the kernel's limit is the device's queue.
_CLUSTERS: Final = 64


class Xfsaild:
    """The thread that writes clusters of dirty inodes when it is told to, and every 30 s.

    The AIL is in the order of the log; here clusters are written in order of inode number, which is the order of the
    writes too (``xfs_buf_delwri_submit_nowait()`` sorts by daddr). What is logged meanwhile waits for the next push.
    """

    def __init__(self, mm: Mm, buftarg: XfsBuftarg, disk: MetaDisk, inodes: XfsInodeCache) -> None:
        self._mm = mm
        self._buftarg = buftarg
        self._disk = disk
        self._inodes = inodes
        self._pushed = False
        self._wait = WaitQueue(mm.sched, "xfsaild")
        self._io_done = WaitQueue(mm.sched, "xfsaild I/O")

    def push_all(self) -> None:
        """``xfs_ail_push_all()``; returns at once."""
        if self._inodes.dirty.any():
            self._pushed = True
            self._wait.wake_up()

    def run(self) -> None:
        """The thread."""
        while True:
            self._wait.wait_event_timeout(lambda: self._pushed, SYNCD_NS)
            self._pushed = False
            self.write_all()

    def write_all(self) -> None:
        """Write every cluster that has dirty inodes now, and wait for it."""
        dirty = np.flatnonzero(self._inodes.dirty)
        clusters = np.unique(dirty // INODES_PER_CLUSTER) * INODES_PER_CLUSTER
        for first in range(0, len(clusters), _CLUSTERS):
            self._write(clusters[first : first + _CLUSTERS].tolist())

    def _write(self, clusters: list[int]) -> None:
        flushing = []
        pending = [len(clusters)]

        def done(slot: int) -> None:
            self._buftarg.write_end(slot)
            pending[0] -= 1
            self._io_done.wake_up_all()

        for ino in clusters:
            slot = self._inodes.read_cluster(ino)
            self._buftarg.write_begin(slot)
            flushing.append((slot, self._inodes.begin_flush(ino)))
            nr_bytes = int(self._buftarg.table.nr_bytes[slot])
            self._disk.write(nr_bytes, partial(done, slot))
        self._io_done.wait_event(lambda: pending[0] == 0)
        for slot, inos in flushing:
            self._inodes.end_flush(inos, slot)
            self._buftarg.rele(slot)


class ReclaimWorker:
    """``xfs_reclaim_worker()``: every 5 s all clean reclaimable inodes go, memory wanted or not."""

    def __init__(self, mm: Mm, inodes: XfsInodeCache) -> None:
        self._mm = mm
        self._inodes = inodes

    def run(self) -> None:
        """The thread."""
        while True:
            self._mm.sched.sleep(RECLAIM_WORK_NS)
            if self._inodes.nr_reclaimable:
                self._inodes.icwalk(None, evicting=False)
