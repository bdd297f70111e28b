"""How much of each list a pass scans: ``inactive_is_low()``, ``get_scan_count()``, ``shrink_lruvec()`` of 6.1."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import (
    events_of,
    file_pfns,
    grown,
    lru,
    old_mapping,
    scan_control,
    set_word,
    set_zone_field,
    unboosted,
)
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.trace import MmVmscanLruIsolate, MmVmscanLruShrinkInactive
from mmfw.types import Reclaimer

ANON, ACTIVE_ANON, FILE, ACTIVE_FILE = range(4)


def sized(mm, anon=0, active_anon=0, file=0, active_file=0, swap=1 << 20):
    """Pretend that the lists have these sizes, all in DMA32, and that so much swap is free."""
    for which, n in enumerate((anon, active_anon, file, active_file)):
        set_zone_field(mm, pg.Z_LRU + which, n)
        set_zone_field(mm, pg.Z_LRU + which, 0, zone=0)
    mm.pgdat.memory.S[pg.S_NODE_STAT + pg.NS_FREE_SWAP] = swap
    mm.pgdat.memory.total_swap_pages = swap
    return mm._vmscan.lru_scan


@pytest.fixture
def mm():
    return unboosted()


GIB = 1 << 18


@pytest.mark.parametrize(
    ("inactive", "active", "low"),
    [
        # Below a GiB half may be active.
        (1000, 1000, False),
        (1000, 1001, True),
        # 1 GiB: one in four inactive is enough (ratio 3); 10 GiB: 10; 100 GiB: 31.
        (GIB // 4, 3 * GIB // 4, False),
        (GIB // 4 - 1, 3 * GIB // 4 + 1, True),
        (10 * GIB // 11 + 1, 10 * GIB - 10 * GIB // 11, False),
        (10 * GIB // 12, 10 * GIB - 10 * GIB // 12, True),
        (100 * GIB // 32 + 1, 100 * GIB - 100 * GIB // 32, False),
        (100 * GIB // 33, 100 * GIB - 100 * GIB // 33, True),
        (0, 0, False),
        (0, 1, True),
    ],
)
def test_inactive_is_low(mm, inactive, active, low):
    scan = sized(mm, file=inactive, active_file=active, anon=active, active_anon=inactive)
    assert scan.inactive_is_low(True) is low
    scan = sized(mm, anon=inactive, active_anon=active)
    assert scan.inactive_is_low(False) is low


def counts(mm, priority, prepared=True, **changes):
    scan = mm._vmscan.lru_scan
    sc = scan_control(priority=priority, **changes)
    if prepared:
        scan.prepare_scan_count(sc)
    return scan.get_scan_count(sc)


def test_without_swap_only_files_are_scanned(mm):
    sized(mm, 4096, 8192, 40960, 20480, swap=0)
    assert counts(mm, 12) == [0, 0, 10, 5]
    assert counts(mm, 0) == [0, 0, 40960, 20480]


def test_boosted_reclaim_does_not_swap(mm):
    sized(mm, 4096, 8192, 40960, 20480)
    assert counts(mm, 10, may_swap=False) == [0, 0, 40, 20]


def test_priority_0_scans_everything_equally(mm):
    sized(mm, 100, 200, 300, 400)
    assert counts(mm, 0) == [100, 200, 300, 400]


def test_much_inactive_cache_is_trimmed_first(mm):
    """Nothing refaults and the inactive list is not low, so anonymous pages are left alone."""
    sized(mm, 4096, 8192, 40960, 20480)
    sc = scan_control(priority=10)
    mm._vmscan.lru_scan.prepare_scan_count(sc)
    assert (sc.cache_trim_mode, sc.may_deactivate_file) == (True, False)
    assert mm._vmscan.lru_scan.get_scan_count(sc) == [0, 0, 40, 20]
    # Fewer than 1 << priority inactive pages: nothing to trim at this priority.
    sized(mm, 4096, 8192, 1023, 100)
    sc = scan_control(priority=10)
    mm._vmscan.lru_scan.prepare_scan_count(sc)
    assert sc.cache_trim_mode is False


@pytest.mark.parametrize(
    ("anon_cost", "file_cost", "ap", "fp"),
    [
        (0, 0, 60, 140),
        # T=300, A=400, F=500, S=900: 60*901/401 and 140*901/501.
        (100, 200, 134, 251),
        # However much swapping costs, files get at most two thirds before swappiness.
        (1_000_000, 0, 60 * 3_000_001 // 2_000_001, 140 * 3_000_001 // 1_000_001),
    ],
)
def test_costs_and_swappiness_divide_the_scan(mm, anon_cost, file_cost, ap, fp):
    scan = sized(mm, 40960, 0, 20480, 40960)
    S = mm.pgdat.memory.S
    S[pg.S_ANON_COST], S[pg.S_FILE_COST] = anon_cost, file_cost
    sc = scan_control(priority=2)
    scan.prepare_scan_count(sc)
    assert sc.may_deactivate_file  # inactive is low, so no trimming
    assert not sc.file_is_tiny
    expected = [
        (size >> 2) * part // (ap + fp) for size, part in ((40960, ap), (0, ap), (20480, fp), (40960, fp))
    ]
    assert scan.get_scan_count(sc) == expected


def test_a_tiny_page_cache_turns_the_scan_to_anonymous_pages(mm):
    high = sum(zone.watermark[2] for zone in mm.pgdat.node_zones)
    for zone in (0, 1):
        set_zone_field(mm, pg.Z_FREE, 0, zone)
    scan = sized(mm, 40000, 100, high, 0)
    sc = scan_control(priority=12)
    scan.prepare_scan_count(sc)
    assert sc.file_is_tiny
    assert scan.get_scan_count(sc)[FILE] == 0
    assert scan.get_scan_count(sc)[ANON] == 40000 >> 12
    sized(mm, 40000, 100, high + 1, 0)
    scan.prepare_scan_count(sc)
    assert not sc.file_is_tiny
    # With few inactive anonymous pages it would not help.
    sized(mm, 4095, 100, high, 0)
    scan.prepare_scan_count(sc)
    assert not sc.file_is_tiny


def test_zones_above_the_request_do_not_count(mm):
    scan = sized(mm, 0, 0, 40960, 0, swap=0)
    set_zone_field(mm, pg.Z_LRU + FILE, 4096, zone=0)
    assert scan.get_scan_count(scan_control(priority=12, reclaim_idx=0)) == [0, 0, 1, 0]
    assert scan.get_scan_count(scan_control(priority=12)) == [0, 0, 11, 0]


def test_refaults_since_the_last_pass_allow_deactivation(mm):
    scan = sized(mm, 0, 0, 40960, 20480, swap=0)
    scan.snapshot_refaults()
    sc = scan_control()
    scan.prepare_scan_count(sc)
    assert not sc.may_deactivate_file
    mm.pgdat.memory.S[pg.S_EVENT + 111] += 1  # workingset_activate_file
    scan.prepare_scan_count(sc)
    assert sc.may_deactivate_file
    scan.snapshot_refaults()
    scan.prepare_scan_count(sc)
    assert not sc.may_deactivate_file
    scan.prepare_scan_count(forced := scan_control(force_deactivate=True))
    assert forced.may_deactivate_file
    assert forced.may_deactivate_anon


# --- the scan itself --------------------------------------------------------------------------------------


def cached(mm, nr_pages):
    file = mm.page_cache.open(nr_pages)
    file.read(0, nr_pages)
    return file


def test_a_pass_takes_size_shifted_by_priority_in_batches_of_32_oldest_first(mm):
    file = cached(mm, 5000)
    size = mm.lruvec.size(pg.LRU_INACTIVE_FILE)
    events = events_of(mm, MmVmscanLruIsolate)
    oldest = lru(mm, pg.LRU_INACTIVE_FILE)[::-1]
    sc = scan_control(nr_to_reclaim=1 << 20, priority=6)
    mm._vmscan.lru_scan.prepare_scan_count(sc)
    mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.DIRECT)
    assert sc.nr_reclaimed == sc.nr_scanned == size >> 6
    assert [e.nr_requested for e in events] == [32, 32, (size >> 6) - 64]
    assert lru(mm, pg.LRU_INACTIVE_FILE)[::-1] == oldest[size >> 6 :]
    assert file.nrpages == 5000 - (size >> 6)


def test_direct_reclaim_does_its_whole_target_at_priority_12_and_stops_early_below_it(mm):
    sized(mm, swap=0)
    cached(mm, 8192 + 64)
    for priority, expected in ((12, 2), (4, 32), (3, 32)):
        sc = scan_control(nr_to_reclaim=32, priority=priority)
        mm._vmscan.lru_scan.prepare_scan_count(sc)
        mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.DIRECT)
        assert sc.nr_reclaimed == expected
    sc = scan_control(nr_to_reclaim=1, priority=7)
    mm._vmscan.lru_scan.prepare_scan_count(sc)
    mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.KSWAPD)
    assert sc.nr_reclaimed == 32


def test_pages_of_higher_zones_are_put_aside_counted_and_go_to_the_head(mm):
    """lru 256M-r1, pass 1: one isolation for ZONE_DMA scanned 39800 pages and took 1."""
    sized(mm, swap=0)
    file = cached(mm, 1000)
    dma = mm.alloc_pages_batch(gfp.GFP_USER | gfp.DMA, 0, 8)
    other = mm.page_cache.open(8)
    mm.page_cache.adopt(other, dma)
    order = lru(mm, pg.LRU_INACTIVE_FILE)
    assert order[:8] == [int(p) for p in dma[::-1]]
    events = events_of(mm, MmVmscanLruIsolate, MmVmscanLruShrinkInactive)
    before = mm.vmstat.as_dict()
    sc = scan_control(reclaim_idx=0, priority=3)
    mm._vmscan.lru_scan.prepare_scan_count(sc)
    mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.DIRECT)
    isolate, shrink = events
    skipped = sum(1 for p in order[8:] if p >= 4096)
    assert (isolate.nr_requested, isolate.nr_scanned, isolate.nr_skipped, isolate.nr_taken) == (
        1,
        skipped + 1,
        skipped,
        1,
    )
    assert (shrink.nr_scanned, shrink.nr_reclaimed) == (skipped + 1, 1)
    change = grown(mm, before)
    assert change["pgskip_dma32"] == skipped
    assert change["pgscan_direct"] == change["pgscan_file"] == skipped + 1
    assert change["pgsteal_direct"] == 1
    # All that were put aside are at the head now, in the order they had; the rest of ZONE_DMA is the tail.
    assert lru(mm, pg.LRU_INACTIVE_FILE) == order[8:] + order[:7]
    assert file.nrpages == 1000


def test_an_active_list_is_only_shrunk_where_deactivation_is_allowed(mm):
    sized(mm, swap=0)
    file = cached(mm, 2000)
    file.read_pages(np.arange(2000))  # second touch: all active
    assert mm.lruvec.size(pg.LRU_ACTIVE_FILE) == 2000
    cached(mm, 3000)
    sc = scan_control(priority=5)
    scan = mm._vmscan.lru_scan
    scan.prepare_scan_count(sc)
    scan.shrink_lruvec(sc, Reclaimer.DIRECT)
    assert sc.skipped_deactivate
    assert mm.lruvec.size(pg.LRU_ACTIVE_FILE) == 2000
    sc = scan_control(priority=5, force_deactivate=True, nr_to_reclaim=1 << 20)
    before = mm.vmstat.as_dict()
    scan.prepare_scan_count(sc)
    scan.shrink_lruvec(sc, Reclaimer.DIRECT)
    change = grown(mm, before)
    assert change["pgrefill"] == change["pgdeactivate"] == 2000 >> 5
    assert mm.lruvec.size(pg.LRU_ACTIVE_FILE) == 2000 - (2000 >> 5)
    newest = lru(mm, pg.LRU_INACTIVE_FILE)[0]
    assert mm.pgdat.memory.page[4 * newest + pg.WORD] & pg.PG_WORKINGSET


def test_do_try_to_free_pages_forces_deactivation_in_a_second_round_before_it_gives_up(mm):
    sized(mm, swap=0)
    file = cached(mm, 400)
    file.read_pages(np.arange(400))
    set_word(mm, file_pfns(mm, file), on=pg.PG_LOCKED)
    set_word(mm, file_pfns(mm, cached(mm, 500)), on=pg.PG_LOCKED)
    before = mm.vmstat.as_dict()
    assert mm._vmscan.try_to_free_pages(0, gfp.GFP_KERNEL) == 0
    change = grown(mm, before)
    assert change["allocstall_normal"] == 2
    assert change["pgdeactivate"] == 400


def test_once_enough_is_reclaimed_one_more_round_is_done_and_no_more():
    """6.1.192 asks before each round whether enough was reclaimed; the nudge to proportion leaves one kind at 0.

    Priority 0, goal 32: the first round takes 32 files and 32 anonymous pages, which are only sent to swap. Then the
    anonymous list is stopped, and files get one round more.
    """
    mm = unboosted(nr_swap_pages=20_000)
    cached(mm, 9000)
    old_mapping(mm, 4000)
    events = events_of(mm, MmVmscanLruIsolate)
    sc = scan_control(priority=0)
    mm._vmscan.lru_scan.prepare_scan_count(sc)
    mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.KSWAPD)
    taken = {which: sum(e.nr_taken for e in events if e.lru == which) for which in (ANON, FILE)}
    assert taken == {ANON: 32, FILE: 64}
    assert sc.nr_reclaimed == 64
