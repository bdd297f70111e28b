"""Which slabs go while objects are freed: taken down before, compared after."""

from __future__ import annotations

from typing import Any

from mmfw.jit import i64, njit
from mmfw.jit.slab_lists import (
    K_STRIDE,
    SL_NEXT,
    SL_ORDER,
    SL_PFN,
    SL_SIZE,
    U_PARTIAL,
    cpu_offset,
)


@njit
def note_slabs(C: Any, slabs: Any, nr_cpus: int, places: Any, noted: Any) -> int:
    """Take down the slabs of objects, and those on the CPUs' partial lists; a slab may come more than once.

    Parameters
    ----------
    places : int64[n]
        Objects' places.
    noted : int64[3 * m]
        Slot, pfn and order of each. Too short an array holds the first ones only.

    Returns
    -------
    int
        How many there are.
    """
    n = i64(0)
    last = i64(0)
    for i in range(places.shape[0]):
        slot = places[i] // C[K_STRIDE]
        if slot != last:
            n = _note(slabs, slot, noted, n)
            last = slot
    for cpu in range(nr_cpus):
        slot = C[cpu_offset(cpu) + U_PARTIAL]
        while slot:
            n = _note(slabs, slot, noted, n)
            slot = slabs[slot * SL_SIZE + SL_NEXT]
    return n


@njit
def _note(slabs: Any, slot: int, noted: Any, n: int) -> int:
    if 3 * n + 2 < noted.shape[0]:
        noted[3 * n] = slot
        noted[3 * n + 1] = slabs[slot * SL_SIZE + SL_PFN]
        noted[3 * n + 2] = slabs[slot * SL_SIZE + SL_ORDER]
    return n + 1


@njit
def slabs_gone(slabs: Any, noted: Any, n: int) -> int:
    """Move those of the ``n`` noted slabs that have gone since to the front, as pfn and order; how many.

    Entry ``k`` is at ``noted[2 * k]``; a slab that was noted twice comes twice.
    """
    gone = i64(0)
    for i in range(n):
        pfn, order = noted[3 * i + 1], noted[3 * i + 2]
        if slabs[noted[3 * i] * SL_SIZE + SL_PFN] != pfn:
            noted[2 * gone] = pfn
            noted[2 * gone + 1] = order
            gone += 1
    return gone
