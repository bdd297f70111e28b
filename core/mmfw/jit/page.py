"""What a simulated page is, and where every integer of the allocator's state lies.

Three arrays hold everything, so that a call from Python hands over few arguments:

``page`` : uint32[4 * (nr_pfns + nr_heads)]
    Four words a page, 16 bytes, adjacent so that freeing a page touches one cache line:
    next, prev (the one list the page is on: buddy, pcp, LRU or an owner's), rmap slot, and `WORD`.
    List heads are entries past the last pfn, so lists are circular and need no special case.
``pb`` : uint32[nr_pageblocks]
    Per pageblock: migratetype (bits 0-2), compaction's skip bit (3), absent (4), and in bits 16-31
    the number of its allocated pages that are on an LRU or otherwise movable.
``S`` : int64[]
    All counters: a header, then zones, per-CPU lists, vm events, and the trace buffer. Offsets below.

A head page's `WORD`: bits 0-3 order, 4-6 the migratetype cached for the pcp, 7 whether it is compound,
8-10 what it is (`T_NONE` ...). Only heads carry a type: a page inside a larger block has type `T_NONE`, which
keeps allocation and freeing O(1) in the size of the block. Bits 11-31 are page flags (``PG_*``) of an allocated
head, under the names of include/linux/page-flags.h; two stand for its only page table entry.

A page's rmap word is a slot, an index into the slot table (`mmfw.mm.rmap`), which is a fourth array:

``slots`` : uint32[nr_slots]
    For each place that can hold a page (an index of a file, a page of a mapping): its pfn, or bit 31 and the
    shadow that eviction left behind, or `SLOT_EMPTY`. A compiled loop that moves or evicts a page writes the
    table; the owner reads it.
"""

from __future__ import annotations

from typing import Any, Final

from mmfw.jit import i64, inline_njit, njit

# --- page words -----------------------------------------------------------------------------------
NEXT: Final = 0
PREV: Final = 1
RMAP: Final = 2
WORD: Final = 3

ORDER_MASK: Final = 0xF
PCPMT_SHIFT: Final = 4
PCPMT_MASK: Final = 0x70
TYPE_SHIFT: Final = 8
TYPE_MASK: Final = 0x700
T_NONE: Final = 0  #: not a head: hole, reserved at boot, or inside a block
T_BUDDY: Final = 0x100
T_PCP: Final = 0x200
T_ALLOC: Final = 0x300
PG_COMPOUND: Final = 1 << 7  #: allocated with __GFP_COMP and an order above 0

# --- page flags of an allocated head --------------------------------------------------------------
PG_LRU: Final = 1 << 11
PG_ACTIVE: Final = 1 << 12
PG_SWAPBACKED: Final = 1 << 13  #: anonymous or shmem
PG_REFERENCED: Final = 1 << 14
PG_WORKINGSET: Final = 1 << 15
PG_DIRTY: Final = 1 << 16
PG_WRITEBACK: Final = 1 << 17
PG_RECLAIM: Final = 1 << 18
PG_UNEVICTABLE: Final = 1 << 19
PG_MAPPED: Final = 1 << 20  #: a page table maps it; one mapping is modelled
PTE_YOUNG: Final = 1 << 21  #: the accessed bit of that entry
PG_LOCKED: Final = 1 << 22
PG_PINNED: Final = 1 << 23  #: somebody holds a reference that migration and reclaim cannot drop
PTE_EXEC: Final = 1 << 24  #: the mapping is VM_EXEC
PG_SWAPCACHE: Final = 1 << 25
PG_MLOCKED: Final = 1 << 26
PG_MOVABLE_OPS: Final = 1 << 27  #: not on an LRU, but its driver can move it (__PageMovable)
PG_LAZYFREE: Final = 1 << 28  #: anonymous and MADV_FREE
PG_PRIVATE: Final = 1 << 29  #: buffers or other fs data
PG_PTE_MAPPED: Final = (
    1 << 30
)  #: a huge page that an entry for each page maps; some may be unmapped, which slots tell

# --- slots ------------------------------------------------------------------------------------------
SLOT_EMPTY: Final = 0xFFFFFFFF
SLOT_SHADOW: Final = 1 << 31  #: not a pfn: bits 0-29 the age at eviction, bit 30 PG_WORKINGSET
SLOT_WORKINGSET: Final = 1 << 30
SLOT_AGE_MASK: Final = (1 << 30) - 1

