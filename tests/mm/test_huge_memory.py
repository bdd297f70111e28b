"""Huge pages: which faults try one, what dropping part of one does, splitting (mm/huge_memory.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import SEC, fragment, grown, lru, run, scan, set_word, take_large, to_tail, unboosted, word
from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.jit import page as pg


@pytest.fixture
def mm():
    return unboosted()


def orders(mm):
    """Orders of single requests from now on."""
    seen = []
    real = mm._allocator.alloc_pages
    mm._allocator.alloc_pages = lambda mask, order: seen.append(order) or real(mask, order)
    return seen


def huge(mm, n=1):
    vma = mm.mmap_anonymous(512 * n, thp=True)
    assert vma.touch(0, 512 * n) == 512 * n
    return vma, [int(p) for p in vma.pfns()[::512]]


# --- faults ---------------------------------------------------------------------------------------------------------


def test_the_huge_page_is_taken_before_its_table(mm):
    seen = orders(mm)
    mm.mmap_anonymous(512, thp=True).touch(0, 512)
    assert seen == [9, 0]


def test_any_first_touch_of_an_aligned_range_may_be_huge(mm):
    vma = mm.mmap_anonymous(1024, thp=True)
    assert vma.touch(700, 1) == 1
    assert mm.vmstat.as_dict()["thp_fault_alloc"] == 1
    assert np.flatnonzero(vma.words() < pg.SLOT_SHADOW).tolist() == list(range(512, 1024))


def test_the_end_of_a_mapping_is_small(mm):
    vma = mm.mmap_anonymous(1000, thp=True)
    vma.touch(600, 1)
    assert "thp_fault_alloc" not in {k for k, v in mm.vmstat.as_dict().items() if v}
    assert vma.nr_resident == 1


def test_where_a_table_exists_no_huge_page_is_tried(mm):
    """Not even if every page was dropped since: the table stays."""
    fragment(mm, 16)
    blocks = take_large(mm, 9)
    vma = mm.mmap_anonymous(512, thp=True)
    vma.touch(5, 1)
    vma.madvise_dontneed(np.array([5]))
    for pfn in blocks:
        mm.free_pages(pfn, 9 if word(mm, pfn) & pg.ORDER_MASK == 9 else 10)
    vma.touch(5, 1)
    assert mm.vmstat.as_dict()["thp_fault_alloc"] == 0
    assert mm.vmstat.as_dict()["thp_fault_fallback"] == 1


def test_without_a_table_for_it_the_huge_page_is_given_back(mm):
    real = mm._allocator.alloc_pages
    mm._allocator.alloc_pages = lambda mask, order: -1 if order == 0 else real(mask, order)
    owned = mm.nr_allocated_pages()
    vma = mm.mmap_anonymous(512, thp=True)
    assert vma.touch(0, 512) == 0
    assert (vma.nr_page_tables, mm.nr_allocated_pages()) == (0, owned)


def test_a_touch_of_any_page_marks_the_huge_page_used(mm):
    vma, (head,) = huge(mm)
    set_word(mm, head, off=pg.PTE_YOUNG)
    vma.touch(300, 1)
    assert word(mm, head) & pg.PTE_YOUNG
    assert word(mm, head + 300) == 0


# --- dropping part of one -------------------------------------------------------------------------------------------


def test_dropping_part_of_a_huge_page_frees_nothing_yet(mm):
    vma, heads = huge(mm, 2)
    before = mm.vmstat.as_dict()
    assert vma.madvise_dontneed(np.array([5, 7, 600, 8])) == 0
    change = grown(mm, before)
    assert change == {"thp_split_pmd": 2, "thp_deferred_split_page": 2}
    assert mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == vma.nr_resident == 1020
    assert mm.lruvec.node_stat(pg.NS_ANON_THPS) == 0
    # Both stay whole on the LRU.
    assert [word(mm, head) & pg.ORDER_MASK for head in heads] == [9, 9]
    assert mm.lruvec.size(pg.LRU_INACTIVE_ANON) >= 1024
    queue = mm.memory.deferred_split
    assert (queue.split_queue, queue.split_queue_len) == (tuple(heads), 2)


def test_a_dropped_page_is_a_new_one_when_it_is_touched_again(mm):
    vma, (head,) = huge(mm)
    vma.madvise_dontneed(np.array([5]))
    before = mm.vmstat.as_dict()
    vma.touch(0, 512)
    assert grown(mm, before)["pgfault"] == 1
    assert vma.nr_resident == 512
    assert int(vma.words()[5]) != head + 5
    assert mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 512
    vma.munmap()
    assert mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 0
    mm.check_memory()


def test_the_block_comes_back_with_its_last_page(mm):
    vma, _ = huge(mm)
    mm.drain_all_pages()
    free = mm.global_free_pages()
    before = mm.vmstat.as_dict()
    assert vma.madvise_dontneed(np.arange(511, 0, -1)) == 0
    assert vma.madvise_dontneed(np.array([0])) == 512
    assert grown(mm, before)["pgfree"] == 512
    assert grown(mm, before)["thp_deferred_split_page"] == 1
    assert mm.memory.deferred_split.split_queue == ()
    mm.drain_all_pages()
    assert mm.global_free_pages() == free + 512
    assert [mm.lruvec.node_stat(s) for s in (pg.NS_ANON_MAPPED, pg.NS_ANON_THPS)] == [0, 0]
    # The same block may become another huge page, which is not queued.
    again, (other,) = huge(mm)
    assert mm.memory.deferred_split.split_queue == ()
    again.madvise_dontneed(np.array([1]))
    assert mm.memory.deferred_split.split_queue == (other,)


def test_splitting_frees_what_is_unmapped_in_order_the_head_last(mm):
    """free_page_and_swap_cache() of the tails, ascending, then the caller's reference to the head."""
    vma, (head,) = huge(mm)
    older = mm.mmap_anonymous(1)
    older.touch(0, 1)
    newer = mm.mmap_anonymous(1)
    newer.touch(0, 1)
    memory = mm.pgdat.memory
    vma.madvise_dontneed(np.array([9, 0, 3]))
    memory.take_trace()
    memory.S[pg.S_TRACE_MASK] = 1 << pg.TR_PAGE_FREE
    before = mm.vmstat.as_dict()
    assert mm.memory.split_huge_page(head) == 3
    memory.S[pg.S_TRACE_MASK] = 0
    assert memory.take_trace()[:, 1].tolist() == [head + 3, head + 9, head]
    assert grown(mm, before)["thp_split_page"] == 1
    assert mm.memory.deferred_split.split_queue_len == 0
    # The pages lie where the huge page was, page 0's place nearest to the tail.
    at = lru(mm, pg.LRU_INACTIVE_ANON)
    left = [head + i for i in range(511, 0, -1) if i not in (9, 3)]
    start = at.index(left[0])
    assert at[start : start + 509] == left
    assert vma.nr_resident == 509
    assert mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 511
    mm.check_memory()


