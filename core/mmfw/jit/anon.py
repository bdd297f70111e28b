"""Pages of anonymous mappings: from the swap cache, split, unmapped (mm/memory.c, mm/huge_memory.c, mm/swap.c of 6.1).

A huge page is mapped by one entry of its PMD until part of it is dropped or reclaim takes it. From then on it is mapped
page by page (`PG_PTE_MAPPED`), and its slots tell which of its pages are left: slot k holds page k, or something else.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import events as ev
from mmfw.jit import i64, njit
from mmfw.jit.alloc import BATCH_BAD_PAGE, BATCH_DONE, BATCH_TRACE_FULL, free_pages_core
from mmfw.jit.lru import account_folio, folio_head, lru_del
from mmfw.jit.page import (
    NEXT,
    NS_ANON_MAPPED,
    NS_ANON_THPS,
    NS_FILE_PAGES,
    NS_FREE_SWAP,
    NS_SWAPCACHE,
    ORDER_MASK,
    PB_ORDER,
    PB_PAGES,
    PG_ACTIVE,
    PG_COMPOUND,
    PG_DIRTY,
    PG_LAZYFREE,
    PG_LOCKED,
    PG_LRU,
    PG_MAPPED,
    PG_MLOCKED,
    PG_PINNED,
    PG_PTE_MAPPED,
    PG_RECLAIM,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UNEVICTABLE,
    PG_WORKINGSET,
    PG_WRITEBACK,
    PTE_EXEC,
    PTE_YOUNG,
    RMAP,
    S_EVENT,
    S_NODE_STAT,
    S_TRACE_CAP,
    S_TRACE_N,
    SLOT_EMPTY,
    SLOT_SHADOW,
    T_ALLOC,
    TYPE_MASK,
    WORD,
    list_add_tail,
)
from mmfw.jit.pagecache import NO_PAGE, free_stack, take_folio
from mmfw.jit.prefetch import AHEAD, prefetch_page

#: Flags that the pages of a huge page get from its head when it is split (``__split_huge_page_tail()``).
TAIL_FLAGS: Final = (
    PG_REFERENCED
    | PG_SWAPBACKED
    | PG_SWAPCACHE
    | PG_MLOCKED
    | PG_ACTIVE
    | PG_WORKINGSET
    | PG_UNEVICTABLE
    | PG_DIRTY
    | PG_LAZYFREE
    | PG_MAPPED
    | PTE_YOUNG
    | PTE_EXEC
)


@njit
def pages_left(slots: Any, slot: int, pfn: int, n: int) -> int:
    """How many pages of a folio are in their slots still."""
    left = 0
    for k in range(n):
        if slots[slot + k] == pfn + k:
            left += 1
    return left


@njit
def map_swapcache(page: Any, S: Any, slots: Any, slot: int) -> int:
    """Map a page of the swap cache for writing, and give its swap slot back (the end of ``do_swap_page()``).

    While it is being written the slot stays taken. A huge page is mapped as a whole, where the kernel maps the page that
    was touched.

    Returns
    -------
    int
        1 if it had the readahead flag, which it loses.
    """
    pfn = i64(slots[slot])
    head = folio_head(page, pfn)
    word = i64(page[4 * head + WORD])
    if word & PG_MAPPED:
        return 0
    n = 1 << (word & ORDER_MASK)
    S[S_NODE_STAT + NS_ANON_MAPPED] += pages_left(slots, i64(page[4 * head + RMAP]), head, n)
    now = word | PG_MAPPED | PTE_YOUNG
    if n > 1:
        now |= PG_PTE_MAPPED
    if not word & PG_WRITEBACK:
        now = (now & ~(PG_SWAPCACHE | PG_RECLAIM)) | PG_DIRTY
        S[S_NODE_STAT + NS_SWAPCACHE] -= n
        S[S_NODE_STAT + NS_FILE_PAGES] -= n
        S[S_NODE_STAT + NS_FREE_SWAP] += n
    page[4 * head + WORD] = now
    return 1 if word & PG_RECLAIM and not word & PG_WRITEBACK else 0


@njit
def split_pmd(page: Any, S: Any, pfn: int) -> None:
    """Map a huge page by an entry for each of its pages from here on (``__split_huge_pmd()``)."""
    word = i64(page[4 * pfn + WORD])
    if (
        word & PG_MAPPED
        and word & PG_SWAPBACKED
        and word & ORDER_MASK == PB_ORDER
        and not word & PG_PTE_MAPPED
    ):
        page[4 * pfn + WORD] = word | PG_PTE_MAPPED
        S[S_NODE_STAT + NS_ANON_THPS] -= PB_PAGES
        S[S_EVENT + ev.THP_SPLIT_PMD] += 1


@njit
def split_folio(page: Any, S: Any, slots: Any, pfn: int, listed: int) -> None:
    """Make single pages of an anonymous folio (``__split_huge_page()``); those unmapped before have no owner then.

    With ``listed`` it is on the LRU: its pages go in front of it, the last one farthest from it.
    """
    split_pmd(page, S, pfn)
    word = i64(page[4 * pfn + WORD])
    slot = i64(page[4 * pfn + RMAP])
    n = 1 << (word & ORDER_MASK)
    S[S_EVENT + ev.THP_SPLIT_PAGE] += 1
    head_flags = word & ~(TYPE_MASK | ORDER_MASK | PG_COMPOUND | PG_PTE_MAPPED)
    for i in range(n):
        k = n - 1 - i
        now = T_ALLOC | (head_flags if k == 0 else head_flags & (TAIL_FLAGS | PG_LRU))
        if slots[slot + k] == pfn + k:
            page[4 * (pfn + k) + RMAP] = slot + k
        else:
            page[4 * (pfn + k) + RMAP] = 0
            now &= ~(PG_MAPPED | PTE_YOUNG)
        page[4 * (pfn + k) + WORD] = now
        if listed and k > 0:
            list_add_tail(page, pfn, pfn + k)


@njit
def forget_ownerless(page: Any, pb: Any, S: Any, pfn: int) -> bool:
    """Prepare a page that a split left without an owner for being freed; False if it has one."""
    if page[4 * pfn + RMAP] != 0:
        return False
    word = i64(page[4 * pfn + WORD])
    if word & PG_LRU:
        lru_del(page, pb, S, pfn)
    if word & PG_SWAPCACHE:
        account_folio(S, word, i64(-1))
    return True


@njit
def split_huge_page(page: Any, pb: Any, S: Any, slots: Any, cpu: int, pfn: int) -> int:
    """Split a huge page on the LRU, and free those of its pages that nobody maps (``split_huge_page()``).

    Returns
    -------
    int
        Pages freed, or -1 if it cannot be split: it is being written, locked, or held by somebody.
    """
    word = i64(page[4 * pfn + WORD])
    if word & (PG_WRITEBACK | PG_LOCKED | PG_PINNED) or not word & PG_LRU:
        S[S_EVENT + ev.THP_SPLIT_PAGE_FAILED] += 1
        return -1
    n = 1 << (word & ORDER_MASK)
    split_folio(page, S, slots, pfn, i64(1))
    freed = 0
    for i in range(1, n + 1):
        at = pfn + i % n  # the head last, since the caller holds it
        if forget_ownerless(page, pb, S, at):
            free_pages_core(page, pb, S, cpu, at, i64(0))
            freed += 1
    return freed


@njit
def unmap_part(page: Any, pb: Any, S: Any, slots: Any, slot: int) -> bool:
    """Unmap one page of a huge page; whether none is left, so that the huge page is off the LRU and may be freed.

    A device that writes it holds it still: then False, and it is freed when that is done.
    """
    pfn = i64(slots[slot])
    head = folio_head(page, pfn)
    split_pmd(page, S, head)
    word = i64(page[4 * head + WORD])
    first = i64(page[4 * head + RMAP])
    slots[slot] = SLOT_EMPTY
    if word & PG_MAPPED:
        S[S_NODE_STAT + NS_ANON_MAPPED] -= 1
    if pages_left(slots, first, head, 1 << (word & ORDER_MASK)):
        return False
    # All were counted off one by one; what is left to count is the swap cache's.
    if word & PG_MAPPED:
        S[S_NODE_STAT + NS_ANON_MAPPED] += 1 << (word & ORDER_MASK)
    return take_folio(page, pb, S, slots, head)


@njit
def zap_slots(
    page: Any, pb: Any, S: Any, slots: Any, cpu: int, at: Any, start: int, partial: Any
) -> tuple[int, int, int]:
    """Unmap the pages of slots, one after another, each freed before the next (``zap_page_range_single()`` of each).

    A swapped page gives its slot on the device back. Of a huge page one page is unmapped, and its head is noted in
    ``partial``; it is freed with its last page.

    Returns
    -------
    (int, int, int)
        A ``BATCH_*`` code, the index to go on from, and how many heads were noted.
    """
    noted = 0
    i = start
    while i < at.shape[0]:
        if S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
            return BATCH_TRACE_FULL, i, noted
        slot = i64(at[i])
        was = i64(slots[slot])
        i += 1
        if i + AHEAD < at.shape[0]:
            ahead = i64(slots[i64(at[i + AHEAD])])
            if ahead < SLOT_SHADOW:
                prefetch_page(page, ahead)
        if was >= SLOT_SHADOW:
            S[S_NODE_STAT + NS_FREE_SWAP] += 0 if was == SLOT_EMPTY else 1
            slots[slot] = SLOT_EMPTY
            continue
        head = folio_head(page, was)
        word = i64(page[4 * head + WORD])
        order = word & ORDER_MASK
        gone = unmap_part(page, pb, S, slots, slot) if order else take_folio(page, pb, S, slots, head)
        if gone:
            if not free_pages_core(page, pb, S, cpu, head, order):
                return BATCH_BAD_PAGE, i, noted
        elif order and not word & PG_SWAPCACHE and page[4 * head + RMAP] != 0:
            partial[noted] = head
            noted += 1
    return BATCH_DONE, i, noted


@njit
def release_pages(page: Any, pb: Any, S: Any, slots: Any, cpu: int, entries: Any) -> None:
    """Free one batch of a gather (``free_pages_and_swap_cache()``): huge pages as they come, single ones newest first.

    An entry is a slot, or -1 less the pfn of a page table. What reclaim has taken meanwhile gives its swap slot back.
    """
    top = i64(NO_PAGE)
    for i in range(entries.shape[0]):
        entry = i64(entries[i])
        if entry < 0:
            pfn = -1 - entry
            page[4 * pfn + NEXT] = top
            top = pfn
            continue
        was = i64(slots[entry])
        if was >= SLOT_SHADOW:
            S[S_NODE_STAT + NS_FREE_SWAP] += 0 if was == SLOT_EMPTY else 1
            slots[entry] = SLOT_EMPTY
            continue
        head = folio_head(page, was)
        word = i64(page[4 * head + WORD])
        if word & PG_PTE_MAPPED:
            if unmap_part(page, pb, S, slots, entry):
                free_pages_core(page, pb, S, cpu, head, word & ORDER_MASK)
        elif take_folio(page, pb, S, slots, head):
            if word & ORDER_MASK:
                free_pages_core(page, pb, S, cpu, head, word & ORDER_MASK)
            else:
                page[4 * head + NEXT] = top
                top = head
    free_stack(page, pb, S, cpu, top)
