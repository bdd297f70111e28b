"""The arrays of a machine: every page, every pageblock, every counter (what the compiled loops work on).

`Memory` owns them, loads them from a `NodeState` and dumps them back; `mmfw.jit.page` says what lies where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import InputError, MmfwError
from mmfw.jit import page as pg
from mmfw.jit.lists import load_list, walk_list
from mmfw.mm.sysctl import SysctlVm
from mmfw.state import (
    MAX_NR_ZONES,
    MAX_ORDER,
    MIGRATE_TYPES,
    NR_PCP_LISTS,
    PAGEBLOCK_ABSENT,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    NodeState,
    PcpState,
    ZoneState,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: Rows of the trace buffer; the memory is touched only as far as it is used.
TRACE_CAPACITY: Final = 1 << 18
#: Private lists that owners may ask for (the LRU lists, lists of pages isolated for compaction and the like).
NR_OWNER_LISTS: Final = 64
#: Compaction's state of a zone: field of ``ZoneState.compact`` to offset in its row.
COMPACT_OFFSETS: Final = {
    "compact_cached_free_pfn": pg.Z_CACHED_FREE,
    "compact_cached_migrate_pfn_async": pg.Z_CACHED_MIGRATE,
    "compact_cached_migrate_pfn_sync": pg.Z_CACHED_MIGRATE + 1,
    "compact_considered": pg.Z_CONSIDERED,
    "compact_defer_shift": pg.Z_DEFER_SHIFT,
    "compact_order_failed": pg.Z_ORDER_FAILED,
}


class Memory:
    """The pages of a machine and all counters of its allocator.

    Parameters
    ----------
    state : NodeState
        What to load. It must be consistent (`mmfw.machine.snapshot` and `mmfw.machine.layout` see to that).

    Attributes
    ----------
    page : uint32[4 * entries]
        Page words, list heads after the last pfn; see `mmfw.jit.page`.
    pb : uint32[nr_pageblocks]
        Pageblock types, skip bits and counts of movable pages.
    S : int64[]
        Counters; offsets in `mmfw.jit.page`.
    """

    def __init__(self, state: NodeState) -> None:
        self.nr_cpus = state.nr_cpus
        self.nr_rows = MAX_NR_ZONES
        self.nr_pfns = state.end_pfn
        nr_heads = (
            self.nr_rows * MAX_ORDER * MIGRATE_TYPES
            + self.nr_cpus * self.nr_rows * NR_PCP_LISTS
            + NR_OWNER_LISTS
        )
        entries = self.nr_pfns + nr_heads
        if entries >= 1 << 32:
            raise InputError(
                f"a machine of {self.nr_pfns} pages: at most {2**32 - nr_heads} can be simulated"
            )
        self.page: NDArray[np.uint32] = np.zeros(4 * entries, dtype=np.uint32)
        heads = np.arange(self.nr_pfns, entries, dtype=np.uint32)
        self.page[4 * self.nr_pfns + pg.NEXT :: 4] = heads
        self.page[4 * self.nr_pfns + pg.PREV :: 4] = heads
        nr_blocks = (self.nr_pfns + PAGEBLOCK_NR_PAGES - 1) >> PAGEBLOCK_ORDER
        self.pb: NDArray[np.uint32] = np.full(nr_blocks, pg.PB_ABSENT, dtype=np.uint32)
        trace_base = pg.S_HEADER + self.nr_rows * (pg.Z_SIZE + self.nr_cpus * pg.C_SIZE)
        self.S: NDArray[np.int64] = np.zeros(trace_base + TRACE_CAPACITY * pg.TR_SIZE, dtype=np.int64)
        #: The same numbers as Python's own: a decision reads dozens, and numpy's scalars cost twice as much.
        self.words: memoryview[int] = self.S.data
        S = self.S
        S[pg.S_NR_PFNS] = self.nr_pfns
        S[pg.S_NR_CPUS] = self.nr_cpus
        S[pg.S_NR_ROWS] = self.nr_rows
        S[pg.S_TRACE_CAP] = TRACE_CAPACITY
        S[pg.S_TRACE_BASE] = trace_base
        S[pg.S_MOBILITY_OFF] = int(state.page_group_by_mobility_disabled)
        S[pg.S_BOOST_FACTOR] = state.watermark_boost_factor
        S[pg.S_OWNER_HEADS] = self.nr_pfns + nr_heads - NR_OWNER_LISTS
        self._free_owner_lists = list(range(NR_OWNER_LISTS - 1, pg.NR_LRU_LISTS - 1, -1))
        self.totalreserve_pages = state.totalreserve_pages
        self.min_free_kbytes = state.min_free_kbytes
        self.total_swap_pages = 0
        self.vm = SysctlVm()
        self.trace_sink: Callable[[NDArray[np.int64]], None] | None = None
        self._template = {z.zone: z for z in state.zones}
        for zone in state.zones:
            self._load_zone(zone)

    def set_sysctls(self, vm: SysctlVm) -> None:
        """Set ``vm.*``; before time starts, for some are read only then."""
        self.vm = vm
        if vm.watermark_boost_factor is not None:
            self.S[pg.S_BOOST_FACTOR] = vm.watermark_boost_factor

    # --- places -----------------------------------------------------------------------------------

    def zone_offset(self, row: int) -> int:
        """Offset in S of a zone row."""
        return pg.S_HEADER + row * pg.Z_SIZE

    def pcp_offset(self, cpu: int, row: int) -> int:
        """Offset in S of a CPU's lists for a zone row."""
        return pg.S_HEADER + self.nr_rows * pg.Z_SIZE + (cpu * self.nr_rows + row) * pg.C_SIZE

    def free_head(self, row: int, order: int, migratetype: int) -> int:
        """Entry of the head of a free list."""
        return self.nr_pfns + (row * MAX_ORDER + order) * MIGRATE_TYPES + migratetype

    def pcp_head(self, cpu: int, row: int, pindex: int) -> int:
        """Entry of the head of a per-CPU list."""
        return (
            self.nr_pfns
            + self.nr_rows * MAX_ORDER * MIGRATE_TYPES
            + (cpu * self.nr_rows + row) * NR_PCP_LISTS
            + pindex
        )

    def owner_head(self, index: int) -> int:
        """Entry of the head of an owner's list; the first are the LRU lists."""
        return int(self.S[pg.S_OWNER_HEADS]) + index

    def take_owner_list(self) -> int:
        """Index of an empty private list, for pages off every other list; give it back with `put_owner_list`."""
        if not self._free_owner_lists:
            raise MmfwError(f"more than {NR_OWNER_LISTS} private page lists are in use at once")
        return self._free_owner_lists.pop()

    def put_owner_list(self, index: int) -> None:
        """Give a private list back; it must be empty."""
        self._free_owner_lists.append(index)

    def list_pfns(self, head: int, limit: int | None = None) -> NDArray[np.int64]:
        """Entries of a list, head first.

        Parameters
        ----------
        head : int
            From `free_head` or `pcp_head`.
        limit : int, optional
            At most this many.
        """
        room = 1024
        while True:
            out = np.empty(room if limit is None else min(room, limit), dtype=np.int64)
            n = walk_list(self.page, head, out)
            if n <= len(out) or len(out) == limit:
                return out[: min(n, len(out))]
            room = n

    # --- the trace buffer ---------------------------------------------------------------------------

    def take_trace(self) -> NDArray[np.int64]:
        """Rows written since the last call: int64[n, TR_SIZE], kind first.

        Raises
        ------
        MmfwError
            More rows were written between two calls than the buffer holds.
        """
        S = self.S
        n = int(S[pg.S_TRACE_N])
        if n > TRACE_CAPACITY:
            raise MmfwError(f"{n} trace rows in one operation; the buffer holds {TRACE_CAPACITY}")
        base = int(S[pg.S_TRACE_BASE])
        S[pg.S_TRACE_N] = 0
        return S[base : base + n * pg.TR_SIZE].reshape(n, pg.TR_SIZE).copy()

    def flush_trace(self) -> None:
        """Hand the rows to `trace_sink`; without one they are dropped."""
        rows = self.take_trace()
        if self.trace_sink is not None:
            self.trace_sink(rows)

    # --- loading and dumping ------------------------------------------------------------------------

    def _load_zone(self, state: ZoneState) -> None:
        S, row = self.S, state.zone
        z = self.zone_offset(row)
        S[z + pg.Z_START] = state.start_pfn
        S[z + pg.Z_END] = state.end_pfn
        S[z + pg.Z_PRESENT] = state.present
        S[z + pg.Z_MANAGED] = state.managed
        S[z + pg.Z_WMARK : z + pg.Z_WMARK + 4] = state.watermark
        S[z + pg.Z_BOOST] = state.watermark_boost
        S[z + pg.Z_NR_HIGHATOMIC] = state.nr_reserved_highatomic
        S[z + pg.Z_RESERVE : z + pg.Z_RESERVE + MAX_NR_ZONES] = state.lowmem_reserve
        S[z + pg.Z_FLAGS] = state.flags
        S[z + pg.Z_FREE] = state.vm_free
        S[z + pg.Z_DRIFT_MARK] = state.percpu_drift_mark
        S[z + pg.Z_NR_ISOLATE] = state.nr_isolate_pageblock
        S[z + pg.Z_INDEX] = state.zone
        for field, at in COMPACT_OFFSETS.items():
            S[z + at] = state.compact.get(field, 0)
        S[z + pg.Z_NR_FREE : z + pg.Z_NR_FREE + MAX_ORDER] = state.nr_free
        first = state.start_pfn >> PAGEBLOCK_ORDER
        types = state.pageblock_mt.astype(np.uint32)
        words = np.where(types == PAGEBLOCK_ABSENT, np.uint32(pg.PB_ABSENT), types)
        self.pb[first : first + len(words)] = words
        lru = state.pageblock_lru
        self.pb[first + lru[:, 0]] |= (lru[:, 1] << pg.PB_LRU_SHIFT).astype(np.uint32)
        for order in range(MAX_ORDER):
            for mt in range(MIGRATE_TYPES):
                pfns = state.free_lists[order][mt]
                load_list(self.page, self.free_head(row, order, mt), pfns, pg.T_BUDDY | order)
        for cpu, pcp in enumerate(state.pcp):
            c = self.pcp_offset(cpu, row)
            S[c + pg.C_COUNT] = pcp.count
            S[c + pg.C_HIGH] = pcp.high
            S[c + pg.C_BATCH] = pcp.batch
            S[c + pg.C_FREE_FACTOR] = pcp.free_factor
            S[c + pg.C_EXPIRE] = pcp.expire
            S[c + pg.C_FREE_DIFF] = state.vm_free_cpu_diff[cpu]
            S[c + pg.C_THRESHOLD] = state.stat_threshold[cpu]
            for pindex, (pfns, types_) in enumerate(pcp.lists):
                order = pindex // 3 if pindex < 12 else PAGEBLOCK_ORDER
                load_list(self.page, self.pcp_head(cpu, row, pindex), pfns, pg.T_PCP | order)
                self.page[4 * pfns + pg.WORD] |= (types_ << pg.PCPMT_SHIFT).astype(np.uint32)

    def zone_state(self, row: int) -> ZoneState:
        """Dump of one zone, list order included."""
        S, template = self.S, self._template[row]
        z = self.zone_offset(row)
        first = template.start_pfn >> PAGEBLOCK_ORDER
        words = self.pb[first : first + len(template.pageblock_mt)]
        types = np.where(words & pg.PB_ABSENT, PAGEBLOCK_ABSENT, words & pg.PB_MT_MASK).astype(np.uint8)
        movable = (words >> pg.PB_LRU_SHIFT).astype(np.int64)
        blocks = np.nonzero(movable)[0]
        return ZoneState(
            zone=row,
            start_pfn=template.start_pfn,
            spanned=template.spanned,
            present=template.present,
            managed=int(S[z + pg.Z_MANAGED]),
            watermark=(
                int(S[z + pg.Z_WMARK]),
                int(S[z + pg.Z_WMARK + 1]),
                int(S[z + pg.Z_WMARK + 2]),
                int(S[z + pg.Z_WMARK + 3]),
            ),
            lowmem_reserve=tuple(int(v) for v in S[z + pg.Z_RESERVE : z + pg.Z_RESERVE + MAX_NR_ZONES]),
            watermark_boost=int(S[z + pg.Z_BOOST]),
            nr_reserved_highatomic=int(S[z + pg.Z_NR_HIGHATOMIC]),
            flags=int(S[z + pg.Z_FLAGS]),
            vm_free=int(S[z + pg.Z_FREE]),
            vm_free_cpu_diff=[int(S[self.pcp_offset(c, row) + pg.C_FREE_DIFF]) for c in range(self.nr_cpus)],
            stat_threshold=[int(S[self.pcp_offset(c, row) + pg.C_THRESHOLD]) for c in range(self.nr_cpus)],
            percpu_drift_mark=int(S[z + pg.Z_DRIFT_MARK]),
            nr_isolate_pageblock=int(S[z + pg.Z_NR_ISOLATE]),
            pageset_high=template.pageset_high,
            pageset_batch=template.pageset_batch,
            compact={
                field: int(S[z + COMPACT_OFFSETS[field]]) for field in template.compact or COMPACT_OFFSETS
            },
            pageblock_mt=types,
            pageblock_lru=np.stack([blocks, movable[blocks]], axis=1),
            nr_free=S[z + pg.Z_NR_FREE : z + pg.Z_NR_FREE + MAX_ORDER].copy(),
            free_lists=[
                [self.list_pfns(self.free_head(row, order, mt)) for mt in range(MIGRATE_TYPES)]
                for order in range(MAX_ORDER)
            ],
            pcp=[self._pcp_state(cpu, row) for cpu in range(self.nr_cpus)],
        )

    def _pcp_state(self, cpu: int, row: int) -> PcpState:
        S, c = self.S, self.pcp_offset(cpu, row)
        lists = []
        for pindex in range(NR_PCP_LISTS):
            pfns = self.list_pfns(self.pcp_head(cpu, row, pindex))
            types = (self.page[4 * pfns + pg.WORD] & pg.PCPMT_MASK) >> pg.PCPMT_SHIFT
            lists.append((pfns, types.astype(np.int64)))
        return PcpState(
            count=int(S[c + pg.C_COUNT]),
            high=int(S[c + pg.C_HIGH]),
            batch=int(S[c + pg.C_BATCH]),
            free_factor=int(S[c + pg.C_FREE_FACTOR]),
            expire=int(S[c + pg.C_EXPIRE]),
            lists=lists,
        )

    def node_state(self) -> NodeState:
        """Dump of everything, list order included."""
        return NodeState(
            zones=[self.zone_state(row) for row in sorted(self._template)],
            nr_cpus=self.nr_cpus,
            totalreserve_pages=self.totalreserve_pages,
            watermark_boost_factor=int(self.S[pg.S_BOOST_FACTOR]),
            min_free_kbytes=self.min_free_kbytes,
            page_group_by_mobility_disabled=bool(self.S[pg.S_MOBILITY_OFF]),
        )

    @property
    def populated_rows(self) -> tuple[int, ...]:
        """Rows of the populated zones, ascending."""
        return tuple(sorted(self._template))
