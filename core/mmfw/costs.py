"""What work costs in virtual time, as named profiles of whole nanoseconds.

Every figure has a source, or is called an estimate. ``default`` is a present-day x86 machine; ``tcg`` is
for comparison with captures taken in an emulator, whose clock runs on emulated work. Nothing here knows a
task or a clock: code multiplies a figure by its count and hands the product to `Scheduler.charge`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mmfw.errors import InputError, did_you_mean

NSEC_PER_USEC: Final = 1_000
NSEC_PER_MSEC: Final = 1_000_000
NSEC_PER_SEC: Final = 1_000_000_000
HZ: Final = 250  #: CONFIG_HZ of the captured kernels
TICK_NSEC: Final = NSEC_PER_SEC // HZ


def jiffies_to_nsecs(jiffies: int) -> int:
    """Nanoseconds in that many ticks of `HZ` (kernel/time/time.c)."""
    return jiffies * TICK_NSEC


def nsecs_to_jiffies(ns: int) -> int:
    """Whole ticks of `HZ` in `ns`, rounded down (kernel/time/time.c)."""
    return ns // TICK_NSEC


def transfer_ns(nbytes: int, bytes_per_sec: int) -> int:
    """Time to move `nbytes` at a rate, rounded up so that no transfer is free.

    Examples
    --------
    >>> transfer_ns(4096, 1 << 30)
    3815
    """
    if bytes_per_sec <= 0:
        raise InputError(f"a rate of {bytes_per_sec} bytes/s moves nothing: it must be at least 1")
    return -(-nbytes * NSEC_PER_SEC // bytes_per_sec)


@dataclass(frozen=True, slots=True)
class CostProfile:
    """Virtual time per item, in nanoseconds.

    Attributes
    ----------
    name : str
        Name of the profile.
    alloc_pcp, free_pcp : int
        One request served by a per-CPU list (``rmqueue_pcplist``, ``free_unref_page``), any order held there.
    alloc_buddy, free_buddy : int
        One block taken from or merged into the free areas under ``zone->lock`` (``rmqueue_buddy``,
        ``__free_one_page``), refills and drains of a per-CPU list included: per block moved.
    alloc_slowpath : int
        Entering ``__alloc_pages_slowpath``, a look at kswapd included, without what it then does.
    kswapd_wake : int
        From kswapd being switched in until it has left ``kswapd_try_to_sleep``.
    kswapd_first_pass : int
        What kswapd's first pass takes beyond a later one, its code being in no cache.
    context_switch : int
        ``__schedule`` switching one CPU from a task (or idle) to another task.
    shrink_slab_call : int
        ``do_shrink_slab`` for one shrinker, without its methods.
    count_objects, scan_objects : int
        Base of one call of the method; what the method itself does is charged by it.
    scan_object : int
        One object looked at by a scan that frees or rotates it (``list_lru_walk_one``).
    lru_isolate_page, lru_skip_page, lru_shrink_page : int
        One page through ``isolate_lru_folios``; one that it puts aside for its zone; one through
        ``shrink_folio_list``, unmapping included.
    direct_reclaim : int
        Entering ``try_to_free_pages``, and as much again for leaving it, without what it then does.
    compact_zone : int
        Entering and leaving ``compact_zone`` for one zone, suitability tests included, without what the scanners do.
    compact_pageblock, compact_pageblock_warm : int
        One pageblock visited by a compaction scanner; the same when a sweep over the zone has just brought all of
        its pageblocks into the caches.
    reset_pageblock, reset_pageblock_warm : int
        One pageblock visited by ``__reset_isolation_suitable``; the same after such a sweep.
    compact_scan_page, compact_isolate_page : int
        One pfn looked at inside a pageblock; one page isolated by a scanner.
    migrate_page : int
        ``unmap_and_move`` of one base page, without the copy.
    page_fault, syscall : int
        One minor fault, without allocating and clearing the page; entry, work and exit of a short system call.
    copy_page, zero_page : int
        ``copy_highpage`` and ``clear_page`` of 4096 bytes.
    bind_bo : int
        Binding or unbinding one buffer object: page tables and TLB invalidation.
    swap_in_page, swap_out_page : int
        One read from swap, of 2^page-cluster adjacent pages at the most; one page written to it.
    writeback_page : int
        One page of file writeback.
    gpu_job : int
        From submission of an exec until its fence signals, on an idle GPU.
    wakeup_kswapd : int
        Waking a sleeping kswapd from the slow path (``wakeup_kswapd``). This and what follows is 0 in a profile that does
        not tell it apart from its surroundings.
    alloc_failed : int
        Leaving the slow path empty-handed.
    balance_pgdat : int
        Entering ``balance_pgdat``, and as much again for leaving it, without what it then does.
    kswapd_try_to_sleep : int
        Going to sleep, or finding that there is more to do, without what is done before (``kswapd_try_to_sleep``).
    direct_shrink_node : int
        What direct reclaim's first sweep of the shrinkers takes beyond a later one, their code being in no cache;
        kswapd's is in `kswapd_wake` and `balance_pgdat`.
    vmpressure_work : int
        One run of the worker that vmpressure wakes, where there is one.
    """

    name: str
    alloc_pcp: int
    alloc_buddy: int
    free_pcp: int
    free_buddy: int
    alloc_slowpath: int
    kswapd_wake: int
    kswapd_first_pass: int
    context_switch: int
    shrink_slab_call: int
    count_objects: int
    scan_objects: int
    scan_object: int
    lru_isolate_page: int
    lru_skip_page: int
    lru_shrink_page: int
    direct_reclaim: int
    compact_zone: int
    compact_pageblock: int
    compact_pageblock_warm: int
    reset_pageblock: int
    reset_pageblock_warm: int
    compact_scan_page: int
    compact_isolate_page: int
    migrate_page: int
    page_fault: int
    syscall: int
    copy_page: int
    zero_page: int
    bind_bo: int
    swap_in_page: int
    swap_out_page: int
    writeback_page: int
    gpu_job: int
    wakeup_kswapd: int = 0
    alloc_failed: int = 0
    balance_pgdat: int = 0
    kswapd_try_to_sleep: int = 0
    direct_shrink_node: int = 0
    vmpressure_work: int = 0

    def __post_init__(self) -> None:
        for name in COST_NAMES:
            ns = getattr(self, name)
            if type(ns) is not int or ns < 0:
                raise InputError(f"cost {name}={ns!r} of profile {self.name!r} must be an integer >= 0 (ns)")


COST_NAMES: Final = tuple(f.name for f in dataclasses.fields(CostProfile) if f.name != "name")


@dataclass(frozen=True, slots=True)
class Cost:
    """One figure of a profile: `ns` nanoseconds per item, and where the figure comes from."""

    ns: int
    source: str


_DEFAULT: Final = {
    "alloc_pcp": Cost(94, "LLFree, USENIX ATC'23: Linux order-0 allocation, uncontended"),
    "alloc_buddy": Cost(200, "estimate: twice a pcp hit, for zone->lock and expand()"),
    "free_pcp": Cost(60, "estimate: a pcp hit less the zone and watermark checks"),
    "free_buddy": Cost(150, "estimate: as alloc_buddy, with a merge or two"),
    "alloc_slowpath": Cost(500, "estimate"),
    "kswapd_wake": Cost(2_000, "estimate"),
    "kswapd_first_pass": Cost(0, "not told apart"),
    "context_switch": Cost(1_500, "estimate: lmbench lat_ctx gives 1 to 2 us on x86"),
    "shrink_slab_call": Cost(100, "estimate"),
    "count_objects": Cost(100, "estimate"),
    "scan_objects": Cost(200, "estimate"),
    "scan_object": Cost(100, "estimate: one lock and list move an object"),
    "lru_isolate_page": Cost(50, "estimate"),
    "lru_skip_page": Cost(10, "estimate: one list move"),
    "lru_shrink_page": Cost(400, "estimate: one rmap walk and one page-cache removal"),
    "direct_reclaim": Cost(500, "estimate"),
    "compact_zone": Cost(500, "estimate"),
    "compact_pageblock": Cost(100, "estimate: one cache miss, for the block's first struct page"),
    "compact_pageblock_warm": Cost(10, "estimate: the same, cached"),
    "reset_pageblock": Cost(120, "estimate: as compact_pageblock, and a sample of its pages"),
    "reset_pageblock_warm": Cost(30, "estimate: the same, cached"),
    "compact_scan_page": Cost(10, "estimate: below the 119 ns/page of compacting 32 GB in under 1 s"),
    "compact_isolate_page": Cost(100, "estimate: a lock, a list move and the counters"),
    "migrate_page": Cost(1_000, "estimate: unmap, flush and remap cost about as much as the copy"),
    "page_fault": Cost(250, "estimate: lmbench lat_pagefault gives 0.2 to 0.5 us, the page included"),
    "syscall": Cost(150, "estimate: madvise of one page"),
    "copy_page": Cost(1_000, "estimate: 4 GB/s, a page whose source and target are in no cache"),
    "zero_page": Cost(300, "estimate: clear_page at about 13 GB/s"),
    "bind_bo": Cost(
        20_000, "estimate: one object's page table entries and a TLB invalidation of the GPU, waited for"
    ),
    "swap_in_page": Cost(
        50_000, "estimate: one random read of flash, of up to 2^page-cluster pages, waited for"
    ),
    "swap_out_page": Cost(
        transfer_ns(4096, 1 << 30), "1 GiB/s, as writeback_page: the device streams writes, a read waits"
    ),
    "writeback_page": Cost(transfer_ns(4096, 1 << 30), "1 GiB/s, stated by the file-copy scenario"),
    "gpu_job": Cost(1_000_000, "estimate: ten clients at 60 exec/s keep the GPU 60% busy"),
}

# Provisional: medians of gaps between neighbouring trace events of one task in the 6.1.192 captures under
# emulation (timestamps in whole us, the tracing itself included). Costs left out are those of `default`.
_TCG: Final = {
    "alloc_buddy": Cost(
        800, "1G-frag16: compaction_end to gpu_restore of 32 order-4 blocks, median 34 us, 8 of entry"
    ),
    "free_buddy": Cost(
        400, "1G-frag16: slab_start to gpu_evict of 32 order-4 blocks, median 23 us, 10 of entry"
    ),
    "alloc_pcp": Cost(540, "1G-frag16: compaction_end to gpu_restore of 512 single pages, median 287 us"),
    "free_pcp": Cost(480, "1G-frag16: slab_start to gpu_evict of 512 single pages, median 256 us"),
    "alloc_slowpath": Cost(
        1_500,
        "1G-frag16: restore to wakeup_kswapd takes no longer than to the next, served at once: 1115, 1117 us",
    ),
    "wakeup_kswapd": Cost(
        14_500, "1G-frag16: wakeup_kswapd to mm_compaction_begin, 16 us, median of 2021, less the entry"
    ),
    "kswapd_wake": Cost(
        10_000, "1G-frag16: last event of the task switched out to kswapd_wake, 13 us in all"
    ),
    "alloc_failed": Cost(
        9_000,
        "1G-frag16: compaction_end to gpu_restore of 32 order-4 blocks, 35 us, less those: order 9 gives up",
    ),
    "balance_pgdat": Cost(
        13_000,
        "1G-frag16: kswapd_wake to the shrinker's slab_start, 33 us, less 10 and three calls of shrinkers",
    ),
    "kswapd_try_to_sleep": Cost(
        16_000, "1G-, 2G-frag16: the same, 32 us with no block, less a switch and leaving balance_pgdat"
    ),
    "direct_shrink_node": Cost(
        23_000, "1G-frag16: kswapd's first sweep of the shrinkers, 33 us, less a later one's 10"
    ),
    "vmpressure_work": Cost(
        55_000,
        "1G-cache3: slab_end to wakeup_kcompactd, 80 us where pages were scanned, 5 where not (1G-frag16), less switches",
    ),
    "kswapd_first_pass": Cost(
        2_500_000,
        "1G-frag16: its first pass takes 2668 us, later ones about 120: the emulator translates the code",
    ),
    "context_switch": Cost(3_000, "the rest of the same 13 us (median of 1080)"),
    "shrink_slab_call": Cost(
        2_900,
        "1G-frag16: kswapd_wake to the last slab_end of a pass that evicts once, 97 us, median; calls alone, 11.3 us for "
        "three, mean of 8388, would give 2750",
    ),
    "direct_reclaim": Cost(
        10_000,
        "1G-frag16: compaction_end to direct_reclaim_begin to _end to compaction_begin, 9, 4, 8 us, medians",
    ),
    "compact_zone": Cost(
        3_000, "1G-frag16: compaction_begin to _end of a zone that has nothing to scan, median of 2544"
    ),
    "count_objects": Cost(1_000, "256M-v1 and 1G-v1: count to slab_start, median"),
    "scan_objects": Cost(1_000, "256M-v1 and 1G-v1: scan to scan, median"),
    "lru_isolate_page": Cost(300, "256M-r1 lru capture: about 9 us before the isolation of 32 pages"),
    "lru_skip_page": Cost(57, "256M-r1: 2.26 ms for 39800 pages in one call"),
    "lru_shrink_page": Cost(1_600, "256M-r1: lru_isolate to lru_shrink_inactive, about 52 us for 32 pages"),
    "copy_page": Cost(
        5_000, "256M-r1: 21 us for a page read before reclaim begins; copying taken to be a quarter"
    ),
    "writeback_page": Cost(14_000, "256M-r1: the rest of the 21 us, less the allocation"),
    "page_fault": Cost(
        8_500,
        "512M-k4-o4, -m2-o4: what a shell takes every 200 ms lies 43 to 46 pageblocks apart: 9.3 us, less the page",
    ),
    "syscall": Cost(
        3_000, "512M-m2-o9: 0.8 s more than a fill for 83968 faults and 41984 madvise calls; estimate"
    ),
    "compact_scan_page": Cost(
        67,
        "1G-frag16: an order-4 sweep, 579 us, median of 9, less 118; a page in 16 is looked at in 217 pageblocks",
    ),
    "compact_pageblock": Cost(
        204,
        "1G-frag16: 121 us for a sweep over 503 pageblocks, first after a sleep; in 217 a page is looked at",
    ),
    "compact_pageblock_warm": Cost(22, "1G-frag16: 13 us for one that follows within 0.2 ms"),
    "reset_pageblock": Cost(
        169,
        "1G-, 2G-frag16: last eviction of kswapd's pass to gpu_restore, 117 us with 503 blocks, 202 with 1005",
    ),
    "reset_pageblock_warm": Cost(50, "512M-u8-o4: end of kswapd's pass to compaction_suitable, 250 blocks"),
}

_PROFILES: Final = {"default": _DEFAULT, "tcg": {**_DEFAULT, **_TCG}}


def profile(name: str, replaced: Mapping[str, int] | None = None) -> CostProfile:
    """The cost profile of that name.

    Parameters
    ----------
    name : str
        One of `profile_names`.
    replaced : mapping, optional
        Costs to take in place of the profile's, ns, by their names.

    Raises
    ------
    InputError
        If there is no such profile or cost; the message suggests the nearest.
    """
    table = {cost: figure.ns for cost, figure in _figures(name).items()}
    for cost, ns in (replaced or {}).items():
        if cost not in COST_NAMES:
            raise InputError(f"unknown cost {cost!r}; {did_you_mean(cost, COST_NAMES)}")
        if ns < 0:
            raise InputError(f"cost {cost} is {ns} ns: it must be at least 0")
        table[cost] = ns
    return CostProfile(name=name, **table)


def describe(name: str) -> Iterator[tuple[str, Cost]]:
    """Each cost that profile `name` tells apart, with its source, in the order of `CostProfile`."""
    figures = _figures(name)
    return ((cost, figures[cost]) for cost in COST_NAMES if cost in figures)


def profile_names() -> tuple[str, ...]:
    """Names `profile` accepts, sorted."""
    return tuple(sorted(_PROFILES))


def _figures(name: str) -> dict[str, Cost]:
    try:
        return _PROFILES[name]
    except KeyError:
        raise InputError(f"unknown cost profile {name!r}; {did_you_mean(name, _PROFILES)}") from None
