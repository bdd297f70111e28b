"""Objects of a slab cache, in and out: what one of them costs is here (mm/slub.c of 6.1).

`mmfw.jit.slab_lists` says what lies where in the arrays, and does what concerns a slab as a whole.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import i64, njit
from mmfw.jit.alloc import BATCH_DONE, BATCH_TRACE_FULL, alloc_batch
from mmfw.jit.page import RMAP, S_NODE_STAT, S_TRACE_CAP, S_TRACE_N
from mmfw.jit.slab_lists import (
    ID_SHIFT,
    K_CPU_PARTIAL_SLABS,
    K_FREE_SLOT,
    K_ID,
    K_MADE,
    K_MIN_PARTIAL,
    K_NODE_STAT,
    K_NR_PARTIAL,
    K_NR_SLABS,
    K_ORDER,
    K_RANDOM,
    K_SEQ,
    K_STRIDE,
    K_TOTAL_OBJECTS,
    LIVE,
    NONE,
    PLACE_MASK,
    RANDOM_FACTOR,
    RANDOM_MODULUS,
    SL_FREELIST,
    SL_INUSE,
    SL_NEXT,
    SL_OBJECTS,
    SL_ORDER,
    SL_PFN,
    SL_SIZE,
    SL_STATE,
    ST_FULL,
    ST_NODE_PARTIAL,
    U_FREELIST,
    U_NFREE,
    U_PARTIAL,
    U_SLAB,
    cpu_offset,
    deactivate_slab,
    discard_slab,
    load_freelist,
    put_cpu_partial,
    remove_partial,
)

#: `slab_alloc_batch` ended because there is no slot for a new slab.
SLAB_NO_SLOT: Final = 16
#: `slab_free_batch` ended because what is to be freed is no object that somebody has.
SLAB_BAD_OBJECT: Final = 17


@njit
def get_partial_node(page: Any, pb: Any, S: Any, C: Any, slabs: Any, cpu: int) -> bool:
    """Take the node's first partial slab for the CPU, and some more for its partial list (``get_partial_node()``)."""
    u = cpu_offset(cpu)
    found = False
    nr = i64(0)
    slot = slabs[SL_NEXT]
    while slot != 0:
        following = slabs[slot * SL_SIZE + SL_NEXT]
        remove_partial(C, slabs, slot)
        if found:
            put_cpu_partial(page, pb, S, C, slabs, cpu, slot, i64(0))
            nr += 1
        else:
            load_freelist(C, slabs, u, slot)
            found = True
        if nr > C[K_CPU_PARTIAL_SLABS] // 2:
            break
        slot = following
    return found


@njit
def refill(page: Any, pb: Any, S: Any, C: Any, slabs: Any, cpu: int) -> bool:
    """Find the CPU free objects in slabs that exist (``___slab_alloc()`` as far as a new slab)."""
    u = cpu_offset(cpu)
    while True:
        slot = C[u + U_SLAB]
        if slot != 0:
            if slabs[slot * SL_SIZE + SL_FREELIST] != NONE:
                load_freelist(C, slabs, u, slot)
                return True
            slabs[slot * SL_SIZE + SL_STATE] = ST_FULL
            C[u + U_SLAB] = 0
        slot = C[u + U_PARTIAL]
        if slot == 0:
            break
        C[u + U_PARTIAL] = slabs[slot * SL_SIZE + SL_NEXT]
        C[u + U_SLAB] = slot
    return get_partial_node(page, pb, S, C, slabs, cpu)


@njit
def shuffle_freelist(C: Any, chain: Any, base: int, objects: int) -> int:
    """Thread a new slab's objects; index of the first (``shuffle_freelist()``)."""
    count = C[K_STRIDE]
    seq = C[K_SEQ]
    if objects < 2:
        chain[base] = NONE
        return i64(0)
    C[K_RANDOM] = C[K_RANDOM] * RANDOM_FACTOR % RANDOM_MODULUS
    pos = C[K_RANDOM] * count // RANDOM_MODULUS
    head = i64(NONE)
    last = i64(NONE)
    for _ in range(objects):
        index = i64(objects)
        # A slab of the fallback order has fewer objects than the sequence numbers.
        while index >= objects:
            index = C[seq + pos]
            pos += 1
            if pos == count:
                pos = i64(0)
        if last == NONE:
            head = index
        else:
            chain[base + last] = index
        last = index
    chain[base + last] = NONE
    return head


@njit
def new_slab(
    page: Any,
    pb: Any,
    S: Any,
    C: Any,
    slabs: Any,
    chain: Any,
    cpu: int,
    pfn: int,
    order: int,
    objects: int,
) -> None:
    """Make pages a slab, and it the CPU's; a slab that came there meanwhile goes (``new_slab()``, ``retry_load_slab``).

    There must be an unused slot.
    """
    slot = C[K_FREE_SLOT]
    at = slot * SL_SIZE
    C[K_FREE_SLOT] = slabs[at + SL_NEXT]
    C[K_NR_SLABS] += 1
    C[K_TOTAL_OBJECTS] += objects
    S[S_NODE_STAT + C[K_NODE_STAT]] += 1 << order
    page[4 * pfn + RMAP] = slot
    slabs[at + SL_PFN] = pfn
    slabs[at + SL_ORDER] = order
    slabs[at + SL_OBJECTS] = objects
    slabs[at + SL_INUSE] = 0
    slabs[at + SL_FREELIST] = shuffle_freelist(C, chain, slot * C[K_STRIDE], objects)
    deactivate_slab(page, pb, S, C, slabs, chain, cpu)
    load_freelist(C, slabs, cpu_offset(cpu), slot)


