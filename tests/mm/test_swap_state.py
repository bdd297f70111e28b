"""Pages back from swap: the window, the swap cache, and what a fault maps (mm/swap_state.c, mm/memory.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import (
    SEC,
    grown,
    lru,
    old_mapping,
    run,
    scan,
    set_word,
    to_tail,
    unboosted,
    word,
)
from mmfw.jit import lru as jit_lru
from mmfw.jit import page as pg
from mmfw.mm.swap_state import SwapReadahead, swap_ra_info, swapin_nr_pages

SWAP = 4000


@pytest.fixture
def mm():
    return unboosted(nr_swap_pages=SWAP, start=True)


def swapped_out(mm, n):
    """A mapping of n pages, all on the device."""
    vma, _ = old_mapping(mm, n)
    for _ in range(2):
        for left in range(n, 0, -32):
            scan(mm, min(32, left))
        mm.sched.sleep(SEC)
    assert vma.nr_swapped == n
    return vma


def mapped(mm, vma):
    words = mm.rmap.part(vma.base_slot, vma.nr_pages)
    return [i for i, w in enumerate(words.tolist()) if w < pg.SLOT_SHADOW and word(mm, w) & pg.PG_MAPPED]


def in_memory(mm, vma):
    return np.flatnonzero(mm.rmap.part(vma.base_slot, vma.nr_pages) < pg.SLOT_SHADOW).tolist()


# --- the window -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prev", "index", "hits", "prev_win", "pages"),
    [
        (-2, 50, 4, 0, 8),  # a mapping's first fault: 4 hits are assumed
        (50, 90, 0, 0, 1),
        (50, 51, 0, 0, 2),
        (50, 49, 0, 0, 2),
        (50, 90, 1, 0, 4),
        (50, 90, 2, 0, 4),
        (50, 90, 3, 0, 8),
        (50, 90, 60, 0, 8),  # vm.page-cluster is 3
        (50, 90, 0, 8, 4),  # not halved more than once at a time
        (50, 90, 0, 4, 2),
        (50, 51, 0, 4, 2),
    ],
)
def test_how_many_pages_are_read(prev, index, hits, prev_win, pages):
    assert swapin_nr_pages(prev, index, hits, 8, prev_win) == pages


def test_where_the_window_lies():
    """Ahead of an ascending reader, behind a descending one, else around the fault; within 2 MiB and the mapping."""
    assert swap_ra_info(SwapReadahead(-2, 0, 4), 100, 2000, 3) == (97, 105)
    assert swap_ra_info(SwapReadahead(99, 8, 0), 100, 2000, 3) == (100, 104)
    assert swap_ra_info(SwapReadahead(101, 8, 0), 100, 2000, 3) == (97, 101)
    assert swap_ra_info(SwapReadahead(-2, 0, 4), 513, 2000, 3) == (512, 518)
    assert swap_ra_info(SwapReadahead(-2, 0, 4), 510, 2000, 3) == (507, 512)
    assert swap_ra_info(SwapReadahead(-2, 0, 4), 1, 3, 3) == (0, 3)


def test_page_cluster_bounds_the_window():
    far = [swap_ra_info(SwapReadahead(-2, 0, 60), 1000, 4000, cluster) for cluster in (0, 1, 3, 5, 9)]
    assert [end - first for first, end in far] == [1, 2, 8, 32, 32]  # SWAP_RA_ORDER_CEILING is 5


def test_a_fault_starts_the_count_of_hits_anew():
    ra = SwapReadahead(99, 8, 7)
    assert swap_ra_info(ra, 500, 2000, 3) == (497, 505)
    assert (ra.index, ra.win, ra.hits) == (500, 8, 0)


# --- faults ---------------------------------------------------------------------------------------------------------


def test_neighbours_come_to_the_swap_cache_and_are_not_mapped(mm):
    def body():
        vma = swapped_out(mm, 64)
        before = mm.vmstat.as_dict()
        vma.touch(20, 1)
        change = grown(mm, before)
        assert in_memory(mm, vma) == list(range(17, 25))
        assert mapped(mm, vma) == [20]
        # The fault found its page being read, let go of the mapping, and began anew.
        assert {k: change.get(k) for k in ("pswpin", "swap_ra", "pgmajfault", "pgfault")} == {
            "pswpin": 8,
            "swap_ra": 7,
            "pgmajfault": 1,
            "pgfault": 2,
        }
        # Only the mapped page has given its slot back; the others are inactive and unused.
        assert mm.swap.get_nr_swap_pages() == SWAP - 63
        assert mm.lruvec.node_stat(pg.NS_SWAPCACHE) == 7
        ahead = [p for p in vma.pfns().tolist() if word(mm, p) & pg.PG_SWAPCACHE]
        assert all(not word(mm, p) & (pg.PG_MAPPED | pg.PTE_YOUNG | pg.PG_LOCKED) for p in ahead)

    run(mm, body, 20 * SEC)


def test_a_page_that_was_read_ahead_is_a_minor_fault_and_a_hit(mm):
    def body():
        vma = swapped_out(mm, 64)
        vma.touch(20, 1)
        before = mm.vmstat.as_dict()
        vma.touch(22, 2)
        change = grown(mm, before)
        assert change["swap_ra_hit"] == change["pgfault"] == 2
        assert "pgmajfault" not in change
        assert "pswpin" not in change
        assert (vma.swap_ra.index, vma.swap_ra.hits) == (23, 2)
        # Two hits give a window of 4; 25 is not next to the last one.
        vma.touch(40, 1)
        assert set(in_memory(mm, vma)) - set(range(17, 25)) == {39, 40, 41, 42}

    run(mm, body, 20 * SEC)


def test_what_was_read_ahead_in_vain_goes_without_being_written(mm):
    def body():
        vma = swapped_out(mm, 64)
        vma.touch(20, 1)
        ahead = [p for p in vma.pfns().tolist() if word(mm, p) & pg.PG_SWAPCACHE]
        # They refault soon enough to be active; make them old.
        memory = mm.pgdat.memory
        for pfn in ahead:
            jit_lru.lru_del(memory.page, memory.pb, memory.S, pfn)
            set_word(mm, pfn, off=pg.PG_ACTIVE)
            jit_lru.lru_add(memory.page, memory.pb, memory.S, pfn, jit_lru.TO_TAIL)
        before = mm.vmstat.as_dict()
        assert scan(mm, 7) == 7
        assert "pswpout" not in grown(mm, before)
        assert mm.swap.get_nr_swap_pages() == SWAP - 63
        assert vma.nr_swapped == 63

    run(mm, body, 20 * SEC)


def test_a_page_touched_in_the_swap_cache_is_mapped_again_and_stays(mm):
    def body():
        vma, (pfn,) = old_mapping(mm, 1)
        scan(mm, 1)
        mm.sched.sleep(SEC)
        assert word(mm, pfn) & (pg.PG_SWAPCACHE | pg.PG_MAPPED) == pg.PG_SWAPCACHE
        before = mm.vmstat.as_dict()
        vma.touch(0, 1)
        assert grown(mm, before) == {"pgfault": 1}
        flags = word(mm, pfn)
        assert flags & (pg.PG_MAPPED | pg.PTE_YOUNG | pg.PG_DIRTY | pg.PG_SWAPCACHE) == (
            pg.PG_MAPPED | pg.PTE_YOUNG | pg.PG_DIRTY
        )
        assert mm.swap.get_nr_swap_pages() == SWAP
        assert [mm.lruvec.node_stat(s) for s in (pg.NS_ANON_MAPPED, pg.NS_SWAPCACHE)] == [1, 0]
        scan(mm, 1)
        assert vma.nr_resident == 1  # it was used

    run(mm, body, 20 * SEC)


def test_a_page_touched_while_it_is_written_keeps_its_slot_and_is_written_again(mm):
    def body():
        vma, (pfn,) = old_mapping(mm, 1)
        file_pages = mm.lruvec.node_stat(pg.NS_FILE_PAGES)
        scan(mm, 1)
        vma.touch(0, 1)
        assert word(mm, pfn) & (pg.PG_WRITEBACK | pg.PG_MAPPED | pg.PG_SWAPCACHE) == (
            pg.PG_WRITEBACK | pg.PG_MAPPED | pg.PG_SWAPCACHE
        )
        # In both worlds: mapped, and among the file pages as swap cache is.
        assert mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 1
        assert mm.lruvec.node_stat(pg.NS_FILE_PAGES) == file_pages + 1
        assert mm.swap.get_nr_swap_pages() == SWAP - 1
        mm.sched.sleep(SEC)
        set_word(mm, pfn, off=pg.PTE_YOUNG)
        to_tail(mm, [pfn])
        before = mm.vmstat.as_dict()
        scan(mm, 1)
        assert grown(mm, before)["pswpout"] == 1  # what was written to it since is not on the device
        mm.sched.sleep(SEC)
        assert scan(mm, 1) == 1
        assert mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 0
        assert mm.lruvec.node_stat(pg.NS_FILE_PAGES) == file_pages
        vma.munmap()
        assert mm.swap.get_nr_swap_pages() == SWAP

    run(mm, body, 20 * SEC)


def test_a_second_task_waits_for_the_page_that_is_being_read(mm):
    def body():
        vma = swapped_out(mm, 8)
        got = []

        def other():
            got.append((vma.touch(3, 1), mm.sched.now))

        task = mm.sched.spawn(other, name="other", daemon=True)
        start = mm.sched.now
        assert vma.touch(3, 1) == 1
        mm.sched.sleep(SEC)
        assert task.state.name == "DEAD"
        return start, got, vma.nr_resident

    before = mm.vmstat.as_dict()
    start, got, resident = run(mm, body, 20 * SEC)
    assert got[0][0] == 1
    assert got[0][1] - start >= 8 * mm.costs.swap_out_page
    assert resident == 8
    assert grown(mm, before)["pswpin"] == 8


def test_a_mapping_dropped_while_it_is_read_leaves_nothing(mm):
    def body():
        owned = mm.nr_allocated_pages()
        vma = swapped_out(mm, 8)
        mm.sched.spawn(lambda: vma.touch(3, 1), name="reader", daemon=True)
        mm.sched.sleep(10_000)
        assert any(word(mm, p) & pg.PG_LOCKED for p in vma.pfns().tolist())
        vma.munmap()
        mm.sched.sleep(SEC)
        return mm.nr_allocated_pages() - owned

    assert run(mm, body, 20 * SEC) == 0
    assert mm.swap.get_nr_swap_pages() == SWAP
    assert mm.lruvec.node_stat(pg.NS_SWAPCACHE) == 0


def test_a_refault_is_judged_when_the_page_is_read(mm):
    def body():
        vma = swapped_out(mm, 8)
        before = mm.vmstat.as_dict()
        vma.touch(3, 1)
        return grown(mm, before)["workingset_refault_anon"]

    assert run(mm, body, 20 * SEC) == 8
    assert len(lru(mm, pg.LRU_INACTIVE_ANON)) + len(lru(mm, pg.LRU_ACTIVE_ANON)) >= 8
