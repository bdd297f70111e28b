"""The LRU lists: putting folios on and off, references, and refaults (mm/swap.c, mm/workingset.c of 6.1).

One lruvec is kept, that of the only node's root memory cgroup. Pages go on a list at once; the kernel
gathers up to 15 in a per-CPU batch first, so at most 14 pages a CPU are not yet on a list there.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import events as ev
from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.alloc import BATCH_BAD_PAGE, BATCH_DONE, BATCH_TRACE_FULL, free_pages_core, row_of
from mmfw.jit.page import (
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    LRU_UNEVICTABLE,
    NR_LRU_LISTS,
    NS_ANON_MAPPED,
    NS_ANON_THPS,
    NS_FILE_DIRTY,
    NS_FILE_MAPPED,
    NS_FILE_PAGES,
    NS_FREE_SWAP,
    NS_SHMEM,
    NS_SWAPCACHE,
    NS_WORKINGSET_NODES,
    NS_WRITEBACK,
    ORDER_MASK,
    PB_LRU_SHIFT,
    PB_ORDER,
    PG_ACTIVE,
    PG_COMPOUND,
    PG_DIRTY,
    PG_LAZYFREE,
    PG_LOCKED,
    PG_LRU,
    PG_MAPPED,
    PG_RECLAIM,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UNEVICTABLE,
    PG_WORKINGSET,
    PG_WRITEBACK,
    PTE_YOUNG,
    RMAP,
    S_ANON_COST,
    S_EVENT,
    S_FILE_COST,
    S_NODE_STAT,
    S_NONRESIDENT_AGE,
    S_NR_ROWS,
    S_TRACE_CAP,
    S_TRACE_N,
    SLOT_AGE_MASK,
    SLOT_EMPTY,
    SLOT_SHADOW,
    SLOT_WORKINGSET,
    TYPE_MASK,
    WORD,
    Z_LRU,
    list_add,
    list_add_tail,
    list_del,
    owner_head,
    zone_offset,
)

#: Flags that say what a folio is and how it stands on the LRU; they move with it when it migrates.
KEEP_PG_FLAGS = 0xFFFFF800
#: Slots of one node of a file's tree; the first slot of a file is a multiple of it.
XA_CHUNK_SIZE = 64
#: In place of a node's object: there is no node.
XA_NONE = -2
#: Where `lru_add` puts a folio; typed, for a literal would compile it once more.
TO_HEAD: Final = i64(0)
TO_TAIL: Final = i64(1)


@inline_njit
def lru_of(word: int) -> int:
    """List that a folio with this word belongs on (``folio_lru_list()``)."""
    if word & PG_UNEVICTABLE:
        lru = LRU_UNEVICTABLE
    else:
        lru = LRU_INACTIVE_ANON if word & PG_SWAPBACKED and not word & PG_LAZYFREE else LRU_INACTIVE_FILE
        if word & PG_ACTIVE:
            lru += 1
    return lru


@njit
def lru_add(page: Any, pb: Any, S: Any, pfn: int, tail: int) -> None:
    """Put a folio on the list its flags call for (``lruvec_add_folio()``, ``lruvec_add_folio_tail()``)."""
    word = i64(page[4 * pfn + WORD])
    lru = lru_of(word)
    n = 1 << (word & ORDER_MASK)
    if tail:
        list_add_tail(page, owner_head(S, lru), pfn)
    else:
        list_add(page, owner_head(S, lru), pfn)
    page[4 * pfn + WORD] = word | PG_LRU
    S[zone_offset(row_of(S, pfn)) + Z_LRU + lru] += n
    pb[pfn >> PB_ORDER] += n << PB_LRU_SHIFT


@njit
def lru_del(page: Any, pb: Any, S: Any, pfn: int) -> None:
    """Take a folio off its list (``lruvec_del_folio()``)."""
    word = i64(page[4 * pfn + WORD])
    n = 1 << (word & ORDER_MASK)
    list_del(page, pfn)
    page[4 * pfn + WORD] = word & ~PG_LRU
    S[zone_offset(row_of(S, pfn)) + Z_LRU + lru_of(word)] -= n
    pb[pfn >> PB_ORDER] -= n << PB_LRU_SHIFT


@njit
def lruvec_size(S: Any, lru: int, highest_zoneidx: int) -> int:
    """Pages on a list in zones up to an index (``lruvec_lru_size()``)."""
    size = i64(0)
    for row in range(min(S[S_NR_ROWS], highest_zoneidx + 1)):
        size += S[zone_offset(row) + Z_LRU + lru]
    return size


@njit
def nr_lru_pages(S: Any) -> int:
    """Pages on all lists."""
    size = i64(0)
    for lru in range(NR_LRU_LISTS):
        size += lruvec_size(S, i64(lru), i64(4))
    return size


@njit
def lru_note_cost(S: Any, file: bool, nr_pages: int) -> None:
    """Note what reclaiming a kind of pages cost, and let old costs fade (``lru_note_cost()``)."""
    S[S_FILE_COST if file else S_ANON_COST] += nr_pages
    size = i64(0)
    for lru in range(LRU_UNEVICTABLE):
        size += lruvec_size(S, i64(lru), i64(4))
    if S[S_FILE_COST] + S[S_ANON_COST] > size // 4:
        S[S_FILE_COST] //= 2
        S[S_ANON_COST] //= 2


@inline_njit
def pack_shadow(S: Any, word: int, nr_pages: int) -> int:
    """What an evicted folio leaves in its slot (``workingset_eviction()``); ages the lruvec."""
    shadow = SLOT_SHADOW | (S[S_NONRESIDENT_AGE] & SLOT_AGE_MASK)
    if word & PG_WORKINGSET:
        shadow |= SLOT_WORKINGSET
    S[S_NONRESIDENT_AGE] += nr_pages
    return shadow


@njit
def workingset_refault(S: Any, shadow: int, file: bool, nr_pages: int) -> int:
    """Judge a page that comes back (``workingset_refault()``); the page flags it gets."""
    S[S_EVENT + (ev.WORKINGSET_REFAULT_FILE if file else ev.WORKINGSET_REFAULT_ANON)] += nr_pages
    distance = (S[S_NONRESIDENT_AGE] - (shadow & SLOT_AGE_MASK)) & SLOT_AGE_MASK
    size = lruvec_size(S, i64(LRU_ACTIVE_FILE), i64(4))
    if not file:
        size += lruvec_size(S, i64(LRU_INACTIVE_FILE), i64(4))
    if S[S_NODE_STAT + NS_FREE_SWAP] > 0:
        size += lruvec_size(S, i64(LRU_ACTIVE_ANON), i64(4))
        if file:
            size += lruvec_size(S, i64(LRU_INACTIVE_ANON), i64(4))
    if distance > size:
        return 0
    flags = PG_ACTIVE
    S[S_NONRESIDENT_AGE] += nr_pages
    S[S_EVENT + (ev.WORKINGSET_ACTIVATE_FILE if file else ev.WORKINGSET_ACTIVATE_ANON)] += nr_pages
    if shadow & SLOT_WORKINGSET:
        flags |= PG_WORKINGSET
        lru_note_cost(S, file, nr_pages)
        S[S_EVENT + (ev.WORKINGSET_RESTORE_FILE if file else ev.WORKINGSET_RESTORE_ANON)] += nr_pages
    return flags


@njit
def shadow_node(slots: Any, slot: int) -> bool:
    """Whether the node of a file's slot holds shadows and no page (``workingset_update_node()``).

    One whose first slot alone is in use is not taken for a node: so may page 0 lie, in the root of a tree without any.
    """
    first = slot & -XA_CHUNK_SIZE
    if slots[first + ((slot - 1) & (XA_CHUNK_SIZE - 1))] < SLOT_SHADOW:
        return False
    found = False
    for i in range(1, XA_CHUNK_SIZE + 1):
        at = first + ((slot + i) & (XA_CHUNK_SIZE - 1))
        word = i64(slots[at])
        if word < SLOT_SHADOW:
            return False
        if word != SLOT_EMPTY and at != first:
            found = True
    return found


@njit
def count_shadow_node(S: Any, slots: Any, slot: int, nr_pages: int, sign: int) -> None:
    """Count the nodes of shadows that a file folio's slots lie in, after eviction (+1) or before insertion (-1)."""
    at = slot
    while at < slot + nr_pages:
        if shadow_node(slots, at):
            S[S_NODE_STAT + NS_WORKINGSET_NODES] += sign
        at = (at & -XA_CHUNK_SIZE) + XA_CHUNK_SIZE


