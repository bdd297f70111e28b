"""The migrate scanner: pages to move, from the bottom of the zone up (mm/compaction.c of 6.1).

Functions stand for those of the same name there. Huge page dissolution and contiguous allocation are
not modelled, nor lock contention: a scan ends only for the reasons that one CPU can give.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from mmfw.jit import events as ev
from mmfw.jit import i64, inline_njit, njit
from mmfw.jit.compact_control import (
    CC_CONTENDED,
    CC_DIRECT,
    CC_FAILURE_SKIPS_CHUNK,
    CC_FAST_FIND_SETS_SKIP,
    CC_FAST_SEARCH_FAIL,
    CC_FAST_START_PFN,
    CC_FREE_PFN,
    CC_IGNORE_SKIP_HINT,
    CC_MAY_FS,
    CC_MIGRATE_PFN,
    CC_MIGRATE_SCANNED,
    CC_MIGRATETYPE,
    CC_MODE,
    CC_NO_SET_SKIP_HINT,
    CC_NR_BLOCKS,
    CC_NR_ISOLATED,
    CC_NR_MIGRATEPAGES,
    CC_ORDER,
    CC_RESCAN,
    CC_ROW,
    CC_UNEVICTABLE,
    COMPACT_CLUSTER_MAX,
    COSTLY_ORDER,
    MODE_ASYNC,
    MODE_SYNC,
    block_end_pfn,
    block_start_pfn,
    freelist_scan_limit,
    get_skip,
    isolation_suitable,
    pageblock_in_zone,
    set_skip,
)
from mmfw.jit.lru import TO_HEAD, lru_add, lru_del
from mmfw.jit.page import (
    MOVABLE,
    ORDER_MASK,
    PB_ORDER,
    PB_PAGES,
    PG_COMPOUND,
    PG_DIRTY,
    PG_LOCKED,
    PG_LRU,
    PG_MAPPED,
    PG_PINNED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UNEVICTABLE,
    PG_WRITEBACK,
    S_EVENT,
    T_ALLOC,
    T_BUDDY,
    TR_ISOLATE_MIGRATEPAGES,
    TYPE_MASK,
    WORD,
    Z_CACHED_MIGRATE,
    Z_NR_FREE,
    Z_START,
    first_entry,
    free_head,
    last_entry,
    list_del,
    pageblock_mt,
    trace,
    zone_offset,
)

#: `isolate_migratepages` found pages to move, found none in this block, or was told to stop.
ISOLATE_NONE: Final = 0
ISOLATE_SUCCESS: Final = 1
#: ... or looked at so many unsuitable blocks that the caller should let others run; call it again.
ISOLATE_AGAIN: Final = 2


@inline_njit
def move_freelist_tail(page: Any, head: int, entry: int) -> None:
    """Move a list's part up to and with an entry behind the rest, order kept (``move_freelist_tail()``)."""
    if last_entry(page, head) != entry:
        # The list is a ring: moving its head behind the entry does it.
        after = i64(page[4 * entry])
        list_del(page, head)
        page[4 * entry] = head
        page[4 * head + 1] = entry
        page[4 * head] = after
        page[4 * after + 1] = head


@inline_njit
def update_cached_migrate(S: Any, cc: Any, z: int, pfn: int) -> None:
    """``update_cached_migrate()``: an aligned block end stores one block beyond it."""
    pfn = block_end_pfn(pfn, PB_ORDER)
    if cc[CC_NO_SET_SKIP_HINT] == 0:
        if pfn > S[z + Z_CACHED_MIGRATE]:
            S[z + Z_CACHED_MIGRATE] = pfn
        if cc[CC_MODE] != MODE_ASYNC and pfn > S[z + Z_CACHED_MIGRATE + 1]:
            S[z + Z_CACHED_MIGRATE + 1] = pfn


@inline_njit
def skip_persistent(page: Any, pfn: int) -> bool:
    """``pageblock_skip_persistent()``: the block begins with a compound page of its size."""
    word = i64(page[4 * pfn + WORD])
    return (word & (TYPE_MASK | PG_COMPOUND)) == (T_ALLOC | PG_COMPOUND) and word & ORDER_MASK >= PB_ORDER


@inline_njit
def suitable_migration_source(page: Any, pb: Any, cc: Any, pfn: int) -> bool:
    """``suitable_migration_source()``."""
    ok = True
    if skip_persistent(page, pfn):
        ok = False
    elif cc[CC_MODE] == MODE_ASYNC and cc[CC_DIRECT] != 0:
        ok = pageblock_mt(pb, pfn) == cc[CC_MIGRATETYPE]
    return ok


