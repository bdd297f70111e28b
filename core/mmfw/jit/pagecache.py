"""Pages into the slots of files and mappings and out of them, and nodes above (mm/filemap.c, mm/truncate.c of 6.1)."""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import events as ev
from mmfw.jit import i64, njit
from mmfw.jit.alloc import BATCH_BAD_PAGE, BATCH_DONE, BATCH_TRACE_FULL, free_pages_core
from mmfw.jit.lru import (
    TO_HEAD,
    TO_TAIL,
    account_folio,
    folio_head,
    lru_add,
    lru_del,
    rotate_reclaimable,
    workingset_refault,
)
from mmfw.jit.page import (
    NEXT,
    NS_WORKINGSET_NODES,
    NS_WRITEBACK,
    ORDER_MASK,
    PG_ACTIVE,
    PG_COMPOUND,
    PG_DIRTY,
    PG_LOCKED,
    PG_LRU,
    PG_MAPPED,
    PG_PINNED,
    PG_RECLAIM,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_UNEVICTABLE,
    PG_WRITEBACK,
    RMAP,
    S_EVENT,
    S_NODE_STAT,
    S_TRACE_CAP,
    S_TRACE_N,
    SLOT_AGE_MASK,
    SLOT_EMPTY,
    SLOT_SHADOW,
    TYPE_MASK,
    WORD,
)
from mmfw.jit.prefetch import AHEAD, prefetch_page

#: Slots of one node of a file's tree; the first slot of a file is a multiple of it.
XA_CHUNK_SIZE: Final = 64
#: In place of a node's object: there is no node.
XA_NONE: Final = -2
#: In place of a page, in its word, too: there is none.
NO_PAGE: Final = 0xFFFFFFFF
#: Entries that truncation looks at in one go (PAGEVEC_SIZE).
PAGEVEC_SIZE: Final = 15
# Why a batch of pages to read ends: nothing special; its last page has the readahead flag; is being read still.
READ_MARKER: Final = 1
READ_LOCKED: Final = 2


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
def insert_folios(
    page: Any, pb: Any, S: Any, slots: Any, pfns: Any, at: Any, order: int, flags: int, refault: int
) -> None:
    """Put allocated folios into slots and on the LRU; with ``refault``, a slot's shadow makes it one.

    ``at`` is the first slot of each folio; a folio of an order above 0 takes ``1 << order`` slots.
    """
    for i in range(pfns.shape[0]):
        if i + AHEAD < pfns.shape[0]:
            prefetch_page(page, i64(pfns[i + AHEAD]))
        pfn = i64(pfns[i])
        slot = i64(at[i])
        was = i64(slots[slot])
        word = i64(page[4 * pfn + WORD]) | flags
        if not word & PG_SWAPBACKED:
            count_shadow_node(S, slots, slot, i64(1 << order), i64(-1))
        if refault and was >= SLOT_SHADOW and was != SLOT_EMPTY:
            word |= workingset_refault(S, was, word & PG_SWAPBACKED == 0, i64(1 << order))
        page[4 * pfn + WORD] = word
        page[4 * pfn + RMAP] = slot
        for k in range(1 << order):
            slots[slot + k] = pfn + k
        account_folio(S, word, i64(1))
        lru_add(page, pb, S, pfn, TO_HEAD)


@njit
def take_folio(page: Any, pb: Any, S: Any, slots: Any, pfn: int) -> bool:
    """Take a folio out of its slots and off the LRU, for it to be freed; False if a device holds it.

    What is being written or read belongs to nobody from here on, and is freed when the device is done.
    """
    word = i64(page[4 * pfn + WORD])
    slot = i64(page[4 * pfn + RMAP])
    if word & PG_LRU:
        lru_del(page, pb, S, pfn)
    account_folio(S, word & ~PG_WRITEBACK, i64(-1))
    page[4 * pfn + RMAP] = 0
    for k in range(1 << (word & ORDER_MASK)):
        if slots[slot + k] == pfn + k:
            slots[slot + k] = SLOT_EMPTY
    held = word & (PG_WRITEBACK | PG_LOCKED)
    if held:
        page[4 * pfn + WORD] = word & (TYPE_MASK | ORDER_MASK | PG_COMPOUND | PG_WRITEBACK | PG_LOCKED)
    return held == 0


