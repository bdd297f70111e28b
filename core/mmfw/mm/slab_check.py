"""Checks slab caches against what must always hold (``validate_slab_cache()``, mm/slub.c, and more).

Slow: it walks every freelist. `mmfw.mm.slab_common.SlabAllocator.validate` calls it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfw.jit import page as pg
from mmfw.jit import slab_lists as jit
from mmfw.mm.sanitize import CorruptMemory

if TYPE_CHECKING:
    from mmfw.mm.pages import Memory
    from mmfw.mm.slab_store import SlabStore


def check_store(name: str, store: SlabStore, memory: Memory) -> int:
    """Check one cache.

    Returns
    -------
    int
        Pages of its slabs.

    Raises
    ------
    CorruptMemory
        Says what is broken.
    """
    state = store.field(jit.SL_STATE)
    by_slot = _lists(name, store)
    slots = np.flatnonzero(state != jit.ST_UNUSED).tolist()
    unused = _walk(name, store, int(store.C[jit.K_FREE_SLOT]))
    if sorted(unused + slots) != list(range(1, store.nr_slots)):
        raise CorruptMemory(f"slab {name}: a slot is lost, or both used and unused")
    pages = objects = 0
    for slot in slots:
        expected = by_slot.pop(slot, jit.ST_FULL)
        if state[slot] != expected:
            raise CorruptMemory(f"slab {name} slot {slot}: state {state[slot]}, its list says {expected}")
        pages += _check_slab(name, store, memory, slot)
        objects += int(store.field(jit.SL_OBJECTS)[slot])
    counted = int(store.C[jit.K_NR_SLABS]), int(store.C[jit.K_TOTAL_OBJECTS])
    if by_slot or counted != (len(slots), objects):
        raise CorruptMemory(
            f"slab {name}: {counted[0]} slabs and {counted[1]} objects counted, {len(slots)} and {objects} are there"
        )
    live = int((store.chain == jit.LIVE).sum())
    if live != store.inuse().sum():
        raise CorruptMemory(
            f"slab {name}: {live} objects are handed out, its slabs say {store.inuse().sum()}"
        )
    return pages


def _walk(name: str, store: SlabStore, slot: int) -> list[int]:
    """Slots of a list that SL_NEXT links, up to 0."""
    slots = []
    while slot:
        slots.append(slot)
        slot = int(store.field(jit.SL_NEXT)[slot])
        if len(slots) > store.nr_slots:
            raise CorruptMemory(f"slab {name}: a list of slabs has no end")
    return slots


def _lists(name: str, store: SlabStore) -> dict[int, int]:
    """State of each slab that something lists, by slot."""
    node = _walk(name, store, int(store.field(jit.SL_NEXT)[0]))
    ring = [0, *node, 0]
    if any(store.field(jit.SL_PREV)[b] != a for a, b in pairwise(ring)):
        raise CorruptMemory(f"slab {name}: the node's partial list is broken")
    if len(node) != store.C[jit.K_NR_PARTIAL]:
        raise CorruptMemory(f"slab {name}: nr_partial is {store.C[jit.K_NR_PARTIAL]}, {len(node)} are listed")
    listed = [(slot, jit.ST_NODE_PARTIAL) for slot in node]
    for cpu in range(store.nr_cpus):
        u = jit.K_HEADER + cpu * jit.U_SIZE
        partial = _walk(name, store, int(store.C[u + jit.U_PARTIAL]))
        if store.field(jit.SL_SLABS)[partial].tolist() != list(range(len(partial), 0, -1)):
            raise CorruptMemory(f"slab {name} cpu {cpu}: the partial list is miscounted")
        listed += [(slot, jit.ST_CPU_PARTIAL) for slot in partial]
        if store.C[u + jit.U_SLAB]:
            listed.append((int(store.C[u + jit.U_SLAB]), jit.ST_CPU))
    by_slot = dict(listed)
    if len(by_slot) != len(listed):
        raise CorruptMemory(f"slab {name}: a slab is on two lists")
    return by_slot


def _check_slab(name: str, store: SlabStore, memory: Memory, slot: int) -> int:
    pfn, order, objects, inuse, freelist = (
        int(store.field(field)[slot])
        for field in (jit.SL_PFN, jit.SL_ORDER, jit.SL_OBJECTS, jit.SL_INUSE, jit.SL_FREELIST)
    )
    where = f"slab {name} pfn {pfn:#x}"
    word = int(memory.page[4 * pfn + pg.WORD])
    if (
        word & (pg.TYPE_MASK | pg.ORDER_MASK | pg.PG_LRU) != pg.T_ALLOC | order
        or store.slot_of_pfn(pfn) != slot
    ):
        raise CorruptMemory(f"{where}: its pages are not allocated, or are another's")
    chain = store.chain[slot * int(store.C[jit.K_STRIDE]) :][:objects]
    free = _freelist(where, chain, freelist)
    if len(free) != objects - inuse:
        raise CorruptMemory(f"{where}: {objects} objects, {inuse} in use, {len(free)} on the freelist")
    for cpu in range(store.nr_cpus):
        u = jit.K_HEADER + cpu * jit.U_SIZE
        if store.C[u + jit.U_SLAB] == slot:
            own = _freelist(where, chain, int(store.C[u + jit.U_FREELIST]))
            if len(own) != store.C[u + jit.U_NFREE]:
                raise CorruptMemory(
                    f"{where}: the CPU's list has {len(own)} objects, not {store.C[u + jit.U_NFREE]}"
                )
            free += own
    if len(set(free)) != len(free) or len(free) != int((chain != jit.LIVE).sum()):
        raise CorruptMemory(f"{where}: an object is lost, or free twice")
    return 1 << order


def _freelist(where: str, chain: NDArray[np.int16], index: int) -> list[int]:
    free: list[int] = []
    while index != jit.NONE:
        if not 0 <= index < len(chain) or len(free) > len(chain):
            raise CorruptMemory(f"{where}: its freelist leads to {index}")
        free.append(index)
        index = int(chain[index])
    return free
