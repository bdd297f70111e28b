"""The LRU lists: putting folios on and off, references, and refaults (mm/swap.c, mm/workingset.c of 6.1).

One lruvec is kept, that of the only node's root memory cgroup. Pages go on a list at once; the kernel
gathers up to 15 in a per-CPU batch first, so at most 14 pages a CPU are not yet on a list there: they are not counted in
the lists' sizes, nobody isolates them, and a second use of one makes it active without counting or moving it.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import events as ev
from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.alloc import row_of
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
    NS_WRITEBACK,
    ORDER_MASK,
    PB_LRU_SHIFT,
    PB_ORDER,
    PG_ACTIVE,
    PG_DIRTY,
    PG_LAZYFREE,
    PG_LOCKED,
    PG_LRU,
    PG_MAPPED,
    PG_PTE_MAPPED,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UNEVICTABLE,
    PG_WORKINGSET,
    PG_WRITEBACK,
    S_ANON_COST,
    S_EVENT,
    S_FILE_COST,
    S_NODE_STAT,
    S_NONRESIDENT_AGE,
    S_NR_ROWS,
    SLOT_AGE_MASK,
    SLOT_SHADOW,
    SLOT_WORKINGSET,
    T_ALLOC,
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
def account_folio(S: Any, word: int, sign: int) -> None:
    """Count a folio that enters (+1) or leaves (-1) its owner in the node's statistics.

    Of a huge page that is mapped page by page all pages are counted as mapped.
    """
    n = sign * (1 << (word & ORDER_MASK))
    anon = word & PG_SWAPBACKED != 0 and word & PG_MAPPED != 0
    if anon:
        S[S_NODE_STAT + NS_ANON_MAPPED] += n
        if word & ORDER_MASK == PB_ORDER and not word & PG_PTE_MAPPED:
            S[S_NODE_STAT + NS_ANON_THPS] += n
    if not anon or word & PG_SWAPCACHE:
        S[S_NODE_STAT + NS_FILE_PAGES] += n
    if not anon and word & PG_SWAPBACKED and not word & PG_SWAPCACHE:
        S[S_NODE_STAT + NS_SHMEM] += n
    if not anon and word & PG_MAPPED:
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
def change_flags(page: Any, pfns: Any, on: int, off: int) -> None:
    """Set and clear flags of folio heads."""
    for i in range(pfns.shape[0]):
        at = 4 * i64(pfns[i]) + WORD
        page[at] = (i64(page[at]) | on) & ~off


@njit
def folio_head(page: Any, pfn: int) -> int:
    """Head of the allocated folio that a page lies in (``page_folio()``)."""
    head = pfn
    order = 0
    while i64(page[4 * head + WORD]) & TYPE_MASK != T_ALLOC and order < PB_ORDER:
        order += 1
        head = pfn & -(1 << order)
    return head


@njit
def mark_accessed(page: Any, pb: Any, S: Any, slots: Any, at: Any) -> None:
    """Note a use of pages by system calls (``folio_mark_accessed()``), once for each folio that slots in turn lie in."""
    last = i64(-1)
    for i in range(at.shape[0]):
        pfn = i64(slots[i64(at[i])])
        if pfn >= SLOT_SHADOW:
            continue
        pfn = folio_head(page, pfn)
        if pfn == last:
            continue
        last = pfn
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
