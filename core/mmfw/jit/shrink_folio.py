"""What reclaim decides over isolated folios (``shrink_folio_list()``, mm/vmscan.c of 6.1)."""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import events as ev
from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.alloc import free_pages_core
from mmfw.jit.anon import forget_ownerless, pages_left, split_folio, split_pmd
from mmfw.jit.lru import TO_HEAD, account_folio, lru_add, pack_shadow
from mmfw.jit.page import (
    NEXT,
    NS_ANON_MAPPED,
    NS_FILE_DIRTY,
    NS_FILE_MAPPED,
    NS_FILE_PAGES,
    NS_FREE_SWAP,
    NS_SHMEM,
    NS_SWAPCACHE,
    NS_WRITEBACK,
    ORDER_MASK,
    PG_ACTIVE,
    PG_DIRTY,
    PG_LAZYFREE,
    PG_LOCKED,
    PG_MAPPED,
    PG_MLOCKED,
    PG_PINNED,
    PG_PTE_MAPPED,
    PG_RECLAIM,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UNEVICTABLE,
    PG_WRITEBACK,
    PTE_EXEC,
    PTE_YOUNG,
    RMAP,
    S_EVENT,
    S_NODE_STAT,
    S_NONRESIDENT_AGE,
    SLOT_EMPTY,
    WORD,
)
from mmfw.jit.pagecache import NO_PAGE, count_shadow_node, free_stack

# What a pass may do, as bits.
MAY_UNMAP: Final = 1
MAY_WRITEPAGE: Final = 2
MAY_SWAP: Final = 4
MAY_IO: Final = 8  #: __GFP_IO
MAY_FS: Final = 16  #: __GFP_FS
IS_KSWAPD: Final = 32
PGDAT_WRITEBACK: Final = 64
PGDAT_DIRTY: Final = 128

# What came of a batch: indices of ``out`` (int64).
R_SCANNED: Final = 0  #: pages looked at by the isolation, skipped zones included
R_SKIPPED: Final = 1
R_TAKEN: Final = 2
R_RECLAIMED: Final = 3
R_DIRTY: Final = 4
R_UNQUEUED_DIRTY: Final = 5
R_CONGESTED: Final = 6
R_WRITEBACK: Final = 7
R_IMMEDIATE: Final = 8
R_PAGEOUT: Final = 9
R_ACTIVATE_ANON: Final = 10
R_ACTIVATE_FILE: Final = 11
R_REF_KEEP: Final = 12
R_UNMAP_FAIL: Final = 13
R_NR_SCANNED: Final = 14  #: what sc->nr_scanned grows by
R_NR_WRITTEN: Final = 15  #: folios in ``written``
R_SIZE: Final = 16

# References (enum folio_references).
RECLAIM: Final = 0
RECLAIM_CLEAN: Final = 1
KEEP: Final = 2
ACTIVATE: Final = 3


@inline_njit
def folio_check_references(page: Any, pfn: int, word: int) -> int:
    """What the accessed bit and PG_referenced say of a folio (``folio_check_references()``); clears both."""
    young = word & (PG_MAPPED | PTE_YOUNG) == PG_MAPPED | PTE_YOUNG
    referenced = word & PG_REFERENCED != 0
    now = word & ~(PTE_YOUNG | PG_REFERENCED)
    if word & PG_MLOCKED:
        answer = ACTIVATE
    elif young:
        now |= PG_REFERENCED
        if referenced or (word & PTE_EXEC and not word & PG_SWAPBACKED):
            answer = ACTIVATE
        else:
            answer = KEEP
    elif referenced and not word & PG_SWAPBACKED:
        answer = RECLAIM_CLEAN
    else:
        answer = RECLAIM
    page[4 * pfn + WORD] = now
    return answer


