"""Moving isolated pages, and what `compact_zone` does between two blocks (mm/compaction.c, mm/migrate.c of 6.1)."""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import events as ev
from mmfw.jit import i64, njit
from mmfw.jit.alloc import free_pages_core
from mmfw.jit.buddy import can_steal_fallback, find_suitable_fallback
from mmfw.jit.compact_control import (
    CC_ITERATION_PFN,
    CC_LIST,
    CC_MIGRATE_PFN,
    CC_MIGRATE_SCANNED,
    CC_MIGRATETYPE,
    CC_MODE,
    CC_NR_BLOCKS,
    CC_NR_FREEPAGES,
    CC_NR_ITERATIONS,
    CC_NR_MIGRATEPAGES,
    CC_ORDER,
    CC_RESCAN,
    CC_ROW,
    MODE_SYNC,
    scanners_met,
)
from mmfw.jit.compact_free import isolate_freepages
from mmfw.jit.compact_migrate import FRESH, ISOLATE_NONE, isolate_migratepages
from mmfw.jit.lru import KEEP_PG_FLAGS, TO_HEAD, lru_add
from mmfw.jit.page import (
    MOVABLE,
    NR_ORDERS,
    ORDER_MASK,
    PB_ABSENT,
    PB_ORDER,
    PB_PAGES,
    PB_SKIP,
    PG_COMPOUND,
    PG_LOCKED,
    PG_LRU,
    PG_PINNED,
    PG_WRITEBACK,
    RMAP,
    S_EVENT,
    S_TRACE_CAP,
    S_TRACE_N,
    T_ALLOC,
    T_BUDDY,
    TR_MIGRATEPAGES,
    TYPE_MASK,
    WORD,
    Z_CACHED_FREE,
    Z_CACHED_MIGRATE,
    Z_END,
    Z_INIT_FREE,
    Z_INIT_MIGRATE,
    Z_NR_FREE,
    Z_START,
    first_entry,
    free_head,
    list_add,
    list_del,
    owner_head,
    pageblock_mt,
    trace,
    zone_offset,
)

#: `migrate_pages` ran out of pages to move to (-ENOMEM).
MIGRATE_ENOMEM: Final = -1
NR_MAX_MIGRATE_PAGES_RETRY: Final = 10
#: In place of an isolated page: it was moved, or (less the page) it failed for good.
_MOVED: Final = -1
_GIVEN_UP: Final = -2


@njit
def compaction_alloc(page: Any, pb: Any, S: Any, cpu: int, cc: Any) -> int:
    """A page to move to, or -1 (``compaction_alloc()``)."""
    head = owner_head(S, cc[CC_LIST])
    dst = first_entry(page, head)
    if dst == head:
        isolate_freepages(page, pb, S, cpu, cc)
        dst = first_entry(page, head)
    if dst == head:
        return -1
    list_del(page, dst)
    cc[CC_NR_FREEPAGES] -= 1
    return dst