@njit
def count_shadow_nodes(slots: Any, base: int, nr_leaves: int) -> int:
    """How many of a file's leaves are a `shadow_node`."""
    found = 0
    for k in range(nr_leaves):
        if shadow_node(slots, base + k * XA_CHUNK_SIZE):
            found += 1
    return found


@njit
def shadow_ages(slots: Any, leaf: Any, base: int, now: int, out: Any) -> None:
    """For each leaf the evictions since that of its last page; -1 where it is no `shadow_node`."""
    for k in range(leaf.shape[0]):
        out[k] = -1
        first = base + k * XA_CHUNK_SIZE
        if leaf[k] == XA_NONE or not shadow_node(slots, first):
            continue
        for i in range(XA_CHUNK_SIZE):
            word = i64(slots[first + i])
            ago = (now - (word & SLOT_AGE_MASK)) & SLOT_AGE_MASK
            if word != SLOT_EMPTY and (out[k] < 0 or ago < out[k]):
                out[k] = ago


@njit
def account_folio(S: Any, word: int, sign: int) -> None:
    """Count a folio that enters (+1) or leaves (-1) its owner in the node's statistics."""
    n = sign * (1 << (word & ORDER_MASK))
    if word & PG_SWAPBACKED and word & PG_MAPPED:
        S[S_NODE_STAT + NS_ANON_MAPPED] += n
        if word & ORDER_MASK == PB_ORDER:
            S[S_NODE_STAT + NS_ANON_THPS] += n
    else:
        S[S_NODE_STAT + NS_FILE_PAGES] += n
        if word & PG_SWAPBACKED and not word & PG_SWAPCACHE:
            S[S_NODE_STAT + NS_SHMEM] += n
        if word & PG_MAPPED:
            S[S_NODE_STAT + NS_FILE_MAPPED] += n
    if word & PG_DIRTY and not word & PG_SWAPBACKED:
        S[S_NODE_STAT + NS_FILE_DIRTY] += n
    if word & PG_SWAPCACHE:
        S[S_NODE_STAT + NS_SWAPCACHE] += n
        if sign < 0:
            S[S_NODE_STAT + NS_FREE_SWAP] -= n
    if word & PG_WRITEBACK:
        S[S_NODE_STAT + NS_WRITEBACK] += n


