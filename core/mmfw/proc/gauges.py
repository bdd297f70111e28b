"""What /proc/vmstat, /proc/meminfo and the node's part of /proc/zoneinfo say of a simulated machine.

Names and order are those of 6.1 on x86-64 with one NUMA node and no CMA. What the simulator does not
model is printed as 0: kernel stacks, vmalloc, per-CPU memory, NUMA hits, commit charge, huge page
pools, the direct map. Sums over zones are of zone-wide counters, as ``global_zone_page_state()`` has them:
the CPUs' private deltas are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.jit import page as pg
from mmfw.mm.mmzone import low_wmark_pages
from mmfw.mm.vmstat import VmEvent
from mmfw.proc.meminfo import MemInfo, MemInfoEntry
from mmfw.proc.vmstat import VmStat
from mmfw.state import PAGEBLOCK_NR_PAGES

if TYPE_CHECKING:
    from mmfw.mm.core import Mm
    from mmfw.mm.mmzone import Zone
    from mmfw.mm.sysctl import SysctlVm

Entries = tuple[tuple[str, int], ...]

_LRU: Final = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
_KB: Final = 4  # a page
_PAGE_SIZE: Final = 4096
#: ``vm.overcommit_ratio``, percent.
_OVERCOMMIT_RATIO: Final = 50
#: Size of the vmalloc area with 4-level page tables, KiB.
_VMALLOC_TOTAL: Final = (1 << 45) // 1024 - 1


def zone_stats(zone: Zone) -> Entries:
    """A zone's counters, in the order of ``enum zone_stat_item``, then its NUMA counters; pages."""
    S, at = zone.memory.S, zone.memory.zone_offset(zone.index)
    numa = ("hit", "miss", "foreign", "interleave", "local", "other")
    return (
        ("nr_free_pages", max(0, zone.nr_free_pages)),
        *((f"nr_zone_{name}", n) for name, n in zip(_LRU, zone.lru_sizes, strict=True)),
        ("nr_zone_write_pending", int(S[at + pg.Z_WRITE_PENDING])),
        ("nr_mlock", int(S[at + pg.Z_MLOCK])),
        ("nr_bounce", 0),
        ("nr_zspages", 0),
        ("nr_free_cma", 0),
        *((f"numa_{name}", 0) for name in numa),
    )


