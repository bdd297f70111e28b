"""Where each owner's pages are: one table of slots, which compiled loops write and owners read.

A page's rmap word holds its slot; the slot holds the page's pfn. An owner (a file, a mapping) has consecutive
slots, and reads its part of the table. So migration moves a page, and reclaim evicts one, without a call to
the owner, and the owner sees it. The kernel keeps a mapping pointer and index in ``struct page``, and the
pfn in an xarray or a page table instead (mm/rmap.c).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import MmfwError
from mmfw.jit import page as pg

if TYPE_CHECKING:
    from mmfw.mm.pages import Memory


class RmapSpace:
    """The slots of one machine.

    Parameters
    ----------
    memory : Memory
        Holds the rmap words. Slot 0 means no owner.

    Attributes
    ----------
    slots : uint32[]
        The table; see `mmfw.jit.page`. It is replaced when it grows, so ask for it anew after `register`.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._bases: list[int] = []
        self._ends: list[int] = []
        self._owners: list[object] = []
        self._next = 1
        self.slots: NDArray[np.uint32] = np.full(1 << 12, pg.SLOT_EMPTY, dtype=np.uint32)

    def register(self, owner: object, nr_slots: int, align: int = 1) -> int:
        """Reserve consecutive slots for an owner, all empty.

        Parameters
        ----------
        owner : object
            What `owner_of` is to find.
        nr_slots : int
            How many.
        align : int
            The first is a multiple of it.

        Returns
        -------
        int
            The first slot; the owner's index i has slot base + i.

        Raises
        ------
        MmfwError
            The number space is full.
        """
        base = -(-self._next // align) * align
        if base + nr_slots >= 1 << 31:
            raise MmfwError(f"{nr_slots} rmap slots wanted, {2**31 - base - 1} are left")
        self._next = base + nr_slots
        if self._next > len(self.slots):
            room = len(self.slots)
            while room < self._next:
                room *= 2
            grown = np.full(room, pg.SLOT_EMPTY, dtype=np.uint32)
            grown[: len(self.slots)] = self.slots
            self.slots = grown
        self._bases.append(base)
        self._ends.append(base + nr_slots)
        self._owners.append(owner)
        return base

    def part(self, base: int, nr_slots: int) -> NDArray[np.uint32]:
        """An owner's part of the table, as a view; not to be kept over a `register`."""
        return self.slots[base : base + nr_slots]

    def place(self, pfns: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Put order-0 pages into slots: each side learns of the other."""
        self._memory.page[4 * pfns + pg.RMAP] = slots.astype(np.uint32)
        self.slots[slots] = pfns.astype(np.uint32)

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Empty slots; pages that were in them belong to nobody."""
        words = self.slots[slots]
        pfns = words[words < pg.SLOT_SHADOW].astype(np.int64)
        self._memory.page[4 * pfns + pg.RMAP] = 0
        self.slots[slots] = pg.SLOT_EMPTY

    def slots_of(self, pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots that pages are in; of a large folio's head the first of its slots; 0 for none."""
        return self._memory.page[4 * pfns + pg.RMAP].astype(np.int64)

    def owner_of(self, pfn: int) -> tuple[object, int] | None:
        """Owner of a page and the owner's index for it, or None."""
        slot = int(self._memory.page[4 * pfn + pg.RMAP])
        at = bisect_right(self._bases, slot) - 1
        if slot == 0 or at < 0 or slot >= self._ends[at]:
            return None
        return self._owners[at], slot - self._bases[at]