@njit
def insert_folios(page: Any, pb: Any, S: Any, slots: Any, pfns: Any, at: Any, order: int, flags: int) -> None:
    """Put allocated folios into slots and on the LRU; a slot's shadow makes it a refault.

    ``at`` is the first slot of each folio; a folio of an order above 0 takes ``1 << order`` slots.
    """
    for i in range(pfns.shape[0]):
        pfn = i64(pfns[i])
        slot = i64(at[i])
        was = i64(slots[slot])
        word = i64(page[4 * pfn + WORD]) | flags
        if not word & PG_SWAPBACKED:
            count_shadow_node(S, slots, slot, i64(1 << order), i64(-1))
        if was >= SLOT_SHADOW and was != SLOT_EMPTY:
            word |= workingset_refault(S, was, word & PG_SWAPBACKED == 0, i64(1 << order))
        page[4 * pfn + WORD] = word
        page[4 * pfn + RMAP] = slot
        for k in range(1 << order):
            slots[slot + k] = pfn + k
        account_folio(S, word, i64(1))
        lru_add(page, pb, S, pfn, TO_HEAD)


@njit
def release_slots(page: Any, pb: Any, S: Any, slots: Any, cpu: int, at: Any, start: int) -> tuple[int, int]:
    """Empty slots in the order given; a page in one is taken off the LRU and freed (``release_pages()``).

    A large folio is freed when its first slot is named; it must go whole. A page under writeback belongs to nobody from
    here on, but its device holds it: `end_writeback` frees it.

    Returns
    -------
    (int, int)
        A ``BATCH_*`` code and the index of the first slot not emptied.
    """
    i = start
    while i < at.shape[0]:
        slot = i64(at[i])
        was = i64(slots[slot])
        slots[slot] = SLOT_EMPTY
        if was < SLOT_SHADOW and i64(page[4 * was + RMAP]) == slot:
            if S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
                slots[slot] = was
                return BATCH_TRACE_FULL, i
            word = i64(page[4 * was + WORD])
            if word & PG_LRU:
                lru_del(page, pb, S, was)
            account_folio(S, word & ~PG_WRITEBACK, i64(-1))
            page[4 * was + RMAP] = 0
            order = word & ORDER_MASK
            for k in range(1 << order):
                slots[slot + k] = SLOT_EMPTY
            if word & PG_WRITEBACK:
                page[4 * was + WORD] = word & (TYPE_MASK | ORDER_MASK | PG_COMPOUND | PG_WRITEBACK)
            elif not free_pages_core(page, pb, S, cpu, was, order):
                return BATCH_BAD_PAGE, i
        i += 1
    return BATCH_DONE, i


