"""Watermarks, `get_page_from_freelist`, `__free_pages`, and their batches: what Python calls.

A batch runs allocations that the fast path can answer. It stops and says where when one needs the
slow path, or when `rmqueue` owes kswapd a wake-up, since both are decisions and decisions are Python's.
"""

from __future__ import annotations

from typing import Any

from mmfw.jit import i64, inline_njit, merge_njit, njit
from mmfw.jit.buddy import (
    FPI_NONE,
    free_one_page,
    pcp_allowed_order,
    reserve_highatomic_pageblock,
    rmqueue_locked,
)
from mmfw.jit.page import (
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_RESERVES,
    ALLOC_WMARK_MASK,
    ALLOC_WMARK_MIN,
    GFP_ATOMIC_BIT,
    GFP_COMP_BIT,
    HIGHATOMIC,
    INDEX_MASK,
    NR_ORDERS,
    ORDER_MASK,
    PG_COMPOUND,
    ROW_MASK,
    S_BOOST_WAKE,
    S_NR_PFNS,
    S_NR_ROWS,
    S_PGALLOC,
    S_PGFREE,
    S_TRACE_CAP,
    S_TRACE_N,
    T_ALLOC,
    T_NONE,
    TR_PAGE_ALLOC,
    TR_PAGE_FREE,
    TYPE_MASK,
    WORD,
    Z_BOOST,
    Z_END,
    Z_FLAGS,
    Z_FREE,
    Z_INDEX,
    Z_MANAGED,
    Z_NR_FREE,
    Z_NR_HIGHATOMIC,
    Z_RESERVE,
    Z_START,
    Z_WMARK,
    ZF_BOOSTED_WATERMARK,
    first_entry,
    free_head,
    mod_zone_free,
    pageblock_mt,
    pcp_offset,
    trace,
    zone_offset,
)
from mmfw.jit.pcp import drain_pages_zone, free_unref_page, rmqueue_pcplist

#: `alloc_batch` ended because all requests were answered.
BATCH_DONE = 0
#: ... because the next request needs the slow path.
BATCH_SLOWPATH = 1
#: ... because kswapd must be woken for a boosted watermark (the last request was answered).
BATCH_BOOST_WAKE = 2
#: ... because a page to free is not an allocated block of that order.
BATCH_BAD_PAGE = 3
#: ... because the trace buffer should be emptied first.
BATCH_TRACE_FULL = 4


@njit
def zone_watermark_ok_free(
    page: Any, S: Any, row: int, order: int, mark: int, hzi: int, flags: int, free: int
) -> bool:
    """Whether a zone with this many free pages can serve a request (``__zone_watermark_ok()``)."""
    z = zone_offset(row)
    free -= (1 << order) - 1
    if not flags & ALLOC_RESERVES:
        free -= S[z + Z_NR_HIGHATOMIC]
    low = mark
    if flags & ALLOC_RESERVES:
        if flags & ALLOC_MIN_RESERVE:
            low -= low // 2
            if flags & ALLOC_NON_BLOCK:
                low -= low // 4
        if flags & ALLOC_OOM:
            low -= low // 2
    if free <= low + S[z + Z_RESERVE + hzi]:
        return False
    if order == 0:
        return True
    for o in range(order, NR_ORDERS):
        if S[z + Z_NR_FREE + o] == 0:
            continue
        for mt in range(HIGHATOMIC):
            head = free_head(S, row, o, mt)
            if first_entry(page, head) != head:
                return True
        if flags & (ALLOC_HIGHATOMIC | ALLOC_OOM):
            head = free_head(S, row, o, HIGHATOMIC)
            if first_entry(page, head) != head:
                return True
    return False


@inline_njit
def zone_watermark_fast(
    page: Any, S: Any, row: int, z: int, order: int, mark: int, hzi: int, flags: int, gfp: int
) -> bool:
    """The watermark check of the allocator, short for order 0 (``zone_watermark_fast()``)."""
    free = S[z + Z_FREE]
    if order == 0 and not flags & ALLOC_RESERVES:
        # What the kernel's short check denies here, its long one denies as well.
        ok = free - min(free, S[z + Z_NR_HIGHATOMIC]) > mark + S[z + Z_RESERVE + hzi]
    else:
        ok = zone_watermark_ok_free(page, S, row, order, mark, hzi, flags, free)
    if not ok and order == 0 and gfp & GFP_ATOMIC_BIT and S[z + Z_BOOST] != 0:
        if (flags & ALLOC_WMARK_MASK) == ALLOC_WMARK_MIN:
            ok = zone_watermark_ok_free(page, S, row, order, S[z + Z_WMARK], hzi, flags, free)
    return ok


