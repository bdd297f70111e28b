"""A minimal shmem and swap store: where a driver backs its objects up to.

Each page backed up is copied to a shmem page, which stays in memory until the swap device has written
it. The device writes in the order of backup, from the moment of backup, at one page per ``swap_out_page``; a page
brought back before that costs a copy only, one after it a read from the device as well. It stands where mm/shmem.c,
mm/swapfile.c and the anonymous LRU will stand. Missing: shmem pages are not on an LRU, so no reclaim pass decides when
they are written; no swap cache. The cost: backed-up memory leaves RAM at the device's pace and not under
pressure, so the pages it occupies meanwhile are too few on an idle machine.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.errors import InputError
from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.sched import PF_KTHREAD, Scheduler, WaitQueue

if TYPE_CHECKING:
    from mmfw.mm.context import ExecContext
    from mmfw.mm.page_alloc import PageAllocator
    from mmfw.mm.pages import Memory

#: Mask of a shmem page for a backup (``ttm_backup_backup_page()``, drivers/gpu/drm/ttm/ttm_backup.c).
BACKUP_GFP: Final = gfp.GFP_KERNEL | gfp.HIGH | gfp.NOWARN | gfp.RETRY_MAYFAIL
#: ``vm.page-cluster``: a read brings in that power of two of adjacent slots (``swap_cluster_readahead()``,
#: mm/swap_state.c). A backup's pages were written in order, so its slots are adjacent.
PAGE_CLUSTER: Final = 3
#: Pages the device takes at once, in its own time.
_DEVICE_BATCH: Final = 256

Pfns = NDArray[np.int64]


class Backup:
    """What one call backed up: pages in order, the first of them on the device, the others still in memory."""

    __slots__ = ("_next", "_on_device", "_pfns")

    def __init__(self, pfns: Pfns, on_device: int = 0) -> None:
        self._pfns = pfns
        self._next = 0
        self._on_device = on_device

    @property
    def nr_pages(self) -> int:
        """Pages in the store, in memory or on the device."""
        return self._on_device + self.nr_in_memory

    @property
    def nr_in_memory(self) -> int:
        """Pages whose copy still occupies memory."""
        return len(self._pfns) - self._next

    def take_for_device(self, n: int) -> Pfns:
        """The next shmem pages to write, at most n; they are on the device from then on."""
        pfns = self._take(n)
        self._on_device += len(pfns)
        return pfns

    def take_back(self, n: int) -> tuple[Pfns, int]:
        """Take out the first n pages: the shmem pages among them, and how many were on the device."""
        on_device = min(n, self._on_device)
        self._on_device -= on_device
        return self._take(n - on_device), on_device

    def _take(self, n: int) -> Pfns:
        pfns = self._pfns[self._next : self._next + n]
        self._next += len(pfns)
        return pfns


class SwapStore:
    """The shmem files and the swap device of a machine.

    Parameters
    ----------
    memory : Memory
        Says how large the device is and how much of it is free; without one nothing can be backed up.
    """

    def __init__(
        self,
        sched: Scheduler,
        allocator: PageAllocator,
        context: ExecContext,
        vmstat: VmStat,
        memory: Memory,
    ) -> None:
        self.total_swap_pages = memory.total_swap_pages
        self.nr_shmem = 0
        self._sched = sched
        self._allocator = allocator
        self._context = context
        self._vmstat = vmstat
        self._S = memory.S
        self._queue: deque[Backup] = deque()
        self._device_wait = WaitQueue(sched, "swap device")

    def get_nr_swap_pages(self) -> int:
        """Free swap, in pages (``get_nr_swap_pages()``)."""
        return int(self._S[pg.S_NODE_STAT + pg.NS_FREE_SWAP])

    def start(self) -> None:
        """Start the device's thread."""
        self._sched.spawn(self._device, name="swap-writeback", flags=PF_KTHREAD)

    def backup(self, pfns: Pfns) -> Backup:
        """Copy order-0 pages to shmem, freeing each once it is copied.

        Parameters
        ----------
        pfns : int64[n]
            Allocated order-0 pages.

        Returns
        -------
        Backup
            What was backed up: the first ``nr_pages`` of them. Fewer than n if memory or swap ran out; the
            others are untouched.
        """
        room = self.get_nr_swap_pages()
        shmem = self._allocator.exchange_pages(BACKUP_GFP, pfns[:room])
        return self._store(shmem)

    def backup_block(self, pfn: int, order: int) -> Backup:
        """Copy a whole block to shmem, and only then free it, at its own order.

        Proposed, not in 7.1 (drm/ttm, "back up at native page order", 2026). It needs ``1 << order`` pages at
        once, which are the reserves' if the caller is a reclaimer.

        Parameters
        ----------
        pfn : int
            First pfn of an allocated block.
        order : int
            Its order.

        Returns
        -------
        Backup
            Of all its pages; or, if memory or swap ran out midway, of the first ``nr_pages`` of them. The block is
            split then, those pages are free, and the others are allocated pages of order 0. If not one page could be
            had, the block is as it was.
        """
        nr_pages = 1 << order
        shmem = self._allocator.alloc_pages_batch(BACKUP_GFP, 0, min(nr_pages, self.get_nr_swap_pages()))
        backup = self._store(shmem)
        if len(shmem) == nr_pages:
            self._allocator.free_pages(pfn, order)
        elif len(shmem):
            self._allocator.split_page(pfn, order)
            self._allocator.free_pages_batch(np.arange(pfn, pfn + len(shmem), dtype=np.int64), 0)
        return backup

    def _store(self, shmem: Pfns) -> Backup:
        """Have copies of pages made in shmem pages, and leave these to the device."""
        self._S[pg.S_NODE_STAT + pg.NS_FREE_SWAP] -= len(shmem)
        self.nr_shmem += len(shmem)
        backup = Backup(shmem)
        self._context.charge(len(shmem) * self._sched.costs.copy_page, "backup copy")
        if len(shmem):
            self._queue.append(backup)
            self._device_wait.wake_up()
        return backup

    def adopt(self, nr_pages: int) -> Backup:
        """A backup of that many pages that is on the device already: the state a run starts from.

        Raises
        ------
        InputError
            The device has no room for it.
        """
        if nr_pages > self.get_nr_swap_pages():
            raise InputError(
                f"{nr_pages} pages are to be on the swap device at the start, {self.get_nr_swap_pages()} of its "
                f"{self.total_swap_pages} are free; raise nr_swap_pages"
            )
        self._S[pg.S_NODE_STAT + pg.NS_FREE_SWAP] -= nr_pages
        return Backup(np.empty(0, dtype=np.int64), on_device=nr_pages)

    def restore(self, backup: Backup, nr_pages: int | None = None) -> None:
        """Bring pages back into pages that the caller has allocated, and forget their copies.

        Costs a copy a page, and for those on the device a read before, eight pages at once.

        Parameters
        ----------
        backup : Backup
            Where they are.
        nr_pages : int, optional
            How many, from the first one left on; all by default.
        """
        n = backup.nr_pages if nr_pages is None else min(nr_pages, backup.nr_pages)
        on_device = self._forget(backup, n)
        costs = self._sched.costs
        self._vmstat.count(VmEvent.pswpin, on_device)
        reads = -(-on_device >> PAGE_CLUSTER)
        self._context.charge(reads * costs.swap_in_page, "swap in")
        self._context.charge(n * costs.copy_page, "restore copy")

    def drop(self, backup: Backup) -> int:
        """Forget a backup; returns how many of its pages were on the device only."""
        return self._forget(backup, backup.nr_pages)

    def _forget(self, backup: Backup, n: int) -> int:
        shmem, on_device = backup.take_back(n)
        self._S[pg.S_NODE_STAT + pg.NS_FREE_SWAP] += len(shmem) + on_device
        self.nr_shmem -= len(shmem)
        self._allocator.free_pages_batch(shmem, 0)
        return on_device

    def _device(self) -> None:
        while True:
            while not self._queue:
                self._device_wait.wait()
            backup = self._queue[0]
            pfns = backup.take_for_device(_DEVICE_BATCH)
            if len(pfns) == 0:
                self._queue.popleft()
                continue
            try:
                self._sched.sleep(len(pfns) * self._sched.costs.swap_out_page)
                self._vmstat.count(VmEvent.pswpout, len(pfns))
            finally:
                # Also when the machine is taken down: nobody else knows these pages any more.
                self.nr_shmem -= len(pfns)
                self._allocator.free_pages_batch(pfns, 0)