@njit
def migrate_pages(page: Any, pb: Any, S: Any, slots: Any, cpu: int, cc: Any, pages: Any) -> tuple[int, int]:
    """Move isolated pages, the last isolated first (``migrate_pages()`` with ``compaction_alloc()``).

    A page that somebody has locked or pinned is tried in ten passes, taking a page to move to and giving it back each
    time; one that is being written fails at once, where the mode is not synchronous. What stays goes back on the LRU.
    Not modelled: waiting for a page lock, which nobody holds over a sleep, and for writeback, for which a synchronous
    mode waits from the fourth pass on; here such pages stay where they are.

    Returns
    -------
    (int, int)
        Pages moved; and pages that were not, or `MIGRATE_ENOMEM`.
    """
    total = cc[CC_NR_MIGRATEPAGES]
    moved = 0
    failed = 0
    status = 0
    again = total
    tries = 0
    while again and status == 0 and tries < NR_MAX_MIGRATE_PAGES_RETRY:
        tries += 1
        again = 0
        i = total - 1
        while i >= 0 and status == 0:
            src = i64(pages[i])
            if src >= 0:
                dst = compaction_alloc(page, pb, S, cpu, cc)
                word = i64(page[4 * src + WORD])
                if dst < 0:
                    status = MIGRATE_ENOMEM
                    failed += 1
                elif word & (PG_LOCKED | PG_PINNED | PG_WRITEBACK):
                    list_add(page, owner_head(S, cc[CC_LIST]), dst)
                    cc[CC_NR_FREEPAGES] += 1
                    if word & PG_LOCKED or not word & PG_WRITEBACK or cc[CC_MODE] == MODE_SYNC:
                        again += 1
                    else:
                        failed += 1
                        pages[i] = _GIVEN_UP - src
                else:
                    slot = i64(page[4 * src + RMAP])
                    page[4 * dst + RMAP] = slot
                    page[4 * src + RMAP] = 0
                    if slot != 0:
                        slots[slot] = dst
                    page[4 * dst + WORD] |= word & KEEP_PG_FLAGS
                    page[4 * src + WORD] = T_ALLOC
                    lru_add(page, pb, S, dst, TO_HEAD)
                    free_pages_core(page, pb, S, cpu, src, i64(0))
                    pages[i] = _MOVED
                    moved += 1
            i -= 1
    failed += again
    cc[CC_NR_MIGRATEPAGES] = keep_unmoved(pages, total)
    S[S_EVENT + ev.PGMIGRATE_SUCCESS] += moved
    S[S_EVENT + ev.PGMIGRATE_FAIL] += failed
    trace(S, TR_MIGRATEPAGES, moved, total - moved, 0, 0, 0)
    if status == 0:
        status = failed
    return moved, status


@njit
def keep_unmoved(pages: Any, total: int) -> int:
    """Bring what was not moved to the front, what was given up on behind the rest; how many are left.

    They go back on the LRU from the last to the first.
    """
    kept = 0
    for i in range(total):
        src = i64(pages[i])
        if src == _MOVED:
            continue
        at = kept
        while src >= 0 and at > 0 and pages[at - 1] < 0:
            pages[at] = pages[at - 1]
            at -= 1
        pages[at] = src
        kept += 1
    for i in range(kept):
        if pages[i] < 0:
            pages[i] = _GIVEN_UP - pages[i]
    return kept


@njit
def suitable_page_free(page: Any, S: Any, cc: Any) -> bool:
    """Whether a block that the request would take is free (rule 5 of ``__compact_finished()``)."""
    row = cc[CC_ROW]
    z = zone_offset(row)
    mt = cc[CC_MIGRATETYPE]
    for order in range(cc[CC_ORDER], NR_ORDERS):
        head = free_head(S, row, order, mt)
        if first_entry(page, head) != head:
            return True
        if S[z + Z_NR_FREE + order] != 0 and can_steal_fallback(S, order, mt):
            if find_suitable_fallback(page, S, row, z, order, mt) >= 0:
                return True
    return False


@njit
def scan_fruitless_blocks(
    page: Any,
    pb: Any,
    S: Any,
    cc: Any,
    pages: Any,
    update_cached: int,
    block_ns: int,
    page_ns: int,
    quiet_ns: int,
) -> int:
    """Iterations of ``compact_zone()``'s loop up to one that isolates something or would end it.

    For a run that has not moved anything since it last drained the per-CPU lists, so that an iteration without isolated
    pages does nothing but move on. The finish test of the first iteration is the caller's.

    Parameters
    ----------
    update_cached : int
        Whether the synchronous cached pfn follows the asynchronous one.
    block_ns, page_ns, quiet_ns : int
        What a visited block and a scanned page cost, and the time for which nothing else happens: it goes on while the
        sum is below that.

    Returns
    -------
    int
        The last iteration's ``ISOLATE_*`` code; `CC_ITERATION_PFN` says where that began, `CC_NR_ITERATIONS` which it
        was.
    """
    z = zone_offset(cc[CC_ROW])
    blocks = cc[CC_NR_BLOCKS]
    scanned = cc[CC_MIGRATE_SCANNED]
    cc[CC_NR_ITERATIONS] = 0
    while True:
        cc[CC_NR_ITERATIONS] += 1
        start = cc[CC_MIGRATE_PFN]
        cc[CC_ITERATION_PFN] = start
        cc[CC_RESCAN] = 1 if start >> PB_ORDER == 0 else 0
        found = isolate_migratepages(page, pb, S, cc, pages, FRESH)
        if found != ISOLATE_NONE:
            return found
        if update_cached:
            S[z + Z_CACHED_MIGRATE + 1] = S[z + Z_CACHED_MIGRATE]
        spent = (cc[CC_NR_BLOCKS] - blocks) * block_ns + (cc[CC_MIGRATE_SCANNED] - scanned) * page_ns
        if spent >= quiet_ns or scanners_met(cc) or S[S_TRACE_N] > S[S_TRACE_CAP] // 2:
            return found
        # The next iteration's finish test; what it would end is left to the caller.
        if (
            cc[CC_ORDER] != -1
            and cc[CC_MIGRATE_PFN] & (PB_PAGES - 1) == 0
            and suitable_page_free(page, S, cc)
        ):
            return found


