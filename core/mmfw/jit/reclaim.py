"""Reclaim of the LRU lists, a batch at a time (mm/vmscan.c of 6.1).

A batch is isolated, judged and put back in one call, so nobody meets an isolated page. What must be written is
marked `PG_WRITEBACK` and handed back in ``written``, for the device to be told.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import events as ev
from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.alloc import free_pages_core, row_of
from mmfw.jit.lru import (
    TO_HEAD,
    account_folio,
    lru_add,
    lru_del,
    lru_note_cost,
    pack_shadow,
)
from mmfw.jit.page import (
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_FILE,
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
    S_NONRESIDENT_AGE,
    SLOT_EMPTY,
    WORD,
    Z_INDEX,
    last_entry,
    list_add,
    list_del,
    owner_head,
    zone_offset,
)
from mmfw.jit.pagecache import count_shadow_node

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


@njit
def isolate_lru_folios(
    page: Any, pb: Any, S: Any, lru: int, nr_to_scan: int, reclaim_idx: int, bits: int, batch: Any, out: Any
) -> int:
    """Take folios off the tail of a list into ``batch`` (``isolate_lru_folios()``).

    Those of zones above ``reclaim_idx`` are put aside and go to the list's head; only the rest counts against
    ``nr_to_scan``.

    Returns
    -------
    int
        Folios taken.
    """
    head = owner_head(S, lru)
    taken = 0
    scan = 0
    total = 0
    skipped = 0
    first_skipped = i64(-1)
    while scan < nr_to_scan and taken < batch.shape[0]:
        pfn = last_entry(page, head)
        if pfn in (head, first_skipped):
            break
        word = i64(page[4 * pfn + WORD])
        n = 1 << (word & ORDER_MASK)
        total += n
        zone = S[zone_offset(row_of(S, pfn)) + Z_INDEX]
        if zone > reclaim_idx:
            skipped += n
            S[S_EVENT + ev.PGSKIP + zone] += n
            if first_skipped < 0:
                first_skipped = pfn
            list_del(page, pfn)
            list_add(page, head, pfn)
            continue
        scan += n
        if word & PG_MAPPED and not bits & MAY_UNMAP:
            list_del(page, pfn)
            list_add(page, head, pfn)
            continue
        lru_del(page, pb, S, pfn)
        batch[taken] = pfn
        taken += 1
        out[R_TAKEN] += n
    out[R_SCANNED] += total
    out[R_SKIPPED] += skipped
    return taken


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
    """Take a folio out of its slots, leaving shadows (``__remove_mapping()``)."""
    word = i64(page[4 * pfn + WORD])
    n = 1 << (word & ORDER_MASK)
    slot = i64(page[4 * pfn + RMAP])
    lazyfree = word & PG_LAZYFREE != 0
    shadow = i64(SLOT_EMPTY) if lazyfree else pack_shadow(S, word, n)
    if lazyfree:
        S[S_EVENT + ev.PGLAZYFREED] += n
    for k in range(n):
        slots[slot + k] = shadow
    if not word & PG_SWAPBACKED:
        count_shadow_node(S, slots, slot, n, i64(1))
    account_folio(S, word, i64(-1))
    if word & PG_SWAPCACHE:
        # The pages leave memory, not the device: their swap slots stay taken.
        S[S_NODE_STAT + NS_FREE_SWAP] -= n
    page[4 * pfn + RMAP] = 0


@njit
def shrink_folio_list(
    page: Any, pb: Any, S: Any, slots: Any, cpu: int, bits: int, batch: Any, nr: int, out: Any, written: Any
) -> None:
    """Decide over isolated folios, oldest first, and free or put back each (``shrink_folio_list()``).

    ``written`` receives the folios that a device must write now; they are on the LRU again. A large folio is freed at
    once. Single pages are freed last, newest first, as the kernel's list of them is a stack. The kernel prepares all of
    them before it frees the first (``free_unref_page_list()``): its events mm_page_free come before the first drain.
    Its event mm_page_free_batched is not modelled.
    """
    freed = 0
    aged = i64(0)
    for i in range(nr):
        pfn = i64(batch[i])
        word = i64(page[4 * pfn + WORD])
        n = 1 << (word & ORDER_MASK)
        file = not word & PG_SWAPBACKED
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
                    elif S[S_NODE_STAT + NS_FREE_SWAP] < n:
                        activate = True
                        keep = True
                    else:
                        S[S_NODE_STAT + NS_FREE_SWAP] -= n
                        S[S_NODE_STAT + NS_SWAPCACHE] += n
                        if not word & PG_MAPPED:
                            S[S_NODE_STAT + NS_SHMEM] -= n
                        word |= PG_SWAPCACHE | PG_DIRTY
                if not keep and word & PG_MAPPED:
                    S[S_NODE_STAT + (NS_FILE_MAPPED if file else NS_ANON_MAPPED)] -= n
                    if not file:
                        # In the swap cache, which counts among the file pages.
                        S[S_NODE_STAT + NS_FILE_PAGES] += n
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
                free_pages_core(page, pb, S, cpu, pfn, word & ORDER_MASK)
            else:
                batch[freed] = pfn
                freed += 1
        else:
            if activate:
                page[4 * pfn + WORD] |= PG_ACTIVE
                aged += n
                out[R_ACTIVATE_FILE if file else R_ACTIVATE_ANON] += n
                S[S_EVENT + ev.PGACTIVATE] += n
            lru_add(page, pb, S, pfn, TO_HEAD)
    while freed > 0:
        freed -= 1
        free_pages_core(page, pb, S, cpu, i64(batch[freed]), i64(0))
    # Each that goes back active ages the evicted ones, those of this batch included (``move_folios_to_lru()``).
    S[S_NONRESIDENT_AGE] += aged


@njit
def shrink_inactive_list(
    page: Any,
    pb: Any,
    S: Any,
    slots: Any,
    cpu: int,
    lru: int,
    nr_to_scan: int,
    reclaim_idx: int,
    bits: int,
    batch: Any,
    out: Any,
    written: Any,
) -> None:
    """One batch of an inactive list (``shrink_inactive_list()``); ``out`` is overwritten."""
    for i in range(R_SIZE):
        out[i] = 0
    file = lru == LRU_INACTIVE_FILE
    nr = isolate_lru_folios(page, pb, S, lru, nr_to_scan, reclaim_idx, bits, batch, out)
    S[S_EVENT + (ev.PGSCAN_KSWAPD if bits & IS_KSWAPD else ev.PGSCAN_DIRECT)] += out[R_SCANNED]
    S[S_EVENT + (ev.PGSCAN_FILE if file else ev.PGSCAN_ANON)] += out[R_SCANNED]
    if nr == 0:
        return
    shrink_folio_list(page, pb, S, slots, cpu, bits, batch, nr, out, written)
    S[S_EVENT + (ev.PGSTEAL_KSWAPD if bits & IS_KSWAPD else ev.PGSTEAL_DIRECT)] += out[R_RECLAIMED]
    S[S_EVENT + (ev.PGSTEAL_FILE if file else ev.PGSTEAL_ANON)] += out[R_RECLAIMED]
    lru_note_cost(S, file, out[R_PAGEOUT])


@njit
def shrink_active_list(
    page: Any, pb: Any, S: Any, lru: int, nr_to_scan: int, reclaim_idx: int, bits: int, batch: Any, out: Any
) -> None:
    """One batch of an active list (``shrink_active_list()``).

    ``out[R_ACTIVATE_FILE]`` counts pages that stay, `R_REF_KEEP` those that were referenced, `R_RECLAIMED` those
    that were deactivated.
    """
    for i in range(R_SIZE):
        out[i] = 0
    nr = isolate_lru_folios(page, pb, S, lru, nr_to_scan, reclaim_idx, bits | MAY_UNMAP, batch, out)
    S[S_EVENT + ev.PGREFILL] += out[R_SCANNED]
    file = lru > LRU_ACTIVE_ANON
    for again in range(2):
        # Those that stay active are put back first, as the kernel does with its two lists.
        for i in range(nr):
            pfn = i64(batch[i])
            if pfn < 0:
                continue
            word = i64(page[4 * pfn + WORD])
            n = 1 << (word & ORDER_MASK)
            young = word & (PG_MAPPED | PTE_YOUNG) == PG_MAPPED | PTE_YOUNG
            stays = word & PG_UNEVICTABLE != 0 or (young and file and word & PTE_EXEC != 0)
            if again == 0 and stays:
                page[4 * pfn + WORD] = word & ~PTE_YOUNG
                out[R_ACTIVATE_FILE] += n
                out[R_REF_KEEP] += n
                S[S_NONRESIDENT_AGE] += 0 if word & PG_UNEVICTABLE else n
                lru_add(page, pb, S, pfn, TO_HEAD)
                batch[i] = -1 - pfn
            elif again == 1:
                page[4 * pfn + WORD] = (word & ~(PTE_YOUNG | PG_ACTIVE)) | PG_WORKINGSET
                out[R_RECLAIMED] += n
                lru_add(page, pb, S, pfn, TO_HEAD)
    S[S_EVENT + ev.PGDEACTIVATE] += out[R_RECLAIMED]
