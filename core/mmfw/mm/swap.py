"""Shmem files that drivers back their objects up to (mm/shmem.c, drivers/gpu/drm/ttm/ttm_backup.c).

Each page backed up is copied to a shmem page. It goes dirty on the inactive anonymous list, where
``shmem_read_folio_gfp()`` puts it, and leaves memory when reclaim writes it to the swap device. So a backup by itself
frees nothing: that takes pressure, and while there is much clean page cache reclaim hardly looks at anonymous pages.
The mask of these pages is not movable, and they lie where unmovable memory does; but compaction moves them, for they are
on the LRU.

Simplified: a page that is read back from the device costs its read and copy, but the shmem page, and the pages read
ahead with it, are not allocated, as the kernel does for a moment; the nodes of the file's xarray are left out. The cost:
a restore from swap asks for too few pages, by one in eight, for the time of a read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.errors import InputError
from mmfw.jit import count
from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent, VmStat

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.context import ExecContext
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.page_alloc import PageAllocator
    from mmfw.mm.page_io import PageIo
    from mmfw.mm.pages import Memory
    from mmfw.mm.rmap import RmapSpace

#: Mask of a shmem page for a backup (``ttm_pool_backup()``, drivers/gpu/drm/ttm/ttm_pool.c).
BACKUP_GFP: Final = gfp.GFP_KERNEL | gfp.HIGH | gfp.NOWARN | gfp.RETRY_MAYFAIL
#: ``ttm_backup_backup_page()`` marks a page accessed, once.
_SHMEM_FLAGS: Final = pg.PG_SWAPBACKED | pg.PG_DIRTY | pg.PG_REFERENCED
_WRITTEN_FLAGS: Final = (
    pg.PG_SWAPBACKED | pg.PG_REFERENCED | pg.PG_SWAPCACHE | pg.PG_WRITEBACK | pg.PG_RECLAIM
)

Pfns = NDArray[np.int64]


class Backup:
    """What one call backed up: a shmem file of which pages are taken back from the front.

    Parameters
    ----------
    rmap : RmapSpace
        Where its pages are.
    base_slot, nr_pages : int
        Its slots.
    """

    __slots__ = ("_next", "_rmap", "base_slot", "size")

    def __init__(self, rmap: RmapSpace, base_slot: int, nr_pages: int) -> None:
        self._rmap = rmap
        self._next = 0
        self.base_slot = base_slot
        self.size = nr_pages

    @property
    def nr_pages(self) -> int:
        """Pages left, in memory or on the device."""
        return self.size - self._next

    @property
    def nr_in_memory(self) -> int:
        """Pages whose copy occupies memory, those in the swap cache included."""
        return int(np.count_nonzero(self._words(self.nr_pages) < pg.SLOT_SHADOW))

    def _words(self, n: int) -> NDArray[np.uint32]:
        return self._rmap.part(self.base_slot + self._next, n)

    def take_back(self, n: int) -> tuple[Pfns, int]:
        """Take the first n pages out: their slots, still full, and how many of them are on the device only."""
        on_device = count.at_least(self._words(n), pg.SLOT_SHADOW)
        first = self.base_slot + self._next
        self._next += n
        return np.arange(first, first + n, dtype=np.int64), on_device


class SwapStore:
    """The shmem files of a machine's drivers.

    Parameters
    ----------
    allocator, lruvec, rmap, page_io, context, costs, vmstat
        Pages, their lists and places, the swap device, who runs, what it costs, counters.
    memory : Memory
        Says how large the swap device is and how much of it is free; without one nothing can be backed up.
    """

    def __init__(
        self,
        allocator: PageAllocator,
        lruvec: Lruvec,
        rmap: RmapSpace,
        page_io: PageIo,
        context: ExecContext,
        costs: CostProfile,
        vmstat: VmStat,
        memory: Memory,
    ) -> None:
        self.total_swap_pages = memory.total_swap_pages
        self._allocator = allocator
        self._lruvec = lruvec
        self._rmap = rmap
        self._page_io = page_io
        self._context = context
        self._costs = costs
        self._vmstat = vmstat
        self._memory = memory
        # Slots are never given back to the rmap; objects are backed up again and again, mostly in the same sizes.
        self._spare_slots: dict[int, list[int]] = {}
        self._live: dict[int, Backup] = {}

    def get_nr_swap_pages(self) -> int:
        """Free swap, in pages (``get_nr_swap_pages()``)."""
        return self._lruvec.node_stat(pg.NS_FREE_SWAP)

    @property
    def nr_shmem(self) -> int:
        """Backed-up pages that occupy memory, those in the swap cache included."""
        return sum(backup.nr_in_memory for backup in self._live.values())

    def backup(self, pfns: Pfns, *, writeback: bool = False) -> Backup:
        """Copy order-0 pages to shmem, freeing each once it is copied.

        Parameters
        ----------
        pfns : int64[n]
            Allocated order-0 pages.
        writeback : bool
            Whether each copy is written to the device at once.

        Returns
        -------
        Backup
            What was backed up: the first ``nr_pages`` of them. Fewer than n if memory ran out or the pages are more
            than free swap; the others are untouched.
        """
        room = self.get_nr_swap_pages()
        shmem = self._allocator.exchange_pages(BACKUP_GFP, pfns[:room])
        return self._store(shmem, writeback=writeback)

    def backup_block(self, pfn: int, order: int, *, writeback: bool = False) -> Backup:
        """Copy a whole block to shmem, and only then free it, at its own order.

        Proposed, not in 7.1 (drm/ttm, "back up at native page order", 2026). It needs ``1 << order`` pages at
        once, which are the reserves' if the caller is a reclaimer.

        Parameters
        ----------
        pfn : int
            First pfn of an allocated block.
        order : int
            Its order.
        writeback : bool
            Whether the copy is written to the device at once.

        Returns
        -------
        Backup
            Of all its pages; or, if memory or swap ran out midway, of the first ``nr_pages`` of them. The block is
            split then, those pages are free, and the others are allocated pages of order 0. If not one page could be
            had, the block is as it was.
        """
        nr_pages = 1 << order
        shmem = self._allocator.alloc_pages_batch(BACKUP_GFP, 0, min(nr_pages, self.get_nr_swap_pages()))
        backup = self._store(shmem, writeback=writeback)
        if len(shmem) == nr_pages:
            self._allocator.free_pages(pfn, order)
        elif len(shmem):
            self._allocator.split_page(pfn, order)
            self._allocator.free_pages_batch(np.arange(pfn, pfn + len(shmem), dtype=np.int64), 0)
        return backup

    def _new(self, nr_pages: int) -> Backup:
        spare = self._spare_slots.get(nr_pages)
        base = spare.pop() if spare else self._rmap.register(self, nr_pages)
        backup = Backup(self._rmap, base, nr_pages)
        if nr_pages:
            self._live[base] = backup
        return backup

    def _store(self, shmem: Pfns, *, writeback: bool) -> Backup:
        """Put copies on the LRU, dirty or on their way to the device."""
        backup = self._new(len(shmem))
        slots = backup.base_slot + np.arange(len(shmem), dtype=np.int64)
        self._lruvec.insert(shmem, slots, flags=_WRITTEN_FLAGS if writeback else _SHMEM_FLAGS, refault=False)
        if writeback and len(shmem):
            self._lruvec.add_node_stat(pg.NS_FREE_SWAP, -len(shmem))
            self._page_io.submit(shmem, file=False)
        self._context.charge(len(shmem) * self._costs.copy_page, "backup copy")
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
        backup = self._new(nr_pages)
        self._rmap.part(backup.base_slot, nr_pages)[:] = pg.SLOT_SHADOW
        self._lruvec.add_node_stat(pg.NS_FREE_SWAP, -nr_pages)
        return backup

    def restore(self, backup: Backup, nr_pages: int | None = None) -> None:
        """Bring pages back into pages that the caller has allocated, and forget their copies.

        Costs a copy a page, and for those on the device a read before, several pages at once (``vm.page-cluster``).

        Parameters
        ----------
        backup : Backup
            Where they are.
        nr_pages : int, optional
            How many, from the first one left on; all by default.
        """
        n = backup.nr_pages if nr_pages is None else min(nr_pages, backup.nr_pages)
        on_device = self._forget(backup, n)
        self._vmstat.count(VmEvent.pswpin, on_device)
        # A read brings in 2^page-cluster adjacent slots (swap_cluster_readahead(), mm/swap_state.c), and a backup's are
        # adjacent, since its pages are written in order.
        reads = -(-on_device >> self._memory.vm.page_cluster)
        self._context.charge(reads * self._costs.swap_in_page, "swap in")
        self._context.charge(n * self._costs.copy_page, "restore copy")

    def drop(self, backup: Backup) -> int:
        """Forget a backup; returns how many of its pages were on the device only."""
        return self._forget(backup, backup.nr_pages)

    def _forget(self, backup: Backup, n: int) -> int:
        """``ttm_backup_drop()`` of each page: its shmem page is freed, its swap slot given back."""
        slots, on_device = backup.take_back(n)
        self._lruvec.zap(slots)
        if n and not backup.nr_pages:
            # They may be another backup's soon; this one has none left to name.
            del self._live[backup.base_slot]
            self._spare_slots.setdefault(backup.size, []).append(backup.base_slot)
        return on_device
