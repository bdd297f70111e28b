"""Who owns a page: slots in one global number space, so that a moved folio tells its owner.

A page's rmap word holds a slot. Owners get consecutive slots; a sorted array of bases finds the owner of a
slot in O(log owners), and slot - base is the owner's own index for the page. The kernel keeps a mapping
pointer and index in ``struct page`` instead (mm/rmap.c).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import MmfwError
from mmfw.jit import page as pg
from mmfw.mm.mmzone import Memory


class FolioOwner(Protocol):
    """Something that holds order-0 folios that migration may move."""

    def folio_moved(self, index: int, old_pfn: int, new_pfn: int) -> None:
        """Take note that the folio of an index now lies elsewhere."""
        ...


class RmapSpace:
    """The slots of one machine.

    Parameters
    ----------
    memory : Memory
        Holds the rmap words. Slot 0 means no owner.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._bases: list[int] = []
        self._ends: list[int] = []
        self._owners: list[FolioOwner] = []
        self._next = 1

    def register(self, owner: FolioOwner, nr_slots: int) -> int:
        """Reserve consecutive slots for an owner.

        Returns
        -------
        int
            The first slot; the owner's index i has slot base + i.
        """
        base = self._next
        if base + nr_slots >= 1 << 32:
            raise MmfwError(f"{nr_slots} rmap slots wanted, {2**32 - base - 1} are left")
        self._next = base + nr_slots
        self._bases.append(base)
        self._ends.append(base + nr_slots)
        self._owners.append(owner)
        return base

    def set_slots(self, pfns: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Write the slots of pages; 0 disowns."""
        self._memory.page[4 * pfns + pg.RMAP] = slots.astype(np.uint32)

    def owner_of(self, pfn: int) -> tuple[FolioOwner, int] | None:
        """Owner of a page and the owner's index for it, or None."""
        slot = int(self._memory.page[4 * pfn + pg.RMAP])
        at = bisect_right(self._bases, slot) - 1
        if slot == 0 or at < 0 or slot >= self._ends[at]:
            return None
        return self._owners[at], slot - self._bases[at]

    def folio_moved(self, old_pfn: int, new_pfn: int) -> None:
        """Hand a page's slot to the page it moved to, and tell its owner.

        Raises
        ------
        MmfwError
            The page has no owner, so it could not have been moved.
        """
        found = self.owner_of(old_pfn)
        if found is None:
            raise MmfwError(f"pfn {old_pfn:#x} has no owner to tell that it moved to {new_pfn:#x}")
        page = self._memory.page
        page[4 * new_pfn + pg.RMAP] = page[4 * old_pfn + pg.RMAP]
        page[4 * old_pfn + pg.RMAP] = 0
        owner, index = found
        owner.folio_moved(index, old_pfn, new_pfn)