@njit
def slab_alloc_batch(
    page: Any,
    pb: Any,
    S: Any,
    C: Any,
    slabs: Any,
    chain: Any,
    cpu: int,
    node_row: int,
    gfp: int,
    mt: int,
    hzi: int,
    flags: int,
    pfns: Any,
    out: Any,
    start: int,
) -> tuple[int, int]:
    """Hand out objects into ``out[start:]`` (int64), one by one as a loop of ``kmem_cache_alloc()`` does.

    Pages of new slabs come from the fast path with the mask and flags given; ``pfns`` (int64[1]) is scratch.

    Returns
    -------
    (int, int)
        A ``BATCH_*`` code or `SLAB_NO_SLOT`, and the index of the first object not handed out. After
        ``BATCH_SLOWPATH`` a slab of the wanted order is needed that the fast path does not have.
    """
    u = cpu_offset(cpu)
    stride = C[K_STRIDE]
    tag = C[K_ID] << ID_SHIFT
    i = i64(start)
    while i < out.shape[0]:
        nfree = C[u + U_NFREE]
        if nfree == 0:
            if refill(page, pb, S, C, slabs, cpu):
                continue
            if C[K_FREE_SLOT] == 0:
                return SLAB_NO_SLOT, i
            order = C[K_ORDER]
            status, got = alloc_batch(page, pb, S, cpu, node_row, gfp, order, mt, hzi, flags, pfns, i64(0))
            if got == 1:
                C[K_MADE] += 1
                new_slab(page, pb, S, C, slabs, chain, cpu, i64(pfns[0]), order, stride)
            if status != BATCH_DONE:
                return status, i
            continue
        taken = min(nfree, out.shape[0] - i)
        base = C[u + U_SLAB] * stride
        index = C[u + U_FREELIST]
        for k in range(taken):
            place = base + index
            index = i64(chain[place])
            chain[place] = LIVE
            out[i + k] = tag + place
        C[u + U_FREELIST] = index
        C[u + U_NFREE] = nfree - taken
        i += taken
    return BATCH_DONE, i


@njit
def slab_free_slow(page: Any, pb: Any, S: Any, C: Any, slabs: Any, cpu: int, slot: int) -> None:
    """Place a slab that is not frozen, after an object of it was freed (the rest of ``__slab_free()``)."""
    at = slot * SL_SIZE
    if slabs[at + SL_STATE] == ST_FULL:
        put_cpu_partial(page, pb, S, C, slabs, cpu, slot, i64(1))
    elif slabs[at + SL_INUSE] == 0 and C[K_NR_PARTIAL] >= C[K_MIN_PARTIAL]:
        remove_partial(C, slabs, slot)
        discard_slab(page, pb, S, C, slabs, cpu, slot)


@njit
def slab_free_batch(
    page: Any, pb: Any, S: Any, C: Any, slabs: Any, chain: Any, cpu: int, objects: Any, start: int
) -> tuple[int, int]:
    """Free objects (int64) in the order given, one by one as a loop of ``kmem_cache_free()`` does.

    Returns
    -------
    (int, int)
        A ``BATCH_*`` code or `SLAB_BAD_OBJECT`, and the index of the first object not freed.
    """
    u = cpu_offset(cpu)
    stride = C[K_STRIDE]
    own = C[K_ID]
    i = i64(start)
    while i < objects.shape[0]:
        if S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
            return BATCH_TRACE_FULL, i
        place = objects[i] & PLACE_MASK
        if objects[i] >> ID_SHIFT != own or place >= chain.shape[0] or chain[place] != LIVE:
            return SLAB_BAD_OBJECT, i
        i += 1
        slot = place // stride
        index = place - slot * stride
        if slot == C[u + U_SLAB]:
            chain[place] = C[u + U_FREELIST]
            C[u + U_FREELIST] = index
            C[u + U_NFREE] += 1
            continue
        at = slot * SL_SIZE
        chain[place] = slabs[at + SL_FREELIST]
        slabs[at + SL_FREELIST] = index
        slabs[at + SL_INUSE] -= 1
        state = slabs[at + SL_STATE]
        if state == ST_FULL or (state == ST_NODE_PARTIAL and slabs[at + SL_INUSE] == 0):
            slab_free_slow(page, pb, S, C, slabs, cpu, slot)
    return BATCH_DONE, i


@njit
def adopt_slabs(page: Any, S: Any, C: Any, slabs: Any, chain: Any, pfns: Any, objects: int, out: Any) -> None:
    """Make owned order-0 pages full slabs, all of whose objects somebody has; the objects go to ``out``.

    There must be as many unused slots.
    """
    n = i64(0)
    for i in range(pfns.shape[0]):
        slot = C[K_FREE_SLOT]
        at = slot * SL_SIZE
        C[K_FREE_SLOT] = slabs[at + SL_NEXT]
        page[4 * i64(pfns[i]) + RMAP] = slot
        slabs[at + SL_PFN] = pfns[i]
        slabs[at + SL_ORDER] = 0
        slabs[at + SL_OBJECTS] = objects
        slabs[at + SL_INUSE] = objects
        slabs[at + SL_FREELIST] = NONE
        slabs[at + SL_STATE] = ST_FULL
        for k in range(objects):
            place = slot * C[K_STRIDE] + k
            chain[place] = LIVE
            out[n] = (C[K_ID] << ID_SHIFT) + place
            n += 1
    C[K_NR_SLABS] += pfns.shape[0]
    C[K_TOTAL_OBJECTS] += n
    S[S_NODE_STAT + C[K_NODE_STAT]] += pfns.shape[0]
