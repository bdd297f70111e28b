"""A shrinker's LRU of slab objects, oldest first (mm/list_lru.c of 6.1).

Objects are places: small numbers such as `KmemCache.place_of` gives. The list is a ring of places in one array, and
for each place where in the ring it is. Taking one off in the midst leaves its entry behind, which is then no longer
the one that the place points to, and is passed over; so every operation works on many places at once.

Simplified: one list, since there is one node and one memcg; no lock, so nobody's trylock fails.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmfw.jit import list_lru as jit

Places = NDArray[np.int64]

_FIRST_ENTRIES: Final = 1024
_ABSENT: Final = -1


class ListLru:
    """One list (``struct list_lru``); ``mm.slab.list_lru()`` makes it. Places of one call must be distinct."""

    def __init__(self) -> None:
        self._ring = np.empty(_FIRST_ENTRIES, dtype=np.int32)
        self._position = np.full(_FIRST_ENTRIES, _ABSENT, dtype=np.int32)
        self._head = 0
        self._tail = 0
        self._nr_items = 0

    def __len__(self) -> int:
        return self._nr_items

    def holds(self, places: Places) -> NDArray[np.bool_]:
        """Which of these are on the list."""
        self._fit(places)
        held: NDArray[np.bool_] = self._position[places] != _ABSENT
        return held

    def add(self, places: Places) -> NDArray[np.bool_]:
        """Put those that are not on the list at its young end, in the order given (``list_lru_add()``).

        Returns
        -------
        bool[n]
            Which were added.
        """
        added = ~self.holds(places)
        new = places[added]
        if len(new):
            self._append(new)
            self._nr_items += len(new)
        return added

    def remove(self, places: Places) -> None:
        """Take off those that are on the list (``list_lru_del()``)."""
        held = places[self.holds(places)]
        self._position[held] = _ABSENT
        self._nr_items -= len(held)

    def rotate(self, places: Places) -> None:
        """Move places of the list to its young end, in the order given (``LRU_ROTATE``)."""
        if len(places):
            self._append(places)

    def oldest(self, nr: int) -> Places:
        """At most ``nr`` places from the old end, oldest first; they stay where they are."""
        found = np.empty(max(min(nr, self._nr_items), 0), dtype=np.int64)
        if not len(found):
            return found
        # What lies before the oldest entry is stale and need not be looked at again.
        n, self._head = jit.oldest(self._ring, self._position, self._head, self._tail, found)
        return found[:n]

    def _fit(self, places: Places) -> None:
        if not len(places):
            return
        last = int(places.max())
        if last >= len(self._position):
            grown = np.full(max(2 * len(self._position), last + 1), _ABSENT, dtype=np.int32)
            grown[: len(self._position)] = self._position
            self._position = grown

    def _append(self, places: Places) -> None:
        if self._tail + len(places) > len(self._ring):
            self._compact(len(places))
        stop = self._tail + len(places)
        self._ring[self._tail : stop] = places
        self._position[places] = np.arange(self._tail, stop, dtype=np.int32)
        self._tail = stop

    def _compact(self, room: int) -> None:
        """Drop stale entries, and see to it that at least half of the ring is then unused."""
        live = self.oldest(self._nr_items)
        size = len(self._ring)
        while size < 2 * (len(live) + room):
            size *= 2
        self._ring = np.empty(size, dtype=np.int32)
        self._ring[: len(live)] = live
        self._position[live] = np.arange(len(live), dtype=np.int32)
        self._head, self._tail = 0, len(live)