@njit
def mark_accessed(page: Any, pb: Any, S: Any, slots: Any, at: Any) -> None:
    """Note a use of pages by system calls (``folio_mark_accessed()``)."""
    for i in range(at.shape[0]):
        pfn = i64(slots[i64(at[i])])
        if pfn >= SLOT_SHADOW:
            continue
        word = i64(page[4 * pfn + WORD])
        if not word & PG_REFERENCED:
            page[4 * pfn + WORD] = word | PG_REFERENCED
        elif not word & (PG_UNEVICTABLE | PG_ACTIVE) and word & PG_LRU:
            n = 1 << (word & ORDER_MASK)
            lru_del(page, pb, S, pfn)
            page[4 * pfn + WORD] = (i64(page[4 * pfn + WORD]) | PG_ACTIVE) & ~PG_REFERENCED
            lru_add(page, pb, S, pfn, TO_HEAD)
            S[S_EVENT + ev.PGACTIVATE] += n
            S[S_NONRESIDENT_AGE] += n


@njit
def touch_mapped(page: Any, slots: Any, at: Any) -> int:
    """Set the accessed bit of the pages in slots; how many slots hold none."""
    absent = 0
    for i in range(at.shape[0]):
        pfn = i64(slots[i64(at[i])])
        if pfn < SLOT_SHADOW:
            page[4 * pfn + WORD] |= PTE_YOUNG
        else:
            absent += 1
    return absent


@njit
def rotate_reclaimable(page: Any, pb: Any, S: Any, pfn: int) -> None:
    """Move a folio that was written for reclaim to the inactive tail (``folio_rotate_reclaimable()``).

    Reclaim activates what it meets under writeback, so most of these come from the active list.
    """
    word = i64(page[4 * pfn + WORD])
    if word & PG_LRU and not word & (PG_LOCKED | PG_UNEVICTABLE | PG_DIRTY):
        lru_del(page, pb, S, pfn)
        page[4 * pfn + WORD] = i64(page[4 * pfn + WORD]) & ~PG_ACTIVE
        lru_add(page, pb, S, pfn, TO_TAIL)
        S[S_EVENT + ev.PGROTATED] += 1 << (word & ORDER_MASK)


@njit
def end_writeback(page: Any, pb: Any, S: Any, cpu: int, pfns: Any) -> None:
    """The device has written folios (``folio_end_writeback()``): those for reclaim go next, ownerless ones are freed."""
    for i in range(pfns.shape[0]):
        pfn = i64(pfns[i])
        word = i64(page[4 * pfn + WORD])
        page[4 * pfn + WORD] = word & ~(PG_WRITEBACK | PG_RECLAIM)
        S[S_NODE_STAT + NS_WRITEBACK] -= 1 << (word & ORDER_MASK)
        if page[4 * pfn + RMAP] == 0 and not word & PG_LRU:
            free_pages_core(page, pb, S, cpu, pfn, word & ORDER_MASK)
        elif word & PG_RECLAIM:
            rotate_reclaimable(page, pb, S, pfn)
