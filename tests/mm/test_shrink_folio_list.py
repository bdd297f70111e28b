"""What reclaim decides over one folio: each branch of ``shrink_folio_list()`` (mm/vmscan.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import events_of, file_pfns, grown, lru, scan_control, set_word, to_tail, unboosted, word
from mmfw import gfp
from mmfw.jit import lru as jit
from mmfw.jit import page as pg
from mmfw.mm.trace import MmVmscanLruShrinkActive, MmVmscanLruShrinkInactive, MmVmscanWriteFolio
from mmfw.mm.vmstat import VmEvent

MAPPED_YOUNG = pg.PG_MAPPED | pg.PTE_YOUNG


@pytest.fixture
def mm():
    mm = unboosted(nr_swap_pages=4096)
    # Only what a test puts there is to be on the lists.
    for which in (pg.LRU_INACTIVE_ANON, pg.LRU_ACTIVE_ANON):
        set_word(mm, lru(mm, which), on=pg.PG_LOCKED)
    return mm


def cached(mm, n):
    """``n`` clean pages of a file, by index; none was used yet."""
    file = mm.page_cache.open(n)
    file._add(np.arange(n))
    return file, file_pfns(mm, file)


def anonymous(mm, n):
    """``n`` pages of a mapping, not accessed since they were made; they are the oldest that may go."""
    vma = mm.mmap_anonymous(n)
    vma.touch(0, n)
    pfns = [int(p) for p in vma.pfns()]
    set_word(mm, pfns, off=pg.PTE_YOUNG)
    return vma, pfns


def shrink(mm, n, *, file=True, kswapd=True, **changes):
    """One batch of an inactive list; the event of it."""
    events = events_of(mm, MmVmscanLruShrinkInactive)
    which = pg.LRU_INACTIVE_FILE if file else pg.LRU_INACTIVE_ANON
    mm._vmscan.lru_scan.shrink_inactive_list(which, n, scan_control(**changes), kswapd=kswapd)
    return events[-1]


def on(mm, pfn):
    """The LRU list that a page is on, or -1."""
    return next((which for which in range(pg.NR_LRU_LISTS) if pfn in lru(mm, which)), -1)


# --- files ------------------------------------------------------------------------------------------------


def test_clean_unmapped_pages_go_and_leave_a_shadow(mm):
    file, pfns = cached(mm, 3)
    event = shrink(mm, 3)
    assert (event.nr_scanned, event.nr_reclaimed) == (3, 3)
    assert file.nrpages == 0
    slots = mm.rmap.part(file.base_slot, 3)
    assert all(pg.SLOT_SHADOW <= each < pg.SLOT_EMPTY for each in slots)
    ages = [int(each) & pg.SLOT_AGE_MASK for each in slots]
    assert np.diff(ages).tolist() == [1, 1]  # oldest first, each ages the lruvec by one
    assert not any(word(mm, pfn) & pg.PG_LRU for pfn in pfns)


def test_the_newest_of_a_batch_is_freed_first(mm):
    _, pfns = cached(mm, 4)
    mm.drain_all_pages()
    shrink(mm, 4)
    memory = mm.pgdat.memory
    cpu_list = [int(p) for p in memory.list_pfns(memory.pcp_head(0, 1, 1))]
    assert cpu_list[:4] == pfns  # what is freed last is at the head


def test_a_page_that_was_read_goes_all_the_same_if_it_is_clean(mm):
    file, pfns = cached(mm, 2)
    set_word(mm, pfns, on=pg.PG_REFERENCED)
    assert shrink(mm, 2).nr_reclaimed == 2
    assert file.nrpages == 0


def test_a_locked_page_is_kept_and_not_even_counted_as_scanned(mm):
    _, pfns = cached(mm, 2)
    set_word(mm, pfns[0], on=pg.PG_LOCKED)
    sc = scan_control()
    mm._vmscan.lru_scan.shrink_inactive_list(pg.LRU_INACTIVE_FILE, 2, sc, kswapd=True)
    assert sc.nr_scanned == 1
    assert on(mm, pfns[0]) == pg.LRU_INACTIVE_FILE
    assert on(mm, pfns[1]) == -1


def test_a_mapped_page_gets_a_second_chance_then_is_activated(mm):
    _, (pfn,) = cached(mm, 1)
    mm.page_cache.map_pages(np.array([pfn]), executable=False)
    event = shrink(mm, 1)
    assert (event.nr_ref_keep, event.nr_activate_file, event.nr_reclaimed) == (1, 0, 0)
    assert word(mm, pfn) & (pg.PG_REFERENCED | pg.PTE_YOUNG) == pg.PG_REFERENCED
    set_word(mm, pfn, on=pg.PTE_YOUNG)
    event = shrink(mm, 1)
    assert (event.nr_ref_keep, event.nr_activate_file) == (0, 1)
    assert on(mm, pfn) == pg.LRU_ACTIVE_FILE


def test_a_mapped_page_not_used_again_is_unmapped_and_goes(mm):
    file, (pfn,) = cached(mm, 1)
    mm.page_cache.map_pages(np.array([pfn]), executable=False)
    mapped = mm.lruvec.node_stat(pg.NS_FILE_MAPPED)
    shrink(mm, 1)
    assert shrink(mm, 1).nr_reclaimed == 1
    assert mm.lruvec.node_stat(pg.NS_FILE_MAPPED) == mapped - 1
    assert file.nrpages == 0


def test_code_is_activated_at_its_first_use(mm):
    _, (pfn,) = cached(mm, 1)
    mm.page_cache.map_pages(np.array([pfn]), executable=True)
    event = shrink(mm, 1)
    assert (event.nr_ref_keep, event.nr_activate_file) == (0, 1)


def test_without_may_unmap_mapped_pages_are_not_taken(mm):
    _, pfns = cached(mm, 3)
    mm.page_cache.map_pages(np.array(pfns[:1]), executable=False)
    event = shrink(mm, 3, may_unmap=False)
    assert (event.nr_scanned, event.nr_reclaimed) == (3, 2)
    assert on(mm, pfns[0]) == pg.LRU_INACTIVE_FILE
    assert word(mm, pfns[0]) & MAPPED_YOUNG == MAPPED_YOUNG


@pytest.mark.parametrize("kswapd", [True, False])
def test_a_dirty_file_page_is_marked_for_reclaim_and_activated(mm, kswapd):
    _, pfns = cached(mm, 2)
    mm.page_cache.dirty(np.array(pfns[:1]))
    event = shrink(mm, 2, kswapd=kswapd)
    assert (event.nr_dirty, event.nr_reclaimed, event.nr_activate_file) == (1, 1, 1)
    assert mm.vmstat[VmEvent.nr_vmscan_immediate_reclaim] == 1
    assert word(mm, pfns[0]) & (pg.PG_RECLAIM | pg.PG_ACTIVE | pg.PG_DIRTY) == (
        pg.PG_RECLAIM | pg.PG_ACTIVE | pg.PG_DIRTY
    )


def test_kswapd_writes_a_dirty_file_page_seen_twice_when_the_node_is_full_of_them(mm):
    _, (pfn,) = cached(mm, 1)
    mm.page_cache.dirty(np.array([pfn]))
    set_word(mm, pfn, on=pg.PG_RECLAIM)
    mm.pgdat.many_dirty = True
    writes = events_of(mm, MmVmscanWriteFolio)
    # Not by direct reclaim, whatever the flags say.
    assert shrink(mm, 1, kswapd=False).nr_activate_file == 1
    assert writes == []
    _, (pfn,) = cached(mm, 1)
    mm.page_cache.dirty(np.array([pfn]))
    set_word(mm, pfn, on=pg.PG_RECLAIM)
    event = shrink(mm, 1)
    assert [(e.pfn, e.file) for e in writes] == [(pfn, True)]
    assert (event.nr_reclaimed, event.nr_activate_file) == (0, 0)
    assert mm.vmstat[VmEvent.nr_vmscan_write] == 1
    assert word(mm, pfn) & pg.PG_WRITEBACK


def test_a_page_under_writeback_is_marked_then_counted_as_congested_then_as_immediate(mm):
    _, (pfn,) = cached(mm, 1)
    set_word(mm, pfn, on=pg.PG_WRITEBACK)
    event = shrink(mm, 1)
    assert (event.nr_writeback, event.nr_congested, event.nr_immediate) == (1, 0, 0)
    assert word(mm, pfn) & pg.PG_RECLAIM
    _, (pfn,) = cached(mm, 1)
    set_word(mm, pfn, on=pg.PG_WRITEBACK | pg.PG_RECLAIM)
    event = shrink(mm, 1)
    assert (event.nr_writeback, event.nr_congested, event.nr_immediate) == (1, 1, 0)
    _, (pfn,) = cached(mm, 1)
    set_word(mm, pfn, on=pg.PG_WRITEBACK | pg.PG_RECLAIM)
    mm.pgdat.under_writeback = True
    event = shrink(mm, 1)
    assert (event.nr_writeback, event.nr_congested, event.nr_immediate) == (0, 1, 1)
    assert event.nr_activate_file == 1


def test_a_pinned_file_page_is_activated(mm):
    _, (pfn,) = cached(mm, 1)
    set_word(mm, pfn, on=pg.PG_PINNED)
    event = shrink(mm, 1)
    assert (event.nr_reclaimed, event.nr_activate_file) == (0, 1)


def test_nofs_reclaims_clean_file_pages(mm):
    cached(mm, 2)
    assert shrink(mm, 2, gfp_mask=gfp.GFP_NOFS).nr_reclaimed == 2
    cached(mm, 2)
    assert shrink(mm, 2, gfp_mask=gfp.GFP_NOIO).nr_reclaimed == 2


# --- anonymous pages ----------------------------------------------------------------------------------------


def inactive_anon(mm, n):
    """Make the test's pages the oldest of the inactive list."""
    vma, pfns = anonymous(mm, n)
    memory = mm.pgdat.memory
    for pfn in reversed(pfns):
        jit.lru_del(memory.page, memory.pb, memory.S, pfn)
        jit.lru_add(memory.page, memory.pb, memory.S, pfn, jit.TO_TAIL)
    return vma, pfns


