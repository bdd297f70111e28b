"""Walking an LRU whose items are rotated or removed (``__list_lru_walk_one()``, mm/list_lru.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmfw.mm.list_lru import ListLru

Slots = NDArray[np.int64]


def walk(lru: ListLru, nr_to_walk: int, isolate: Callable[[Slots], NDArray[np.bool_]]) -> int:
    """Look at items from the old end on.

    An item that is rotated goes to the young end, where a walk that is long enough meets it again; a walk ends when the
    item it has looked at was the last one.

    Parameters
    ----------
    lru : ListLru
        The list.
    nr_to_walk : int
        Items to look at, those met again counted again.
    isolate : callable
        Says of some distinct items which are rotated (``LRU_ROTATE``); the others are removed (``LRU_REMOVED``).

    Returns
    -------
    int
        Items removed.
    """
    left, removed = nr_to_walk, 0
    while left > 0:
        slots = lru.oldest(left)
        if len(slots) == 0:
            break
        left -= len(slots)
        rotated = isolate(slots)
        lru.remove(slots[~rotated])
        lru.rotate(slots[rotated])
        removed += len(slots) - int(rotated.sum())
        # Behind the last item of the list lies nothing but what this round rotated before it.
        if not rotated[:-1].any():
            break
    return removed
