"""What a buffer is made of (``xfs_buf_alloc_backing_mem()``, ``xfs_buf_free()``, fs/xfs/xfs_buf.c).

Left out: the address space that vmalloc and ``vm_map_ram()`` take, their page tables and TLB flushes; 6.1's array of page
pointers (kmalloc, for more than two pages); that 6.1 maps pages while it allocates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw_xfs_buf.table import BACKING_FOLIO, BACKING_KMEM, BACKING_PAGES, BufTable, Slots
from mmfw_xfs_buf.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_xfs_buf.kernels import XfsKernel

Pfns = NDArray[np.int64]

#: HZ/50 in ns: what ``memalloc_retry_wait()`` sleeps between two tries.
RETRY_NS: Final = 20_000_000
#: Largest order of a folio: 64 KiB.
MAX_FOLIO_ORDER: Final = 4
_NO_PFNS: Final[Pfns] = np.empty(0, dtype=np.int64)


class Backing(NamedTuple):
    """Memory of one buffer: ``BACKING_*``, order and first pfns of its blocks, or kmalloc's object."""

    kind: int
    order: int
    pfns: Pfns
    obj: int


class Plan(NamedTuple):
    """What is asked of memory for a buffer: ``BACKING_*``, order and mask, and the mask of single pages if that fails."""

    kind: int
    order: int
    gfp_mask: int
    fallback_gfp_mask: int = 0


def plan(kernel: XfsKernel, nr_bytes: int, *, read_ahead: bool) -> Plan:
    """How a buffer of a size is allocated.

    Up to 6.14: kmalloc below a page, else single pages, for readahead without any reclaim bit. Since 6.15: kmalloc for
    powers of two below a page; one folio of a page, which cannot fail, or of 8 to 64 KiB, which wakes kswapd, never
    reclaims and gives up early, after which vmalloc has to do with the same mask; vmalloc at once for other sizes.
    """
    mask = kernel.alloc_gfp
    if not kernel.folio_buffers:
        if nr_bytes < PAGE_SIZE:
            return Plan(BACKING_KMEM, 0, mask)
        return Plan(BACKING_PAGES, 0, gfp.NOWARN | gfp.NORETRY if read_ahead else mask)
    mask |= gfp.NORETRY if read_ahead else 0
    power_of_two = nr_bytes & (nr_bytes - 1) == 0
    if nr_bytes < PAGE_SIZE and power_of_two:
        return Plan(BACKING_KMEM, 0, mask | gfp.NOFAIL)
    if nr_bytes <= PAGE_SIZE:
        return Plan(BACKING_FOLIO, 0, mask | gfp.NOFAIL | gfp.COMP)
    if not power_of_two:
        return Plan(BACKING_PAGES, 0, mask)
    mask = (mask & ~gfp.DIRECT_RECLAIM) | gfp.NORETRY
    return Plan(BACKING_FOLIO, (nr_bytes - 1 >> PAGE_SHIFT).bit_length(), mask | gfp.COMP, mask)


