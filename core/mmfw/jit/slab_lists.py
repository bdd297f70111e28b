"""Slabs: on which list each is, and how they come and go (mm/slub.c of 6.1).

Three arrays hold a cache (`mmfw.mm.slab` owns them):

``C`` : int64[]
    Its figures: a header, four words a CPU (``struct kmem_cache_cpu``), and the random sequence that new slabs are
    threaded by. Offsets below.
``slabs`` : int64[SL_SIZE * nr_slots]
    ``struct slab`` by slot. Slot 0 is the head of the node's partial list, which is circular.
``chain`` : int16[stride * nr_slots]
    For each object the index within its slab of the next free one, `NONE` at the end, `LIVE` if somebody has it.

An object is a number: the cache's id in the bits from `ID_SHIFT` up, and below them its place in ``chain``. The rmap
word of a slab's first page holds the slot, as ``struct slab`` lies over ``struct page``.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.alloc import free_pages_core
from mmfw.jit.page import RMAP, S_NODE_STAT, S_TRACE_CAP, S_TRACE_N

ID_SHIFT: Final = 32
PLACE_MASK: Final = (1 << ID_SHIFT) - 1

# --- C: header --------------------------------------------------------------------------------------
K_ID: Final = 0
K_STRIDE: Final = 1  #: objects of a slab of the wanted order
K_ORDER: Final = 2  #: oo_order(s->oo)
K_MIN_PARTIAL: Final = 3
K_CPU_PARTIAL_SLABS: Final = 4
K_NODE_STAT: Final = 5  #: counter of the node that its pages belong to
K_NR_PARTIAL: Final = 6
K_NR_SLABS: Final = 7
K_TOTAL_OBJECTS: Final = 8
K_FREE_SLOT: Final = 9  #: first unused slot, linked by SL_NEXT; 0 for none
K_RANDOM: Final = 10
K_SEQ: Final = 11  #: offset of the random sequence
K_MADE: Final = 12  #: slabs whose pages the loop allocated, until somebody sets it to 0
K_FREED: Final = 13  #: pages freed of slabs of the wanted order, likewise
K_FREED_MIN: Final = 14  #: ... of the fallback order
K_HEADER: Final = 15

# --- C: one CPU, at K_HEADER + cpu * U_SIZE ---------------------------------------------------------
U_SLAB: Final = 0  #: slot of the CPU's slab, 0 for none
U_FREELIST: Final = 1  #: index of its next free object, or NONE
U_NFREE: Final = 2  #: length of that list
U_PARTIAL: Final = 3  #: first slot of the CPU's partial list, linked by SL_NEXT; 0 for none
U_SIZE: Final = 4

# --- slabs ------------------------------------------------------------------------------------------
SL_PFN: Final = 0  #: -1 where the slot is unused
SL_ORDER: Final = 1
SL_OBJECTS: Final = 2
SL_INUSE: Final = 3  #: slab->inuse: of a CPU's slab also what lies on the CPU's own list
SL_FREELIST: Final = 4
SL_NEXT: Final = 5
SL_PREV: Final = 6
SL_STATE: Final = 7
SL_SLABS: Final = (
    SL_PREV  #: slab->slabs: length of a CPU's partial list from here on; such a slab needs no SL_PREV
)
SL_SIZE: Final = 8  #: 64 bytes: freeing an object touches one cache line of them

ST_UNUSED: Final = 0
ST_FULL: Final = 1  #: on no list
ST_CPU: Final = 2  #: frozen: a CPU allocates from it
ST_CPU_PARTIAL: Final = 3  #: frozen: on a CPU's partial list
ST_NODE_PARTIAL: Final = 4

# --- chain ------------------------------------------------------------------------------------------
NONE: Final = -1
LIVE: Final = -2

# A Lehmer generator: it needs no more than 63 bits, so plain Python gives the same numbers.
RANDOM_FACTOR: Final = 48271
RANDOM_MODULUS: Final = 2147483647


@inline_njit
def cpu_offset(cpu: int) -> int:
    """Offset in C of a CPU's words."""
    return K_HEADER + cpu * U_SIZE