# --- enum lru_list ----------------------------------------------------------------------------------
LRU_INACTIVE_ANON: Final = 0
LRU_ACTIVE_ANON: Final = 1
LRU_INACTIVE_FILE: Final = 2
LRU_ACTIVE_FILE: Final = 3
LRU_UNEVICTABLE: Final = 4
NR_LRU_LISTS: Final = 5

# --- pageblock bits -------------------------------------------------------------------------------
PB_MT_MASK: Final = 0x7
PB_SKIP: Final = 0x8
PB_ABSENT: Final = 0x10
PB_LRU_SHIFT: Final = 16
PB_NOT_MT: Final = 0xFFFFFFF8  #: all but the migratetype, as a positive number

# --- kernel constants the loops need ---------------------------------------------------------------
NR_ORDERS: Final = 11
PB_ORDER: Final = 9
PB_PAGES: Final = 512
NR_MT: Final = 5
NR_PCPLISTS: Final = 14
NR_ZONES: Final = 5
UNMOVABLE: Final = 0
MOVABLE: Final = 1
RECLAIMABLE: Final = 2
HIGHATOMIC: Final = 3
ISOLATE: Final = 4
PCP_BATCH_SCALE_MAX: Final = 5

# --- S: header -------------------------------------------------------------------------------------
S_NR_PFNS: Final = 0
S_NR_CPUS: Final = 1
S_NR_ROWS: Final = 2  #: zone rows: nodes * NR_ZONES
S_MOBILITY_OFF: Final = 3  #: page_group_by_mobility_disabled
S_BOOST_FACTOR: Final = 4  #: vm.watermark_boost_factor
S_BOOST_WAKE: Final = 5  #: zone row + 1 of a kswapd wake-up that rmqueue() owes, 0 for none
S_TRACE_MASK: Final = 6  #: bit per trace kind
S_TRACE_N: Final = 7  #: rows written (counts on past the capacity, so that loss is seen)
S_TRACE_CAP: Final = 8
S_TRACE_BASE: Final = 9
S_PGFREE: Final = 10
S_PGALLOC: Final = 11  #: NR_ZONES counters, by zone index
S_OWNER_HEADS: Final = 16  #: entry of the first owner list head
S_NONRESIDENT_AGE: Final = 17  #: lruvec->nonresident_age
S_ANON_COST: Final = 18
S_FILE_COST: Final = 19
S_CAPC_ROW: Final = 20  #: zone row + 1 of the running task's capture control, 0 for none
S_CAPC_ORDER: Final = 21
S_CAPC_PFN: Final = 22  #: captured pfn + 1, 0 for none
S_CAPC_MT: Final = 23
S_NODE_STAT: Final = 24  #: NR_NODE_STATS counters of the node, ``NS_*``; pages
NR_NODE_STATS: Final = 24
S_EVENT: Final = 48  #: NR_EVENTS counters, `mmfw.mm.vmstat.VmEvent`
NR_EVENTS: Final = 144
S_HEADER: Final = 192

# --- node counters (enum node_stat_item, less those summed over zones) -------------------------------
NS_ISOLATED_ANON: Final = 0
NS_ISOLATED_FILE: Final = 1
NS_ANON_MAPPED: Final = 2
NS_FILE_MAPPED: Final = 3
NS_FILE_PAGES: Final = 4
NS_FILE_DIRTY: Final = 5
NS_WRITEBACK: Final = 6
NS_SHMEM: Final = 7
NS_ANON_THPS: Final = 8
NS_SLAB_RECLAIMABLE: Final = 9  #: pages
NS_SLAB_UNRECLAIMABLE: Final = 10  #: pages
NS_SWAPCACHE: Final = 11
NS_DIRTIED: Final = 12
NS_WRITTEN: Final = 13
NS_THROTTLED_WRITTEN: Final = 14
NS_WORKINGSET_NODES: Final = 15
NS_FREE_SWAP: Final = 16  #: get_nr_swap_pages(); pages

