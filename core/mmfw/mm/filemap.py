"""The page cache: files, reads with readahead, writes, dropping (mm/filemap.c, mm/readahead.c, mm/truncate.c of 6.1).

Pages of a file are order-0 folios, or larger ones where the file's mapping supports them. The nodes that index them are
`mmfw.mm.xarray_nodes`, mapped access is `mmfw.mm.filemap_fault`, writing is `mmfw.mm.filemap_write`. Not modelled:
partial pages, and filesystem metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.jit.pagecache import PAGEVEC_SIZE, READ_LOCKED, READ_MARKER
from mmfw.mm.filemap_fault import mmap_touch
from mmfw.mm.filemap_ra import page_cache_ra_order
from mmfw.mm.filemap_write import generic_perform_write
from mmfw.mm.readahead import FileRaState, ondemand_readahead
from mmfw.mm.vmstat import VmEvent
from mmfw.mm.xarray_nodes import XA_CHUNK_SIZE
from mmfw.state import PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from mmfw.mm.block import BlockDevice
    from mmfw.mm.page_cache import PageCache

Indices = NDArray[np.int64]


class AddressSpace:
    """One file and its cached pages (``struct address_space``); made by `PageCache.open`.

    Attributes
    ----------
    nr_pages : int
        Size of the file.
    base_slot : int
        Rmap slot of its page 0.
    tree : PageTree
        Its nodes.
    ra : FileRaState
        What its reader read; all of them share it.
    gfp_mask : int
        ``mapping_gfp_mask()``.
    max_order : int
        Largest folio that readahead makes.
    max_write_order : int
        Largest folio that a write makes.
    write_nofs : bool
        Whether writes ask without ``__GFP_FS`` (``FGP_NOFS``).
    folios, folio_failures : list of int
        Folios that `add_folio` made, and those it had no memory for, by order.
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
        *,
        max_write_order: int = 0,
        write_nofs: bool = False,
    ) -> None:
        self.nr_pages = nr_pages
        self.name = name
        self.cache = cache
        self.ra = ra
        self.gfp_mask = gfp_mask
        self.max_order = max_order
        self.max_write_order = max_write_order
        self.write_nofs = write_nofs
        self.folios = [0] * (PAGEBLOCK_ORDER + 1)
        self.folio_failures = [0] * (PAGEBLOCK_ORDER + 1)
        self._device = device
        nr_slots = -(-nr_pages // XA_CHUNK_SIZE) * XA_CHUNK_SIZE
        self.base_slot = cache.rmap.register(self, nr_slots, XA_CHUNK_SIZE)
        self.tree = cache.nodes.tree(self.base_slot, nr_pages)

    def words(self) -> NDArray[np.uint32]:
        """Its slots, as a view."""
        return self.cache.rmap.part(self.base_slot, self.nr_pages)

    @property
    def nrpages(self) -> int:
        """Pages cached now."""
        return int((self.words() < pg.SLOT_SHADOW).sum())

    def cached(self, indices: Indices) -> NDArray[np.bool_]:
        """Which of the pages are cached."""
        mask: NDArray[np.bool_] = self.words()[indices] < pg.SLOT_SHADOW
        return mask

    def next_miss(self, index: int, max_scan: int) -> int:
        """First absent page from an index on, at most ``index + max_scan`` (``page_cache_next_miss()``)."""
        absent = self.words()[index : index + max_scan] >= pg.SLOT_SHADOW
        return index + (int(absent.argmax()) if absent.any() else min(max_scan, len(absent)))

    def history(self, index: int, max_scan: int) -> int:
        """Pages cached one behind the other before an index (``count_history_pages()``)."""
        absent = self.words()[max(0, index - max_scan) : index][::-1] >= pg.SLOT_SHADOW
        return int(absent.argmax()) if absent.any() else len(absent)

    # --- reading --------------------------------------------------------------------------------------

    def read(self, start: int, nr_pages: int) -> int:
        """Read pages one after another, as one ``read(2)`` (``filemap_read()``).

        Absent pages are read in with readahead. A page that is being read is waited for. Each is marked accessed once,
        but not the one that was read last before.

        Returns
        -------
        int
            Pages read; fewer than asked at the end of the file, if the task was killed, or if memory ran out.
        """
        lruvec, ra = self.cache.lruvec, self.ra
        end = min(start + nr_pages, self.nr_pages)
        index = start
        while index < end and not self.cache.context.fatal_signal_pending:
            run, why = lruvec.read_batch(self.base_slot + index, self.base_slot + end)
            if run == 0:
                # page_cache_sync_readahead(); without a window the page alone.
                if ra.ra_pages:
                    self.fill(*ondemand_readahead(ra, index, end - index, hit_marker=False, mapping=self))
                if self.words()[index] >= pg.SLOT_SHADOW and not self.create_folio(index):
                    break
                continue
            last = index + run - 1
            if why & READ_MARKER:
                # Full batches in front of the marker's are copied before it is met.
                before = (run - 1) // PAGEVEC_SIZE * PAGEVEC_SIZE
                self._use(index, before)
                index, run = index + before, run - before
                self.async_readahead(last, end - last)
            if why & READ_LOCKED and self.wait_locked(last):
                continue
            self._use(index, run)
            index += run
        return index - start

    def read_pages(self, indices: Indices) -> int:
        """Read single pages anywhere in the file, without readahead (FMODE_RANDOM); how many were absent."""
        absent = indices[~self.cached(indices)]
        if len(absent):
            self._add(absent)
            for index in absent[~self.cached(absent)].tolist():
                if not self.create_folio(index):
                    break
            if self._device is not None:
                for index in absent.tolist():
                    self.wait_locked(index)
        again = len(indices) > 0 and int(indices[0]) == self.ra.prev_pos - 1
        self._mark_and_copy(indices[1:] if again else indices, len(indices))
        if len(indices):
            self.ra.prev_pos = int(indices[-1]) + 1
        return len(absent)

    def _use(self, index: int, nr_pages: int) -> None:
        if nr_pages:
            first = index + (index == self.ra.prev_pos - 1)
            self._mark_and_copy(np.arange(first, index + nr_pages, dtype=np.int64), nr_pages)
            self.ra.prev_pos = index + nr_pages

    def _mark_and_copy(self, indices: Indices, nr_pages: int) -> None:
        cache = self.cache
        cache.lruvec.mark_accessed(self.base_slot + indices)
        cache.context.charge(nr_pages * cache.costs.copy_page, "file read")

    def async_readahead(self, index: int, req_size: int) -> None:
        """Read on behind a page that has the readahead flag, which it loses (``page_cache_async_ra()``)."""
        if not self.ra.ra_pages:
            return
        order, behind_head = self.cache.lruvec.clear_readahead(self.base_slot + index)
        if order < 0:
            return
        index, req_size = index - behind_head, req_size + behind_head
        window = ondemand_readahead(self.ra, index, req_size, hit_marker=True, order=order, mapping=self)
        self.fill(*window, order=order)

    def fill(self, first: int, nr: int, *, order: int = 0) -> None:
        """Read in the absent pages of a planned window (``page_cache_ra_order()``, ``page_cache_ra_unbounded()``).

        Its marker is set on the page that was planned for it if that is one of them. Where the end of the file cuts a
        window of single pages, the marker moves forward with it.

        Parameters
        ----------
        first, nr : int
            The window, as `ondemand_readahead` planned it.
        order : int
            Order of the folio whose marker was met.
        """
        marker, size = self.ra.marker, nr
        if self.max_order and marker >= 0 and self.ra.size >= 4:
            ahead = self.ra.start + self.ra.size - marker
            first = page_cache_ra_order(self, first, nr, order)
            if first < 0:
                return
            marker = first + size - ahead
        end = min(first + size, self.nr_pages)
        if marker >= 0:
            marker = end - (first + size - marker)
        window = np.arange(first, end, dtype=np.int64)
        absent = window[~self.cached(window)]
        if len(absent):
            self._add(absent, marker=marker)

    def create_folio(self, index: int) -> bool:
        """Read in one page that readahead had no memory for, whatever it takes (``filemap_create_folio()``)."""
        self._add(np.array([index], dtype=np.int64), extra_gfp=0, nofs=False)
        return bool(self.words()[index] < pg.SLOT_SHADOW)

    def wait_locked(self, index: int) -> bool:
        """Wait until a page has been read (``folio_wait_locked()``); False if that was not necessary."""
        cache = self.cache
        if cache.context.time_stands_still or not self._locked(index):
            return False
        cache.uptodate.wait_event(lambda: not self._locked(index))
        return True

    def _locked(self, index: int) -> bool:
        word = self.words()[index : index + 1]
        if word[0] >= pg.SLOT_SHADOW:
            return False
        lruvec = self.cache.lruvec
        return bool(lruvec.words(lruvec.heads(word.astype(np.int64)))[0] & pg.PG_LOCKED)

    # --- adding pages -----------------------------------------------------------------------------------

    def _add(
        self,
        indices: Indices,
        *,
        extra_gfp: int = gfp.NORETRY | gfp.NOWARN,
        nofs: bool = True,
        marker: int = -1,
    ) -> int:
        """Allocate, insert and read absent pages, as a loop of ``filemap_add_folio()`` does.

        Returns
        -------
        int
            How many there was memory for. A page that found none for its node is passed over.
        """
        cache = self.cache
        mask = self.gfp_mask | gfp.COMP | extra_gfp
        if nofs:
            mask &= ~gfp.FS
        flags = self.read_flags()
        done = 0
        added = []
        while done < len(indices):
            # The page that needs a new node ends a batch: its node is allocated before the page behind it.
            some = indices[done : done + 32]
            some = some[: self.tree.batch(some)]
            pfns = cache.allocator.alloc_pages_batch(mask, 0, len(some))
            some = some[: len(pfns)]
            if len(pfns) == 0:
                break
            done += len(some)
            inserted = self.insert(pfns, some, 0, flags, mask)
            if len(inserted):
                added.append(inserted)
                if some[0] <= marker <= some[-1] and self._among(marker, some):
                    cache.lruvec.set_readahead(self.base_slot + marker)
        if not added:
            return 0
        return self.read_in(added[0] if len(added) == 1 else np.concatenate(added))

    def read_flags(self) -> int:
        """Flags of folios that are about to be read in."""
        reads = self._device is not None and not self.cache.context.time_stands_still
        return pg.PG_LOCKED if reads else 0

    def add_folio(self, index: int, order: int, gfp_mask: int, flags: int = 0) -> int:
        """Allocate one folio and put it at an index (``filemap_alloc_folio()``, ``filemap_add_folio()``).

        Returns
        -------
        int
            Its pfn; -1 if there was no memory for it or its nodes, or one of its pages is cached already.
        """
        pfn = self.cache.allocator.alloc_pages(gfp_mask, order)
        (self.folios if pfn >= 0 else self.folio_failures)[order] += 1
        if pfn < 0:
            return -1
        indices = np.arange(index, index + (1 << order), dtype=np.int64)
        inserted = self.insert(np.array([pfn], dtype=np.int64), indices, order, flags, gfp_mask)
        return pfn if len(inserted) else -1

    def _among(self, index: int, inserted: Indices) -> bool:
        """Whether a page is among those that were just inserted, of which a part may have been there before."""
        at = int(np.searchsorted(inserted, index))
        return bool(inserted[at] == index and self.words()[index] < pg.SLOT_SHADOW)

    def insert(self, pfns: Indices, indices: Indices, order: int, flags: int, mask: int) -> Indices:
        """Put allocated folios at absent indices, making nodes first where there are none (``__filemap_add_folio()``).

        With __GFP_WRITE in the mask a page that was evicted is no refault.

        Returns
        -------
        int64[n]
            Those inserted: not those that somebody else has read meanwhile, nor those for whose node no memory was left.
        """
        cache = self.cache
        while (at := self.tree.without_node(indices)) < len(indices):
            if not self.tree.create(int(indices[at]), mask):
                # Nothing is left for this page and those after it that lack the same node.
                cache.allocator.free_pages_batch(pfns if order else pfns[at:], order)
                pfns, indices = pfns[:0] if order else pfns[:at], indices[:0] if order else indices[:at]
        if len(pfns) == 0:
            return pfns
        absent = ~self.cached(indices)
        if order:
            absent, indices = np.array([absent.all()]), indices[:1]
        if not absent.all():
            cache.allocator.free_pages_batch(pfns[~absent], order)
            pfns, indices = pfns[absent], indices[absent]
        if len(pfns):
            slots = self.base_slot + indices
            cache.lruvec.insert(pfns, slots, order=order, flags=flags, refault=not mask & gfp.WRITE)
        return pfns

    def read_in(self, pfns: Indices) -> int:
        """Have folios read (``read_pages()``); how many pages. From a device they are locked until it is done."""
        cache = self.cache
        words = cache.lruvec.words(pfns)
        nr_pages = int((1 << (words & pg.ORDER_MASK).astype(np.int64)).sum()) if self.max_order else len(pfns)
        cache.vmstat.count(VmEvent.pgpgin, 4 * nr_pages)
        if self._device is None:
            cache.context.charge(nr_pages * cache.costs.writeback_page, "file read")
        elif not cache.context.time_stands_still:
            self._device.submit(nr_pages, lambda: cache.end_read(pfns))
        return nr_pages

    # --- writing, dropping ------------------------------------------------------------------------------

    def write(self, start: int, nr_pages: int) -> int:
        """Write whole pages; see `mmfw.mm.filemap_write.generic_perform_write`."""
        return generic_perform_write(self, start, nr_pages)

    def invalidate(self) -> int:
        """Drop clean, unmapped pages (``invalidate_mapping_pages()``, by last close or drop_caches); how many.

        Shadows go too. Other pages are deactivated, but for those that are locked or being written.
        """
        return self._drop(invalidate=True)

    def truncate(self) -> int:
        """Drop every page and shadow (``truncate_inode_pages()``); how many pages were freed.

        A page under writeback, which the kernel waits for, goes last, and is freed when it is written.
        """
        return self._drop(invalidate=False)

    def _drop(self, *, invalidate: bool) -> int:
        lruvec = self.cache.lruvec
        nr_shadow_nodes = self.tree.nr_shadow_nodes()
        freed = lruvec.drop_entries(self.base_slot, self.nr_pages, invalidate=invalidate)
        if not invalidate:
            freed += lruvec.release(self.base_slot + np.flatnonzero(self.words() < pg.SLOT_SHADOW))
        self.tree.drop_empty(nr_shadow_nodes)
        return freed

    def close(self) -> None:
        """Drop every page and forget the file."""
        self.truncate()
        self.cache.nodes.forget(self.tree)
        self.cache.forget(self)

    def mmap_touch(self, indices: Indices, *, executable: bool = False) -> int:
        """Access pages through a mapping; see `mmfw.mm.filemap_fault.mmap_touch`."""
        return mmap_touch(self, indices, executable=executable)
