"""kswapd's passes: priorities, boosts, order, failures, and when it sleeps (``balance_pgdat()``, mm/vmscan.c of 6.1)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mm.workbench import (
    MSEC,
    QUIET,
    SEC,
    events_of,
    file_pfns,
    fill,
    fragment,
    grown,
    set_word,
    set_zone_field,
    take_large,
    unboosted,
)
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.trace import (
    MmCompactionKcompactdWake,
    MmCompactionWakeupKcompactd,
    MmVmscanKswapdSleep,
    MmVmscanKswapdWake,
    MmVmscanLruShrinkInactive,
    MmVmscanWakeupKswapd,
)
from mmfw.types import MmOps, Reclaimer, WakePlan

KERNEL = gfp.GFP_KERNEL | gfp.NOWARN


@pytest.fixture
def mm():
    return unboosted()


def balance(mm, order=0, hzi=2):
    return mm.kswapd._balancer.balance_pgdat(order, hzi)


def passes(mm):
    """(priority, order, may_swap, may_writepage) of every pass over the node from now on."""
    seen = []

    def look(context):
        sc = context.sc
        seen.append((sc.priority, sc.order, sc.may_swap, sc.may_writepage))
        assert context.caller is Reclaimer.KSWAPD
        return True

    mm._vmscan._ops = dataclasses.replace(mm._vmscan._ops, should_shrink_slab=look)
    return seen


def cached(mm, n):
    file = mm.page_cache.open(n)
    file.read(0, n)
    return file


def starve(mm):
    """Take all that is free, reserves too."""
    fill(mm, mask=QUIET | gfp.MEMALLOC)


# --- priorities ------------------------------------------------------------------------------------------


def test_a_balanced_node_is_left_alone(mm):
    seen = passes(mm)
    before = mm.vmstat.as_dict()
    assert balance(mm) == 0
    assert seen == []
    assert grown(mm, before) == {"pageoutrun": 1}
    assert mm.pgdat.kswapd_failures == 0


def test_fruitless_passes_walk_from_12_to_1_and_count_as_a_failure(mm):
    starve(mm)
    seen = passes(mm)
    balance(mm)
    assert [s[0] for s in seen] == list(range(12, 0, -1))
    assert [s[3] for s in seen] == [True] * 12  # laptop_mode is off
    assert mm.pgdat.kswapd_failures == 1


def test_progress_that_is_large_enough_keeps_the_priority(mm):
    file = cached(mm, 9000)
    starve(mm)
    seen = passes(mm)
    balance(mm)
    assert file.nrpages < 9000
    priorities = [s[0] for s in seen]
    assert priorities == sorted(priorities, reverse=True)
    assert priorities[0] == 12
    assert mm.pgdat.pgdat_balanced(0, 2)
    assert mm.pgdat.kswapd_failures == 0


def test_the_mark_on_the_zones_is_there_during_the_pass_only(mm):
    starve(mm)
    flags = []
    mm._vmscan._ops = dataclasses.replace(
        mm._vmscan._ops,
        should_shrink_slab=lambda context: (
            flags.append(
                [
                    bool(
                        mm.pgdat.memory.S[mm.pgdat.memory.zone_offset(z) + pg.Z_FLAGS] & pg.ZF_RECLAIM_ACTIVE
                    )
                    for z in (0, 1)
                ]
            )
            or True
        ),
    )
    balance(mm, hzi=0)
    balance(mm)
    assert flags == [[True, False]] * 12 + [[True, True]] * 12
    for z in (0, 1):
        assert not mm.pgdat.memory.S[mm.pgdat.memory.zone_offset(z) + pg.Z_FLAGS] & pg.ZF_RECLAIM_ACTIVE


# --- order -------------------------------------------------------------------------------------------------


def test_the_order_is_dropped_once_twice_the_request_was_reclaimed(mm):
    """compact_gap(9) is 1024 pages; memory is plentiful, only no block of order 9 is free."""
    cached(mm, 6000)
    fragment(mm, 16)
    take_large(mm, 9)
    seen = passes(mm)
    before = mm.vmstat.as_dict()
    assert balance(mm, 9) == 0
    reclaimed = grown(mm, before)["pgsteal_kswapd"]
    assert 1024 <= reclaimed < 1024 + 600
    assert {s[1] for s in seen} == {9}


def test_without_enough_to_reclaim_the_order_stays(mm):
    cached(mm, 300)
    fragment(mm, 16)
    take_large(mm, 9)
    assert balance(mm, 9) == 9
    assert mm.pgdat.kswapd_failures == 0  # some progress is no failure


# --- boosts --------------------------------------------------------------------------------------------------


def boost(mm, pages, zone=1):
    mm.pgdat.node_zones[zone].watermark_boost = pages


def test_boosted_reclaim_neither_swaps_nor_writes_nor_goes_below_priority_10(mm):
    file = cached(mm, 6000)
    boost(mm, 200)
    assert mm.pgdat.pgdat_balanced(0, 2)
    seen = passes(mm)
    balance(mm)
    assert [s[0] for s in seen[:3]] == [12, 11, 10]
    assert {s[0] for s in seen[2:]} == {10}
    assert {s[2:] for s in seen} == {(False, False)}
    reclaimed = 6000 - file.nrpages
    assert reclaimed >= 200
    assert mm.pgdat.node_zones[1].watermark_boost == 0


def test_an_unbalanced_node_forgets_the_boost_starts_anew_and_still_drops_it_at_the_end(mm):
    cached(mm, 6000)
    starve(mm)
    boost(mm, 200)
    seen = passes(mm)
    balance(mm)
    assert seen[0] == (12, 0, True, True)
    assert mm.pgdat.node_zones[1].watermark_boost == 0


def test_a_boost_without_anything_to_reclaim_is_given_up_and_counts_as_a_failure(mm):
    boost(mm, 512)
    seen = passes(mm)
    balance(mm)
    assert [s[0] for s in seen] == [12]
    assert mm.pgdat.kswapd_failures == 1
    assert mm.pgdat.node_zones[1].watermark_boost == 0


def test_a_boost_that_grew_meanwhile_keeps_what_was_added(mm):
    cached(mm, 6000)
    boost(mm, 100)

    def grow(context):
        if mm.pgdat.node_zones[1].watermark_boost == 100:
            boost(mm, 400)
        return True

    mm._vmscan._ops = dataclasses.replace(mm._vmscan._ops, should_shrink_slab=grow)
    balance(mm)
    assert mm.pgdat.node_zones[1].watermark_boost == 300


def test_each_steal_adds_a_pageblock_up_to_one_and_a_half_times_the_high_watermark():
    mm = unboosted("512M")
    mm.pgdat.memory.S[pg.S_BOOST_FACTOR] = 15000
    zone = mm.pgdat.node_zones[1]
    cap = max(512, zone.watermark[2] * 15000 // 10000)
    assert cap == 1488
    take_large(mm, 9)
    seen = {zone.watermark_boost}
    for _ in range(3000):
        if mm.alloc_pages(QUIET | gfp.RECLAIMABLE, 0) < 0:
            break
        seen.add(zone.watermark_boost)
    assert sorted(seen) == [0, 512, 1024, cap]


def test_all_watermarks_include_the_boost(mm):
    zone = mm.pgdat.node_zones[1]
    raw = zone.watermark
    boost(mm, 777)
    assert zone.watermark == raw
    assert [zone.wmark_pages(i) for i in range(3)] == [w + 777 for w in raw[:3]]
    fill(mm)
    # The request stops at the boosted min, one of GFP_ATOMIC at the raw one.
    assert raw[0] + 770 <= zone.free_pages_snapshot() <= raw[0] + 790
    mm.alloc_pages_batch(gfp.GFP_ATOMIC & ~gfp.KSWAPD_RECLAIM | gfp.NOWARN, 0, 2000)
    assert zone.free_pages_snapshot() < raw[0]


# --- failures ----------------------------------------------------------------------------------------------


def test_direct_reclaim_that_makes_progress_revives_a_hopeless_node(mm):
    mm.pgdat.kswapd_failures = 16
    cached(mm, 3000)
    assert mm._vmscan.try_to_free_pages(0, KERNEL) >= 32
    assert mm.pgdat.kswapd_failures == 0


def test_direct_reclaim_without_progress_does_not(mm):
    mm.pgdat.kswapd_failures = 16
    file = cached(mm, 100)
    set_word(mm, file_pfns(mm, file), on=pg.PG_LOCKED)
    assert mm._vmscan.try_to_free_pages(0, KERNEL) == 0
    assert mm.pgdat.kswapd_failures == 16


def test_a_hopeless_node_wakes_kcompactd_for_those_who_cannot_wait_and_nobody_for_the_others():
    mm = unboosted(start=True)
    fragment(mm, 16)
    take_large(mm, 9)
    mm.sched.run(mm.sched.now + 200 * MSEC)
    mm.pgdat.kswapd_failures = 16
    events = events_of(mm, MmVmscanWakeupKswapd, MmCompactionWakeupKcompactd)

    def client():
        mm.alloc_pages(KERNEL, 9)
        mm.alloc_pages(gfp.GFP_NOWAIT | gfp.NOWARN, 9)

    mm.sched.spawn(client, name="client", daemon=True)
    mm.sched.run(mm.sched.now + 100 * MSEC)
    kinds = [type(e) for e in events]
    assert MmVmscanWakeupKswapd not in kinds
    assert MmCompactionWakeupKcompactd in kinds


# --- sleep -------------------------------------------------------------------------------------------------


def started(**options):
    mm = unboosted(start=True, **options)
    mm.sched.run(mm.sched.now + 300 * MSEC)
    return mm


def test_kswapd_naps_then_sleeps_and_counts_who_disturbs_the_nap():
    mm = started()
    cached_file = mm.page_cache.open(8000)
    log = events_of(mm, MmVmscanKswapdWake, MmVmscanKswapdSleep)
    before = mm.vmstat.as_dict()

    def client():
        cached_file.read(0, 8000)
        held = fill(mm)
        mm.alloc_pages(KERNEL & ~gfp.DIRECT_RECLAIM, 0)  # wakes it
        mm.sched.sleep(20 * MSEC)
        more = fill(mm)
        mm.alloc_pages(KERNEL & ~gfp.DIRECT_RECLAIM, 0)  # within the nap of 100 ms
        del held, more

    mm.sched.spawn(client, name="client", daemon=True)
    mm.sched.run(mm.sched.now + 2 * SEC)
    assert [type(e).__name__ for e in log] == ["MmVmscanKswapdWake"] * 2 + ["MmVmscanKswapdSleep"]
    assert grown(mm, before)["kswapd_low_wmark_hit_quickly"] == 1
    assert mm.kswapd.asleep


def test_a_request_made_while_it_runs_is_served_next():
    mm = started()
    file = mm.page_cache.open(8000)
    wakes = events_of(mm, MmVmscanKswapdWake)

    def client():
        file.read(0, 8000)
        fill(mm)
        mm.alloc_pages(KERNEL & ~gfp.DIRECT_RECLAIM, 0)
        mm.alloc_pages(gfp.GFP_NOWAIT | gfp.NOWARN, 3)
        mm.alloc_pages(gfp.GFP_NOWAIT | gfp.NOWARN, 5)

    mm.sched.spawn(client, name="client", daemon=True)
    mm.sched.run(mm.sched.now + 2 * SEC)
    assert max(e.order for e in wakes) == 5
    assert mm.pgdat.kswapd_order == 0
    assert mm.pgdat.kswapd_highest_zoneidx in (2, 5)


def test_the_order_kswapd_dropped_is_handed_to_kcompactd():
    mm = started()
    cached_file = mm.page_cache.open(6000)
    events = events_of(mm, MmVmscanKswapdWake, MmCompactionWakeupKcompactd, MmCompactionKcompactdWake)

    def client():
        cached_file.read(0, 6000)
        fragment(mm, 16)
        take_large(mm, 9)
        mm.alloc_pages(gfp.GFP_NOWAIT | gfp.NOWARN, 9)

    mm.sched.spawn(client, name="client", daemon=True)
    mm.sched.run(mm.sched.now + SEC)
    names = [type(e).__name__ for e in events]
    assert names[0] == "MmVmscanKswapdWake"
    assert "MmCompactionWakeupKcompactd" in names
    assert {e.order for e in events if not isinstance(e, MmVmscanKswapdWake)} == {9}


def test_trace_of_a_pass_gives_the_counters():
    mm = unboosted()
    cached(mm, 5000)
    starve(mm)
    events = events_of(mm, MmVmscanLruShrinkInactive)
    before = mm.vmstat.as_dict()
    balance(mm)
    change = grown(mm, before)
    assert sum(e.nr_scanned for e in events) == change["pgscan_kswapd"] == change["pgscan_file"]
    assert sum(e.nr_reclaimed for e in events) == change["pgsteal_kswapd"] == change["pgsteal_file"]
    assert np.all([e.nr_reclaimed <= 32 for e in events])


def test_min_zone_reserve_keeps_direct_reclaimers_waiting(mm):
    """``allow_direct_reclaim()``: more than half of all min watermarks must be free, zones without pages aside."""
    assert mm._vmscan.allow_direct_reclaim()
    starve(mm)
    # No zone has anything to reclaim, not even free pages: there are no reserves to wait for.
    assert mm.global_free_pages() == 0
    assert mm._vmscan.allow_direct_reclaim()
    set_zone_field(mm, pg.Z_LRU + pg.LRU_INACTIVE_FILE, 100)
    assert not mm._vmscan.allow_direct_reclaim()
    mm.pgdat.kswapd_failures = 16
    assert mm._vmscan.allow_direct_reclaim()


def test_a_policy_may_ask_for_free_pages_beyond_the_high_watermark():
    """Asked once: the room is made in that run, and not defended afterwards."""
    ops = MmOps(lambda pgdat, wake: WakePlan(0, kswapd_min_free_pages=700), lambda context: True)
    mm = unboosted(ops=ops)
    mm.start_time()
    zone = mm.pgdat.node_zones[1]
    file = mm.page_cache.open(9000)
    high = zone.wmark_pages(2)

    def client():
        file.read(0, 9000)
        take_large(mm, 9)
        fill(mm, leave=high + 600)
        assert mm.alloc_pages(KERNEL & ~gfp.DIRECT_RECLAIM, 9) == -1
        mm.sched.sleep(500 * MSEC)
        mm.drain_all_pages()  # kcompactd, which ran next, left free pages on the per-CPU list
        after_run = zone.nr_free_pages
        held = mm.alloc_pages_batch(QUIET, 0, after_run - high - 300)
        mm.sched.sleep(500 * MSEC)
        return after_run, zone.nr_free_pages, len(held)

    task = mm.sched.spawn(client, name="client", daemon=True)
    mm.sched.run(mm.sched.now + 2 * SEC)
    after_run, end, held = task.result
    assert high + 700 <= after_run < high + 1400
    assert abs(end - (after_run - held)) < 64