@njit
def evict(page: Any, S: Any, slots: Any, pfn: int) -> None:
    """Take a folio out of its slots, leaving shadows (``__remove_mapping()``).

    Of a huge page in the swap cache, part of which was unmapped since, the slots of that part are left alone.
    """
    word = i64(page[4 * pfn + WORD])
    n = 1 << (word & ORDER_MASK)
    slot = i64(page[4 * pfn + RMAP])
    lazyfree = word & PG_LAZYFREE != 0
    shadow = i64(SLOT_EMPTY) if lazyfree else pack_shadow(S, word, n)
    if lazyfree:
        S[S_EVENT + ev.PGLAZYFREED] += n
    left = pages_left(slots, slot, pfn, n)
    for k in range(n):
        if slots[slot + k] == pfn + k:
            slots[slot + k] = shadow
    if not word & PG_SWAPBACKED:
        count_shadow_node(S, slots, slot, n, i64(1))
    account_folio(S, word, i64(-1))
    if word & PG_SWAPCACHE:
        # The pages leave memory, not the device: their swap slots stay taken.
        S[S_NODE_STAT + NS_FREE_SWAP] -= left
    page[4 * pfn + RMAP] = 0


@inline_njit
def add_to_swap(S: Any, word: int, n: int) -> int:
    """Enter a folio into the swap cache (``add_to_swap()``): its flags then, or the same if there is no room for it."""
    if S[S_NODE_STAT + NS_FREE_SWAP] >= n:
        S[S_NODE_STAT + NS_FREE_SWAP] -= n
        S[S_NODE_STAT + NS_SWAPCACHE] += n
        # What is mapped begins to count among the file pages, shmem ceases to count as shmem.
        S[S_NODE_STAT + (NS_FILE_PAGES if word & PG_MAPPED else NS_SHMEM)] += n if word & PG_MAPPED else -n
        word |= PG_SWAPCACHE | PG_DIRTY
    return word