@njit
def release_freepages(page: Any, pb: Any, S: Any, cpu: int, cc: Any) -> None:
    """Give held free pages back, and let the free scanner start where they came from (``release_freepages()``)."""
    head = owner_head(S, cc[CC_LIST])
    highest = i64(0)
    entry = first_entry(page, head)
    while entry != head:
        after = first_entry(page, entry)
        list_del(page, entry)
        free_pages_core(page, pb, S, cpu, entry, i64(0))
        highest = max(highest, entry)
        entry = after
    cc[CC_NR_FREEPAGES] = 0
    z = zone_offset(cc[CC_ROW])
    start = highest >> PB_ORDER << PB_ORDER
    if start > S[z + Z_CACHED_FREE]:
        S[z + Z_CACHED_FREE] = start


@njit
def reset_isolation_pfn(
    page: Any, pb: Any, S: Any, row: int, pfn: int, check_source: int, check_target: int
) -> bool:
    """Clear a block's skip bit if a sample of it promises something (``__reset_isolation_pfn()``)."""
    z = zone_offset(row)
    block = pfn >> PB_ORDER
    if pfn < S[z + Z_START] or pfn >= S[z + Z_END] or pb[block] & PB_ABSENT:
        return False
    start = max(block << PB_ORDER, S[z + Z_START])
    word = i64(page[4 * (block << PB_ORDER) + WORD])
    if (word & (TYPE_MASK | PG_COMPOUND)) == (T_ALLOC | PG_COMPOUND) and word & ORDER_MASK >= PB_ORDER:
        return False
    if check_source and check_target and pb[block] & PB_SKIP == 0:
        return True
    if not check_source and check_target and pageblock_mt(pb, pfn) != MOVABLE:
        return False
    last = min((block << PB_ORDER) + PB_PAGES, S[z + Z_END]) - 1
    at = start
    while at <= last:
        word = i64(page[4 * at + WORD])
        lru = word & TYPE_MASK == T_ALLOC and word & PG_LRU != 0
        if (check_source and lru) or (check_target and word & TYPE_MASK == T_BUDDY):
            pb[block] = i64(pb[block]) & ~PB_SKIP
            return True
        at += 8
    return False


@njit
def reset_isolation_suitable(page: Any, pb: Any, S: Any, row: int) -> None:
    """Recompute the skip bits of a zone and where the scanners start (the loop of ``__reset_isolation_suitable()``)."""
    z = zone_offset(row)
    migrate = S[z + Z_START]
    free = S[z + Z_END] - 1
    reset_migrate = free
    reset_free = migrate
    source_set = i64(0)
    free_set = i64(0)
    while migrate < free:
        if reset_isolation_pfn(page, pb, S, row, migrate, i64(1), source_set) and migrate < reset_migrate:
            source_set = i64(1)
            reset_migrate = migrate
            S[z + Z_INIT_MIGRATE] = migrate
            S[z + Z_CACHED_MIGRATE] = migrate
            S[z + Z_CACHED_MIGRATE + 1] = migrate
        if reset_isolation_pfn(page, pb, S, row, free, free_set, i64(1)) and free > reset_free:
            free_set = i64(1)
            reset_free = free
            S[z + Z_INIT_FREE] = free
            S[z + Z_CACHED_FREE] = free
        migrate += PB_PAGES
        free -= PB_PAGES
    if reset_migrate >= reset_free:
        S[z + Z_CACHED_MIGRATE] = migrate
        S[z + Z_CACHED_MIGRATE + 1] = migrate
        S[z + Z_CACHED_FREE] = free
