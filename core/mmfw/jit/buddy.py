"""The buddy lists of one zone: freeing and merging, expanding, fallback and stealing, highatomic blocks.

Each function stands for the function of the same name in mm/page_alloc.c of 6.1, less the leading
underscores. ``row`` is a zone's index and ``z`` its offset in S; ``c`` is the offset of the running
CPU's lists, which also hold the private delta of NR_FREE_PAGES. Functions that are not merged into their
callers take the index and compute offsets anew: that is cheaper than to pass them.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import i64, inline_njit, merge_njit, njit
from mmfw.jit.page import (
    ALLOC_KSWAPD,
    ALLOC_NOFRAGMENT,
    ENTRY_MASK,
    HIGHATOMIC,
    ISOLATE,
    MOVABLE,
    NR_ORDERS,
    ORDER_MASK,
    PB_LRU_SHIFT,
    PB_ORDER,
    PB_PAGES,
    PCPMT_SHIFT,
    RECLAIMABLE,
    S_BOOST_FACTOR,
    S_CAPC_ORDER,
    S_CAPC_PFN,
    S_CAPC_ROW,
    S_MOBILITY_OFF,
    T_ALLOC,
    T_BUDDY,
    T_NONE,
    TR_EXTFRAG,
    TR_ZONE_LOCKED,
    TYPE_MASK,
    UNMOVABLE,
    WORD,
    Z_BOOST,
    Z_END,
    Z_FLAGS,
    Z_MANAGED,
    Z_NR_FREE,
    Z_NR_HIGHATOMIC,
    Z_START,
    Z_WMARK,
    ZF_BOOSTED_WATERMARK,
    first_entry,
    free_head,
    list_add,
    list_add_tail,
    list_del,
    mod_zone_free,
    pageblock_mt,
    pcp_offset,
    set_pageblock_mt,
    trace,
    zone_offset,
)

#: ``fpi_t``, as values that numba does not compile a variant of each caller's callee for.
FPI_NONE: Final = i64(0)
FPI_TO_TAIL: Final = i64(2)


@inline_njit
def page_is_buddy(page: Any, S: Any, z: int, pfn: int, order: int) -> bool:
    """Whether pfn heads a free block of exactly this order in the zone (``page_is_buddy()``)."""
    ok = False
    if pfn >= S[z + Z_START] and pfn < S[z + Z_END]:
        ok = (page[4 * (pfn & ENTRY_MASK) + WORD] & (TYPE_MASK | ORDER_MASK)) == (T_BUDDY | order)
    return ok


@inline_njit
def pcp_allowed_order(order: int) -> bool:
    """Orders that per-cpu lists hold: 0..3 and the pageblock order (``pcp_allowed_order()``)."""
    return order <= 3 or order == PB_ORDER


@inline_njit
def del_page_from_free_list(page: Any, S: Any, z: int, pfn: int, order: int) -> None:
    """Take a block off whatever free list holds it (``del_page_from_free_list()``)."""
    list_del(page, pfn)
    page[4 * pfn + WORD] = T_NONE
    S[z + Z_NR_FREE + order] -= 1


@njit
def free_one_page(
    page: Any, pb: Any, S: Any, cpu: int, row: int, pfn: int, order: int, mt: int, fpi: int
) -> int:
    """Give a block to the buddy lists, merging it as far as it goes (``__free_one_page()``).

    ``fpi`` is `FPI_NONE` or `FPI_TO_TAIL`.

    Returns
    -------
    int
        Order of the block it became part of. A block that the running task's compaction is after is handed to it
        instead (`S_CAPC_PFN`).
    """
    z = zone_offset(row)
    if mt != ISOLATE:
        mod_zone_free(S, z, pcp_offset(S, cpu, row), 1 << order)
    pfn &= ENTRY_MASK
    capturing = S[S_CAPC_ROW] == row + 1 and S[S_CAPC_PFN] == 0
    while order < NR_ORDERS - 1:
        if (
            capturing
            and order == S[S_CAPC_ORDER]
            and mt != ISOLATE
            and not (order < PB_ORDER and mt == MOVABLE)
        ):
            # compaction_capture(): the compacting task takes the block before it gets to a list
            mod_zone_free(S, z, pcp_offset(S, cpu, row), -(1 << order))
            page[4 * pfn + WORD] = T_ALLOC | (mt << PCPMT_SHIFT) | order
            S[S_CAPC_PFN] = pfn + 1
            return order
        buddy = (pfn ^ (1 << order)) & ENTRY_MASK
        if not page_is_buddy(page, S, z, buddy, order):
            break
        if order >= PB_ORDER:
            buddy_mt = pageblock_mt(pb, buddy)
            if buddy_mt != mt and not (buddy_mt < HIGHATOMIC and mt < HIGHATOMIC):
                break
        del_page_from_free_list(page, S, z, buddy, order)
        pfn = pfn & buddy
        order += 1
    page[4 * pfn + WORD] = T_BUDDY | order
    head = free_head(S, row, order, mt)
    tail = fpi & FPI_TO_TAIL != 0
    if not tail and order < NR_ORDERS - 2:
        # buddy_merge_likely(): the buddy of the block this one would make, once its own buddy is free
        parent = pfn & ~(1 << order)
        tail = page_is_buddy(page, S, z, parent ^ (1 << (order + 1)), order + 1)
    if tail:
        list_add_tail(page, head, pfn)
    else:
        list_add(page, head, pfn)
    S[z + Z_NR_FREE + order] += 1
    return order


@inline_njit
def expand(page: Any, S: Any, row: int, z: int, pfn: int, low: int, high: int, mt: int) -> None:
    """Give back the upper halves of a block too large, to the heads of their lists (``expand()``)."""
    while high > low:
        high -= 1
        upper = (pfn + (1 << high)) & ENTRY_MASK
        page[4 * upper + WORD] = T_BUDDY | high
        list_add(page, free_head(S, row, high, mt), upper)
        S[z + Z_NR_FREE + high] += 1


@merge_njit
def rmqueue_smallest(page: Any, S: Any, row: int, order: int, mt: int) -> int:
    """Take the first block of the smallest order that will do, or -1 (``__rmqueue_smallest()``)."""
    z = zone_offset(row)
    found = -1
    current = order
    while current < NR_ORDERS:
        head = free_head(S, row, current, mt)
        first = first_entry(page, head)
        if first != head:
            found = first
            break
        current += 1
    if found >= 0:
        del_page_from_free_list(page, S, z, found, current)
        expand(page, S, row, z, found, order, current, mt)
        page[4 * found + WORD] = T_ALLOC | (mt << PCPMT_SHIFT) | order
        refill = 1 if pcp_allowed_order(order) and mt < HIGHATOMIC else 0
        trace(S, TR_ZONE_LOCKED, found, order, mt, refill, 0)
    return found


@inline_njit
def move_to_free_list(page: Any, S: Any, row: int, pfn: int, order: int, mt: int) -> None:
    """Move a free block to the tail of another type's list (``move_to_free_list()``)."""
    list_del(page, pfn)
    list_add_tail(page, free_head(S, row, order, mt), pfn)