@njit
def release_slots(page: Any, pb: Any, S: Any, slots: Any, cpu: int, at: Any, start: int) -> tuple[int, int]:
    """Empty slots in the order given, freeing the page of each before the next.

    A large folio is freed when its first slot is named; it must go whole.

    Returns
    -------
    (int, int)
        A ``BATCH_*`` code and the index of the first slot not emptied.
    """
    i = start
    while i < at.shape[0]:
        slot = i64(at[i])
        was = i64(slots[slot])
        if was < SLOT_SHADOW and i64(page[4 * was + RMAP]) == slot:
            if S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
                return BATCH_TRACE_FULL, i
            order = i64(page[4 * was + WORD]) & ORDER_MASK
            if take_folio(page, pb, S, slots, was) and not free_pages_core(page, pb, S, cpu, was, order):
                return BATCH_BAD_PAGE, i
        slots[slot] = SLOT_EMPTY
        i += 1
    return BATCH_DONE, i


@njit
def free_stack(page: Any, pb: Any, S: Any, cpu: int, top: int) -> None:
    """Free single pages that are linked by their next words, `NO_PAGE` last (``free_unref_page_list()``).

    The kernel prepares all of them first: its events mm_page_free come before the first drain of the per-CPU lists. Its
    event mm_page_free_batched is not modelled.
    """
    while top != NO_PAGE:
        after = i64(page[4 * top + NEXT])
        free_pages_core(page, pb, S, cpu, top, i64(0))
        top = after


@njit
def drop_entries(
    page: Any, pb: Any, S: Any, slots: Any, cpu: int, base: int, nr: int, start: int, invalidate: int
) -> tuple[int, int]:
    """Drop a file's entries from an index on, 15 at a time (``find_lock_entries()`` and what is done to its batch).

    Pages and shadows fill a batch. Its large folios are freed as they come, its single pages last, the last one first.
    What is locked or being written is passed over. With ``invalidate`` so is what is dirty, mapped or held by somebody,
    but that is deactivated (``deactivate_file_folio()``).

    Returns
    -------
    (int, int)
        A ``BATCH_*`` code and the index to go on from.
    """
    index = start
    while index < nr:
        if S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
            return BATCH_TRACE_FULL, index
        top = i64(NO_PAGE)
        found = 0
        while index < nr and found < PAGEVEC_SIZE:
            was = i64(slots[base + index])
            if was >= SLOT_SHADOW:
                slots[base + index] = SLOT_EMPTY
                found += 0 if was == SLOT_EMPTY else 1
                index += 1
                continue
            pfn = folio_head(page, was)
            word = i64(page[4 * pfn + WORD])
            index = i64(page[4 * pfn + RMAP]) - base + (1 << (word & ORDER_MASK))
            if word & (PG_LOCKED | PG_WRITEBACK):
                continue
            found += 1
            if invalidate and word & (PG_DIRTY | PG_MAPPED | PG_PINNED):
                deactivate_file_folio(page, pb, S, pfn)
                continue
            take_folio(page, pb, S, slots, pfn)
            if word & ORDER_MASK:
                free_pages_core(page, pb, S, cpu, pfn, word & ORDER_MASK)
            else:
                page[4 * pfn + NEXT] = top
                top = pfn
        free_stack(page, pb, S, cpu, top)
    return BATCH_DONE, index


@njit
def deactivate_file_folio(page: Any, pb: Any, S: Any, pfn: int) -> None:
    """Move a folio where reclaim finds it soon: clean to the inactive tail, dirty to its head, marked for reclaim."""
    word = i64(page[4 * pfn + WORD])
    if not word & PG_LRU or word & (PG_UNEVICTABLE | PG_MAPPED):
        return
    n = 1 << (word & ORDER_MASK)
    if word & PG_ACTIVE:
        S[S_EVENT + ev.PGDEACTIVATE] += n
    lru_del(page, pb, S, pfn)
    word = i64(page[4 * pfn + WORD]) & ~(PG_ACTIVE | PG_REFERENCED)
    if word & (PG_WRITEBACK | PG_DIRTY):
        page[4 * pfn + WORD] = word | PG_RECLAIM
        lru_add(page, pb, S, pfn, TO_HEAD)
    else:
        page[4 * pfn + WORD] = word
        lru_add(page, pb, S, pfn, TO_TAIL)
        S[S_EVENT + ev.PGROTATED] += n