class BackingMemory:
    """Allocates and frees what buffers are made of.

    Parameters
    ----------
    mm : Mm
        Whose pages and slab caches.
    kernel : XfsKernel
        Rules.
    overcounts_progress : bool
        See `XfsKernel.overcounts_progress`.

    Attributes
    ----------
    folio_tries, folio_fallbacks : list of int
        By order: requests for one folio, and those that ended in single pages.
    retries : int
        Waits of 20 ms for single pages (``xb_page_retries``).
    """

    def __init__(self, mm: Mm, kernel: XfsKernel, *, overcounts_progress: bool) -> None:
        self._mm = mm
        self._kernel = kernel
        self._overcounts = overcounts_progress
        self.folio_tries = [0] * (MAX_FOLIO_ORDER + 1)
        self.folio_fallbacks = [0] * (MAX_FOLIO_ORDER + 1)
        self.retries = 0

    def alloc(self, nr_bytes: int, *, zero: bool, read_ahead: bool) -> Backing | None:
        """Memory for a buffer; None only if it is for readahead.

        Parameters
        ----------
        nr_bytes : int
            A multiple of 512, at most 65536.
        zero : bool
            The buffer will not be read, so it must be cleared (``__GFP_ZERO``).
        read_ahead : bool
            ``XBF_READ_AHEAD``: one try, with ``__GFP_NORETRY``.
        """
        request = plan(self._kernel, nr_bytes, read_ahead=read_ahead)
        nr_pages = -(-nr_bytes >> PAGE_SHIFT)
        backing: Backing | None
        if request.kind == BACKING_KMEM:
            backing = self._kmalloc(nr_bytes, request.gfp_mask)
        elif request.kind == BACKING_FOLIO:
            backing = self._folio(request, nr_pages, read_ahead)
        else:
            backing = self._single_pages(request.gfp_mask, nr_pages, read_ahead)
        if backing is not None and zero:
            self._mm.charge(nr_pages * self._mm.costs.zero_page, "xfs_buf zero")
        return backing

    def _folio(self, request: Plan, nr_pages: int, read_ahead: bool) -> Backing | None:
        order = request.order
        self.folio_tries[order] += 1
        pfn = self._mm.alloc_pages(request.gfp_mask, order)
        if pfn >= 0:
            return Backing(BACKING_FOLIO, order, np.array([pfn], dtype=np.int64), -1)
        self.folio_fallbacks[order] += 1
        return self._single_pages(request.fallback_gfp_mask, nr_pages, read_ahead)

    def _kmalloc(self, nr_bytes: int, mask: int) -> Backing:
        cache = self._mm.slab.kmalloc_slab(nr_bytes, mask)
        while (obj := cache.kmem_cache_alloc(mask)) < 0:
            self._wait()
        return Backing(BACKING_KMEM, 0, _NO_PFNS, obj)

    def _single_pages(self, mask: int, nr_pages: int, read_ahead: bool) -> Backing | None:
        """Single pages; what is there is kept while the rest is waited for, unless it is for readahead."""
        pfns = self._mm.alloc_pages_batch(mask, 0, nr_pages)
        while len(pfns) < nr_pages:
            # vmalloc gives everything back when it fails; 6.1's array keeps what it has.
            if read_ahead or self._kernel.folio_buffers:
                self._mm.free_pages_batch(pfns, 0)
                pfns = _NO_PFNS
            if read_ahead:
                return None
            self._wait()
            pfns = np.concatenate([pfns, self._mm.alloc_pages_batch(mask, 0, nr_pages - len(pfns))])
        return Backing(BACKING_PAGES, 0, pfns, -1)

    def _wait(self) -> None:
        self.retries += 1
        self._mm.sched.sleep(RETRY_NS)

    # --- freeing ------------------------------------------------------------------------------------

    def free_unused(self, backing: Backing, nr_bytes: int) -> None:
        """Free memory that never became a buffer."""
        if backing.kind == BACKING_KMEM:
            self._mm.slab.kmalloc_slab(nr_bytes, self._kernel.alloc_gfp).kmem_cache_free(backing.obj)
        else:
            self._mm.free_pages_batch(backing.pfns, backing.order)

    def free(self, table: BufTable, slots: Slots) -> None:
        """Free the memory of buffers in the order given, and credit it to the running task's reclaim.

        The slots are the table's again before the first page goes: freeing takes time, in which other tasks run.
        """
        backing, order, sizes = table.backing[slots], table.order[slots], table.nr_bytes[slots]
        pieces, pages, objs = table.nr_pieces[slots], table.pages[slots], table.obj[slots]
        table.free_slots(slots)
        # Buffers of one kind that follow each other go in one call.
        kind = backing.astype(np.int64) << 32 | order.astype(np.int64) << 24
        kind |= np.where(backing == BACKING_KMEM, sizes, 0)
        edges = np.flatnonzero(np.diff(kind)) + 1
        for run in np.split(np.arange(len(slots)), edges):
            if len(run) == 0:
                continue
            first = int(run[0])
            if backing[first] == BACKING_KMEM:
                cache = self._mm.slab.kmalloc_slab(int(sizes[first]), self._kernel.alloc_gfp)
                cache.kmem_cache_free_bulk(objs[run])
            else:
                there = np.arange(pages.shape[1]) < pieces[run][:, None]
                self._mm.free_pages_batch(pages[run][there].astype(np.int64), int(order[first]))
        self._mm.account_reclaimed_slab(self.progress(sizes[backing != BACKING_KMEM]))

    def progress(self, sizes: NDArray[np.int32]) -> int:
        """Pages of progress that freeing buffers of these sizes credits; kmalloc's are credited as slabs go."""
        unit = PAGE_SHIFT if self._overcounts else PAGE_SIZE
        # Since 6.15 a buffer below a page credits nothing, though one of no power of two has a page.
        counted = sizes[sizes >= PAGE_SIZE] if self._kernel.folio_buffers else sizes
        return int((-(-counted.astype(np.int64) // unit)).sum())