def test_splitting_hands_its_flags_down(mm):
    _, (head,) = huge(mm)
    set_word(mm, head, on=pg.PG_REFERENCED | pg.PG_WORKINGSET)
    assert mm.memory.split_huge_page(head) == 0
    keep = pg.PG_REFERENCED | pg.PG_WORKINGSET | pg.PG_SWAPBACKED | pg.PG_MAPPED | pg.PTE_YOUNG | pg.PG_LRU
    assert {word(mm, head + i) & keep for i in range(512)} == {keep}
    assert {word(mm, head + i) & (pg.ORDER_MASK | pg.PG_COMPOUND | pg.PG_PTE_MAPPED) for i in range(512)} == {
        0
    }


@pytest.mark.parametrize("flag", [pg.PG_WRITEBACK, pg.PG_LOCKED, pg.PG_PINNED])
def test_what_is_held_cannot_be_split_and_stays_queued_at_the_end(mm, flag):
    vma, heads = huge(mm, 2)
    vma.madvise_dontneed(np.array([1, 513]))
    set_word(mm, heads[0], on=flag)
    before = mm.vmstat.as_dict()
    assert mm.memory.split_huge_page(heads[0]) == -1
    assert grown(mm, before) == {"thp_split_page_failed": 1}
    assert mm.memory.deferred_split.split_queue == (heads[1], heads[0])


# --- reclaim --------------------------------------------------------------------------------------------------------


def idle_huge(mm):
    """A huge page at the tail of the inactive list, not used since it was made."""
    for which in (0, 1):
        set_word(mm, lru(mm, which), on=pg.PG_LOCKED)
    vma, (head,) = huge(mm)
    set_word(mm, head, off=pg.PTE_YOUNG)
    to_tail(mm, [head])
    return vma, head


def test_a_huge_page_is_swapped_out_whole_and_comes_back_small():
    mm = unboosted(nr_swap_pages=4000, start=True)

    def body():
        vma, _ = idle_huge(mm)
        before = mm.vmstat.as_dict()
        scan(mm, 1)
        change = grown(mm, before)
        assert (change["thp_swpout"], change["pswpout"], change["thp_split_pmd"]) == (1, 512, 1)
        assert [mm.lruvec.node_stat(s) for s in (pg.NS_ANON_MAPPED, pg.NS_ANON_THPS)] == [0, 0]
        mm.sched.sleep(SEC)
        assert scan(mm, 1) == 512
        assert vma.nr_swapped == 512
        vma.touch(100, 1)
        assert word(mm, int(vma.words()[100])) & pg.ORDER_MASK == 0
        return vma.munmap()

    assert run(mm, body, 20 * SEC) == 8
    assert mm.swap.get_nr_swap_pages() == 4000
    mm.check_memory()