@njit
def fast_find_migrateblock(page: Any, pb: Any, S: Any, cc: Any) -> int:
    """A block that has free pages already, from the free lists, or where to scan on (``fast_find_migrateblock()``)."""
    z = zone_offset(cc[CC_ROW])
    pfn = cc[CC_MIGRATE_PFN]
    start = S[z + Z_START]
    if cc[CC_IGNORE_SKIP_HINT] != 0:
        return pfn
    if cc[CC_RESCAN] != 0 and cc[CC_FAILURE_SKIPS_CHUNK] == 0:
        return pfn
    if pfn not in (start, block_start_pfn(pfn, PB_ORDER)):
        return pfn
    if cc[CC_ORDER] <= COSTLY_ORDER or (cc[CC_DIRECT] != 0 and cc[CC_MIGRATETYPE] != MOVABLE):
        return pfn
    limit = freelist_scan_limit(cc)
    scanned = 0
    distance = (cc[CC_FREE_PFN] - pfn) >> 1
    if pfn != start:
        distance >>= 2
    high = block_start_pfn(pfn + distance, PB_ORDER)
    found = False
    order = cc[CC_ORDER] - 1
    while order >= COSTLY_ORDER and not found and scanned < limit:
        if S[z + Z_NR_FREE + order] != 0:
            head = free_head(S, cc[CC_ROW], order, i64(MOVABLE))
            entry = first_entry(page, head)
            while entry != head:
                scanned += 1
                if scanned > limit:
                    move_freelist_tail(page, head, entry)
                    break
                if entry < high and not get_skip(pb, entry):
                    move_freelist_tail(page, head, entry)
                    if cc[CC_FAST_START_PFN] != -1:
                        if cc[CC_FAST_START_PFN] == 0 or entry < cc[CC_FAST_START_PFN]:
                            cc[CC_FAST_START_PFN] = entry
                    pfn = max(block_start_pfn(entry, PB_ORDER), start)
                    cc[CC_FAST_SEARCH_FAIL] = 0
                    found = True
                    if cc[CC_FAST_FIND_SETS_SKIP] != 0:
                        set_skip(pb, entry)
                    break
                entry = first_entry(page, entry)
        order -= 1
    cc[CC_MIGRATE_SCANNED] += scanned
    if not found:
        cc[CC_FAST_SEARCH_FAIL] += 1
        if cc[CC_FAST_START_PFN] not in (0, -1):
            cc[CC_MIGRATE_PFN] = cc[CC_FAST_START_PFN]
            cc[CC_FAST_START_PFN] = -1
        pfn = cc[CC_MIGRATE_PFN]
    return pfn


@inline_njit
def may_isolate(cc: Any, word: int) -> bool:
    """Whether the scanner takes an LRU page with this word (the tests of ``isolate_migratepages_block()``).

    A page has a mapping if it belongs to a file, to shmem or to the swap cache. Of the others an extra reference shows.
    """
    mapping = word & (PG_SWAPBACKED | PG_SWAPCACHE | PG_MAPPED) != PG_SWAPBACKED | PG_MAPPED
    refused = not mapping and word & PG_PINNED != 0
    refused |= mapping and cc[CC_MAY_FS] == 0
    refused |= word & PG_UNEVICTABLE != 0 and cc[CC_UNEVICTABLE] == 0
    if cc[CC_MODE] != MODE_SYNC:
        refused |= word & PG_WRITEBACK != 0
        refused |= word & (PG_DIRTY | PG_LOCKED) == PG_DIRTY | PG_LOCKED
    return not refused


@njit
def putback_pages(page: Any, pb: Any, S: Any, cc: Any, pages: Any) -> None:
    """Put pages that were isolated and not moved back on the LRU (``putback_movable_pages()``)."""
    i = cc[CC_NR_MIGRATEPAGES] - 1
    while i >= 0:
        lru_add(page, pb, S, i64(pages[i]), TO_HEAD)
        i -= 1
    cc[CC_NR_MIGRATEPAGES] = 0