def test_an_unused_anonymous_page_is_written_to_swap_before_it_goes(mm):
    _, pfns = inactive_anon(mm, 2)
    writes = events_of(mm, MmVmscanWriteFolio)
    free_swap = mm.swap.get_nr_swap_pages()
    event = shrink(mm, 2, file=False)
    assert event.nr_reclaimed == 0
    assert sorted(e.pfn for e in writes) == sorted(pfns)
    assert mm.swap.get_nr_swap_pages() == free_swap - 2
    for pfn in pfns:
        flags = word(mm, pfn) & (
            pg.PG_WRITEBACK | pg.PG_RECLAIM | pg.PG_SWAPCACHE | pg.PG_MAPPED | pg.PG_DIRTY
        )
        assert flags == pg.PG_WRITEBACK | pg.PG_RECLAIM | pg.PG_SWAPCACHE


def test_written_pages_rotate_to_the_tail_and_go_at_the_next_pass(mm):
    vma, pfns = inactive_anon(mm, 3)
    shrink(mm, 3, file=False)
    assert lru(mm, pg.LRU_INACTIVE_ANON)[:3] == pfns[::-1]
    mm.page_io._written(np.array(pfns), 3)
    assert lru(mm, pg.LRU_INACTIVE_ANON)[-3:] == pfns
    assert mm.vmstat[VmEvent.pgrotated] == 3
    before = mm.vmstat.as_dict()
    assert shrink(mm, 3, file=False).nr_reclaimed == 3
    assert grown(mm, before)["pgsteal_anon"] == 3
    assert (vma.nr_resident, vma.nr_swapped) == (0, 3)


