"""Every branch of ``__alloc_pages_slowpath()``: who is asked for memory, in which order, and who gives up when."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mm.workbench import (
    DMA32,
    QUIET,
    events_of,
    file_pfns,
    fill,
    fragment,
    grown,
    pin_all,
    set_word,
    set_zone_field,
    take_large,
    unboosted,
)
from mmfw import SHRINK_STOP, gfp, hookimpl
from mmfw.jit import page as pg
from mmfw.mm import slowpath as slowpath_module
from mmfw.mm.oom_kill import OutOfMemory
from mmfw.mm.trace import (
    MmCompactionDeferred,
    MmCompactionTryToCompactPages,
    MmVmscanDirectReclaimBegin,
    MmVmscanDirectReclaimEnd,
    ReclaimRetryZone,
)
from mmfw.types import CompactPriority, WakePlan, WakeReason

KERNEL = gfp.GFP_KERNEL | gfp.NOWARN
COSTLY = 9


def attempts(mm):
    """Compaction (its priority) and direct reclaim (-1), in the order in which they are tried."""
    order: list[int] = []
    mm.trace.subscribe(MmCompactionTryToCompactPages, lambda e: order.append(int(e.prio)))
    mm.trace.subscribe(MmVmscanDirectReclaimBegin, lambda e: order.append(-1))
    return order


ASYNC, SYNC_LIGHT, SYNC_FULL = (int(p) for p in reversed(CompactPriority))
RECLAIM = -1


class Pages:
    """A shrinker over order-0 pages, which gives so many a call, from a certain call on."""

    seeks = 0

    def __init__(self, mm, pfns, per_call=64, after=0):
        self.mm, self.per_call, self.after = mm, per_call, after
        self.pfns = [int(pfn) for pfn in pfns]
        self.calls = 0
        mm.register_shrinker(self, "pages")

    @hookimpl
    def count_objects(self, sc):
        return len(self.pfns)

    @hookimpl
    def scan_objects(self, sc):
        self.calls += 1
        if self.calls <= self.after or not self.pfns:
            return SHRINK_STOP
        take = [self.pfns.pop() for _ in range(min(self.per_call, len(self.pfns)))]
        for pfn in take:
            self.mm.free_pages(pfn, 0)
        self.mm.account_reclaimed_slab(len(take))
        return len(take)


@pytest.fixture
def full():
    """A machine with nothing left above the min watermark, and no page that could be reclaimed."""
    mm = unboosted()
    mm.held = fill(mm)
    return mm


@pytest.fixture
def fragmented():
    """Much free, none of it larger than order 3, one unmovable page in sixteen pfns."""
    mm = unboosted()
    mm.held = fragment(mm, 16)
    take_large(mm, 4)
    return mm


def record_wakes(mm):
    wakes = []

    def plan(pgdat, wake):
        wakes.append((wake.order, wake.gfp_mask, wake.highest_zoneidx, wake.reason))
        return WakePlan(kswapd_order=wake.order)

    requests = mm._freelist.kswapd
    requests._ops = dataclasses.replace(requests._ops, plan_wakeup=plan)
    return wakes


# --- waking kswapd ------------------------------------------------------------------------------------


def test_a_request_that_fails_wakes_kswapd_on_entry_and_at_its_retry(full):
    wakes = record_wakes(full)
    assert full.alloc_pages(gfp.GFP_NOWAIT, 0) == -1
    assert wakes == [(0, gfp.GFP_NOWAIT, 2, WakeReason.SLOWPATH)] * 2


def test_a_request_that_its_reserve_serves_wakes_it_once(full):
    """The fast path misses at the low watermark; with __GFP_HIGH half of min may be used, at the first attempt."""
    wakes = record_wakes(full)
    assert full.alloc_pages(gfp.GFP_ATOMIC, 0) >= 0
    assert wakes == [(0, gfp.GFP_ATOMIC, 2, WakeReason.SLOWPATH)]


def test_without_the_kswapd_bit_nobody_is_woken(full):
    wakes = record_wakes(full)
    assert full.alloc_pages(KERNEL & ~gfp.KSWAPD_RECLAIM | gfp.NORETRY, 0) == -1
    assert wakes == []
    assert full.pgdat.kswapd_order == 0


def test_the_zone_index_of_the_request_is_what_kswapd_is_asked_for(full):
    wakes = record_wakes(full)
    full.alloc_pages(gfp.GFP_NOWAIT | gfp.DMA32, 0)
    full.alloc_pages(gfp.GFP_NOWAIT | gfp.HIGHMEM | gfp.MOVABLE, 0)
    assert [w[2] for w in wakes] == [1, 1, 3, 3]
    assert full.pgdat.kswapd_highest_zoneidx == 3


def test_a_steal_below_a_pageblock_boosts_the_zone_and_wakes_kswapd_for_order_0():
    mm = unboosted()
    mm.pgdat.memory.S[pg.S_BOOST_FACTOR] = 15000
    take_large(mm, 9)
    wakes = record_wakes(mm)
    # Reclaimable has almost nothing of its own: it steals from Movable blocks, which are smaller than a pageblock.
    mm.alloc_pages_batch(QUIET | gfp.RECLAIMABLE, 0, 600)
    boosts = [w for w in wakes if w[3] is WakeReason.BOOST]
    # Without __GFP_KSWAPD_RECLAIM the boost is noted, and nobody is woken for it.
    assert boosts == []
    assert any(zone.watermark_boost for zone in mm.pgdat.node_zones)
    for zone in mm.pgdat.node_zones:
        zone.watermark_boost = 0
    mm.alloc_pages_batch(QUIET | gfp.RECLAIMABLE | gfp.KSWAPD_RECLAIM, 0, 1200)
    boosts = [w for w in wakes if w[3] is WakeReason.BOOST]
    assert boosts
    assert {(w[0], w[1]) for w in boosts} == {(0, 0)}
    assert {w[2] for w in boosts} <= {0, 1}


# --- costly requests that may not retry ----------------------------------------------------------------


def test_costly_noretry_gives_up_when_compaction_is_skipped(full):
    order = attempts(full)
    before = full.vmstat.as_dict()
    assert full.alloc_pages(KERNEL | gfp.NORETRY, COSTLY) == -1
    assert order == [ASYNC]
    assert "compact_stall" not in grown(full, before)
    assert "allocstall_normal" not in grown(full, before)


def test_costly_noretry_gives_up_when_compaction_is_deferred(fragmented):
    for zone in (0, 1):
        set_zone_field(fragmented, pg.Z_DEFER_SHIFT, 6, zone)
        set_zone_field(fragmented, pg.Z_ORDER_FAILED, COSTLY, zone)
    deferred = events_of(fragmented, MmCompactionDeferred)
    order = attempts(fragmented)
    before = fragmented.vmstat.as_dict()
    assert fragmented.alloc_pages(KERNEL | gfp.NORETRY, COSTLY) == -1
    assert order == [ASYNC]
    # DEFERRED counts as a stall that failed in 6.1.
    assert {(e.zone_idx, e.considered) for e in deferred} == {(0, 1), (1, 1)}
    assert {k: v for k, v in grown(fragmented, before).items() if "compact" in k} == {
        "compact_fail": 1,
        "compact_stall": 1,
    }


def test_costly_noretry_on_this_node_gives_up_after_compaction_ran(fragmented):
    order = attempts(fragmented)
    assert fragmented.alloc_pages(KERNEL | gfp.NORETRY | gfp.THISNODE, COSTLY) == -1
    assert order == [ASYNC]


def test_costly_noretry_does_one_round_of_reclaim_and_stays_asynchronous(fragmented):
    order = attempts(fragmented)
    assert fragmented.alloc_pages(KERNEL | gfp.NORETRY, COSTLY) == -1
    assert order == [ASYNC, RECLAIM, ASYNC]


def test_a_thp_fault_compacts_before_anything_else_and_a_light_one_does_nothing(fragmented):
    order = attempts(fragmented)
    assert fragmented.alloc_pages(gfp.GFP_TRANSHUGE_LIGHT, COSTLY) == -1
    assert order == []
    wakes = record_wakes(fragmented)
    assert fragmented.alloc_pages(gfp.GFP_TRANSHUGE, COSTLY) == -1
    assert order == [ASYNC, RECLAIM, SYNC_LIGHT]
    assert wakes == []  # GFP_TRANSHUGE has no kswapd bit


# --- the others ------------------------------------------------------------------------------------------


def test_noretry_of_a_small_order_compacts_first_only_if_it_is_not_movable():
    mm = unboosted()
    pin_all(mm)
    fragment(mm, 2)
    take_large(mm, 1)
    order = attempts(mm)
    assert mm.alloc_pages(KERNEL | gfp.NORETRY, 2) == -1
    assert order == [ASYNC, RECLAIM, SYNC_LIGHT]
    del order[:]
    assert mm.alloc_pages(KERNEL | gfp.NORETRY | gfp.MOVABLE, 2) == -1
    assert order == [RECLAIM, SYNC_LIGHT]


def test_a_plain_costly_request_does_one_synchronous_round(fragmented):
    order = attempts(fragmented)
    assert fragmented.alloc_pages(KERNEL, COSTLY) == -1
    assert order == [ASYNC, RECLAIM, SYNC_LIGHT]


def test_retry_mayfail_of_a_costly_order_stops_where_even_full_reclaim_could_not_help(fragmented):
    order = attempts(fragmented)
    fragmented.oom.out_of_memory = lambda *a: pytest.fail("a costly request must not kill")
    assert fragmented.alloc_pages(KERNEL | gfp.RETRY_MAYFAIL, COSTLY) == -1
    assert order == [ASYNC, RECLAIM, SYNC_LIGHT]


def test_retry_mayfail_of_a_costly_order_does_16_more_rounds_while_reclaim_could_help():
    """A block of the order is free, only the watermark keeps it back, and there is page cache that is locked."""
    mm = unboosted()
    file = mm.page_cache.open(1200)
    file.read(0, 1200)
    set_word(mm, file_pfns(mm, file), on=pg.PG_LOCKED)
    block = mm.alloc_pages(QUIET, COSTLY)
    fill(mm, mask=QUIET | gfp.MEMALLOC)
    mm.free_pages(block, COSTLY)
    mm.drain_all_pages()
    for mark in range(3):
        set_zone_field(mm, pg.Z_WMARK + mark, 600)
    loops = events_of(mm, ReclaimRetryZone)
    order = attempts(mm)
    mm.oom.out_of_memory = lambda *a: pytest.fail("a costly request must not kill")
    assert mm.alloc_pages(KERNEL | gfp.RETRY_MAYFAIL, COSTLY) == -1
    assert order == [ASYNC] + 17 * [RECLAIM, SYNC_LIGHT]
    assert [e.no_progress_loops for e in loops if e.wmark_check] == list(range(1, 17))


def test_memalloc_may_take_the_last_page_and_nomemalloc_may_not(full):
    left = full.global_free_pages()
    assert full.alloc_pages(QUIET, 0) == -1
    assert full.alloc_pages(QUIET | gfp.MEMALLOC | gfp.NOMEMALLOC, 0) == -1
    with full.sched.memalloc_noreclaim():
        assert full.alloc_pages(KERNEL | gfp.NOMEMALLOC | gfp.NORETRY, 0) == -1
        assert full.alloc_pages(KERNEL, 0) >= 0
    got = full.alloc_pages_batch(QUIET | gfp.MEMALLOC, 0, left)
    assert len(got) > left // 2
    assert full.pgdat.node_zones[1].free_pages_snapshot() == 0


def test_the_reserves_are_deeper_the_more_urgent_the_request(full):
    zone = full.pgdat.node_zones[1]
    low = zone.watermark[0]
    left = {}
    for name, mask in {
        "high": QUIET | gfp.HIGH | gfp.NOMEMALLOC,  # half of min
        "atomic": QUIET | gfp.HIGH | gfp.ATOMIC,  # and a quarter of that, since it cannot sleep
    }.items():
        full.alloc_pages_batch(mask, 0, 4000)
        left[name] = zone.free_pages_snapshot()
    assert low // 2 - 8 <= left["high"] <= low // 2 + 8
    assert low * 3 // 8 - 8 <= left["atomic"] <= low * 3 // 8 + 8


def test_nowait_and_atomic_neither_reclaim_nor_compact(fragmented):
    order = attempts(fragmented)
    for mask in (gfp.GFP_NOWAIT, gfp.GFP_ATOMIC):
        assert fragmented.alloc_pages(mask, COSTLY) == -1
    assert order == []
    assert "allocstall_normal" not in grown(fragmented, dict.fromkeys(fragmented.vmstat.as_dict(), 0))


def test_noio_reclaims_and_never_compacts(fragmented):
    order = attempts(fragmented)
    assert fragmented.alloc_pages(gfp.GFP_NOIO | gfp.NORETRY, COSTLY) == -1
    assert order == [RECLAIM]
    del order[:]
    with fragmented.sched.memalloc_noio():
        assert fragmented.alloc_pages(KERNEL | gfp.NORETRY, COSTLY) == -1
    assert order == [RECLAIM]


def test_reclaim_that_freed_something_is_followed_by_an_attempt_then_by_a_drain(full):
    """Freed pages lie on the CPU's lists, where only an order-0 request of their type finds them."""
    shrinker = Pages(full, full.held[:256], per_call=32)
    ends = events_of(full, MmVmscanDirectReclaimEnd)
    pfn = full.alloc_pages(KERNEL | gfp.NORETRY, 0)
    assert pfn >= 0
    assert ends[0].nr_reclaimed >= 32
    assert shrinker.calls >= 1
    assert sum(len(full.pgdat.memory.list_pfns(full.pgdat.memory.pcp_head(0, 1, i))) for i in range(14)) < 64


