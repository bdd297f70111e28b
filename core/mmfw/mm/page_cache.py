"""All files of a machine, and what their pages have in common (mm/filemap.c, fs/drop_caches.c of 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw.costs import transfer_ns
from mmfw.gfp import GFP_HIGHUSER_MOVABLE
from mmfw.jit import page as pg
from mmfw.mm.block import BlockDevice
from mmfw.mm.dirty_folios import DirtyFolios
from mmfw.mm.filemap import AddressSpace
from mmfw.mm.readahead import FileRaState
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.sched import WaitQueue

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.context import SchedContext
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.page_alloc import PageAllocator
    from mmfw.mm.page_io import PageIo
    from mmfw.mm.rmap import RmapSpace
    from mmfw.mm.xarray_nodes import XarrayNodes
    from mmfw.sched import Scheduler

Indices = NDArray[np.int64]
PAGE_SIZE: Final = 4096


class PageCache:
    """All files of a machine.

    Parameters
    ----------
    allocator, lruvec, rmap, page_io, nodes
        Where pages come from, wait, are found and are written, and what indexes them.
    sched, context, costs, vmstat
        The clock, the running task, what work costs, the counters.

    Attributes
    ----------
    uptodate : WaitQueue
        Woken whenever a device has read pages.
    """

    def __init__(
        self,
        allocator: PageAllocator,
        lruvec: Lruvec,
        rmap: RmapSpace,
        page_io: PageIo,
        nodes: XarrayNodes,
        sched: Scheduler,
        context: SchedContext,
        costs: CostProfile,
        vmstat: VmStat,
    ) -> None:
        self.allocator = allocator
        self.lruvec = lruvec
        self.rmap = rmap
        self.page_io = page_io
        self.nodes = nodes
        self.sched = sched
        self.context = context
        self.costs = costs
        self.vmstat = vmstat
        self.uptodate = WaitQueue(sched, "folio_wait_locked")
        self._files: list[AddressSpace] = []
        self._dirty_folios = DirtyFolios(rmap, lruvec, sched)
        page_io.dirty_folios = self._dirty_folios

    def open(
        self,
        nr_pages: int,
        *,
        gfp_mask: int = GFP_HIGHUSER_MOVABLE,
        ra_pages: int = 32,
        max_order: int = 0,
        max_write_order: int = 0,
        write_nofs: bool = False,
        device: BlockDevice | None = None,
        name: str = "",
    ) -> AddressSpace:
        """A file of that many pages, none cached yet.

        Parameters
        ----------
        nr_pages : int
            Size.
        gfp_mask : int
            ``mapping_gfp_mask()``; a raw block device's is GFP_USER, so its pages are not movable by type.
        ra_pages : int
            Largest readahead window.
        max_order : int
            Largest folio readahead may use, up to 9; 0 for a filesystem without large folios.
        max_write_order : int
            Largest folio a write may use; 0 as for every filesystem up to 6.5.
        write_nofs : bool
            Whether writes ask without ``__GFP_FS``, as iomap's and btrfs's do.
        device : BlockDevice, optional
            What it is read from; None for one of no latency that costs ``writeback_page`` a page.
        name : str
            For messages.
        """
        file = AddressSpace(
            self,
            nr_pages,
            gfp_mask,
            FileRaState(ra_pages=ra_pages),
            max_order,
            device,
            name,
            max_write_order=max_write_order,
            write_nofs=write_nofs,
        )
        self._files.append(file)
        return file

    def blkdev(self, bytes_per_second: int, *, latency_ns: int = 0) -> BlockDevice:
        """A device of its own to read files from, serving requests in order.

        Parameters
        ----------
        bytes_per_second : int
            Its rate.
        latency_ns : int
            Time of each request besides.
        """
        return BlockDevice(
            self.sched, page_ns=transfer_ns(PAGE_SIZE, bytes_per_second), latency_ns=latency_ns
        )

    def forget(self, file: AddressSpace) -> None:
        """Take a closed file off the list."""
        self._files.remove(file)

    def adopt(self, file: AddressSpace, pfns: Indices) -> None:
        """Cache the first pages of a file in pages that are allocated already: the state a run starts from."""
        file.tree.adopt(len(pfns))
        self.lruvec.insert(pfns, file.base_slot + np.arange(len(pfns), dtype=np.int64))

    def drop_pagecache(self) -> int:
        """``echo 1 > /proc/sys/vm/drop_caches``; pages dropped."""
        self.vmstat.count(VmEvent.drop_pagecache)
        return sum(file.invalidate() for file in self._files)

    @property
    def nr_file_pages(self) -> int:
        """Cached pages of all files."""
        return sum(file.nrpages for file in self._files)

    def end_read(self, pfns: Indices) -> None:
        """A device has read folios (``mpage_end_io()``)."""
        self.lruvec.end_read(pfns)
        self.uptodate.wake_up()

    def dirty(self, pfns: Indices) -> None:
        """Mark folios dirty (``folio_mark_dirty()``); what was the readahead flag goes, for it would mean reclaim now."""
        words = self.lruvec.words(pfns)
        clean = (words & pg.PG_DIRTY) == 0
        self.lruvec.set_flags(pfns, on=pg.PG_DIRTY, off=pg.PG_RECLAIM)
        nr_pages = int((1 << (words[clean] & pg.ORDER_MASK).astype(np.int64)).sum())
        self.lruvec.add_node_stat(pg.NS_FILE_DIRTY, nr_pages)
        self.lruvec.add_node_stat(pg.NS_DIRTIED, nr_pages)
        if nr_pages:
            self._dirty_folios.add(pfns[clean], nr_pages)
            self.page_io.account_dirtied(nr_pages)

    def map_pages(self, pfns: Indices, *, executable: bool) -> None:
        """Enter folios into a page table, accessed (``do_set_pte()``)."""
        new = pfns[(self.lruvec.words(pfns) & pg.PG_MAPPED) == 0]
        self.lruvec.add_node_stat(pg.NS_FILE_MAPPED, len(new))
        flags = pg.PG_MAPPED | pg.PTE_YOUNG | (pg.PTE_EXEC if executable else 0)
        self.lruvec.set_flags(pfns, on=flags)
