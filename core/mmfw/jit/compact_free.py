"""The free scanner: pages to move to, from the top of the zone down (mm/compaction.c of 6.1)."""

from __future__ import annotations

from typing import Any

from mmfw.jit import events as ev
from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.alloc import zone_watermark_ok_free
from mmfw.jit.buddy import del_page_from_free_list
from mmfw.jit.compact_control import (
    CC_DIRECT,
    CC_FAST_SEARCH_FAIL,
    CC_FREE_PFN,
    CC_FREE_SCANNED,
    CC_IGNORE_BLOCK_SUITABLE,
    CC_LIST,
    CC_MIGRATE_PFN,
    CC_MODE,
    CC_NO_SET_SKIP_HINT,
    CC_NR_BLOCKS,
    CC_NR_FREEPAGES,
    CC_NR_ISOLATED,
    CC_NR_MIGRATEPAGES,
    CC_ORDER,
    CC_ROW,
    CC_SEARCH_ORDER,
    COMPACT_CLUSTER_MAX,
    MODE_ASYNC,
    block_end_pfn,
    block_start_pfn,
    freelist_scan_limit,
    is_movable_block,
    isolation_suitable,
    pageblock_in_zone,
    set_skip,
)
from mmfw.jit.page import (
    HIGHATOMIC,
    ISOLATE,
    MOVABLE,
    ORDER_MASK,
    PB_ORDER,
    PB_PAGES,
    PCPMT_SHIFT,
    PG_COMPOUND,
    S_EVENT,
    T_ALLOC,
    T_BUDDY,
    TR_ISOLATE_FREEPAGES,
    TYPE_MASK,
    WORD,
    Z_CACHED_FREE,
    Z_END,
    Z_FREE,
    Z_INIT_FREE,
    Z_NR_FREE,
    Z_START,
    Z_WMARK,
    first_entry,
    free_head,
    last_entry,
    list_add,
    list_add_tail,
    list_del,
    mod_zone_free,
    owner_head,
    pageblock_mt,
    pcp_offset,
    set_pageblock_mt,
    trace,
    zone_offset,
)


@njit
def isolate_free_page(page: Any, pb: Any, S: Any, cpu: int, row: int, pfn: int, order: int) -> bool:
    """Take a certain free block off the lists, if the min watermark allows it (``__isolate_free_page()``)."""
    z = zone_offset(row)
    if pageblock_mt(pb, pfn) != ISOLATE:
        mark = S[z + Z_WMARK] + (1 << order)
        if not zone_watermark_ok_free(page, S, row, i64(0), mark, i64(0), i64(0), S[z + Z_FREE]):
            return False
        mod_zone_free(S, z, pcp_offset(S, cpu, row), -(1 << order))
    del_page_from_free_list(page, S, z, pfn, order)
    if order >= PB_ORDER - 1:
        at = pfn
        while at < pfn + (1 << order) - 1:
            if pageblock_mt(pb, at) < HIGHATOMIC:
                set_pageblock_mt(pb, S, at, i64(MOVABLE))
            at += PB_PAGES
    return True


@inline_njit
def keep_free_block(page: Any, S: Any, cc: Any, pfn: int, order: int) -> None:
    """Add an isolated block to the end of ``cc->freepages``."""
    page[4 * pfn + WORD] = T_ALLOC | order
    list_add_tail(page, owner_head(S, cc[CC_LIST]), pfn)
    cc[CC_NR_FREEPAGES] += 1 << order


@inline_njit
def move_freelist_head(page: Any, head: int, entry: int) -> None:
    """Make an entry the first of its list, what was before it the last, order kept (``move_freelist_head()``)."""
    if first_entry(page, head) != entry:
        before = i64(page[4 * entry + 1])
        list_del(page, head)
        page[4 * before] = head
        page[4 * head + 1] = before
        page[4 * head] = entry
        page[4 * entry + 1] = head