# --- S: one zone row, at S_HEADER + row * Z_SIZE ----------------------------------------------------
Z_START: Final = 0
Z_END: Final = 1
Z_PRESENT: Final = 2
Z_MANAGED: Final = 3
Z_WMARK: Final = 4  #: min, low, high, promo
Z_BOOST: Final = 8
Z_NR_HIGHATOMIC: Final = 9
Z_RESERVE: Final = 10  #: lowmem_reserve, NR_ZONES values
Z_FLAGS: Final = 15
Z_FREE: Final = 16  #: NR_FREE_PAGES, zone-wide
Z_DRIFT_MARK: Final = 17
Z_NR_ISOLATE: Final = 18
Z_INDEX: Final = 19
Z_NODE: Final = 20
Z_NR_FREE: Final = 21  #: NR_ORDERS values
Z_LRU: Final = 32  #: NR_LRU_LISTS values, NR_ZONE_INACTIVE_ANON ...; pages
Z_WRITE_PENDING: Final = 37
Z_MLOCK: Final = 38
Z_CACHED_FREE: Final = 39  #: compact_cached_free_pfn
Z_CACHED_MIGRATE: Final = 40  #: compact_cached_migrate_pfn, two values: async, sync
Z_INIT_MIGRATE: Final = 42
Z_INIT_FREE: Final = 43
Z_CONSIDERED: Final = 44
Z_DEFER_SHIFT: Final = 45
Z_ORDER_FAILED: Final = 46
Z_BLOCKSKIP_FLUSH: Final = 47
Z_SIZE: Final = 48

ZF_BOOSTED_WATERMARK: Final = 1 << 0
ZF_RECLAIM_ACTIVE: Final = 1 << 1

# --- S: one CPU's lists for a zone, at pcp_base + (cpu * rows + row) * C_SIZE ------------------------
C_COUNT: Final = 0
C_HIGH: Final = 1
C_BATCH: Final = 2
C_FREE_FACTOR: Final = 3
C_EXPIRE: Final = 4
C_FREE_DIFF: Final = 5  #: vm_stat_diff[NR_FREE_PAGES]
C_THRESHOLD: Final = 6  #: stat_threshold
C_SIZE: Final = 8

# --- ALLOC_* of 6.1.192 -----------------------------------------------------------------------------
ALLOC_WMARK_MIN: Final = 0
ALLOC_WMARK_LOW: Final = 1
ALLOC_WMARK_HIGH: Final = 2
ALLOC_WMARK_MASK: Final = 3
ALLOC_NO_WATERMARKS: Final = 0x4
ALLOC_OOM: Final = 0x8
ALLOC_NON_BLOCK: Final = 0x10
ALLOC_MIN_RESERVE: Final = 0x20
ALLOC_CPUSET: Final = 0x40
ALLOC_NOFRAGMENT: Final = 0x100
ALLOC_HIGHATOMIC: Final = 0x200
ALLOC_KSWAPD: Final = 0x800
ALLOC_RESERVES: Final = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM

GFP_ATOMIC_BIT: Final = 0x200
GFP_COMP_BIT: Final = 0x40000

# --- trace rows: kind and five values ---------------------------------------------------------------
TR_SIZE: Final = 6
TR_EXTFRAG: Final = 0  #: pfn, alloc_order, fallback_order, alloc_mt, fallback_mt
TR_ZONE_LOCKED: Final = 1  #: pfn, order, mt, percpu_refill
TR_PCPU_DRAIN: Final = 2  #: pfn, order, mt
TR_WAKEUP_KSWAPD: Final = 3  #: order, highest_zoneidx, gfp_mask
TR_PAGE_ALLOC: Final = 4  #: pfn, order, mt, gfp_mask
TR_PAGE_FREE: Final = 5  #: pfn, order
TR_ISOLATE_MIGRATEPAGES: Final = 6  #: start_pfn, end_pfn, nr_scanned, nr_taken
TR_ISOLATE_FREEPAGES: Final = 7  #: start_pfn, end_pfn, nr_scanned, nr_taken
TR_MIGRATEPAGES: Final = 8  #: nr_migrated, nr_failed


# --- index masks ------------------------------------------------------------------------------------
# They change no value. They show LLVM that an index is not negative, which drops Python's wrap-around
# (three instructions) from every access that follows, and keeps it from carrying five running offsets
# through the loop over zones.
ROW_MASK: Final = 0xFFF
CPU_MASK: Final = 0x1FFF
ENTRY_MASK: Final = 0xFFFFFFFF
INDEX_MASK: Final = 7  #: of a zone or a migratetype


@inline_njit
def zone_offset(row: int) -> int:
    """Offset in S of a zone row."""
    return S_HEADER + (row & ROW_MASK) * Z_SIZE