@inline_njit
def rmqueue_buddy(page: Any, pb: Any, S: Any, cpu: int, row: int, order: int, mt: int, flags: int) -> int:
    """Take a block straight from the buddy lists, or -1 (``rmqueue_buddy()``)."""
    pfn = i64(-1)
    reserve = i64(HIGHATOMIC)  # a type without fallback, so that the search ends with its own lists
    if flags & ALLOC_HIGHATOMIC:
        pfn = rmqueue_locked(page, pb, S, row, order, reserve, flags)
    if pfn < 0:
        pfn = rmqueue_locked(page, pb, S, row, order, mt, flags)
    if pfn < 0 and flags & (ALLOC_OOM | ALLOC_NON_BLOCK):
        pfn = rmqueue_locked(page, pb, S, row, order, reserve, flags)
    if pfn >= 0:
        mod_zone_free(S, zone_offset(row), pcp_offset(S, cpu, row), -(1 << order))
    return pfn


@inline_njit
def rmqueue(page: Any, pb: Any, S: Any, cpu: int, row: int, z: int, order: int, mt: int, flags: int) -> int:
    """Take a block from a zone, the CPU's lists first, or -1 (``rmqueue()``).

    A wake-up of kswapd that a boosted watermark calls for is left in ``S[S_BOOST_WAKE]``.
    """
    pfn = i64(-1)
    if pcp_allowed_order(order):
        pfn = rmqueue_pcplist(page, pb, S, cpu, row, pcp_offset(S, cpu, row), order, mt, flags)
    if pfn < 0:
        pfn = rmqueue_buddy(page, pb, S, cpu, row, order, mt, flags)
    if S[z + Z_FLAGS] & ZF_BOOSTED_WATERMARK:
        S[z + Z_FLAGS] &= ~ZF_BOOSTED_WATERMARK
        S[S_BOOST_WAKE] = row + 1
    return pfn


@merge_njit
def get_page_from_freelist(
    page: Any, pb: Any, S: Any, cpu: int, node_row: int, gfp: int, order: int, mt: int, hzi: int, flags: int
) -> int:
    """First zone of the node's zonelist that can serve a request, and its page, or -1.

    ``get_page_from_freelist()`` for one node: ``node_row`` is the row of the node's first zone.
    Cpusets, dirty-page spreading and node reclaim are not modelled.
    """
    hzi &= INDEX_MASK
    while True:
        zone = hzi
        while zone >= 0:
            row = (node_row + zone) & ROW_MASK
            z = zone_offset(row)
            zone -= 1
            if S[z + Z_MANAGED] == 0:
                continue
            if not flags & ALLOC_NO_WATERMARKS:
                mark = S[z + Z_WMARK + (flags & ALLOC_WMARK_MASK)] + S[z + Z_BOOST]
                if not zone_watermark_fast(page, S, row, z, order, mark, hzi, flags, gfp):
                    continue
            pfn = rmqueue(page, pb, S, cpu, row, z, order, mt, flags)
            if pfn >= 0:
                if flags & ALLOC_HIGHATOMIC:
                    reserve_highatomic_pageblock(page, pb, S, row, pfn)
                if order != 0 and gfp & GFP_COMP_BIT:
                    page[4 * pfn + WORD] |= PG_COMPOUND
                S[S_PGALLOC + (S[z + Z_INDEX] & INDEX_MASK)] += 1 << order
                return pfn
        if not flags & ALLOC_NOFRAGMENT:
            return -1
        flags &= ~ALLOC_NOFRAGMENT