def test_reclaim_is_not_entered_from_within_reclaim(full):
    inner = []

    class Greedy:
        @hookimpl
        def count_objects(self, sc):
            return 1000

        @hookimpl
        def scan_objects(self, sc):
            inner.append(full.alloc_pages(KERNEL | gfp.NOMEMALLOC, 0))
            return SHRINK_STOP

    full.register_shrinker(Greedy(), "greedy")
    begins = events_of(full, MmVmscanDirectReclaimBegin)
    assert full.alloc_pages(KERNEL | gfp.NORETRY, 0) == -1
    assert len(begins) == 1
    assert inner
    assert set(inner) == {-1}


def test_nofail_goes_on_until_it_has_a_page(full, monkeypatch):
    monkeypatch.setattr(slowpath_module, "NOFAIL_ROUNDS", 50)
    shrinker = Pages(full, full.held[:300], after=30)
    # NORETRY makes each round short; NOFAIL begins the next.
    assert full.alloc_pages(KERNEL | gfp.NOFAIL | gfp.NORETRY, 0) >= 0
    assert shrinker.calls >= 1


def test_nofail_uses_half_of_the_reserve_first(full):
    begins = events_of(full, MmVmscanDirectReclaimBegin)
    assert full.alloc_pages(KERNEL | gfp.NORETRY, 0) == -1
    assert full.alloc_pages(KERNEL | gfp.NORETRY | gfp.NOFAIL, 0) >= 0
    assert len(begins) == 2


