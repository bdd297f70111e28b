"""Reclaim of the LRU lists, a batch at a time (mm/vmscan.c of 6.1).

A batch is isolated, judged (`mmfw.jit.shrink_folio`) and put back in one call, so nobody meets an isolated page. What
must be written is marked `PG_WRITEBACK` and handed back in ``written``, for the device to be told.
"""

from __future__ import annotations

from typing import Any

from mmfw.jit import events as ev
from mmfw.jit import i64, njit
from mmfw.jit.alloc import row_of
from mmfw.jit.lru import TO_HEAD, lru_add, lru_del, lru_note_cost
from mmfw.jit.page import (
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_FILE,
    ORDER_MASK,
    PG_ACTIVE,
    PG_MAPPED,
    PG_UNEVICTABLE,
    PG_WORKINGSET,
    PTE_EXEC,
    PTE_YOUNG,
    S_EVENT,
    S_NONRESIDENT_AGE,
    WORD,
    Z_INDEX,
    last_entry,
    list_add,
    list_del,
    owner_head,
    zone_offset,
)
from mmfw.jit.shrink_folio import (
    IS_KSWAPD,
    MAY_UNMAP,
    R_ACTIVATE_FILE,
    R_PAGEOUT,
    R_RECLAIMED,
    R_REF_KEEP,
    R_SCANNED,
    R_SIZE,
    R_SKIPPED,
    R_TAKEN,
    shrink_folio_list,
)


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
