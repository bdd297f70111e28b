"""Event counters under the names of /proc/vmstat (mm/vmstat.c, include/linux/vm_event_item.h of 6.1)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from mmfw.jit import page as pg

if TYPE_CHECKING:
    from mmfw.mm.pages import Memory


class VmEvent(IntEnum):
    """Events, in the order of /proc/vmstat; last come node counters that only ever grow.

    ``pgfree`` and ``pgalloc_*`` are kept by the allocator itself (`VmStat.as_dict` has them). Names that
    nothing in this simulator counts stay 0, as on a kernel built without their feature.
    """

    pgpgin = 0
    pgpgout = 1
    pswpin = 2
    pswpout = 3
    pgalloc_dma = 4
    pgalloc_dma32 = 5
    pgalloc_normal = 6
    pgalloc_movable = 7
    pgalloc_device = 8
    allocstall_dma = 9
    allocstall_dma32 = 10
    allocstall_normal = 11
    allocstall_movable = 12
    allocstall_device = 13
    pgskip_dma = 14
    pgskip_dma32 = 15
    pgskip_normal = 16
    pgskip_movable = 17
    pgskip_device = 18
    pgfree = 19
    pgactivate = 20
    pgdeactivate = 21
    pglazyfree = 22
    pgfault = 23
    pgmajfault = 24
    pglazyfreed = 25
    pgrefill = 26
    pgreuse = 27
    pgsteal_kswapd = 28
    pgsteal_direct = 29
    pgdemote_kswapd = 30
    pgdemote_direct = 31
    pgscan_kswapd = 32
    pgscan_direct = 33
    pgscan_direct_throttle = 34
    pgscan_anon = 35
    pgscan_file = 36
    pgsteal_anon = 37
    pgsteal_file = 38
    zone_reclaim_failed = 39
    pginodesteal = 40
    slabs_scanned = 41
    kswapd_inodesteal = 42
    kswapd_low_wmark_hit_quickly = 43
    kswapd_high_wmark_hit_quickly = 44
    pageoutrun = 45
    pgrotated = 46
    drop_pagecache = 47
    drop_slab = 48
    oom_kill = 49
    numa_pte_updates = 50
    numa_huge_pte_updates = 51
    numa_hint_faults = 52
    numa_hint_faults_local = 53
    numa_pages_migrated = 54
    pgmigrate_success = 55
    pgmigrate_fail = 56
    thp_migration_success = 57
    thp_migration_fail = 58
    thp_migration_split = 59
    compact_migrate_scanned = 60
    compact_free_scanned = 61
    compact_isolated = 62
    compact_stall = 63
    compact_fail = 64
    compact_success = 65
    compact_daemon_wake = 66
    compact_daemon_migrate_scanned = 67
    compact_daemon_free_scanned = 68
    htlb_buddy_alloc_success = 69
    htlb_buddy_alloc_fail = 70
    unevictable_pgs_culled = 71
    unevictable_pgs_scanned = 72
    unevictable_pgs_rescued = 73
    unevictable_pgs_mlocked = 74
    unevictable_pgs_munlocked = 75
    unevictable_pgs_cleared = 76
    unevictable_pgs_stranded = 77
    thp_fault_alloc = 78
    thp_fault_fallback = 79
    thp_fault_fallback_charge = 80
    thp_collapse_alloc = 81
    thp_collapse_alloc_failed = 82
    thp_file_alloc = 83
    thp_file_fallback = 84
    thp_file_fallback_charge = 85
    thp_file_mapped = 86
    thp_split_page = 87
    thp_split_page_failed = 88
    thp_deferred_split_page = 89
    thp_split_pmd = 90
    thp_scan_exceed_none_pte = 91
    thp_scan_exceed_swap_pte = 92
    thp_scan_exceed_share_pte = 93
    thp_split_pud = 94
    thp_zero_page_alloc = 95
    thp_zero_page_alloc_failed = 96
    thp_swpout = 97
    thp_swpout_fallback = 98
    balloon_inflate = 99
    balloon_deflate = 100
    balloon_migrate = 101
    swap_ra = 102
    swap_ra_hit = 103
    ksm_swpin_copy = 104
    cow_ksm = 105
    direct_map_level2_splits = 106
    direct_map_level3_splits = 107
    workingset_refault_anon = 108
    workingset_refault_file = 109
    workingset_activate_anon = 110
    workingset_activate_file = 111
    workingset_restore_anon = 112
    workingset_restore_file = 113
    workingset_nodereclaim = 114
    nr_vmscan_write = 115
    nr_vmscan_immediate_reclaim = 116


class VmStat:
    """The system's event counters.

    Parameters
    ----------
    memory : Memory
        Holds the counters, those of the compiled loops included.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._events = memory.S[pg.S_EVENT : pg.S_EVENT + pg.NR_EVENTS]

    def count(self, event: VmEvent, n: int = 1) -> None:
        """Add to a counter (``count_vm_events()``)."""
        self._events[event] += n

    def __getitem__(self, event: VmEvent) -> int:
        return int(self._events[event])

    @property
    def pgfree(self) -> int:
        """Pages freed so far, by anybody."""
        return int(self._memory.S[pg.S_PGFREE])

    def as_dict(self) -> dict[str, int]:
        """All counters by their /proc/vmstat names, sorted by name; pgfree and pgalloc_* in pages."""
        S = self._memory.S
        out = {event.name: int(self._events[event]) for event in VmEvent}
        out["pgfree"] = int(S[pg.S_PGFREE])
        for index, zone in enumerate(("dma", "dma32", "normal", "movable", "device")):
            out[f"pgalloc_{zone}"] = int(S[pg.S_PGALLOC + index])
        return dict(sorted(out.items()))