def test_nofail_that_nothing_can_help_is_told_and_does_not_hang(full, monkeypatch):
    monkeypatch.setattr(slowpath_module, "NOFAIL_ROUNDS", 3)
    full.alloc_pages_batch(QUIET | gfp.MEMALLOC, 0, 2000)
    with pytest.raises(OutOfMemory, match=r"order-0 request with GFP_KERNEL.*may not fail, and 3 rounds"):
        full.alloc_pages(KERNEL | gfp.NOFAIL | gfp.NORETRY, 0)


def test_a_request_for_a_machine_without_that_memory_fails_at_once(full):
    with pytest.raises(ValueError, match="two zone selectors"):
        full.alloc_pages(gfp.GFP_KERNEL | gfp.DMA | gfp.DMA32, 0)
    assert full.alloc_pages(gfp.GFP_KERNEL, 11) == -1


# --- single pages below low, many of them -----------------------------------------------------------------


def below_low(nr_cpus):
    """A machine with some pages left between min and low; nobody sleeps on kswapd's queue, for it does not run."""
    mm = unboosted(nr_cpus=nr_cpus)
    held = fill(mm)
    zone = mm.pgdat.node_zones[DMA32]
    mm.free_pages_batch(np.sort(held)[-50:], 0)
    mm.drain_all_pages()
    assert zone.wmark_pages(0) + 40 < zone.nr_free_pages < zone.wmark_pages(1)
    return mm