@njit
def alloc_batch(
    page: Any,
    pb: Any,
    S: Any,
    cpu: int,
    node_row: int,
    gfp: int,
    order: int,
    mt: int,
    hzi: int,
    flags: int,
    out: Any,
    start: int,
) -> tuple[int, int]:
    """Answer like requests from the fast path into ``out[start:]`` (int64 pfns).

    Returns
    -------
    (int, int)
        A ``BATCH_*`` code and the index of the first request not answered.
    """
    status = BATCH_DONE
    i = start
    while i < out.shape[0]:
        if S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
            status = BATCH_TRACE_FULL
            break
        pfn = get_page_from_freelist(page, pb, S, cpu, node_row, gfp, order, mt, hzi, flags)
        if pfn >= 0:
            trace(S, TR_PAGE_ALLOC, pfn, order, mt, gfp, 0)
            out[i] = pfn
            i += 1
        if S[S_BOOST_WAKE] != 0:
            status = BATCH_BOOST_WAKE
            break
        if pfn < 0:
            status = BATCH_SLOWPATH
            break
    return status, i


@inline_njit
def row_of(S: Any, pfn: int) -> int:
    """Zone row of a pfn, or -1."""
    found = -1
    for r in range(S[S_NR_ROWS]):
        z = zone_offset(r)
        if S[z + Z_START] <= pfn < S[z + Z_END]:
            found = r
            break
    return found


@merge_njit
def free_pages_core(page: Any, pb: Any, S: Any, cpu: int, pfn: int, order: int) -> bool:
    """Free an allocated block (``__free_pages()``); False if it is not one."""
    ok = False
    if 0 <= pfn < S[S_NR_PFNS]:
        ok = (page[4 * pfn + WORD] & (TYPE_MASK | ORDER_MASK)) == (T_ALLOC | order)
    if ok:
        row = row_of(S, pfn)
        trace(S, TR_PAGE_FREE, pfn, order, 0, 0, 0)
        S[S_PGFREE] += 1 << order
        page[4 * pfn + WORD] = T_NONE
        if pcp_allowed_order(order):
            free_unref_page(page, pb, S, cpu, row, pfn, order)
        else:
            free_one_page(page, pb, S, cpu, row, pfn, order, pageblock_mt(pb, pfn), FPI_NONE)
    return ok


@njit
def free_batch(page: Any, pb: Any, S: Any, cpu: int, pfns: Any, order: int, start: int) -> tuple[int, int]:
    """Free blocks of one order in the order given, one by one as a loop of ``__free_pages()`` does.

    Returns
    -------
    (int, int)
        A ``BATCH_*`` code and the index of the first block not freed.
    """
    status = BATCH_DONE
    i = start
    while i < pfns.shape[0]:
        if S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
            status = BATCH_TRACE_FULL
            break
        if not free_pages_core(page, pb, S, cpu, i64(pfns[i]), order):
            status = BATCH_BAD_PAGE
            break
        i += 1
    return status, i


@njit
def drain_pages(page: Any, pb: Any, S: Any, cpu: int) -> None:
    """Empty a CPU's lists of all zones (``drain_pages()``)."""
    for row in range(S[S_NR_ROWS]):
        if S[zone_offset(row) + Z_MANAGED] != 0:
            drain_pages_zone(page, pb, S, cpu, row)


@njit
def split_page(page: Any, pfn: int, order: int) -> bool:
    """Make an allocated block 1 << order allocated pages (``split_page()``); False if it is not one."""
    if (page[4 * pfn + WORD] & (TYPE_MASK | ORDER_MASK)) != (T_ALLOC | order):
        return False
    word = i64(page[4 * pfn + WORD]) & ~(ORDER_MASK | PG_COMPOUND)
    for i in range(1 << order):
        page[4 * (pfn + i) + WORD] = word
    return True


@njit
def claim_pages(page: Any, S: Any, pfns: Any) -> int:
    """Mark pages that the initial state holds allocated as order-0 blocks that somebody may free.

    Returns
    -------
    int
        Index of the first page that is not an unowned allocated page, or -1 if all were claimed.
    """
    for i in range(pfns.shape[0]):
        pfn = i64(pfns[i])
        if row_of(S, pfn) < 0 or (page[4 * pfn + WORD] & TYPE_MASK) != T_NONE:
            return i
        page[4 * pfn + WORD] = T_ALLOC
    return -1