@njit
def shrink_folio_list(
    page: Any, pb: Any, S: Any, slots: Any, cpu: int, bits: int, batch: Any, nr: int, out: Any, written: Any
) -> None:
    """Decide over isolated folios, oldest first, and free or put back each.

    ``written`` receives the folios that a device must write now; they are on the LRU again. A huge page that is mapped
    page by page, or for which no swap can be had in one piece, is split, and its pages are judged after it. A large folio
    is freed at once. Single pages are freed last, newest first, as the kernel's list of them is a stack.

    Not modelled: a page that swap is too full for gives no slot back when it is activated (``mem_cgroup_swap_full()``).
    MADV_FREE: the flag is known here, but nothing sets it; a page so marked that is written to would have to become
    swap-backed again.
    """
    top = i64(NO_PAGE)
    aged = i64(0)
    i = 0
    tail = i64(0)
    tails_end = i64(0)
    while i < nr or tail < tails_end:
        if tail < tails_end:
            pfn = tail
            tail += 1
        else:
            pfn = i64(batch[i])
            i += 1
        word = i64(page[4 * pfn + WORD])
        n = 1 << (word & ORDER_MASK)
        file = not word & PG_SWAPBACKED
        if page[4 * pfn + RMAP] == 0 and forget_ownerless(page, pb, S, pfn):
            # A split left it without an owner; the kernel frees it when it would be put back.
            page[4 * pfn + NEXT] = top
            top = pfn
            continue
        if word & PG_LOCKED:
            lru_add(page, pb, S, pfn, TO_HEAD)
            continue
        out[R_NR_SCANNED] += n
        activate = False
        free = False
        skip = word & PG_UNEVICTABLE != 0 or (word & PG_MAPPED != 0 and not bits & MAY_UNMAP)
        if file and not skip:
            # Pages for swap are nobody's dirt but reclaim's own (``folio_check_dirty_writeback()``).
            out[R_DIRTY] += n if word & (PG_DIRTY | PG_WRITEBACK) else 0
            if word & PG_DIRTY and not word & PG_WRITEBACK:
                out[R_UNQUEUED_DIRTY] += n
            if word & PG_WRITEBACK and word & PG_RECLAIM:
                out[R_CONGESTED] += n
        if skip:
            S[S_EVENT + ev.UNEVICTABLE_PGS_CULLED] += n if word & PG_UNEVICTABLE else 0
        elif word & PG_WRITEBACK:
            activate = True
            if bits & IS_KSWAPD and word & PG_RECLAIM and bits & PGDAT_WRITEBACK:
                out[R_IMMEDIATE] += n
            else:
                page[4 * pfn + WORD] = word | PG_RECLAIM
                out[R_WRITEBACK] += n
        else:
            references = folio_check_references(page, pfn, word)
            if references == ACTIVATE:
                activate = True
            elif references == KEEP:
                out[R_REF_KEEP] += n
            else:
                keep = False
                word = i64(page[4 * pfn + WORD])
                if word & PG_SWAPBACKED and not word & (PG_SWAPCACHE | PG_LAZYFREE):
                    if not bits & MAY_IO or word & PG_PINNED:
                        keep = True
                    else:
                        whole = n
                        if word & PG_PTE_MAPPED:
                            split_folio(page, S, slots, pfn, i64(0))
                            n = 1
                        else:
                            word = add_to_swap(S, word, n)
                            if n > 1 and not word & PG_SWAPCACHE:
                                split_folio(page, S, slots, pfn, i64(0))
                                S[S_EVENT + ev.THP_SWPOUT_FALLBACK] += 1
                                n = 1
                        if n < whole:
                            # Its pages follow it, and are counted as they come.
                            out[R_NR_SCANNED] -= whole
                            tail = pfn + 1
                            tails_end = pfn + whole
                            if forget_ownerless(page, pb, S, pfn):
                                page[4 * pfn + NEXT] = top
                                top = pfn
                                continue
                            out[R_NR_SCANNED] += 1
                            word = add_to_swap(S, i64(page[4 * pfn + WORD]), n)
                        if not word & PG_SWAPCACHE:
                            activate = True
                            keep = True
                if not keep and word & PG_MAPPED:
                    if file:
                        S[S_NODE_STAT + NS_FILE_MAPPED] -= n
                    else:
                        page[4 * pfn + WORD] = word
                        split_pmd(page, S, pfn)
                        word = i64(page[4 * pfn + WORD]) | (0 if word & PG_LAZYFREE else PG_DIRTY)
                        S[S_NODE_STAT + NS_ANON_MAPPED] -= pages_left(
                            slots, i64(page[4 * pfn + RMAP]), pfn, n
                        )
                    word &= ~(PG_MAPPED | PTE_EXEC)
                page[4 * pfn + WORD] = word
                if keep:
                    pass
                elif word & PG_PINNED:
                    activate = True
                elif word & PG_DIRTY:
                    late = not bits & IS_KSWAPD or not word & PG_RECLAIM or not bits & PGDAT_DIRTY
                    may_enter_fs = bits & MAY_FS or (not file and bits & MAY_IO)
                    if file and late:
                        page[4 * pfn + WORD] = word | PG_RECLAIM
                        S[S_EVENT + ev.NR_VMSCAN_IMMEDIATE_RECLAIM] += n
                        activate = True
                    elif references == RECLAIM_CLEAN or not may_enter_fs or not bits & MAY_WRITEPAGE:
                        pass
                    else:
                        page[4 * pfn + WORD] = (word & ~PG_DIRTY) | PG_WRITEBACK | PG_RECLAIM
                        if file:
                            S[S_NODE_STAT + NS_FILE_DIRTY] -= n
                        S[S_NODE_STAT + NS_WRITEBACK] += n
                        S[S_EVENT + ev.NR_VMSCAN_WRITE] += n
                        out[R_PAGEOUT] += n
                        written[out[R_NR_WRITTEN]] = pfn
                        out[R_NR_WRITTEN] += 1
                else:
                    free = True
        if free:
            evict(page, S, slots, pfn)
            out[R_RECLAIMED] += n
            if n > 1:
                free_pages_core(page, pb, S, cpu, pfn, i64(page[4 * pfn + WORD]) & ORDER_MASK)
            else:
                page[4 * pfn + NEXT] = top
                top = pfn
        else:
            if activate:
                page[4 * pfn + WORD] |= PG_ACTIVE
                aged += n
                out[R_ACTIVATE_FILE if file else R_ACTIVATE_ANON] += n
                S[S_EVENT + ev.PGACTIVATE] += n
            lru_add(page, pb, S, pfn, TO_HEAD)
    free_stack(page, pb, S, cpu, top)
    # Each that goes back active ages the evicted ones, those of this batch included (``move_folios_to_lru()``).
    S[S_NONRESIDENT_AGE] += aged
