"""A thin page cache: clean order-0 pages on one list, oldest out first.

It stands where mm/filemap.c and the file half of mm/vmscan.c will stand. Missing: the active list and
references (so no second chance), dirty pages and writeback, readahead, large folios. What it is for: reclaim makes
progress on such pages, and that progress ends a high-order pass of kswapd (the drop to order 0 in
``kswapd_shrink_node()``). The cost: pages are reclaimed in the order they were read, hot or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw.gfp import GFP_HIGHUSER_MOVABLE
from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.types import DEF_PRIORITY, SWAP_CLUSTER_MAX, ScanControl

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.context import ExecContext
    from mmfw.mm.page_alloc import PageAllocator
    from mmfw.mm.rmap import RmapSpace


class AddressSpace:
    """One file's cached pages (``struct address_space``).

    Attributes
    ----------
    nr_pages : int
        Size of the file.
    nrpages : int
        Pages cached now.
    base_slot : int
        Rmap slot of its page 0.
    """

    def __init__(self, cache: PageCache, rmap: RmapSpace, nr_pages: int) -> None:
        self.nr_pages = nr_pages
        self.nrpages = 0
        self.base_slot = rmap.register(self, nr_pages)
        self._cache = cache
        self._rmap = rmap
        self._was_cached = np.zeros(nr_pages, dtype=np.bool_)

    def read(self, indices: NDArray[np.int64]) -> int:
        """Read pages; the absent ones are allocated and read in.

        Parameters
        ----------
        indices : int64[n]
            Page indices; each at most once.

        Returns
        -------
        int
            Pages that were absent.
        """
        absent = indices[self._words()[indices] >= pg.SLOT_SHADOW]
        if len(absent):
            absent = absent[: self._cache.add(self, absent)]
        return len(absent)

    def _words(self) -> NDArray[np.uint32]:
        return self._rmap.part(self.base_slot, self.nr_pages)

    def insert(self, indices: NDArray[np.int64], pfns: NDArray[np.int64]) -> int:
        """Note pages read in; returns how many of them had been cached before (refaults)."""
        self._rmap.place(pfns, self.slots_of(indices))
        refaults = int(self._was_cached[indices].sum())
        self._was_cached[indices] = True
        self.nrpages += len(indices)
        return refaults

    def slots_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rmap slots of page indices."""
        return self.base_slot + indices

    def remove(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Forget pages by slot; returns their pfns."""
        pfns = self._rmap.slots[slots].astype(np.int64)
        self._rmap.clear(slots)
        self.nrpages -= len(slots)
        return pfns


class PageCache:
    """All cached file pages of a machine, as reclaim sees them."""

    def __init__(
        self,
        allocator: PageAllocator,
        rmap: RmapSpace,
        context: ExecContext,
        costs: CostProfile,
        vmstat: VmStat,
    ) -> None:
        self._allocator = allocator
        self._rmap = rmap
        self._context = context
        self._costs = costs
        self._vmstat = vmstat
        self._files: list[AddressSpace] = []
        self._bases = np.empty(0, dtype=np.int64)
        self._ring = np.zeros(1 << 16, dtype=np.int64)
        self._head = 0
        self.nr_inactive_file = 0

    def open(self, nr_pages: int) -> AddressSpace:
        """A file of that many pages, none cached yet."""
        file = AddressSpace(self, self._rmap, nr_pages)
        self._files.append(file)
        self._bases = np.append(self._bases, file.base_slot)
        return file

    def adopt(self, file: AddressSpace, pfns: NDArray[np.int64]) -> None:
        """Cache the first pages of a file in pages that are allocated already: the state a run starts from."""
        indices = np.arange(len(pfns), dtype=np.int64)
        slots = file.slots_of(indices)
        file.insert(indices, pfns)
        self._push(slots)

    def add(self, file: AddressSpace, indices: NDArray[np.int64]) -> int:
        """Allocate and read in absent pages; returns how many there was memory for."""
        pfns = self._allocator.alloc_pages_batch(GFP_HIGHUSER_MOVABLE, 0, len(indices))
        indices = indices[: len(pfns)]
        slots = file.slots_of(indices)
        refaults = file.insert(indices, pfns)
        self._vmstat.count(VmEvent.workingset_refault_file, refaults)
        self._push(slots)
        self._context.charge(len(indices) * self._costs.writeback_page, "file read")
        return len(indices)

    def _push(self, slots: NDArray[np.int64]) -> None:
        n = len(slots)
        if self.nr_inactive_file + n > len(self._ring):
            live = self._peek(self.nr_inactive_file)
            size = len(self._ring)
            while size < self.nr_inactive_file + n:
                size *= 2
            self._ring = np.zeros(size, dtype=np.int64)
            self._ring[: len(live)] = live
            self._head = 0
        at = (self._head + self.nr_inactive_file + np.arange(n)) % len(self._ring)
        self._ring[at] = slots
        self.nr_inactive_file += n

    def _peek(self, n: int) -> NDArray[np.int64]:
        return self._ring[(self._head + np.arange(n)) % len(self._ring)]

    def shrink_lruvec(self, sc: ScanControl) -> tuple[int, int]:
        """Reclaim ``size >> priority`` pages, oldest first, in batches of 32 (``shrink_lruvec()``).

        Returns
        -------
        (int, int)
            Pages scanned and reclaimed; the same, since every page is clean and unmapped.
        """
        want = self.nr_inactive_file >> sc.priority
        done = 0
        while done < want:
            n = min(SWAP_CLUSTER_MAX, want - done, self.nr_inactive_file)
            if n == 0:
                break
            slots = self._peek(n)
            self._head = (self._head + n) % len(self._ring)
            self.nr_inactive_file -= n
            self._free(slots)
            done += n
            self._context.charge(n * (self._costs.lru_isolate_page + self._costs.lru_shrink_page), "reclaim")
            self._context.might_sleep()
            if sc.nr_reclaimed + done >= sc.nr_to_reclaim and sc.priority < DEF_PRIORITY:
                break
        return done, done

    def _free(self, slots: NDArray[np.int64]) -> None:
        files = np.searchsorted(self._bases, slots, side="right") - 1
        for index in np.unique(files):
            pfns = self._files[int(index)].remove(slots[files == index])
            self._allocator.free_pages_batch(pfns, 0)