@njit
def isolate_freepages_block(
    page: Any, pb: Any, S: Any, cpu: int, cc: Any, pfn: int, end: int, stride: int
) -> tuple[int, int]:
    """Isolate free blocks of ``pfn..end`` until enough are held (``isolate_freepages_block()``).

    Returns
    -------
    (int, int)
        Where it stopped, and pages isolated.
    """
    start = pfn
    scanned = 0
    total = 0
    while pfn < end:
        scanned += 1
        word = i64(page[4 * pfn + WORD])
        if (word & (TYPE_MASK | PG_COMPOUND)) == (T_ALLOC | PG_COMPOUND):
            pfn += (1 << (word & ORDER_MASK)) - 1
        elif word & TYPE_MASK == T_BUDDY:
            order = word & ORDER_MASK
            if not isolate_free_page(page, pb, S, cpu, cc[CC_ROW], pfn, order):
                break
            isolated = 1 << order
            keep_free_block(page, S, cc, pfn, order)
            scanned += isolated - 1
            total += isolated
            if cc[CC_NR_MIGRATEPAGES] <= cc[CC_NR_FREEPAGES]:
                pfn += isolated
                break
            pfn += isolated - 1
        pfn += stride
    if pfn > end:
        pfn = end
    trace(S, TR_ISOLATE_FREEPAGES, start, pfn, scanned, total, 0)
    cc[CC_FREE_SCANNED] += scanned
    S[S_EVENT + ev.COMPACT_ISOLATED] += total
    cc[CC_NR_ISOLATED] += total
    return pfn, total


@inline_njit
def next_search_order(cc: Any, order: int) -> int:
    """``next_search_order()``: orders in turn, -1 when it comes round."""
    order -= 1
    if order < 0:
        order = cc[CC_ORDER] - 1
    if order == cc[CC_SEARCH_ORDER]:
        cc[CC_SEARCH_ORDER] -= 1
        if cc[CC_SEARCH_ORDER] < 0:
            cc[CC_SEARCH_ORDER] = cc[CC_ORDER] - 1
        order = -1
    return order


@njit
def fast_isolate_around(page: Any, pb: Any, S: Any, cpu: int, cc: Any, pfn: int) -> None:
    """Take more free pages from the block of one that was found (``fast_isolate_around()``)."""
    if cc[CC_NR_FREEPAGES] >= cc[CC_NR_MIGRATEPAGES]:
        return
    if cc[CC_DIRECT] != 0 and cc[CC_MODE] == MODE_ASYNC:
        return
    z = zone_offset(cc[CC_ROW])
    start = max(block_start_pfn(pfn, PB_ORDER), S[z + Z_START])
    end = min(block_end_pfn(pfn, PB_ORDER), S[z + Z_END])
    if not pageblock_in_zone(pb, S, cc[CC_ROW], start, end):
        return
    cc[CC_NR_BLOCKS] += 1
    isolate_freepages_block(page, pb, S, cpu, cc, start, end, i64(1))
    if cc[CC_NR_FREEPAGES] < cc[CC_NR_MIGRATEPAGES]:
        set_skip(pb, start)


@njit
def fast_isolate_freepages(page: Any, pb: Any, S: Any, cpu: int, cc: Any) -> None:
    """Look for a free block high in the zone on the free lists (``fast_isolate_freepages()``)."""
    if cc[CC_ORDER] <= 0:
        return
    z = zone_offset(cc[CC_ROW])
    limit = max(1, freelist_scan_limit(cc) >> 1)
    scan_start = cc[CC_FREE_PFN] >= S[z + Z_INIT_FREE]
    if scan_start:
        limit = PB_PAGES >> 1
    scanned = 0
    highest = i64(0)
    found = i64(-1)
    distance = cc[CC_FREE_PFN] - cc[CC_MIGRATE_PFN]
    low = block_start_pfn(cc[CC_FREE_PFN] - (distance >> 2), PB_ORDER)
    lowest = block_start_pfn(cc[CC_FREE_PFN] - (distance >> 1), PB_ORDER)
    cc[CC_SEARCH_ORDER] = min(cc[CC_ORDER] - 1, cc[CC_SEARCH_ORDER])
    order = cc[CC_SEARCH_ORDER]
    while found < 0 and order >= 0:
        if S[z + Z_NR_FREE + order] != 0:
            head = free_head(S, cc[CC_ROW], order, i64(MOVABLE))
            order_scanned = 0
            high = i64(0)
            entry = last_entry(page, head)
            while entry != head:
                order_scanned += 1
                scanned += 1
                if entry >= highest:
                    highest = max(block_start_pfn(entry, PB_ORDER), S[z + Z_START])
                if entry >= low:
                    cc[CC_FAST_SEARCH_FAIL] = 0
                    cc[CC_SEARCH_ORDER] = order
                    found = entry
                    break
                if entry >= lowest and entry > high:
                    high = entry
                    limit >>= 1
                if order_scanned >= limit:
                    break
                entry = last_entry(page, entry)
            if found < 0 and high != 0:
                found = high
                entry = high
            if entry != head:
                move_freelist_head(page, head, entry)
            if found >= 0:
                if isolate_free_page(page, pb, S, cpu, cc[CC_ROW], found, order):
                    scanned += (1 << order) - 1
                    keep_free_block(page, S, cc, found, order)
                    S[S_EVENT + ev.COMPACT_ISOLATED] += 1 << order
                    cc[CC_NR_ISOLATED] += 1 << order
                else:
                    order = cc[CC_SEARCH_ORDER] + 1
                    found = i64(-1)
            if order_scanned >= limit:
                limit = max(1, limit >> 1)
        order = next_search_order(cc, order)
    if found < 0:
        cc[CC_FAST_SEARCH_FAIL] += 1
        if scan_start:
            if highest >= lowest:
                found = highest
                cc[CC_FREE_PFN] = highest
            elif cc[CC_DIRECT] != 0:
                end = min(block_end_pfn(lowest, PB_ORDER), S[z + Z_END])
                if pageblock_in_zone(pb, S, cc[CC_ROW], lowest, end):
                    found = lowest
                cc[CC_FREE_PFN] = lowest
    if highest != 0 and highest >= S[z + Z_CACHED_FREE]:
        S[z + Z_CACHED_FREE] = highest - PB_PAGES
    cc[CC_FREE_SCANNED] += scanned
    if found >= 0:
        fast_isolate_around(page, pb, S, cpu, cc, found)