@inline_njit
def add_partial(C: Any, slabs: Any, slot: int, tail: bool) -> None:
    """Put a slab on the node's partial list (``add_partial()``)."""
    after = i64(0)
    if not tail:
        after = slabs[SL_NEXT]
    before = slabs[after * SL_SIZE + SL_PREV]
    slabs[slot * SL_SIZE + SL_NEXT] = after
    slabs[slot * SL_SIZE + SL_PREV] = before
    slabs[before * SL_SIZE + SL_NEXT] = slot
    slabs[after * SL_SIZE + SL_PREV] = slot
    slabs[slot * SL_SIZE + SL_STATE] = ST_NODE_PARTIAL
    C[K_NR_PARTIAL] += 1


@inline_njit
def remove_partial(C: Any, slabs: Any, slot: int) -> None:
    """Take a slab off the node's partial list (``remove_partial()``)."""
    after = slabs[slot * SL_SIZE + SL_NEXT]
    before = slabs[slot * SL_SIZE + SL_PREV]
    slabs[before * SL_SIZE + SL_NEXT] = after
    slabs[after * SL_SIZE + SL_PREV] = before
    C[K_NR_PARTIAL] -= 1


@njit
def discard_slab(page: Any, pb: Any, S: Any, C: Any, slabs: Any, cpu: int, slot: int) -> None:
    """Give a slab's pages back; it is on no list (``discard_slab()``)."""
    at = slot * SL_SIZE
    pfn = slabs[at + SL_PFN]
    order = slabs[at + SL_ORDER]
    C[K_NR_SLABS] -= 1
    C[K_TOTAL_OBJECTS] -= slabs[at + SL_OBJECTS]
    if order == C[K_ORDER]:
        C[K_FREED] += 1 << order
    else:
        C[K_FREED_MIN] += 1 << order
    S[S_NODE_STAT + C[K_NODE_STAT]] -= 1 << order
    slabs[at + SL_STATE] = ST_UNUSED
    slabs[at + SL_PFN] = -1
    slabs[at + SL_NEXT] = C[K_FREE_SLOT]
    C[K_FREE_SLOT] = slot
    page[4 * pfn + RMAP] = 0
    free_pages_core(page, pb, S, cpu, pfn, order)


@njit
def unfreeze_partials(page: Any, pb: Any, S: Any, C: Any, slabs: Any, cpu: int, first: int) -> None:
    """Move a detached list of frozen slabs to the node's list, or free them (``__unfreeze_partials()``)."""
    discard = i64(0)
    slot = i64(first)
    while slot != 0:
        at = slot * SL_SIZE
        following = slabs[at + SL_NEXT]
        if slabs[at + SL_INUSE] == 0 and C[K_NR_PARTIAL] >= C[K_MIN_PARTIAL]:
            slabs[at + SL_NEXT] = discard
            discard = slot
        else:
            add_partial(C, slabs, slot, True)
        slot = following
    while discard != 0:
        slot = discard
        discard = slabs[slot * SL_SIZE + SL_NEXT]
        discard_slab(page, pb, S, C, slabs, cpu, slot)


@njit
def put_cpu_partial(page: Any, pb: Any, S: Any, C: Any, slabs: Any, cpu: int, slot: int, drain: int) -> None:
    """Put a slab just frozen on the CPU's partial list; a full list goes to the node first (``put_cpu_partial()``)."""
    u = cpu_offset(cpu)
    old = C[u + U_PARTIAL]
    unfreeze = i64(0)
    nr = i64(0)
    if old != 0:
        nr = slabs[old * SL_SIZE + SL_SLABS]
        if drain != 0 and nr >= C[K_CPU_PARTIAL_SLABS]:
            unfreeze = old
            old = i64(0)
            nr = i64(0)
    at = slot * SL_SIZE
    slabs[at + SL_SLABS] = nr + 1
    slabs[at + SL_NEXT] = old
    slabs[at + SL_STATE] = ST_CPU_PARTIAL
    C[u + U_PARTIAL] = slot
    if unfreeze != 0:
        unfreeze_partials(page, pb, S, C, slabs, cpu, unfreeze)