def test_a_huge_page_without_swap_for_it_is_split_and_swapped_singly():
    mm = unboosted(nr_swap_pages=100)
    vma, head = idle_huge(mm)
    before = mm.vmstat.as_dict()
    scan(mm, 1)
    change = grown(mm, before)
    assert change["thp_swpout_fallback"] == change["thp_split_page"] == 1
    assert change["pswpout"] == 100
    assert "thp_swpout" not in change
    # Pages 0 to 99 in order; the others are activated.
    assert change["pgactivate"] == 412
    assert [bool(word(mm, head + i) & pg.PG_WRITEBACK) for i in range(512)] == [True] * 100 + [False] * 412
    assert change["pgscan_anon"] == 512
    assert vma.nr_resident == 512


def test_a_partly_unmapped_huge_page_is_split_by_reclaim_and_its_rest_is_free():
    mm = unboosted(nr_swap_pages=4000)
    vma, head = idle_huge(mm)
    vma.madvise_dontneed(np.array([0, 5, 511]))
    to_tail(mm, [head])
    before = mm.vmstat.as_dict()
    scan(mm, 1)
    change = grown(mm, before)
    assert change["thp_split_page"] == 1
    assert "thp_swpout_fallback" not in change
    assert (change["pswpout"], change["pgfree"]) == (509, 3)
    assert mm.memory.deferred_split.split_queue == ()
    assert mm.swap.get_nr_swap_pages() == 4000 - 509
    mm.check_memory()


def test_a_huge_page_touched_while_it_is_written_is_mapped_again():
    mm = unboosted(nr_swap_pages=4000, start=True)

    def body():
        vma, head = idle_huge(mm)
        scan(mm, 1)
        vma.touch(7, 1)
        assert word(mm, head) & (pg.PG_MAPPED | pg.PG_WRITEBACK) == pg.PG_MAPPED | pg.PG_WRITEBACK
        assert mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 512
        vma.madvise_dontneed(np.array([3]))
        assert mm.memory.deferred_split.split_queue == ()  # the swap cache's are reclaim's own matter
        mm.sched.sleep(SEC)
        vma.munmap()

    run(mm, body, 20 * SEC)
    assert mm.swap.get_nr_swap_pages() == 4000
    assert [mm.lruvec.node_stat(s) for s in (pg.NS_ANON_MAPPED, pg.NS_SWAPCACHE)] == [0, 0]
    mm.check_memory()
    assert mm.alloc_pages(gfp.GFP_KERNEL, 0) >= 0


# --- what a split would free ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dropped", "order"),
    [
        (range(0, 512, 2), 0),
        (range(256, 512), 8),
        (range(255, 512), 8),
        (range(8, 24), 3),  # pages 8 to 23: two aligned runs of 8, none of 16
        (range(1, 512), 8),
        ([7], 0),
    ],
)
def test_the_largest_run_that_a_split_would_free(mm, dropped, order):
    vma, (head,) = huge(mm)
    vma.madvise_dontneed(np.array(list(dropped)))
    queue = mm.memory.deferred_split
    assert queue.unmapped_order(head) == order
    assert np.flatnonzero(~queue.mapped_pages(head)).tolist() == list(dropped)
    assert queue.mapping_of(head) == (vma, 0)


def test_what_a_split_would_free_grows_as_more_is_unmapped(mm):
    vma, (head,) = huge(mm)
    queue = mm.memory.deferred_split
    vma.madvise_dontneed(np.arange(4))
    assert queue.unmapped_order(head) == 2
    vma.madvise_dontneed(np.arange(4, 8))
    assert queue.unmapped_order(head) == 3
    # A page touched again is another one; the folio's own stays unmapped.
    vma.touch(0, 8)
    assert queue.unmapped_order(head) == 3


def test_fully_mapped_huge_pages_are_queued_only_if_underused_ones_are_sought(mm):
    mm.memory.thp.split_underused = True
    vma, heads = huge(mm, 2)
    queue = mm.memory.deferred_split
    assert queue.split_queue == tuple(heads)
    assert [queue.partially_mapped(head) for head in heads] == [False, False]
    assert mm.vmstat.as_dict()["thp_deferred_split_page"] == 0
    vma.madvise_dontneed(np.array([600]))
    assert [queue.partially_mapped(head) for head in heads] == [False, True]
    assert queue.split_queue == tuple(heads)
    assert mm.vmstat.as_dict()["thp_deferred_split_page"] == 1
    vma.munmap()
    assert queue.split_queue == ()


# --- munmap, and mmap at the same address ---------------------------------------------------------------------------


def test_a_mapping_that_is_mapped_again_begins_empty_in_the_same_slots(mm):
    vma, _ = huge(mm)
    with pytest.raises(CallerError, match="munmap"):
        mm.memory.mmap_again(vma)
    base = vma.base_slot
    vma.munmap()
    mm.memory.mmap_again(vma)
    assert (vma.base_slot, vma.nr_resident, vma.nr_page_tables, vma.dead) == (base, 0, 0, False)
    assert mm.memory.vmas == (vma,)
    assert vma.touch(0, 512) == 512
    assert vma.munmap() == 512
    mm.check_memory()