def test_a_page_activated_under_writeback_comes_to_the_inactive_tail_when_written(mm):
    """Reclaim activates what it meets under writeback; so these are to go next (``lru_move_tail_fn()``)."""
    _, pfns = inactive_anon(mm, 4)
    shrink(mm, 4, file=False)
    to_tail(mm, pfns)
    event = shrink(mm, 4, file=False)
    assert (event.nr_writeback, event.nr_activate_anon) == (4, 4)
    assert set(pfns) <= set(lru(mm, pg.LRU_ACTIVE_ANON))
    mm.page_io._written(np.array(pfns), 4)
    assert lru(mm, pg.LRU_INACTIVE_ANON)[-4:] == pfns
    assert not any(word(mm, pfn) & (pg.PG_ACTIVE | pg.PG_RECLAIM) for pfn in pfns)
    assert mm.vmstat[VmEvent.pgrotated] == 4
    assert mm.vmstat[VmEvent.pgdeactivate] == 0


@pytest.mark.parametrize("flag", [pg.PG_LOCKED, pg.PG_DIRTY])
def test_a_written_page_that_is_locked_or_dirty_again_is_not_moved(mm, flag):
    _, pfns = inactive_anon(mm, 2)
    shrink(mm, 2, file=False)
    before = lru(mm, pg.LRU_INACTIVE_ANON)
    set_word(mm, pfns, on=flag)
    mm.page_io._written(np.array(pfns), 2)
    assert lru(mm, pg.LRU_INACTIVE_ANON) == before
    assert mm.vmstat[VmEvent.pgrotated] == 0


def test_a_used_anonymous_page_is_kept_once_then_activated(mm):
    _, (pfn,) = inactive_anon(mm, 1)
    set_word(mm, pfn, on=pg.PTE_YOUNG)
    assert shrink(mm, 1, file=False).nr_ref_keep == 1
    assert lru(mm, pg.LRU_INACTIVE_ANON)[0] == pfn


@pytest.mark.parametrize(
    "refused",
    [{"gfp_mask": gfp.GFP_NOIO}, {"may_writepage": False}],
    ids=["noio", "no writepage"],
)
def test_what_may_not_be_written_is_kept(mm, refused):
    _, (pfn,) = inactive_anon(mm, 1)
    event = shrink(mm, 1, file=False, **refused)
    assert (event.nr_reclaimed, event.nr_activate_anon) == (0, 0)
    assert on(mm, pfn) == pg.LRU_INACTIVE_ANON


