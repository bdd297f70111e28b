"""Which buffer caches which block of the device (``xfs_perag.pag_buf_hash``; since 2026 ``bt_hash``).

The kernel hashes. Here it is an array in rows of 4096 blocks of 512 bytes, made as blocks of a row are first cached: many
lookups are one operation, and nothing depends on a hash function.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Daddrs = NDArray[np.int64]

_ROW_SHIFT: Final = 12
_ROW: Final = 1 << _ROW_SHIFT
#: There is no buffer; nothing was evicted.
NONE: Final = -1


class DaddrMap:
    """Buffers by daddr, and when the block of a daddr was last evicted.

    Rows cost 48 KiB of this computer's memory for 2 MiB of device that is ever cached.
    """

    def __init__(self) -> None:
        # Row 0 stands for all rows that have not been made.
        self._row_of: NDArray[np.int64] = np.zeros(64, dtype=np.int64)
        self._slot: NDArray[np.int32] = np.full(_ROW, NONE, dtype=np.int32)
        self._evicted_at: NDArray[np.int64] = np.full(_ROW, NONE, dtype=np.int64)
        self._nr_rows = 1

    def lookup(self, daddrs: Daddrs) -> NDArray[np.int64]:
        """Slot of the buffer that begins at each daddr, or `NONE`."""
        rows = daddrs >> _ROW_SHIFT
        known = rows < len(self._row_of)
        if not known.all():
            rows = np.where(known, rows, len(self._row_of) - 1)
            row = np.where(known, self._row_of[rows], 0)
        else:
            row = self._row_of[rows]
        return self._slot[(row << _ROW_SHIFT) + (daddrs & (_ROW - 1))].astype(np.int64)

    def find(self, daddr: int) -> int:
        """Slot of the buffer at one daddr, or `NONE`."""
        row = daddr >> _ROW_SHIFT
        if row >= len(self._row_of):
            return NONE
        return int(self._slot[(int(self._row_of[row]) << _ROW_SHIFT) + (daddr & (_ROW - 1))])

    def insert(self, daddr: int, slot: int) -> int:
        """Note a buffer; returns when the block was evicted, or `NONE` if it was not, which is forgotten."""
        row = daddr >> _ROW_SHIFT
        if row >= len(self._row_of):
            grown = np.zeros(max(row + 1, 2 * len(self._row_of)), dtype=np.int64)
            grown[: len(self._row_of)] = self._row_of
            self._row_of = grown
        if self._row_of[row] == 0:
            self._row_of[row] = self._new_row()
        at = (int(self._row_of[row]) << _ROW_SHIFT) + (daddr & (_ROW - 1))
        self._slot[at] = slot
        evicted_at = int(self._evicted_at[at])
        self._evicted_at[at] = NONE
        return evicted_at

    def remove(self, daddrs: Daddrs, *, evicted_at: int = NONE) -> None:
        """Forget buffers; `evicted_at` is the virtual time, ns, if reclaim took them."""
        at = (self._row_of[daddrs >> _ROW_SHIFT] << _ROW_SHIFT) + (daddrs & (_ROW - 1))
        self._slot[at] = NONE
        self._evicted_at[at] = evicted_at

    def _new_row(self) -> int:
        row = self._nr_rows
        self._nr_rows += 1
        if self._nr_rows << _ROW_SHIFT > len(self._slot):
            more = len(self._slot)
            self._slot = np.concatenate([self._slot, np.full(more, NONE, dtype=np.int32)])
            self._evicted_at = np.concatenate([self._evicted_at, np.full(more, NONE, dtype=np.int64)])
        return row
