"""Buffers and their backing memory (``xfs_buf_alloc_backing_mem()``, fs/xfs/xfs_buf.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp

if TYPE_CHECKING:
    from mmfw import Mm

PAGE_SIZE: Final = 4096
#: ``XFS_MAX_BLOCKSIZE``.
MAX_BUF_BYTES: Final = 65536
#: HZ/50 in ns: what ``memalloc_retry_wait()`` sleeps between two tries.
RETRY_NS: Final = 20_000_000

#: Mask of a folio of order 1 to 4 since 6.15: it wakes kswapd and never reclaims.
FOLIO_GFP: Final = (gfp.GFP_KERNEL | gfp.NOWARN | gfp.NORETRY | gfp.COMP) & ~gfp.DIRECT_RECLAIM
#: Mask of a buffer of one page since 6.15.
SINGLE_GFP: Final = gfp.GFP_KERNEL | gfp.NOWARN | gfp.NOFAIL | gfp.COMP
#: Mask of the pages of ``vmalloc`` since 6.15 where no folio of the size was to be had.
VMALLOC_AFTER_FOLIO_GFP: Final = (gfp.GFP_KERNEL | gfp.NOWARN | gfp.NORETRY) & ~gfp.DIRECT_RECLAIM
#: ... and of a size that is no power of two, which never tries a folio.
VMALLOC_GFP: Final = gfp.GFP_KERNEL | gfp.NOWARN
#: By kernel profile: whether a buffer of several pages tries one folio first (6.15 and later).
FOLIO_BUFFERS: Final = {"6.1": False, "7.1": True, "7.2": True}
#: Mask of the page array in 6.1.
PAGES_GFP_6_1: Final = gfp.GFP_NOFS | gfp.NOWARN

Pfns = NDArray[np.int64]


class XfsBuf:
    """One cached buffer (``struct xfs_buf``).

    Attributes
    ----------
    nr_bytes : int
        Size.
    order : int
        Order of its folio; 0 if it is made of single pages.
    pfns : int64[n]
        Folio, or pages.
    hold : int
        References (``b_hold``); at 0 it lies on the LRU.
    """

    __slots__ = ("hold", "nr_bytes", "order", "pfns")

    def __init__(self, nr_bytes: int, order: int, pfns: Pfns) -> None:
        self.nr_bytes = nr_bytes
        self.order = order
        self.pfns = pfns
        self.hold = 1

    @property
    def nr_pages(self) -> int:
        """Pages behind it."""
        return len(self.pfns) << self.order


class XfsBuftarg:
    """The buffers of one device (``struct xfs_buftarg``).

    Parameters
    ----------
    mm : Mm
        Whose pages.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._lru: dict[XfsBuf, None] = {}
        self._held: dict[XfsBuf, None] = {}

    @property
    def nr_lru(self) -> int:
        """Buffers on the LRU (``list_lru_shrink_count()``)."""
        return len(self._lru)

    @property
    def nr_pages(self) -> int:
        """Pages of all buffers."""
        return sum(buf.nr_pages for buf in (*self._lru, *self._held))

    def get_buf(self, nr_bytes: int, *, read_ahead: bool = False) -> XfsBuf | None:
        """A new buffer with one reference (``xfs_buf_get_map()`` that misses).

        Parameters
        ----------
        nr_bytes : int
            512 to 65536. What is below a page takes a whole one, where the kernel uses slab.
        read_ahead : bool
            ``XBF_READ_AHEAD``: one try, `None` if there is no memory.

        Raises
        ------
        ValueError
            No such size.
        """
        if not 512 <= nr_bytes <= MAX_BUF_BYTES:
            raise ValueError(f"a buffer of {nr_bytes} bytes; XFS has 512 to {MAX_BUF_BYTES}")
        nr_pages = -(-nr_bytes // PAGE_SIZE)
        extra = gfp.NORETRY if read_ahead else 0
        if not FOLIO_BUFFERS[self._mm.kernel]:
            pfns = self._alloc_pages(PAGES_GFP_6_1 | extra, nr_pages, read_ahead)
            return None if pfns is None else self._new(nr_bytes, 0, pfns)
        mask = VMALLOC_GFP
        if nr_pages == 1 or nr_bytes & (nr_bytes - 1) == 0:
            order = nr_pages.bit_length() - 1
            pfn = self._mm.alloc_pages((FOLIO_GFP if order else SINGLE_GFP) | extra, order)
            if pfn >= 0:
                return self._new(nr_bytes, order, np.array([pfn], dtype=np.int64))
            mask = VMALLOC_AFTER_FOLIO_GFP
        pfns = self._alloc_pages(mask | extra, nr_pages, read_ahead)
        return None if pfns is None else self._new(nr_bytes, 0, pfns)

    def _alloc_pages(self, gfp_mask: int, nr_pages: int, read_ahead: bool) -> Pfns | None:
        """Single pages; again after a short wait until there are enough, unless it is for readahead."""
        while True:
            pfns = self._mm.alloc_pages_batch(gfp_mask, 0, nr_pages)
            if len(pfns) == nr_pages:
                return pfns
            self._mm.free_pages_batch(pfns, 0)
            if read_ahead:
                return None
            self._mm.sched.sleep(RETRY_NS)

    def _new(self, nr_bytes: int, order: int, pfns: Pfns) -> XfsBuf:
        buf = XfsBuf(nr_bytes, order, pfns)
        self._held[buf] = None
        return buf

    def hold(self, buf: XfsBuf) -> None:
        """Use a buffer that is cached (``xfs_buf_hold()``); it leaves the LRU."""
        self._lru.pop(buf, None)
        self._held[buf] = None
        buf.hold += 1

    def rele(self, buf: XfsBuf) -> None:
        """Drop a reference (``xfs_buf_rele()``); the last one puts the buffer at the LRU's young end.

        Raises
        ------
        ValueError
            Nobody holds it.
        """
        if buf.hold == 0:
            raise ValueError("xfs_buf_rele() of a buffer that nobody holds")
        buf.hold -= 1
        if buf.hold == 0:
            del self._held[buf]
            self._lru[buf] = None

    def shrink(self, nr_to_scan: int) -> int:
        """Free the oldest buffers of the LRU; returns how many."""
        dispose = [buf for _, buf in zip(range(nr_to_scan), self._lru, strict=False)]
        # Off the list before the first page goes: another task may shrink while freeing takes time.
        for buf in dispose:
            del self._lru[buf]
        for buf in dispose:
            self._mm.free_pages_batch(buf.pfns, buf.order)
        return len(dispose)

    def drain(self) -> None:
        """Free every buffer, held ones too (``xfs_buftarg_drain()`` at unmount)."""
        bufs = (*self._lru, *self._held)
        self._lru.clear()
        self._held.clear()
        for buf in bufs:
            self._mm.free_pages_batch(buf.pfns, buf.order)