@pytest.mark.parametrize(("nr_cpus", "nr_asked"), [(1, 20), (2, 3)])
def test_a_run_of_single_pages_below_low_gets_what_a_loop_gets(nr_cpus, nr_asked):
    batch, loop = below_low(nr_cpus), below_low(nr_cpus)
    asked = record_wakes(batch)
    got = batch.alloc_pages_batch(KERNEL, 0, 20).tolist()
    assert got == [loop.alloc_pages(KERNEL, 0) for _ in range(20)]
    assert batch.check_memory() == loop.check_memory()
    # On several CPUs eight pages in a row ask once.
    assert len(asked) == nr_asked


@pytest.mark.parametrize("nr_cpus", [1, 2])
def test_an_exchange_below_low_gets_what_a_loop_gets(nr_cpus):
    batch, loop = below_low(nr_cpus), below_low(nr_cpus)
    old = batch.alloc_pages_batch(KERNEL, 0, 20)
    assert old.tolist() == loop.alloc_pages_batch(KERNEL, 0, 20).tolist()
    expected = []
    for pfn in old.tolist():
        expected.append(loop.alloc_pages(KERNEL, 0))
        loop.free_pages(pfn, 0)
    assert batch._allocator.exchange_pages(KERNEL, old).tolist() == expected
    assert batch.check_memory() == loop.check_memory()