@njit
def deactivate_slab(page: Any, pb: Any, S: Any, C: Any, slabs: Any, chain: Any, cpu: int) -> None:
    """Take the CPU's slab away, if it has one, and put it where it belongs (``deactivate_slab()``)."""
    u = cpu_offset(cpu)
    slot = C[u + U_SLAB]
    if slot == 0:
        return
    nfree = C[u + U_NFREE]
    freelist = C[u + U_FREELIST]
    C[u + U_SLAB] = 0
    C[u + U_NFREE] = 0
    C[u + U_FREELIST] = NONE
    at = slot * SL_SIZE
    remote = slabs[at + SL_FREELIST]
    if nfree > 0:
        if remote != NONE:
            base = slot * C[K_STRIDE]
            last = base + freelist
            while chain[last] != NONE:
                last = base + i64(chain[last])
            chain[last] = remote
        slabs[at + SL_FREELIST] = freelist
        slabs[at + SL_INUSE] -= nfree
    if slabs[at + SL_INUSE] == 0 and C[K_NR_PARTIAL] >= C[K_MIN_PARTIAL]:
        discard_slab(page, pb, S, C, slabs, cpu, slot)
    elif slabs[at + SL_FREELIST] != NONE:
        add_partial(C, slabs, slot, remote != NONE)
    else:
        slabs[at + SL_STATE] = ST_FULL


@njit
def flush_cpu_slab(page: Any, pb: Any, S: Any, C: Any, slabs: Any, chain: Any, cpu: int) -> None:
    """Take from a CPU all that it holds, as its own work item does (``flush_cpu_slab()``)."""
    u = cpu_offset(cpu)
    deactivate_slab(page, pb, S, C, slabs, chain, cpu)
    first = C[u + U_PARTIAL]
    C[u + U_PARTIAL] = 0
    unfreeze_partials(page, pb, S, C, slabs, cpu, first)


@inline_njit
def load_freelist(C: Any, slabs: Any, u: int, slot: int) -> None:
    """Hand a slab's free objects to the CPU at offset u: it is that CPU's slab now."""
    at = slot * SL_SIZE
    C[u + U_SLAB] = slot
    C[u + U_FREELIST] = slabs[at + SL_FREELIST]
    C[u + U_NFREE] = slabs[at + SL_OBJECTS] - slabs[at + SL_INUSE]
    slabs[at + SL_FREELIST] = NONE
    slabs[at + SL_INUSE] = slabs[at + SL_OBJECTS]
    slabs[at + SL_STATE] = ST_CPU


@njit
def discard_batch(page: Any, pb: Any, S: Any, C: Any, slabs: Any, cpu: int, slots: Any, start: int) -> int:
    """Discard slabs that are on no list until the trace buffer fills; index of the first one not discarded."""
    i = i64(start)
    while i < slots.shape[0] and S[S_TRACE_N] <= S[S_TRACE_CAP] // 2:
        discard_slab(page, pb, S, C, slabs, cpu, i64(slots[i]))
        i += 1
    return i


@njit
def partial_slots(slabs: Any, out: Any) -> int:
    """Copy the slots of the node's partial list, first to last, to ``out`` (int64), which holds them; how many."""
    n = i64(0)
    slot = slabs[SL_NEXT]
    while slot != 0:
        out[n] = slot
        n += 1
        slot = slabs[slot * SL_SIZE + SL_NEXT]
    return n
