"""The per-CPU page lists in front of the buddy lists (``struct per_cpu_pages``, mm/page_alloc.c of 6.1.192)."""

from __future__ import annotations

from typing import Any

from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.buddy import FPI_NONE, free_one_page, rmqueue_inline
from mmfw.jit.page import (
    C_BATCH,
    C_COUNT,
    C_FREE_FACTOR,
    C_HIGH,
    ENTRY_MASK,
    HIGHATOMIC,
    ISOLATE,
    MOVABLE,
    NR_PCPLISTS,
    PB_ORDER,
    PCP_BATCH_SCALE_MAX,
    PCPMT_MASK,
    PCPMT_SHIFT,
    T_ALLOC,
    T_NONE,
    T_PCP,
    TR_PCPU_DRAIN,
    WORD,
    Z_FLAGS,
    Z_NR_ISOLATE,
    ZF_RECLAIM_ACTIVE,
    first_entry,
    last_entry,
    list_add,
    list_add_tail,
    list_del,
    mod_zone_free,
    pageblock_mt,
    pcp_head,
    pcp_offset,
    trace,
    zone_offset,
)


@inline_njit
def order_to_pindex(order: int, mt: int) -> int:
    """List that holds an order and type (``order_to_pindex()``)."""
    if order == PB_ORDER:
        return 12 + (1 if mt == MOVABLE else 0)
    return 3 * order + mt


@inline_njit
def pindex_to_order(pindex: int) -> int:
    """Order that a list holds (``pindex_to_order()``)."""
    return PB_ORDER if pindex >= 12 else pindex // 3


@njit
def rmqueue_bulk(
    page: Any, pb: Any, S: Any, cpu: int, row: int, order: int, count: int, mt: int, flags: int, head: int
) -> int:
    """Refill a list from the buddy lists under one hold of the zone's lock (``rmqueue_bulk()``).

    Returns
    -------
    int
        Blocks added.
    """
    head &= ENTRY_MASK
    got = 0
    while got < count:
        pfn = rmqueue_inline(page, pb, S, row, order, mt, flags)
        if pfn < 0:
            break
        page[4 * pfn + WORD] = T_PCP | (mt << PCPMT_SHIFT) | order
        list_add_tail(page, head, pfn)
        got += 1
    mod_zone_free(S, zone_offset(row), pcp_offset(S, cpu, row), -(got << order))
    return got


@inline_njit
def rmqueue_pcplist(
    page: Any, pb: Any, S: Any, cpu: int, row: int, c: int, order: int, mt: int, flags: int
) -> int:
    """Take a block from the CPU's list, refilling an empty one, or -1 (``rmqueue_pcplist()``)."""
    S[c + C_FREE_FACTOR] >>= 1
    head = pcp_head(S, cpu, row, order_to_pindex(order, mt))
    pfn = first_entry(page, head)
    if pfn == head:
        batch = S[c + C_BATCH]
        if batch > 1:
            batch = max(batch >> order, 2)
        got = rmqueue_bulk(page, pb, S, cpu, row, order, batch, mt, flags, head)
        S[c + C_COUNT] += got << order
        pfn = first_entry(page, head)
    if pfn == head:
        pfn = -1
    else:
        list_del(page, pfn)
        S[c + C_COUNT] -= 1 << order
        page[4 * pfn + WORD] = T_ALLOC | (mt << PCPMT_SHIFT) | order
    return pfn


@njit
def free_pcppages_bulk(page: Any, pb: Any, S: Any, cpu: int, row: int, count: int, pindex: int) -> None:
    """Give pages of the CPU's lists back to the buddy lists, oldest first (``free_pcppages_bulk()``).

    The list it starts with is emptied before the next, and the count may be overrun by a
    high-order entry.
    """
    c = pcp_offset(S, cpu, row)
    count = min(count, S[c + C_COUNT])
    isolated = S[zone_offset(row) + Z_NR_ISOLATE] != 0
    low = 0
    high = NR_PCPLISTS - 1
    pindex -= 1
    while count > 0:
        head = 0
        while True:
            pindex += 1
            if pindex > high:
                pindex = low
            head = pcp_head(S, cpu, row, pindex)
            if first_entry(page, head) != head:
                break
            if pindex == high:
                high -= 1
            if pindex == low:
                low += 1
        order = pindex_to_order(pindex)
        while True:
            pfn = last_entry(page, head)
            word = i64(page[4 * pfn + WORD])
            mt = (word & PCPMT_MASK) >> PCPMT_SHIFT
            list_del(page, pfn)
            page[4 * pfn + WORD] = T_NONE
            count -= 1 << order
            S[c + C_COUNT] -= 1 << order
            if isolated:
                mt = pageblock_mt(pb, pfn)
            free_one_page(page, pb, S, cpu, row, pfn, order, mt, FPI_NONE)
            trace(S, TR_PCPU_DRAIN, pfn, order, mt, 0, 0)
            if count <= 0 or first_entry(page, head) == head:
                break


@inline_njit
def nr_pcp_free(S: Any, c: int, high: int, free_high: bool) -> int:
    """Pages to give back when a list is too long; grows with each call in a row (``nr_pcp_free()``)."""
    batch = S[c + C_BATCH]
    if free_high:
        count = S[c + C_COUNT]
    elif high < batch:
        count = 1
    else:
        max_free = high - batch
        count = batch << S[c + C_FREE_FACTOR]
        if count < max_free and S[c + C_FREE_FACTOR] < PCP_BATCH_SCALE_MAX:
            S[c + C_FREE_FACTOR] += 1
        # clamp() of C: with max_free below batch the lower bound loses
        count = min(max(count, batch), max_free)
    return count


@inline_njit
def free_unref_page(page: Any, pb: Any, S: Any, cpu: int, row: int, pfn: int, order: int) -> None:
    """Put a block on the CPU's lists, trimming them when they are too long (``free_unref_page()``)."""
    z = zone_offset(row)
    c = pcp_offset(S, cpu, row)
    mt = pageblock_mt(pb, pfn)
    if mt == ISOLATE:
        free_one_page(page, pb, S, cpu, row, pfn, order, mt, FPI_NONE)
    else:
        list_mt = MOVABLE if mt >= HIGHATOMIC else mt
        pindex = order_to_pindex(order, list_mt)
        page[4 * pfn + WORD] = T_PCP | (mt << PCPMT_SHIFT) | order
        list_add(page, pcp_head(S, cpu, row, pindex), pfn)
        S[c + C_COUNT] += 1 << order
        free_high = S[c + C_FREE_FACTOR] > 0 and 1 <= order <= 3
        high = S[c + C_HIGH]
        if high == 0 or free_high:
            high = 0
        elif S[z + Z_FLAGS] & ZF_RECLAIM_ACTIVE:
            high = min(S[c + C_BATCH] << 2, high)
        if S[c + C_COUNT] >= high:
            count = nr_pcp_free(S, c, high, free_high)
            free_pcppages_bulk(page, pb, S, cpu, row, count, pindex)


@njit
def drain_pages_zone(page: Any, pb: Any, S: Any, cpu: int, row: int) -> None:
    """Empty a CPU's lists for a zone, in steps of batch << 5 (``drain_pages_zone()``)."""
    c = pcp_offset(S, cpu, row)
    count = S[c + C_COUNT]
    while count > 0:
        step = min(count, S[c + C_BATCH] << PCP_BATCH_SCALE_MAX)
        free_pcppages_bulk(page, pb, S, cpu, row, step, i64(0))
        count = S[c + C_COUNT]
