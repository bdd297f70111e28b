"""Refaults: how far away an evicted page is when it comes back, and what that makes of it (mm/workingset.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import file_pfns, grown, lru, scan_control, set_word, unboosted, word
from mmfw.jit import page as pg


@pytest.fixture
def mm():
    return unboosted()


def evict(mm, n):
    """Evict the n oldest pages of the inactive file list."""
    scan = mm._vmscan.lru_scan
    for left in range(n, 0, -32):
        scan.shrink_inactive_list(pg.LRU_INACTIVE_FILE, min(32, left), scan_control(), kswapd=True)


def read(mm, file, indices):
    """Read single pages without readahead; what counters grew by."""
    before = mm.vmstat.as_dict()
    file.read_pages(np.atleast_1d(indices).astype(np.int64))
    return grown(mm, before)


def active_file(mm, n):
    """Give the node n active file pages, which is what refaults are compared with on a machine without swap."""
    file = mm.page_cache.open(n)
    for _ in range(2):
        file.read_pages(np.arange(n))
    assert len(lru(mm, pg.LRU_ACTIVE_FILE)) == n
    return file


def test_a_refault_no_farther_than_the_active_list_is_activated(mm):
    """Evicted pages 0..99: page i comes back at distance 100 - i, plus one for each page activated before it."""
    active_file(mm, 60)
    file = mm.page_cache.open(100)
    file._add(np.arange(100))
    evict(mm, 100)
    assert file.nrpages == 0
    # Distance 100 > 60: back on the inactive list.
    assert read(mm, file, 0)["workingset_refault_file"] == 1
    assert word(mm, file_pfns(mm, file)[0]) & pg.PG_ACTIVE == 0
    # Page 40 is at distance 60: activated, and ages the list by one itself.
    change = read(mm, file, 40)
    assert change["workingset_activate_file"] == 1
    assert word(mm, file_pfns(mm, file)[40]) & pg.PG_ACTIVE
    # 61 active now, and page 39's distance has grown by that activation to 62.
    assert "workingset_activate_file" not in read(mm, file, 39)
    assert read(mm, file, 41)["workingset_activate_file"] == 1


def test_the_first_read_of_a_page_is_no_refault(mm):
    file = mm.page_cache.open(10)
    assert "workingset_refault_file" not in read(mm, file, np.arange(10))


def test_a_page_that_was_active_once_is_restored_with_its_mark_and_the_cost_noted(mm):
    active_file(mm, 20)
    file = mm.page_cache.open(8)
    file._add(np.arange(8))
    pfns = file_pfns(mm, file)
    set_word(mm, pfns[:4], on=pg.PG_WORKINGSET)
    evict(mm, 8)
    change = read(mm, file, np.arange(8))
    assert change["workingset_refault_file"] == change["workingset_activate_file"] == 8
    assert change["workingset_restore_file"] == 4
    marked = [word(mm, pfn) & pg.PG_WORKINGSET != 0 for pfn in file_pfns(mm, file)]
    assert marked == [True] * 4 + [False] * 4
    assert mm.pgdat.memory.S[pg.S_FILE_COST] == 4


def test_costs_are_halved_when_they_exceed_a_quarter_of_the_lists(mm):
    S = mm.pgdat.memory.S
    active_file(mm, 4)
    file = mm.page_cache.open(1)
    file._add(np.arange(1))
    set_word(mm, file_pfns(mm, file), on=pg.PG_WORKINGSET)
    evict(mm, 1)
    total = sum(mm.lruvec.size(which) for which in range(4))
    S[pg.S_FILE_COST], S[pg.S_ANON_COST] = total // 4 - 10, 10
    assert read(mm, file, 0)["workingset_restore_file"] == 1
    assert (S[pg.S_FILE_COST], S[pg.S_ANON_COST]) == ((total // 4 - 9) // 2, 5)


def test_with_swap_the_anonymous_lists_count_too(mm):
    active_file(mm, 10)
    file = mm.page_cache.open(200)
    file._add(np.arange(200))
    evict(mm, 200)
    anon = mm.lruvec.size(pg.LRU_INACTIVE_ANON) + mm.lruvec.size(pg.LRU_ACTIVE_ANON)
    assert anon > 300
    assert "workingset_activate_file" not in read(mm, file, 0)
    mm.pgdat.memory.S[pg.S_NODE_STAT + pg.NS_FREE_SWAP] = 1
    assert read(mm, file, 1)["workingset_activate_file"] == 1


def test_a_second_use_activates_a_third_refers_to_it_again(mm):
    file = mm.page_cache.open(2)
    states = []
    for _ in range(4):
        file.read_pages(np.array([0, 1]))
        flags = word(mm, file_pfns(mm, file)[0])
        states.append((flags & pg.PG_ACTIVE != 0, flags & pg.PG_REFERENCED != 0))
    assert states == [(False, True), (True, False), (True, True), (True, True)]
    assert mm.vmstat.as_dict()["pgactivate"] == 2


def test_reading_the_same_page_again_and_again_is_one_use(mm):
    """filemap_read() marks the page of the last byte read before not a second time."""
    file = mm.page_cache.open(8)
    for _ in range(4):
        file.read_pages(np.array([5]))
        file.read(5, 1)
    flags = word(mm, file_pfns(mm, file)[5])
    assert flags & (pg.PG_ACTIVE | pg.PG_REFERENCED) == pg.PG_REFERENCED


def test_an_activation_by_use_ages_what_is_not_there(mm):
    file, other = mm.page_cache.open(30), mm.page_cache.open(50)
    file._add(np.arange(30))
    evict(mm, 30)
    before = int(mm.pgdat.memory.S[pg.S_NONRESIDENT_AGE])
    for _ in range(2):
        other.read_pages(np.arange(50))
    assert mm.pgdat.memory.S[pg.S_NONRESIDENT_AGE] == before + 50


def test_streaming_through_more_than_memory_refaults_and_activates_nothing():
    """Second pass of lru 256M-r1: every page refaults, at a distance larger than the empty active list."""
    mm = unboosted("128M", start=True)
    file = mm.page_cache.open(26_000)
    stat = {}

    def body():
        for name in ("first", "second"):
            before = mm.vmstat.as_dict()
            for start in range(0, 26_000, 16):
                file.read(start, 16)
            stat[name] = grown(mm, before)

    mm.sched.spawn(body, name="reader", daemon=True)
    mm.sched.run(60_000_000_000)
    assert "workingset_refault_file" not in stat["first"]
    assert stat["second"]["workingset_refault_file"] == 26_000
    for change in stat.values():
        assert "workingset_activate_file" not in change
        assert "pgactivate" not in change
        assert change["pgscan_file"] - change.get("pgskip_dma32", 0) == change["pgsteal_file"]
