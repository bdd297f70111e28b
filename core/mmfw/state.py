"""A machine's memory at one moment, as data: what a machine description produces and mm loads.

The fields are those of ``struct zone`` and ``struct per_cpu_pages`` that decide what the page
allocator does next. Machines laid out from ``/proc`` text, snapshots and the state records of a
captured trace all become a `NodeState`; `mmfw.mm.page_alloc` loads one and dumps one. Comparing two
of them is how a replay is judged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_ORDER: Final = 11  #: exclusive, as in 6.1: orders 0..10 exist
PAGEBLOCK_ORDER: Final = 9
PAGEBLOCK_NR_PAGES: Final = 1 << PAGEBLOCK_ORDER
MIGRATE_PCPTYPES: Final = 3
NR_LOWORDER_PCP_LISTS: Final = 12
NR_PCP_LISTS: Final = 14
MAX_NR_ZONES: Final = 5
ZONE_NAMES: Final = ("DMA", "DMA32", "Normal", "Movable", "Device")


class ZoneType(IntEnum):
    """``enum zone_type`` of x86-64 (include/linux/mmzone.h)."""

    DMA = 0
    DMA32 = 1
    NORMAL = 2
    MOVABLE = 3
    DEVICE = 4


class MigrateType(IntEnum):
    """``enum migratetype`` without CMA (include/linux/mmzone.h)."""

    UNMOVABLE = 0
    MOVABLE = 1
    RECLAIMABLE = 2
    HIGHATOMIC = 3
    ISOLATE = 4


MIGRATE_TYPES: Final = len(MigrateType)
#: ``migratetype_names[]`` (mm/page_alloc.c), as pagetypeinfo prints them.
MIGRATETYPE_NAMES: Final = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
#: Value of `ZoneState.pageblock_mt` for a pageblock that has no memory section behind it.
PAGEBLOCK_ABSENT: Final = 0xF

PfnArray = NDArray[np.int64]


def _no_pfns() -> PfnArray:
    return np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class PcpState:
    """One CPU's page lists for one zone (``struct per_cpu_pages``).

    Attributes
    ----------
    count : int
        Pages on all lists (base pages).
    high, batch : int
        Limits, in pages.
    free_factor, expire : int
        As in the kernel.
    lists : list of (int64[n], int64[n])
        `NR_PCP_LISTS` pairs, list head first: first pfn of each entry, and the migratetype cached in it.
    """

    count: int = 0
    high: int = 0
    batch: int = 1
    free_factor: int = 0
    expire: int = 0
    lists: list[tuple[PfnArray, PfnArray]] = field(
        default_factory=lambda: [(_no_pfns(), _no_pfns()) for _ in range(NR_PCP_LISTS)]
    )


@dataclass(slots=True)
class ZoneState:
    """One populated zone (``struct zone``). Sizes are in pages.

    Attributes
    ----------
    zone : int
        Index, a `ZoneType`.
    start_pfn, spanned, present, managed : int
        Span and size.
    watermark : (int, int, int, int)
        min, low, high, promo, without boost (``_watermark[]``).
    watermark_boost, nr_reserved_highatomic : int
        As in the kernel.
    lowmem_reserve : tuple of int
        By highest zone index of the request, `MAX_NR_ZONES` values.
    flags : int
        ``zone->flags`` bits (``enum zone_flags``: 0 BOOSTED_WATERMARK, 1 RECLAIM_ACTIVE).
    vm_free : int
        Zone-wide ``NR_FREE_PAGES``.
    vm_free_cpu_diff : list of int
        Per CPU, the part not yet folded into `vm_free`.
    stat_threshold : list of int
        Per CPU, the size at which such a part is folded.
    percpu_drift_mark, nr_isolate_pageblock : int
        As in the kernel.
    pageset_high, pageset_batch : int
        Defaults for every CPU's page lists.
    compact : dict of str to int
        Compaction's cursors and defer counters by field name; carried, not used by the allocator.
    pageblock_mt : uint8[n]
        Migratetype of each pageblock from the one that holds `start_pfn`; `PAGEBLOCK_ABSENT` for a hole.
    pageblock_lru : int64[m, 2]
        (block index, count) of blocks with allocated pages that are on an LRU or otherwise movable.
    lru_pfns : int64[n] or None
        Which pages these are, ascending, where that is known; no record of a state tells it.
    nr_free : int64[MAX_ORDER]
        ``free_area[order].nr_free``.
    free_lists : list of list of int64[n]
        ``[order][migratetype]``: first pfn of each free block, list head first.
    pcp : list of PcpState
        One per CPU.
    """

    zone: int
    start_pfn: int
    spanned: int
    present: int
    managed: int
    watermark: tuple[int, int, int, int]
    lowmem_reserve: tuple[int, ...]
    watermark_boost: int = 0
    nr_reserved_highatomic: int = 0
    flags: int = 0
    vm_free: int = 0
    vm_free_cpu_diff: list[int] = field(default_factory=lambda: [0])
    stat_threshold: list[int] = field(default_factory=lambda: [1])
    percpu_drift_mark: int = 0
    nr_isolate_pageblock: int = 0
    pageset_high: int = 0
    pageset_batch: int = 1
    compact: dict[str, int] = field(default_factory=dict)
    pageblock_mt: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    pageblock_lru: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    lru_pfns: NDArray[np.int64] | None = None
    nr_free: NDArray[np.int64] = field(default_factory=lambda: np.zeros(MAX_ORDER, dtype=np.int64))
    free_lists: list[list[PfnArray]] = field(
        default_factory=lambda: [[_no_pfns() for _ in range(MIGRATE_TYPES)] for _ in range(MAX_ORDER)]
    )
    pcp: list[PcpState] = field(default_factory=lambda: [PcpState()])

    @property
    def name(self) -> str:
        """Zone name as /proc prints it."""
        return ZONE_NAMES[self.zone]

    @property
    def end_pfn(self) -> int:
        """First pfn past the span."""
        return self.start_pfn + self.spanned


@dataclass(slots=True)
class NodeState:
    """A node: its populated zones in index order, and what is kept per node or per system.

    Attributes
    ----------
    zones : list of ZoneState
        Populated zones, ascending index.
    nr_cpus : int
        Online CPUs; every per-CPU list has this length.
    totalreserve_pages : int
        ``totalreserve_pages`` (mm/page_alloc.c).
    watermark_boost_factor : int
        ``vm.watermark_boost_factor``.
    min_free_kbytes : int
        ``vm.min_free_kbytes``; 0 where unknown (a trace does not carry it).
    page_group_by_mobility_disabled : bool
        Mobility grouping off, as on machines under about 10 MiB.
    """

    zones: list[ZoneState]
    nr_cpus: int = 1
    totalreserve_pages: int = 0
    watermark_boost_factor: int = 15000
    min_free_kbytes: int = 0
    page_group_by_mobility_disabled: bool = False

    @property
    def end_pfn(self) -> int:
        """First pfn past the last zone."""
        return max(z.end_pfn for z in self.zones)