@inline_njit
def pcp_offset(S: Any, cpu: int, row: int) -> int:
    """Offset in S of a CPU's lists for a zone row."""
    rows = S[S_NR_ROWS] & ROW_MASK
    return S_HEADER + rows * Z_SIZE + ((cpu & CPU_MASK) * rows + (row & ROW_MASK)) * C_SIZE


@inline_njit
def free_head(S: Any, row: int, order: int, mt: int) -> int:
    """Entry of the list head of ``free_area[order].free_list[mt]``."""
    return (S[S_NR_PFNS] + (row * NR_ORDERS + order) * NR_MT + mt) & ENTRY_MASK


@inline_njit
def pcp_head(S: Any, cpu: int, row: int, pindex: int) -> int:
    """Entry of the list head of ``pcp->lists[pindex]``."""
    rows = S[S_NR_ROWS]
    return (S[S_NR_PFNS] + rows * NR_ORDERS * NR_MT + (cpu * rows + row) * NR_PCPLISTS + pindex) & ENTRY_MASK


@inline_njit
def owner_head(S: Any, index: int) -> int:
    """Entry of an owner's list head; the first `NR_LRU_LISTS` are the LRU lists."""
    return (S[S_OWNER_HEADS] + index) & ENTRY_MASK


@inline_njit
def first_entry(page: Any, head: int) -> int:
    """First entry after a head; the head itself if the list is empty."""
    return i64(page[4 * head + NEXT])


@inline_njit
def last_entry(page: Any, head: int) -> int:
    """Last entry before a head; the head itself if the list is empty."""
    return i64(page[4 * head + PREV])


@inline_njit
def list_add(page: Any, head: int, entry: int) -> None:
    """Insert after the head (``list_add()``)."""
    first = i64(page[4 * head + NEXT])
    page[4 * entry + NEXT] = first
    page[4 * entry + PREV] = head
    page[4 * head + NEXT] = entry
    page[4 * first + PREV] = entry


@inline_njit
def list_add_tail(page: Any, head: int, entry: int) -> None:
    """Insert before the head (``list_add_tail()``)."""
    last = i64(page[4 * head + PREV])
    page[4 * entry + NEXT] = head
    page[4 * entry + PREV] = last
    page[4 * head + PREV] = entry
    page[4 * last + NEXT] = entry


@inline_njit
def list_del(page: Any, entry: int) -> None:
    """Unlink (``list_del()``); the entry's own words are left stale."""
    after = i64(page[4 * entry + NEXT])
    before = i64(page[4 * entry + PREV])
    page[4 * before + NEXT] = after
    page[4 * after + PREV] = before


@njit
def trace_row(S: Any, kind: int, a: int, b: int, c: int, d: int, e: int) -> None:
    """Append a row to the trace buffer."""
    n = S[S_TRACE_N]
    if n < S[S_TRACE_CAP]:
        at = S[S_TRACE_BASE] + n * TR_SIZE
        S[at] = kind
        S[at + 1] = a
        S[at + 2] = b
        S[at + 3] = c
        S[at + 4] = d
        S[at + 5] = e
    S[S_TRACE_N] = n + 1


@inline_njit
def trace(S: Any, kind: int, a: int, b: int, c: int, d: int, e: int) -> None:
    """Append a row to the trace buffer if its kind is enabled."""
    if S[S_TRACE_MASK] & (1 << kind):
        trace_row(S, i64(kind), i64(a), i64(b), i64(c), i64(d), i64(e))


@inline_njit
def mod_zone_free(S: Any, z: int, c: int, delta: int) -> None:
    """Change NR_FREE_PAGES through the CPU's private delta (``__mod_zone_page_state()``, mm/vmstat.c)."""
    x = S[c + C_FREE_DIFF] + delta
    if abs(x) > S[c + C_THRESHOLD]:
        S[z + Z_FREE] += x
        x = 0
    S[c + C_FREE_DIFF] = x


@inline_njit
def pageblock_mt(pb: Any, pfn: int) -> int:
    """Migratetype of the block of a pfn (``get_pageblock_migratetype()``)."""
    return i64(pb[pfn >> PB_ORDER] & PB_MT_MASK)


@inline_njit
def set_pageblock_mt(pb: Any, S: Any, pfn: int, mt: int) -> None:
    """Retag a block (``set_pageblock_migratetype()``)."""
    if S[S_MOBILITY_OFF] != 0 and mt < HIGHATOMIC:
        mt = UNMOVABLE
    block = pfn >> PB_ORDER
    pb[block] = (pb[block] & PB_NOT_MT) | mt