@njit
def isolate_migratepages_block(page: Any, pb: Any, S: Any, cc: Any, low: int, end: int, pages: Any) -> None:
    """Isolate what can be moved in ``low..end`` of one block into ``pages`` (``isolate_migratepages_block()``)."""
    z = zone_offset(cc[CC_ROW])
    start = low
    scanned = 0
    isolated = 0
    skip_on_failure = cc[CC_DIRECT] != 0 and cc[CC_MODE] == MODE_ASYNC
    next_skip = block_end_pfn(low, cc[CC_ORDER]) if skip_on_failure else i64(0)
    valid = i64(-1)
    skip_updated = False
    aborted = False
    pfn = low
    while pfn < end:
        if skip_on_failure and pfn >= next_skip:
            if isolated:
                break
            next_skip = block_end_pfn(pfn, cc[CC_ORDER])
        scanned += 1
        if valid < 0 and pfn & (PB_PAGES - 1) == 0:
            if not isolation_suitable(pb, cc, pfn):
                pfn = end
                aborted = True
                break
            valid = pfn
        word = i64(page[4 * pfn + WORD])
        if word & TYPE_MASK == T_BUDDY:
            pfn += 1 << (word & ORDER_MASK)
            continue
        failed = True
        if word & (TYPE_MASK | PG_COMPOUND) == T_ALLOC | PG_COMPOUND:
            pfn += (1 << (word & ORDER_MASK)) - 1
        elif word & TYPE_MASK == T_ALLOC and word & PG_LRU and may_isolate(cc, word):
            if not skip_updated and cc[CC_FAST_FIND_SETS_SKIP] == 0:
                # Since 6.5 the block is marked whichever of its pages is the first; nobody can have done it meanwhile.
                skip_updated = True
                if valid >= 0 and cc[CC_IGNORE_SKIP_HINT] == 0 and cc[CC_NO_SET_SKIP_HINT] == 0:
                    set_skip(pb, valid)
            elif not skip_updated:
                skip_updated = True
                if cc[CC_IGNORE_SKIP_HINT] == 0 and pfn & (PB_PAGES - 1) == 0:
                    if get_skip(pb, pfn):
                        aborted = True
                        break
                    if cc[CC_NO_SET_SKIP_HINT] == 0:
                        set_skip(pb, pfn)
            lru_del(page, pb, S, pfn)
            pages[cc[CC_NR_MIGRATEPAGES]] = pfn
            cc[CC_NR_MIGRATEPAGES] += 1
            isolated += 1
            failed = False
            if cc[CC_NR_MIGRATEPAGES] >= COMPACT_CLUSTER_MAX and cc[CC_RESCAN] == 0 and cc[CC_CONTENDED] == 0:
                pfn += 1
                break
        if failed and skip_on_failure:
            if isolated:
                putback_pages(page, pb, S, cc, pages)
                isolated = 0
            if pfn < next_skip:
                pfn = next_skip - 1
                next_skip += 1 << cc[CC_ORDER]
        pfn += 1
    if pfn > end:
        pfn = end
    if pfn == end and (isolated == 0 or cc[CC_RESCAN] != 0):
        if valid >= 0 and not skip_updated:
            set_skip(pb, valid)
        update_cached_migrate(S, cc, z, pfn)
    trace(S, TR_ISOLATE_MIGRATEPAGES, start, pfn, scanned, isolated, 1 if aborted else 0)
    cc[CC_MIGRATE_SCANNED] += scanned
    S[S_EVENT + ev.COMPACT_ISOLATED] += isolated
    cc[CC_NR_ISOLATED] += isolated
    cc[CC_MIGRATE_PFN] = pfn


#: ``resume``, typed: a literal would compile the scanner a second time.
FRESH: Final[Any] = np.bool_(False)
RESUMED: Final[Any] = np.bool_(True)


@njit
def isolate_migratepages(page: Any, pb: Any, S: Any, cc: Any, pages: Any, resume: bool) -> int:
    """Isolate pages of the next suitable block (``isolate_migratepages()``).

    ``resume`` continues after `ISOLATE_AGAIN`.

    Returns
    -------
    int
        An ``ISOLATE_*`` code.
    """
    z = zone_offset(cc[CC_ROW])
    low = cc[CC_MIGRATE_PFN] if resume else fast_find_migrateblock(page, pb, S, cc)
    start = max(block_start_pfn(low, PB_ORDER), S[z + Z_START])
    fast = not resume and low != cc[CC_MIGRATE_PFN] and cc[CC_FAST_SEARCH_FAIL] == 0
    end = block_end_pfn(low, PB_ORDER)
    visited = 0
    while end <= cc[CC_FREE_PFN]:
        visited += 1
        if visited > COMPACT_CLUSTER_MAX * 4:
            return ISOLATE_AGAIN
        cc[CC_NR_BLOCKS] += 1
        if pageblock_in_zone(pb, S, cc[CC_ROW], start, end):
            aligned = low & (PB_PAGES - 1) == 0
            if not aligned or fast or isolation_suitable(pb, cc, start):
                if suitable_migration_source(page, pb, cc, start):
                    isolate_migratepages_block(page, pb, S, cc, low, end, pages)
                    break
                update_cached_migrate(S, cc, z, end)
        fast = False
        cc[CC_MIGRATE_PFN] = end
        low = end
        start = end
        end += PB_PAGES
    return ISOLATE_SUCCESS if cc[CC_NR_MIGRATEPAGES] != 0 else ISOLATE_NONE


@njit
def resume_isolation(
    page: Any,
    pb: Any,
    S: Any,
    cc: Any,
    pages: Any,
    block_ns: int,
    page_ns: int,
    isolate_ns: int,
    quiet_ns: int,
) -> int:
    """Go on after `ISOLATE_AGAIN`, past one such stop after another while all take less than `quiet_ns`.

    Parameters
    ----------
    block_ns, page_ns, isolate_ns, quiet_ns : int
        What a visited block, a scanned and an isolated page cost, and the time for which nobody else does anything.

    Returns
    -------
    int
        An ``ISOLATE_*`` code.
    """
    blocks = cc[CC_NR_BLOCKS]
    scanned = cc[CC_MIGRATE_SCANNED]
    isolated = cc[CC_NR_ISOLATED]
    while True:
        found = isolate_migratepages(page, pb, S, cc, pages, RESUMED)
        spent = (cc[CC_NR_BLOCKS] - blocks) * block_ns + (cc[CC_MIGRATE_SCANNED] - scanned) * page_ns
        spent += (cc[CC_NR_ISOLATED] - isolated) * isolate_ns
        if found != ISOLATE_AGAIN or spent >= quiet_ns:
            return found
