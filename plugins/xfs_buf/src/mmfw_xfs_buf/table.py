"""State of all buffers of a device, one array for each field of ``struct xfs_buf`` that matters here."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmfw_xfs_buf.types import MAX_BUF_PAGES

Slots = NDArray[np.int64]

# --- what a buffer is made of (`BufTable.backing`) ----------------------------------------------------
BACKING_KMEM: Final = 1
BACKING_FOLIO: Final = 2
BACKING_PAGES: Final = 3
# --- flags (`BufTable.flags`) -------------------------------------------------------------------------
#: Locked for input or output (``b_sema``).
LOCKED: Final = 1
#: ``XBF_STALE``.
STALE: Final = 2
#: ``XBF_DONE``: what it holds is valid.
DONE: Final = 4


class BufTable:
    """Buffers by slot. An array is replaced when the table grows, so nobody keeps one.

    Attributes
    ----------
    daddr : int64[n]
        First block of 512 bytes; -1 in a free slot.
    nr_bytes : int32[n]
        Size.
    buf_type : int8[n]
        `BufType` of its last user.
    lru_ref : int8[n]
        ``b_lru_ref``: scans of the LRU that it still outlives.
    hold : int32[n]
        References of users, without the LRU's.
    flags : uint8[n]
        `LOCKED`, `STALE`, `DONE`.
    backing : int8[n]
        ``BACKING_*``; 0 in a free slot.
    order : int8[n]
        Order of its folio; 0 for other backings.
    nr_pieces : int8[n]
        Blocks of that order in `pages`; 0 for kmalloc.
    pages : int32[n, 16]
        Their first pfns.
    obj : int64[n]
        kmalloc's object.
    head : int64[n]
        Object of the cache ``xfs_buf``, the buffer's struct.
    nr_bufs : int
        Slots in use.
    """

    def __init__(self) -> None:
        self.nr_bufs = 0
        self._allocate(1024)
        self._free = list(range(1023, -1, -1))

    def _allocate(self, capacity: int) -> None:
        self.daddr: NDArray[np.int64] = np.full(capacity, -1, dtype=np.int64)
        self.nr_bytes: NDArray[np.int32] = np.zeros(capacity, dtype=np.int32)
        self.buf_type: NDArray[np.int8] = np.zeros(capacity, dtype=np.int8)
        self.lru_ref: NDArray[np.int8] = np.zeros(capacity, dtype=np.int8)
        self.hold: NDArray[np.int32] = np.zeros(capacity, dtype=np.int32)
        self.flags: NDArray[np.uint8] = np.zeros(capacity, dtype=np.uint8)
        self.backing: NDArray[np.int8] = np.zeros(capacity, dtype=np.int8)
        self.order: NDArray[np.int8] = np.zeros(capacity, dtype=np.int8)
        self.nr_pieces: NDArray[np.int8] = np.zeros(capacity, dtype=np.int8)
        self.pages: NDArray[np.int32] = np.zeros((capacity, MAX_BUF_PAGES), dtype=np.int32)
        self.obj: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.head: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)

    def take_slot(self) -> int:
        """A free slot; the table doubles if there is none."""
        if not self._free:
            self._grow()
        self.nr_bufs += 1
        return self._free.pop()

    def free_slots(self, slots: Slots) -> None:
        """Give slots back."""
        self.daddr[slots] = -1
        self.backing[slots] = 0
        self.flags[slots] = 0
        self.hold[slots] = 0
        self.nr_bufs -= len(slots)
        self._free.extend(slots.tolist())

    def in_use(self) -> Slots:
        """Slots in use, ascending."""
        return np.flatnonzero(self.backing != 0)

    def nr_pages(self, slots: Slots) -> NDArray[np.int64]:
        """Pages of each buffer's own; 0 for one from kmalloc."""
        return self.nr_pieces[slots].astype(np.int64) << self.order[slots]

    def pfns(self, slots: Slots) -> NDArray[np.int64]:
        """Every page of some buffers, one after another."""
        pieces = np.arange(MAX_BUF_PAGES) < self.nr_pieces[slots][:, None]
        heads = self.pages[slots][pieces].astype(np.int64)
        sizes = np.repeat(np.int64(1) << self.order[slots].astype(np.int64), self.nr_pieces[slots])
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        pfns: NDArray[np.int64] = np.repeat(heads, sizes) + np.arange(len(first), dtype=np.int64) - first
        return pfns

    def _grow(self) -> None:
        before = len(self.daddr)
        names = [name for name, value in vars(self).items() if isinstance(value, np.ndarray)]
        old = {name: getattr(self, name) for name in names}
        self._allocate(2 * before)
        for name in names:
            getattr(self, name)[:before] = old[name]
        self._free.extend(range(2 * before - 1, before - 1, -1))