def test_nofs_may_swap(mm):
    inactive_anon(mm, 1)
    writes = events_of(mm, MmVmscanWriteFolio)
    shrink(mm, 1, file=False, gfp_mask=gfp.GFP_NOFS)
    assert len(writes) == 1


def test_without_a_slot_an_anonymous_page_is_activated(mm):
    _, (pfn,) = inactive_anon(mm, 1)
    mm.pgdat.memory.S[pg.S_NODE_STAT + pg.NS_FREE_SWAP] = 0
    assert shrink(mm, 1, file=False).nr_activate_anon == 1
    assert on(mm, pfn) == pg.LRU_ACTIVE_ANON


def test_a_pinned_anonymous_page_is_kept(mm):
    _, (pfn,) = inactive_anon(mm, 1)
    set_word(mm, pfn, on=pg.PG_PINNED)
    event = shrink(mm, 1, file=False)
    assert (event.nr_reclaimed, event.nr_activate_anon) == (0, 0)
    assert mm.swap.get_nr_swap_pages() == 4096


def test_what_reclaim_activates_ages_the_shadows(mm):
    """move_folios_to_lru(): each folio that goes back active counts, after the evictions of its batch."""
    file, pfns = cached(mm, 5)
    mm.page_cache.dirty(np.array(pfns[1:3]))
    S = mm.pgdat.memory.S
    before = int(S[pg.S_NONRESIDENT_AGE])
    shrink(mm, 5)
    assert mm.vmstat[VmEvent.pgactivate] == 2
    assert S[pg.S_NONRESIDENT_AGE] == before + 5
    shadows = [int(each) & pg.SLOT_AGE_MASK for each in mm.rmap.part(file.base_slot, 5)[[0, 3, 4]]]
    assert shadows == [before, before + 1, before + 2]


def test_a_large_folio_is_freed_before_the_single_pages_of_its_batch(mm):
    file = mm.page_cache.open(16, max_order=3)
    for index in (0, 8):
        file.add_folio(index, 3, gfp.GFP_HIGHUSER_MOVABLE | gfp.COMP)
    small, _ = cached(mm, 2)
    heads = [p for p in lru(mm, pg.LRU_INACTIVE_FILE) if word(mm, p) & pg.ORDER_MASK]
    assert len(heads) == 2
    memory = mm.pgdat.memory
    memory.take_trace()
    memory.S[pg.S_TRACE_MASK] = 1 << pg.TR_PAGE_FREE
    shrink(mm, 18)
    memory.S[pg.S_TRACE_MASK] = 0
    freed = [tuple(row[1:3].tolist()) for row in memory.take_trace()]
    assert [order for _, order in freed] == [3, 3, 0, 0]
    assert [pfn for pfn, _ in freed[:2]] == heads[::-1]
    assert (file.nrpages, small.nrpages) == (0, 0)


def test_pages_under_writeback_count_as_dirty_where_they_are_a_files(mm):
    _, pfns = cached(mm, 1)
    set_word(mm, pfns, on=pg.PG_WRITEBACK)
    assert shrink(mm, 1).nr_dirty == 1
    inactive_anon(mm, 1)
    shrink(mm, 1, file=False)
    assert shrink(mm, 1, file=False).nr_dirty == 0


# --- the active list -------------------------------------------------------------------------------------------


def test_deactivation_clears_use_and_marks_the_workingset_but_spares_running_code(mm):
    _, pfns = cached(mm, 4)
    mm.page_cache.map_pages(np.array(pfns[:2]), executable=True)
    mm.page_cache.map_pages(np.array(pfns[2:3]), executable=False)
    file = mm.rmap.owner_of(pfns[0])[0]
    for _ in range(2):
        file.read_pages(np.arange(4))
    assert lru(mm, pg.LRU_ACTIVE_FILE) == pfns[::-1]
    set_word(mm, pfns[1], off=pg.PTE_YOUNG)
    events = events_of(mm, MmVmscanLruShrinkActive)
    mm._vmscan.lru_scan.shrink_active_list(pg.LRU_ACTIVE_FILE, 4, scan_control())
    (event,) = events
    assert (event.nr_taken, event.nr_active, event.nr_deactivated, event.nr_referenced) == (4, 1, 3, 1)
    assert lru(mm, pg.LRU_ACTIVE_FILE) == [pfns[0]]
    assert lru(mm, pg.LRU_INACTIVE_FILE)[:3] == pfns[:0:-1]
    for pfn in pfns[1:]:
        assert word(mm, pfn) & (pg.PG_WORKINGSET | pg.PTE_YOUNG | pg.PG_ACTIVE) == pg.PG_WORKINGSET