@njit
def move_freepages_block(page: Any, S: Any, row: int, pfn: int, mt: int) -> int:
    """Move the free blocks of a pageblock to another type's lists, ascending (``move_freepages_block()``).

    Returns
    -------
    int
        Free pages moved; 0 if the pageblock crosses the zone's end.
    """
    z = zone_offset(row)
    pfn &= ENTRY_MASK
    start = pfn & ~(PB_PAGES - 1)
    end = start + PB_PAGES - 1
    if start < S[z + Z_START]:
        start = pfn
    if end >= S[z + Z_END]:
        return 0
    moved = 0
    while start <= end:
        word = i64(page[4 * start + WORD])
        if (word & TYPE_MASK) != T_BUDDY:
            start += 1
            continue
        order = word & ORDER_MASK
        move_to_free_list(page, S, row, start, order, mt)
        start += 1 << order
        moved += 1 << order
    return moved


@inline_njit
def boost_watermark(S: Any, z: int) -> bool:
    """Raise the zone's boost after a steal that mixes types (``boost_watermark()``)."""
    factor = S[S_BOOST_FACTOR]
    high = S[z + Z_WMARK + 2]
    max_boost = (high // 10000) * factor + (high % 10000) * factor // 10000
    boosted = factor != 0 and S[z + Z_MANAGED] >= PB_PAGES * 4 and max_boost != 0
    if boosted:
        S[z + Z_BOOST] = min(S[z + Z_BOOST] + PB_PAGES, max(PB_PAGES, max_boost))
    return boosted


@inline_njit
def can_steal_fallback(S: Any, order: int, start_mt: int) -> bool:
    """Whether a request of this type takes the whole block (``can_steal_fallback()``)."""
    return order >= PB_ORDER // 2 or start_mt in (RECLAIMABLE, UNMOVABLE) or S[S_MOBILITY_OFF] != 0


@inline_njit
def find_suitable_fallback(page: Any, S: Any, row: int, z: int, order: int, mt: int) -> int:
    """Type whose list of this order a request of type mt falls back to, or -1 (``find_suitable_fallback()``).

    The table is ``fallbacks[][]``; types past Reclaimable have no fallback.
    """
    if S[z + Z_NR_FREE + order] == 0 or mt > RECLAIMABLE:
        return -1
    first = UNMOVABLE if mt == RECLAIMABLE else RECLAIMABLE
    second = UNMOVABLE if mt == MOVABLE else MOVABLE
    head = free_head(S, row, order, first)
    if first_entry(page, head) != head:
        return first
    head = free_head(S, row, order, second)
    if first_entry(page, head) != head:
        return second
    return -1


@njit
def steal_suitable_fallback(
    page: Any, pb: Any, S: Any, row: int, pfn: int, order: int, flags: int, start_mt: int, whole: bool
) -> None:
    """Move a foreign block, or all free pages of its pageblock, to the wanted type's lists.

    ``steal_suitable_fallback()``.
    """
    z = zone_offset(row)
    old_mt = pageblock_mt(pb, pfn)
    single = True
    if old_mt == HIGHATOMIC:
        pass
    elif order >= PB_ORDER:
        for block in range(1 << (order - PB_ORDER)):
            set_pageblock_mt(pb, S, pfn + block * PB_PAGES, start_mt)
    else:
        if boost_watermark(S, z) and flags & ALLOC_KSWAPD:
            S[z + Z_FLAGS] |= ZF_BOOSTED_WATERMARK
        if whole:
            free = move_freepages_block(page, S, row, pfn, start_mt)
            if free != 0:
                single = False
                movable = i64(pb[pfn >> PB_ORDER] >> PB_LRU_SHIFT)
                if start_mt == MOVABLE:
                    alike = movable
                elif old_mt == MOVABLE:
                    alike = PB_PAGES - (free + movable)
                else:
                    alike = 0
                if free + alike >= PB_PAGES // 2 or S[S_MOBILITY_OFF] != 0:
                    set_pageblock_mt(pb, S, pfn, start_mt)
    if single:
        move_to_free_list(page, S, row, pfn, order, start_mt)


@njit
def rmqueue_fallback(page: Any, pb: Any, S: Any, row: int, order: int, start_mt: int, flags: int) -> bool:
    """Steal from another type so that a retry finds a block (``__rmqueue_fallback()``)."""
    z = zone_offset(row)
    min_order = order
    if order < PB_ORDER and flags & ALLOC_NOFRAGMENT:
        min_order = PB_ORDER
    current = NR_ORDERS - 1
    fallback = -1
    while current >= min_order:
        fallback = find_suitable_fallback(page, S, row, z, current, start_mt)
        if fallback >= 0:
            break
        current -= 1
    if fallback < 0:
        return False
    if not can_steal_fallback(S, current, start_mt) and start_mt == MOVABLE and current > order:
        current = order
        while current < NR_ORDERS:
            fallback = find_suitable_fallback(page, S, row, z, current, start_mt)
            if fallback >= 0:
                break
            current += 1
    pfn = first_entry(page, free_head(S, row, current, fallback))
    whole = can_steal_fallback(S, current, start_mt)
    steal_suitable_fallback(page, pb, S, row, pfn, current, flags, start_mt, whole)
    trace(S, TR_EXTFRAG, pfn, order, current, start_mt, fallback)
    return True


def _rmqueue(page: Any, pb: Any, S: Any, row: int, order: int, mt: int, flags: int) -> int:
    """Take a block of a type, stealing from others if need be, or -1 (``__rmqueue()``)."""
    while True:
        pfn = rmqueue_smallest(page, S, row, order, mt)
        if pfn >= 0 or not rmqueue_fallback(page, pb, S, row, order, mt, flags):
            break
    return pfn


#: To be called, and to be merged into a loop.
rmqueue_locked = njit(_rmqueue)
rmqueue_inline = inline_njit(_rmqueue)


@njit
def reserve_highatomic_pageblock(page: Any, pb: Any, S: Any, row: int, pfn: int) -> None:
    """Reserve the block of a page that an atomic high-order request got (``reserve_highatomic_pageblock()``)."""
    z = zone_offset(row)
    if S[z + Z_NR_HIGHATOMIC] >= S[z + Z_MANAGED] // 100 + PB_PAGES:
        return
    if pageblock_mt(pb, pfn) < HIGHATOMIC:
        S[z + Z_NR_HIGHATOMIC] += PB_PAGES
        set_pageblock_mt(pb, S, pfn, HIGHATOMIC)
        move_freepages_block(page, S, row, pfn, i64(HIGHATOMIC))


@njit
def unreserve_highatomic_pageblock(
    page: Any, pb: Any, S: Any, row: int, z: int, mt: int, force: bool
) -> bool:
    """Turn one reserved block of a zone back to a type (``unreserve_highatomic_pageblock()``, one zone's turn).

    Returns
    -------
    bool
        Whether free pages were moved.
    """
    if not force and S[z + Z_NR_HIGHATOMIC] <= PB_PAGES:
        return False
    for order in range(NR_ORDERS):
        head = free_head(S, row, order, HIGHATOMIC)
        pfn = first_entry(page, head)
        if pfn == head:
            continue
        if pageblock_mt(pb, pfn) == HIGHATOMIC:
            S[z + Z_NR_HIGHATOMIC] -= min(PB_PAGES, S[z + Z_NR_HIGHATOMIC])
        set_pageblock_mt(pb, S, pfn, mt)
        if move_freepages_block(page, S, row, pfn, mt) != 0:
            return True
    return False
