"""The walk of a list_lru's ring (mm/list_lru.c of 6.1); `mmfw.mm.list_lru` owns the arrays."""

from __future__ import annotations

from typing import Any

from mmfw.jit import i64, njit


@njit
def oldest(ring: Any, position: Any, head: int, tail: int, out: Any) -> tuple[int, int]:
    """Copy the oldest places that are on the list.

    Parameters
    ----------
    ring : int32[]
        Places by age; an entry is stale unless its place's ``position`` is where it stands.
    position : int32[]
        Of each place, -1 if it is not on the list.
    head, tail : int
        The part of the ring that is in use.
    out : int64[n]
        Room for as many as are wanted.

    Returns
    -------
    (int, int)
        How many were found, and where the oldest one stands (``tail`` if there is none).
    """
    n = i64(0)
    first = i64(tail)
    for at in range(head, tail):
        if n == out.shape[0]:
            break
        place = ring[at]
        if position[place] == at:
            if n == 0:
                first = i64(at)
            out[n] = place
            n += 1
    return n, first