@inline_njit
def suitable_migration_target(page: Any, pb: Any, cc: Any, pfn: int) -> bool:
    """``suitable_migration_target()``."""
    word = i64(page[4 * pfn + WORD])
    if word & TYPE_MASK == T_BUDDY and word & ORDER_MASK >= PB_ORDER:
        ok = False
    else:
        ok = cc[CC_IGNORE_BLOCK_SUITABLE] != 0 or is_movable_block(pb, pfn)
    return ok


@njit
def split_map_pages(page: Any, S: Any, cc: Any) -> None:
    """Turn the isolated blocks into single pages, last block and highest page first (``split_map_pages()``)."""
    head = owner_head(S, cc[CC_LIST])
    entry = first_entry(page, head)
    page[4 * head] = head
    page[4 * head + 1] = head
    while entry != head:
        after = first_entry(page, entry)
        order = i64(page[4 * entry + WORD]) & ORDER_MASK
        for i in range(1 << order):
            page[4 * (entry + i) + WORD] = T_ALLOC | (MOVABLE << PCPMT_SHIFT)
            list_add(page, head, entry + i)
        entry = after


@njit
def isolate_freepages(page: Any, pb: Any, S: Any, cpu: int, cc: Any) -> None:
    """Hold enough free pages for those to be moved, or as many as there are (``isolate_freepages()``)."""
    fast_isolate_freepages(page, pb, S, cpu, cc)
    if cc[CC_NR_FREEPAGES] == 0:
        z = zone_offset(cc[CC_ROW])
        pfn = cc[CC_FREE_PFN]
        start = block_start_pfn(pfn, PB_ORDER)
        end = min(start + PB_PAGES, S[z + Z_END])
        low = block_end_pfn(cc[CC_MIGRATE_PFN], PB_ORDER)
        stride = i64(COMPACT_CLUSTER_MAX if cc[CC_MODE] == MODE_ASYNC else 1)
        while start >= low:
            cc[CC_NR_BLOCKS] += 1
            usable = pageblock_in_zone(pb, S, cc[CC_ROW], start, end)
            if (
                usable
                and suitable_migration_target(page, pb, cc, start)
                and isolation_suitable(pb, cc, start)
            ):
                pfn, isolated = isolate_freepages_block(page, pb, S, cpu, cc, pfn, end, stride)
                if pfn == end and cc[CC_NO_SET_SKIP_HINT] == 0:
                    set_skip(pb, start)
                    if start < S[z + Z_CACHED_FREE]:
                        S[z + Z_CACHED_FREE] = start
                if cc[CC_NR_FREEPAGES] >= cc[CC_NR_MIGRATEPAGES]:
                    if pfn >= end:
                        pfn = start - PB_PAGES
                    break
                if pfn < end:
                    break
                stride = i64(1) if isolated != 0 else min(COMPACT_CLUSTER_MAX, stride << 1)
            end = start
            start -= PB_PAGES
            pfn = start
        cc[CC_FREE_PFN] = pfn
    split_map_pages(page, S, cc)
