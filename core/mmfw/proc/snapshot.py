"""The /proc files of a simulated machine, as text under the kernel's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.jit import page as pg
from mmfw.mm.fragmentation import fragmentation_index, unusable_free_index
from mmfw.proc.buddyinfo import BuddyInfo, BuddyRow, format_buddyinfo
from mmfw.proc.extfrag import IndexRow, format_extfrag_index, format_unusable_index
from mmfw.proc.gauges import Entries, meminfo_of, node_stats, vmstat_of, zone_stats
from mmfw.proc.meminfo import format_meminfo
from mmfw.proc.pagetypeinfo import BlockRow, FreeTypeRow, NodePageTypes, PageTypeInfo, format_pagetypeinfo
from mmfw.proc.vmstat import format_vmstat
from mmfw.proc.zoneinfo import PagesetInfo, ZoneInfo, ZoneInfoFile, format_zoneinfo
from mmfw.state import MAX_ORDER, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfw.mm.core import Mm
    from mmfw.mm.mmzone import PglistData, Zone

#: ``migratetype_names[]`` of a kernel without CMA.
MIGRATETYPE_NAMES: Final = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
#: Paths below /proc of what `proc_files` gives.
PROC_FILES: Final = (
    "buddyinfo", "pagetypeinfo", "zoneinfo", "vmstat", "meminfo", "extfrag_index", "unusable_index",
    "sys/vm/min_free_kbytes", "sys/vm/watermark_boost_factor",
)  # fmt: skip
#: Blocks at which pagetypeinfo stops to count a free list.
_COUNT_LIMIT: Final = 100_000
#: Fruitless passes after which the node is given up (``MAX_RECLAIM_RETRIES``).
_MAX_RECLAIM_RETRIES: Final = 16


def _populated(pgdat: PglistData) -> list[Zone]:
    return [zone for zone in pgdat.node_zones if zone.present_pages]


def buddyinfo_of(pgdat: PglistData) -> BuddyInfo:
    """``/proc/buddyinfo`` of a node."""
    return BuddyInfo(
        tuple(BuddyRow(zone.node, zone.name, tuple(zone.nr_free_by_order())) for zone in _populated(pgdat))
    )


def _free_rows(zone: Zone) -> list[FreeTypeRow]:
    rows = []
    for mt, name in enumerate(MIGRATETYPE_NAMES):
        counts = []
        for order in range(MAX_ORDER):
            head = zone.memory.free_head(zone.index, order, mt)
            counts.append(len(zone.memory.list_pfns(head, limit=_COUNT_LIMIT)))
        capped = tuple(n == _COUNT_LIMIT for n in counts)
        rows.append(FreeTypeRow(zone.node, zone.name, name, tuple(counts), capped))
    return rows


def _block_row(zone: Zone) -> BlockRow:
    counts = [0] * len(MIGRATETYPE_NAMES)
    # As the kernel does it: from the zone's first pfn, which may lie inside a block, in steps of a block.
    for pfn in range(zone.zone_start_pfn, zone.zone_end_pfn, PAGEBLOCK_NR_PAGES):
        word = int(zone.memory.pb[pfn >> PAGEBLOCK_ORDER])
        if not word & pg.PB_ABSENT:
            counts[word & pg.PB_MT_MASK] += 1
    return BlockRow(zone.node, zone.name, tuple(counts))


def pagetypeinfo_of(pgdat: PglistData) -> PageTypeInfo:
    """``/proc/pagetypeinfo`` of a node; a count of 100000 is a lower bound, as the kernel's."""
    zones = _populated(pgdat)
    free = [row for zone in zones for row in _free_rows(zone)]
    blocks = tuple(_block_row(zone) for zone in zones)
    node = NodePageTypes(PAGEBLOCK_ORDER, PAGEBLOCK_NR_PAGES, MIGRATETYPE_NAMES, tuple(free), blocks)
    return PageTypeInfo((node,))


def _pagesets(zone: Zone) -> tuple[PagesetInfo, ...]:
    memory = zone.memory
    pagesets = []
    for cpu in range(memory.nr_cpus):
        at = memory.pcp_offset(cpu, zone.index)
        count, high, batch = (int(memory.S[at + field]) for field in (pg.C_COUNT, pg.C_HIGH, pg.C_BATCH))
        entries = ("count", count), ("high", high), ("batch", batch)
        pagesets.append(PagesetInfo(cpu, entries, int(memory.S[at + pg.C_THRESHOLD])))
    return tuple(pagesets)


def _zone_info(zone: Zone, stats: Entries | None) -> ZoneInfo:
    marks = [zone.wmark_pages(which) for which in range(3)]
    pages = (
        ("free", max(0, zone.nr_free_pages)),
        ("boost", zone.watermark_boost),
        *zip(("min", "low", "high"), marks, strict=True),
        ("spanned", zone.spanned_pages),
        ("present", zone.present_pages),
        ("managed", zone.managed_pages),
        ("cma", 0),
    )
    if not zone.present_pages:
        return ZoneInfo(zone.node, zone.name, None, pages, zone.lowmem_reserve, (), None, ())
    hopeless = int(zone.pgdat.kswapd_failures >= _MAX_RECLAIM_RETRIES)
    tail = ("node_unreclaimable", hopeless), ("start_pfn", zone.zone_start_pfn)
    return ZoneInfo(
        zone.node, zone.name, stats, pages, zone.lowmem_reserve, zone_stats(zone), _pagesets(zone), tail
    )


def zoneinfo_of(mm: Mm) -> ZoneInfoFile:
    """``/proc/zoneinfo`` of a machine."""
    first = _populated(mm.pgdat)[0]
    stats = node_stats(mm)
    return ZoneInfoFile(
        tuple(_zone_info(zone, stats if zone is first else None) for zone in mm.pgdat.node_zones)
    )


def proc_files(mm: Mm) -> dict[str, str]:
    """Texts of a machine's /proc files, by path (`PROC_FILES`).

    ``extfrag_index`` and ``unusable_index`` are debugfs's. The two files under ``sys/vm`` are those that a
    machine read from such a folder asks for (`mmfw.machine.procdir`).
    """
    pgdat = mm.pgdat
    counts = {zone.name: zone.nr_free_by_order() for zone in _populated(pgdat)}

    def rows(index: Callable[[list[int], int], int]) -> tuple[IndexRow, ...]:
        return tuple(
            IndexRow(pgdat.node_id, name, tuple(index(nr_free, order) for order in range(MAX_ORDER)))
            for name, nr_free in counts.items()
        )

    return {
        "buddyinfo": format_buddyinfo(buddyinfo_of(pgdat)),
        "pagetypeinfo": format_pagetypeinfo(pagetypeinfo_of(pgdat)),
        "zoneinfo": format_zoneinfo(zoneinfo_of(mm)),
        "vmstat": format_vmstat(vmstat_of(mm)),
        "meminfo": format_meminfo(meminfo_of(mm)),
        "extfrag_index": format_extfrag_index(rows(fragmentation_index)),
        "unusable_index": format_unusable_index(rows(unusable_free_index)),
        "sys/vm/min_free_kbytes": f"{pgdat.memory.min_free_kbytes}\n",
        "sys/vm/watermark_boost_factor": f"{int(pgdat.memory.S[pg.S_BOOST_FACTOR])}\n",
    }