def node_stats(mm: Mm) -> Entries:
    """The node's counters in the order of ``enum node_stat_item``; pages, unless a name says otherwise.

    ``nr_anon_transparent_hugepages`` is in huge pages, ``nr_kernel_stack`` in KiB.
    """
    pgdat, events = mm.pgdat, mm.vmstat
    S = pgdat.memory.S
    sizes = [sum(zone.lru_sizes[lru] for zone in pgdat.node_zones) for lru in range(len(_LRU))]

    def stat(item: int) -> int:
        return max(0, int(S[pg.S_NODE_STAT + item]))

    return (
        *((f"nr_{name}", n) for name, n in zip(_LRU, sizes, strict=True)),
        ("nr_slab_reclaimable", stat(pg.NS_SLAB_RECLAIMABLE)),
        ("nr_slab_unreclaimable", stat(pg.NS_SLAB_UNRECLAIMABLE)),
        ("nr_isolated_anon", stat(pg.NS_ISOLATED_ANON)),
        ("nr_isolated_file", stat(pg.NS_ISOLATED_FILE)),
        ("workingset_nodes", stat(pg.NS_WORKINGSET_NODES)),
        ("workingset_refault_anon", events[VmEvent.workingset_refault_anon]),
        ("workingset_refault_file", events[VmEvent.workingset_refault_file]),
        ("workingset_activate_anon", events[VmEvent.workingset_activate_anon]),
        ("workingset_activate_file", events[VmEvent.workingset_activate_file]),
        ("workingset_restore_anon", events[VmEvent.workingset_restore_anon]),
        ("workingset_restore_file", events[VmEvent.workingset_restore_file]),
        ("workingset_nodereclaim", events[VmEvent.workingset_nodereclaim]),
        ("nr_anon_pages", stat(pg.NS_ANON_MAPPED)),
        ("nr_mapped", stat(pg.NS_FILE_MAPPED)),
        ("nr_file_pages", stat(pg.NS_FILE_PAGES)),
        ("nr_dirty", stat(pg.NS_FILE_DIRTY)),
        ("nr_writeback", stat(pg.NS_WRITEBACK)),
        ("nr_writeback_temp", 0),
        ("nr_shmem", stat(pg.NS_SHMEM)),
        ("nr_shmem_hugepages", 0),
        ("nr_shmem_pmdmapped", 0),
        ("nr_file_hugepages", 0),
        ("nr_file_pmdmapped", 0),
        ("nr_anon_transparent_hugepages", stat(pg.NS_ANON_THPS) // PAGEBLOCK_NR_PAGES),
        ("nr_vmscan_write", events[VmEvent.nr_vmscan_write]),
        ("nr_vmscan_immediate_reclaim", events[VmEvent.nr_vmscan_immediate_reclaim]),
        ("nr_dirtied", stat(pg.NS_DIRTIED)),
        ("nr_written", stat(pg.NS_WRITTEN)),
        ("nr_throttled_written", stat(pg.NS_THROTTLED_WRITTEN)),
        ("nr_kernel_misc_reclaimable", 0),
        ("nr_foll_pin_acquired", 0),
        ("nr_foll_pin_released", 0),
        ("nr_kernel_stack", 0),
        ("nr_page_table_pages", mm.memory.nr_page_table_pages),
        ("nr_sec_page_table_pages", 0),
        ("nr_swapcached", stat(pg.NS_SWAPCACHE)),
        ("pgpromote_success", 0),
        ("pgpromote_candidate", 0),
    )


def global_dirty_limits(free: int, file: int, totalreserve_pages: int, vm: SysctlVm) -> tuple[int, int]:
    """Dirty pages at which writers wait, and at which the flusher starts (``domain_dirty_limits()``).

    They are ``vm.dirty_ratio`` and ``vm.dirty_background_ratio`` of dirtyable memory (``global_dirtyable_memory()``):
    free pages beyond `totalreserve_pages`, and `file` pages on the LRU lists.
    """
    dirtyable = max(0, free - totalreserve_pages) + file + 1
    ratios = vm.dirty_ratio, vm.dirty_background_ratio
    limits = [ratio * _PAGE_SIZE // 100 * dirtyable // _PAGE_SIZE for ratio in ratios]
    return limits[0], limits[1] if limits[1] < limits[0] else limits[0] // 2


def vmstat_of(mm: Mm) -> VmStat:
    """``/proc/vmstat`` of a machine."""
    zones = [dict(zone_stats(zone)) for zone in mm.pgdat.node_zones]
    totals = {name: sum(zone[name] for zone in zones) for name in zones[0]}
    node = dict(node_stats(mm))
    free = totals["nr_free_pages"]
    file = node["nr_inactive_file"] + node["nr_active_file"]
    thresh, background = global_dirty_limits(
        free, file, mm.pgdat.memory.totalreserve_pages, mm.pgdat.memory.vm
    )
    counted = mm.vmstat.as_dict()
    events = [event.name for event in VmEvent if event.name not in node]
    return VmStat(
        (
            *totals.items(),
            *node.items(),
            ("nr_dirty_threshold", thresh),
            ("nr_dirty_background_threshold", background),
            *((name, counted[name]) for name in events),
            ("nr_unstable", 0),
        )
    )


def si_mem_available(stats: dict[str, int], totalreserve_pages: int, wmark_low: int) -> int:
    """Pages that could be had without swapping (``si_mem_available()``, mm/page_alloc.c).

    Parameters
    ----------
    stats : dict of str to int
        Counters by their /proc/vmstat names.
    totalreserve_pages : int
        Pages that the kernel keeps for itself (``totalreserve_pages``).
    wmark_low : int
        Sum of the zones' low watermarks.
    """
    available = stats["nr_free_pages"] - totalreserve_pages
    pagecache = stats["nr_active_file"] + stats["nr_inactive_file"]
    available += pagecache - min(pagecache // 2, wmark_low)
    reclaimable = stats["nr_slab_reclaimable"] + stats["nr_kernel_misc_reclaimable"]
    available += reclaimable - min(reclaimable // 2, wmark_low)
    return max(0, available)


def meminfo_of(mm: Mm) -> MemInfo:
    """``/proc/meminfo`` of a machine (``meminfo_proc_show()``); files and disks all count as ``Cached``."""
    stats = vmstat_of(mm).as_dict()
    memory = mm.pgdat.memory
    total = sum(zone.managed_pages for zone in mm.pgdat.node_zones)
    wmark_low = sum(low_wmark_pages(zone) for zone in mm.pgdat.node_zones)
    swap = memory.total_swap_pages
    anon = stats["nr_active_anon"], stats["nr_inactive_anon"]
    file = stats["nr_active_file"], stats["nr_inactive_file"]
    sreclaimable, sunreclaim = stats["nr_slab_reclaimable"], stats["nr_slab_unreclaimable"]
    kreclaimable = sreclaimable + stats["nr_kernel_misc_reclaimable"]
    pages = (
        ("MemTotal", total),
        ("MemFree", stats["nr_free_pages"]),
        ("MemAvailable", si_mem_available(stats, memory.totalreserve_pages, wmark_low)),
        ("Buffers", 0),
        ("Cached", max(0, stats["nr_file_pages"] - stats["nr_swapcached"])),
        ("SwapCached", stats["nr_swapcached"]),
        ("Active", anon[0] + file[0]),
        ("Inactive", anon[1] + file[1]),
        ("Active(anon)", anon[0]),
        ("Inactive(anon)", anon[1]),
        ("Active(file)", file[0]),
        ("Inactive(file)", file[1]),
        ("Unevictable", stats["nr_unevictable"]),
        ("Mlocked", stats["nr_mlock"]),
        ("SwapTotal", swap),
        ("SwapFree", max(0, int(memory.S[pg.S_NODE_STAT + pg.NS_FREE_SWAP]))),
        ("Dirty", stats["nr_dirty"]),
        ("Writeback", stats["nr_writeback"]),
        ("AnonPages", stats["nr_anon_pages"]),
        ("Mapped", stats["nr_mapped"]),
        ("Shmem", stats["nr_shmem"]),
        ("KReclaimable", kreclaimable),
        ("Slab", sreclaimable + sunreclaim),
        ("SReclaimable", sreclaimable),
        ("SUnreclaim", sunreclaim),
        ("KernelStack", 0),
        ("PageTables", stats["nr_page_table_pages"]),
        ("SecPageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", total * _OVERCOMMIT_RATIO // 100 + swap),
        ("Committed_AS", 0),
    )
    huge = PAGEBLOCK_NR_PAGES * _KB
    return MemInfo(
        (
            *(MemInfoEntry(name, n * _KB) for name, n in pages),
            MemInfoEntry("VmallocTotal", _VMALLOC_TOTAL),
            *(MemInfoEntry(name, 0) for name in ("VmallocUsed", "VmallocChunk", "Percpu")),
            MemInfoEntry("AnonHugePages", stats["nr_anon_transparent_hugepages"] * huge),
            *(
                MemInfoEntry(name, 0)
                for name in ("ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped")
            ),
            *(
                MemInfoEntry(f"HugePages_{name}", 0, in_kb=False)
                for name in ("Total", "Free", "Rsvd", "Surp")
            ),
            MemInfoEntry("Hugepagesize", huge),
            *(MemInfoEntry(name, 0) for name in ("Hugetlb", "DirectMap4k", "DirectMap2M", "DirectMap1G")),
        )
    )
