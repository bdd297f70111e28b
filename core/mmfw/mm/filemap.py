"""The page cache: files, reads with readahead, writes, mapped access (mm/filemap.c, mm/readahead.c of 6.1).

Pages of a file are order-0 folios, or larger ones where the file's mapping supports them. The nodes that index them are
`mmfw.mm.xarray_nodes`. Not modelled: partial pages, and filesystem metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.gfp import GFP_HIGHUSER_MOVABLE
from mmfw.jit import page as pg
from mmfw.mm.readahead import FileRaState, ondemand_readahead
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.mm.xarray_nodes import XA_CHUNK_SIZE

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.block import BlockDevice
    from mmfw.mm.context import ExecContext
    from mmfw.mm.lruvec import Lruvec
    from mmfw.mm.page_alloc import PageAllocator
    from mmfw.mm.page_io import PageIo
    from mmfw.mm.rmap import RmapSpace
    from mmfw.mm.xarray_nodes import XarrayNodes
    from mmfw.sched import Scheduler

Indices = NDArray[np.int64]


class AddressSpace:
    """One file and its cached pages (``struct address_space``); made by `PageCache.open`.

    Attributes
    ----------
    nr_pages : int
        Size of the file.
    base_slot : int
        Rmap slot of its page 0.
    """

    def __init__(
        self,
        cache: PageCache,
        nr_pages: int,
        gfp_mask: int,
        ra: FileRaState,
        max_order: int,
        device: BlockDevice | None,
        name: str,
    ) -> None:
        self.nr_pages = nr_pages
        self.name = name
        self._cache = cache
        self._gfp_mask = gfp_mask
        self._ra = ra
        self._max_order = max_order
        self._device = device
        nr_slots = -(-nr_pages // XA_CHUNK_SIZE) * XA_CHUNK_SIZE
        self.base_slot = cache.rmap.register(self, nr_slots, XA_CHUNK_SIZE)
        self.tree = cache.nodes.tree(self.base_slot, nr_pages)

    def _words(self) -> NDArray[np.uint32]:
        return self._cache.rmap.part(self.base_slot, self.nr_pages)

    @property
    def nrpages(self) -> int:
        """Pages cached now."""
        return int((self._words() < pg.SLOT_SHADOW).sum())

    def cached(self, indices: Indices) -> NDArray[np.bool_]:
        """Which of the pages are cached."""
        mask: NDArray[np.bool_] = self._words()[indices] < pg.SLOT_SHADOW
        return mask

    # --- reading --------------------------------------------------------------------------------------

    def read(self, start: int, nr_pages: int) -> int:
        """Read pages one after another, as one ``read(2)`` (``filemap_read()``).

        Absent pages are read in with readahead; each page is marked accessed once.

        Returns
        -------
        int
            Pages read; fewer than asked at the end of the file, or if memory ran out.
        """
        end = min(start + nr_pages, self.nr_pages)
        index = start
        while index < end:
            words = self._words()[index:end]
            present = words < pg.SLOT_SHADOW
            run = int(np.argmin(present)) if not present.all() else end - index
            marker = self._ra.marker
            if index <= marker < index + run:
                ahead = marker - index
                self._ra.marker = -1
                self._ahead(marker, end - marker, hit_marker=True)
                run = max(run, ahead + 1)
            elif run == 0:
                self._ahead(index, end - index, hit_marker=False)
                if self._words()[index] >= pg.SLOT_SHADOW and not self._fill(index, 1):
                    break
                continue
            self._use(np.arange(index, index + run, dtype=np.int64))
            index += run
        self._ra.prev_index = index - 1
        return index - start

    def read_pages(self, indices: Indices) -> int:
        """Read single pages anywhere in the file, without readahead; how many were absent."""
        absent = indices[~self.cached(indices)]
        if len(absent):
            self._add(absent)
        self._use(indices)
        return len(absent)

    def _use(self, indices: Indices) -> None:
        cache = self._cache
        cache.lruvec.mark_accessed(self.base_slot + indices)
        cache.context.charge(len(indices) * cache.costs.copy_page, "file read")

    def _ahead(self, index: int, req_size: int, *, hit_marker: bool) -> None:
        first, nr = ondemand_readahead(self._ra, index, req_size, hit_marker=hit_marker)
        self._fill(first, nr)

    def _fill(self, first: int, nr: int) -> int:
        """Allocate and read in the absent pages of a window (``page_cache_ra_unbounded()``)."""
        window = np.arange(first, min(first + nr, self.nr_pages), dtype=np.int64)
        absent = window[~self.cached(window)]
        return self._add(absent) if len(absent) else 0

    def _add(self, indices: Indices, flags: int = 0, extra_gfp: int = gfp.NORETRY | gfp.NOWARN) -> int:
        """Allocate and insert absent pages, ascending, as a loop of ``filemap_add_folio()`` does.

        Returns
        -------
        int
            How many there was memory for. A page that found none for its node is passed over.
        """
        cache = self._cache
        mask = (self._gfp_mask | gfp.COMP | extra_gfp) & ~gfp.FS
        done = added = 0
        while done < len(indices):
            order, some = self._folio_order(indices, done)
            pfns = indices[:0]
            if order:
                pfn = cache.allocator.alloc_pages(mask, order)
                pfns = np.array([pfn] if pfn >= 0 else [], dtype=np.int64)
                order = order if len(pfns) else 0
            if order == 0:
                # The page that needs a new node ends a batch: its node is allocated before the page behind it.
                some = indices[done : done + 32]
                some = some[: self.tree.batch(some)]
                pfns = cache.allocator.alloc_pages_batch(mask, 0, len(some))
                some = some[: len(pfns)]
            if len(pfns) == 0:
                break
            done += len(some)
            added += self._insert(pfns, some, order, flags, mask)
        cache.vmstat.count(VmEvent.pgpgin, 4 * added)
        self._wait_for_device(added)
        return added

    def _insert(self, pfns: Indices, indices: Indices, order: int, flags: int, mask: int) -> int:
        """Put allocated folios at absent indices, making nodes first where there are none (``__filemap_add_folio()``).

        Returns
        -------
        int
            Pages inserted: not those that somebody else has read meanwhile, nor those for whose node no memory was left.
        """
        cache = self._cache
        while (at := self.tree.without_node(indices)) < len(indices):
            if not self.tree.create(int(indices[at]), mask):
                # Nothing is left for this page and those after it that lack the same node.
                cache.allocator.free_pages_batch(pfns if order else pfns[at:], order)
                pfns, indices = pfns[:0] if order else pfns[:at], indices[:0] if order else indices[:at]
        absent = ~self.cached(indices)
        if order:
            absent, indices = np.array([absent.all()]), indices[:1]
        if not absent.all():
            cache.allocator.free_pages_batch(pfns[~absent], order)
            pfns, indices = pfns[absent], indices[absent]
        if len(pfns):
            cache.lruvec.insert(pfns, self.base_slot + indices, order=order, flags=flags)
        return len(pfns) << order

    def _folio_order(self, indices: Indices, at: int) -> tuple[int, Indices]:
        """Largest folio that fits at a position of the absent pages, and its indices."""
        order = 0
        first = int(indices[at])
        while order < self._max_order:
            size = 2 << order
            run = indices[at : at + size]
            if first % size or len(run) < size or int(run[-1]) != first + size - 1:
                break
            order += 1
        return order, indices[at : at + (1 << order)]

    def _wait_for_device(self, nr_pages: int) -> None:
        cache = self._cache
        if self._device is None:
            cache.context.charge(nr_pages * cache.costs.writeback_page, "file read")
        elif nr_pages:
            done = self._device.submit(nr_pages)
            cache.context.schedule_timeout(max(0, done - cache.sched.now))

    # --- writing, mapping, dropping ---------------------------------------------------------------------

    def write(self, start: int, nr_pages: int) -> int:
        """Write whole pages (``generic_perform_write()``): they are dirty until the flusher has written them."""
        end = min(start + nr_pages, self.nr_pages)
        cache = self._cache
        written = 0
        for first in range(start, end, 32):
            indices = np.arange(first, min(first + 32, end), dtype=np.int64)
            absent = indices[~self.cached(indices)]
            if len(absent):
                self._add_for_write(absent)
            words = self._words()[indices]
            pfns = words[words < pg.SLOT_SHADOW].astype(np.int64)
            cache.dirty(pfns)
            self._use(indices)
            written += len(pfns)
            cache.page_io.balance_dirty_pages()
        return written

    def _add_for_write(self, indices: Indices) -> None:
        cache = self._cache
        mask = (self._gfp_mask | gfp.COMP | gfp.WRITE) & ~gfp.FS
        done = 0
        while done < len(indices):
            some = indices[done : done + self.tree.batch(indices[done:])]
            pfns = cache.allocator.alloc_pages_batch(mask, 0, len(some))
            if len(pfns) == 0:
                return
            self._insert(pfns, some[: len(pfns)], 0, 0, mask)
            done += len(some)

    def mmap_touch(self, indices: Indices, *, executable: bool = False) -> int:
        """Access pages through a mapping (``filemap_fault()``); how many faulted in from the device."""
        cache = self._cache
        absent = indices[~self.cached(indices)]
        if len(absent):
            self._add(absent)
            cache.vmstat.count(VmEvent.pgmajfault, len(absent))
        words = self._words()[indices]
        pfns = words[words < pg.SLOT_SHADOW].astype(np.int64)
        cache.map_pages(pfns, executable=executable)
        return len(absent)

    def invalidate(self) -> int:
        """Drop clean, unmapped pages (``invalidate_mapping_pages()``, by last close or drop_caches); how many."""
        return self._drop(pg.PG_DIRTY | pg.PG_WRITEBACK | pg.PG_MAPPED | pg.PG_LOCKED | pg.PG_PINNED)

    def truncate(self) -> int:
        """Drop every page (``truncate_inode_pages()``); how many."""
        return self._drop(0)

    def _drop(self, unless: int) -> int:
        nr_shadow_nodes = self.tree.nr_shadow_nodes()
        words = self._words()
        indices = np.flatnonzero(words < pg.SLOT_SHADOW)
        heads = words[indices].astype(np.int64)
        flags = self._cache.flags_of(heads)
        keep = (flags & unless) != 0 if unless else np.zeros(len(heads), dtype=np.bool_)
        slots = self.base_slot + indices[~keep]
        # A batch of 15 is released last page first (``__pagevec_release()``).
        batches = [slots[i : i + 15][::-1] for i in range(0, len(slots), 15)]
        freed = 0
        for batch in batches:
            freed += self._cache.lruvec.release(batch)
        words = self._words()
        words[words >= pg.SLOT_SHADOW] = pg.SLOT_EMPTY
        self.tree.drop_empty(nr_shadow_nodes)
        return freed

    def close(self) -> None:
        """Drop every page and forget the file."""
        self.truncate()
        self._cache.nodes.forget(self.tree)
        self._cache.forget(self)


class PageCache:
    """All files of a machine.

    Parameters
    ----------
    allocator, lruvec, rmap, page_io, nodes
        Where pages come from, wait, are found and are written, and what indexes them.
    sched, context, costs, vmstat
        The clock, the running task, what work costs, the counters.
    """

    def __init__(
        self,
        allocator: PageAllocator,
        lruvec: Lruvec,
        rmap: RmapSpace,
        page_io: PageIo,
        nodes: XarrayNodes,
        sched: Scheduler,
        context: ExecContext,
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
        self._files: list[AddressSpace] = []

    def open(
        self,
        nr_pages: int,
        *,
        gfp_mask: int = GFP_HIGHUSER_MOVABLE,
        ra_pages: int = 32,
        max_order: int = 0,
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
            Largest folio readahead may use; 0 for a filesystem without large folios.
        device : BlockDevice, optional
            What it is read from; None for one of no latency that costs ``writeback_page`` a page.
        name : str
            For messages.
        """
        file = AddressSpace(self, nr_pages, gfp_mask, FileRaState(ra_pages=ra_pages), max_order, device, name)
        self._files.append(file)
        return file

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

    def flags_of(self, pfns: Indices) -> NDArray[np.uint32]:
        """Page words of heads."""
        words: NDArray[np.uint32] = self.lruvec.words(pfns)
        return words

    def dirty(self, pfns: Indices) -> None:
        """Mark pages dirty (``folio_mark_dirty()``)."""
        clean = pfns[(self.lruvec.words(pfns) & pg.PG_DIRTY) == 0]
        self.lruvec.set_flags(clean, on=pg.PG_DIRTY)
        self.lruvec.add_node_stat(pg.NS_FILE_DIRTY, len(clean))
        self.lruvec.add_node_stat(pg.NS_DIRTIED, len(clean))

    def map_pages(self, pfns: Indices, *, executable: bool) -> None:
        """Enter pages into a page table, accessed."""
        new = pfns[(self.lruvec.words(pfns) & pg.PG_MAPPED) == 0]
        self.lruvec.add_node_stat(pg.NS_FILE_MAPPED, len(new))
        flags = pg.PG_MAPPED | pg.PTE_YOUNG | (pg.PTE_EXEC if executable else 0)
        self.lruvec.set_flags(pfns, on=flags)
