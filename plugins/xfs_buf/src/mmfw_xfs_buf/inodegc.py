"""Inactivation of unlinked inodes in the background, and the shrinker that hurries it (fs/xfs/xfs_icache.c).

Simplified: one queue for all CPUs. Inactivating an inode costs the CPU a fixed time and dirties its cluster; the B-trees
that free its blocks and its number are not walked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw import SHRINK_STOP, hookimpl
from mmfw.sched import WaitQueue
from mmfw_xfs_buf.inode import INODES_PER_CLUSTER

if TYPE_CHECKING:
    from mmfw import Mm, ShrinkControl
    from mmfw_xfs_buf.inode import XfsInodeCache

#: ``XFS_INODEGC_SHRINKER_COUNT``: so that a scan is due at priority 12 already.
SHRINKER_COUNT: Final = 1 << 12
#: ``XFS_INODEGC_SHRINKER_BATCH``: more than half of it, so that one scan a pass is all.
SHRINKER_BATCH: Final = SHRINKER_COUNT // 2 + 1
#: ``XFS_INODEGC_MAX_BACKLOG``.
MAX_BACKLOG: Final = 4 * 64
#: One jiffy, ns, at 250 HZ: how long a first inode waits for others.
JIFFY_NS: Final = 4_000_000
#: CPU time of inactivating one inode, ns: an assumption (two transactions).
INACTIVATE_NS: Final = 20_000
#: ``LONG_MAX``.
_LONG_MAX: Final = (1 << 63) - 1


class XfsInodegc:
    """The queue and its worker (``struct xfs_inodegc``).

    Attributes
    ----------
    shrinker_hits : int
        Scans since the worker last ran; while it is not 0, whoever queues an inode waits for the worker.
    inactivated, throttled : int
        Inodes done; times that somebody waited.
    """

    def __init__(self, mm: Mm, inodes: XfsInodeCache) -> None:
        self.shrinker_hits = 0
        self.inactivated = 0
        self.throttled = 0
        self._mm = mm
        self._inodes = inodes
        self._list: list[int] = []
        self._due: int | None = None
        self._runs = 0
        self._wait = WaitQueue(mm.sched, "xfs-inodegc")
        self._done = WaitQueue(mm.sched, "xfs-inodegc flush")

    @property
    def nr_queued(self) -> int:
        """Inodes that wait."""
        return len(self._list)

    def queue(self, ino: int) -> None:
        """Queue an inode (``xfs_inodegc_queue()``); waits for the worker if there are many, or memory is short."""
        items = len(self._list)
        self._list.append(ino)
        self._mod_delayed_work(0 if items > INODES_PER_CLUSTER else JIFFY_NS)
        if self.shrinker_hits > 0 or items > MAX_BACKLOG:
            self.throttled += 1
            self.flush()

    def flush(self) -> None:
        """Have the worker run at once, and wait until it has (``flush_delayed_work()``)."""
        runs = self._runs
        self._mod_delayed_work(0)
        self._done.wait_event(lambda: self._runs > runs)

    def kick(self) -> None:
        """A scan of the shrinker: run at once (``xfs_inodegc_shrinker_scan()``)."""
        self.shrinker_hits += 1
        self._mod_delayed_work(0)

    def _mod_delayed_work(self, delay_ns: int) -> None:
        self._due = self._mm.sched.now + delay_ns
        self._wait.wake_up()

    def run(self) -> None:
        """The worker's thread."""
        while True:
            self._wait.wait_event(lambda: self._due is not None)
            due = self._due
            assert due is not None
            if due > self._mm.sched.now:
                # Woken early when somebody makes it due earlier or later.
                self._wait.wait_timeout(due - self._mm.sched.now)
                continue
            self._due = None
            with self._mm.sched.memalloc_nofs():
                self.work()

    def work(self) -> None:
        """``xfs_inodegc_worker()``: inactivate what waits now."""
        inos, self._list = self._list, []
        self.shrinker_hits = 0
        for ino in inos:
            self._mm.charge(INACTIVATE_NS, "xfs_inactive")
            self._inodes.inactivate(ino)
            self.inactivated += 1
        self._runs += 1
        self._done.wake_up_all()


class XfsInodegcShrinker:
    """The shrinker "xfs-inodegc:<device>": a signal, it frees nothing."""

    seeks = 0
    batch = SHRINKER_BATCH

    def __init__(self, gc: XfsInodegc) -> None:
        self._gc = gc

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """4096 if anything waits, else 0."""
        return SHRINKER_COUNT if self._gc.nr_queued else 0

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Have the worker run at once; SHRINK_STOP, or ``LONG_MAX`` if nothing waits any more."""
        if not self._gc.nr_queued:
            return _LONG_MAX
        self._gc.kick()
        return SHRINK_STOP