@njit
def get_read_batch(page: Any, slots: Any, start: int, end: int) -> tuple[int, int]:
    """Pages from a slot on that can be copied (``filemap_get_read_batch()``).

    Returns
    -------
    (int, int)
        How many; and of the last one `READ_MARKER` and `READ_LOCKED`.
    """
    at = start
    why = 0
    while at < end and why == 0:
        pfn = i64(slots[at])
        if pfn >= SLOT_SHADOW:
            break
        head = folio_head(page, pfn)
        word = i64(page[4 * head + WORD])
        at += head + (1 << (word & ORDER_MASK)) - pfn
        # PG_readahead and PG_reclaim are one bit.
        why = (READ_MARKER if word & PG_RECLAIM else 0) | (READ_LOCKED if word & PG_LOCKED else 0)
    return min(at, end) - start, why


@njit
def set_readahead(page: Any, slots: Any, slot: int) -> None:
    """Give the folio of a slot the readahead flag (``folio_set_readahead()``)."""
    pfn = i64(slots[slot])
    if pfn < SLOT_SHADOW:
        page[4 * folio_head(page, pfn) + WORD] |= PG_RECLAIM


@njit
def clear_readahead(page: Any, slots: Any, slot: int) -> tuple[int, int]:
    """Take the readahead flag off the folio of a slot (``folio_clear_readahead()``).

    Returns
    -------
    (int, int)
        Its order, or -1 if it keeps the flag since it is being written, or is gone, for the reader holds no reference
        here; and pages between its head and the slot's.
    """
    pfn = i64(slots[slot])
    if pfn >= SLOT_SHADOW:
        return -1, 0
    head = folio_head(page, pfn)
    word = i64(page[4 * head + WORD])
    if word & PG_WRITEBACK:
        return -1, 0
    page[4 * head + WORD] = word & ~PG_RECLAIM
    return word & ORDER_MASK, pfn - head


@njit
def folio_heads(page: Any, pfns: Any, out: Any) -> None:
    """`folio_head` of each page."""
    for i in range(pfns.shape[0]):
        out[i] = folio_head(page, i64(pfns[i]))


@njit
def end_writeback(page: Any, pb: Any, S: Any, cpu: int, pfns: Any) -> None:
    """The device has written folios (``folio_end_writeback()``): those for reclaim go next, ownerless ones are freed."""
    for i in range(pfns.shape[0]):
        if i + AHEAD < pfns.shape[0]:
            prefetch_page(page, i64(pfns[i + AHEAD]))
        pfn = i64(pfns[i])
        word = i64(page[4 * pfn + WORD])
        page[4 * pfn + WORD] = word & ~(PG_WRITEBACK | PG_RECLAIM)
        S[S_NODE_STAT + NS_WRITEBACK] -= 1 << (word & ORDER_MASK)
        if page[4 * pfn + RMAP] == 0 and not word & PG_LRU:
            free_pages_core(page, pb, S, cpu, pfn, word & ORDER_MASK)
        elif word & PG_RECLAIM:
            rotate_reclaimable(page, pb, S, pfn)


@njit
def end_read(page: Any, pb: Any, S: Any, cpu: int, pfns: Any) -> None:
    """The device has read folios (``folio_unlock()``); ownerless ones are freed."""
    for i in range(pfns.shape[0]):
        pfn = i64(pfns[i])
        word = i64(page[4 * pfn + WORD])
        page[4 * pfn + WORD] = word & ~PG_LOCKED
        if page[4 * pfn + RMAP] == 0 and not word & PG_LRU:
            free_pages_core(page, pb, S, cpu, pfn, word & ORDER_MASK)
