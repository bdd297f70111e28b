"""Collapsing: what is scanned, what stands in the way, what it leaves (mm/khugepaged.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import SEC, fill, grown, run, scan, set_word, to_tail, unboosted, word
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.khugepaged import ScanResult, collapse_huge_page, khugepaged_gfp_mask, scan_pmd


@pytest.fixture
def mm():
    return unboosted()


def small(mm, n=512, nr_pages=512):
    """A mapping of single pages, the first n of it touched."""
    vma = mm.mmap_anonymous(nr_pages)
    assert vma.touch(0, n) == n
    vma.thp = True
    return vma


def collapse(vma, first=0):
    return collapse_huge_page(vma, first, khugepaged_gfp_mask(vma.mm.thp))


def test_single_pages_become_a_huge_one_and_go(mm):
    vma = small(mm, 300)
    mm.drain_all_pages()
    free, before = mm.global_free_pages(), mm.vmstat.as_dict()
    old = vma.pfns()
    assert scan_pmd(vma, 0) is ScanResult.SUCCEED
    assert collapse(vma) is ScanResult.SUCCEED
    change = grown(mm, before)
    assert (change["thp_collapse_alloc"], change["pgfree"]) == (1, 300)
    assert "thp_fault_alloc" not in change
    head = int(vma.pfns()[0])
    assert vma.pfns().tolist() == list(range(head, head + 512))
    assert head % 512 == 0
    assert not set(old.tolist()) & set(vma.pfns().tolist())
    assert mm.lruvec.node_stat(pg.NS_ANON_THPS) == mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 512
    assert vma.nr_page_tables == 1  # deposited, not freed
    mm.drain_all_pages()
    assert mm.global_free_pages() == free - 212
    assert scan_pmd(vma, 0) is ScanResult.PMD_MAPPED
    assert vma.munmap() == 512
    mm.check_memory()


def test_what_was_partly_unmapped_and_split_becomes_whole_again(mm):
    vma = mm.mmap_anonymous(512, thp=True)
    vma.touch(0, 512)
    head = int(vma.pfns()[0])
    vma.madvise_dontneed(np.arange(0, 512, 2))
    # Mapped page by page it may be collapsed without being split; the old block goes with its last page.
    assert scan_pmd(vma, 0) is ScanResult.SUCCEED
    assert collapse(vma) is ScanResult.SUCCEED
    assert mm.memory.deferred_split.split_queue == ()
    assert vma.nr_resident == 512
    assert int(vma.pfns()[0]) != head
    assert word(mm, head) & pg.TYPE_MASK != pg.T_ALLOC
    mm.check_memory()


def test_nothing_mapped_here_is_nothing_to_collapse(mm):
    vma = small(mm, 512, 1024)
    assert scan_pmd(vma, 512) is ScanResult.PMD_NULL


@pytest.mark.parametrize(
    ("nr_none", "result"), [(200, ScanResult.SUCCEED), (201, ScanResult.EXCEED_NONE_PTE)]
)
def test_too_many_absent_pages(mm, nr_none, result):
    mm.memory.thp.max_ptes_none = 200
    vma = small(mm, 512 - nr_none)
    assert scan_pmd(vma, 0) is result
    assert mm.vmstat.as_dict()["thp_scan_exceed_none_pte"] == (result is not ScanResult.SUCCEED)


@pytest.mark.parametrize(
    ("flag", "result"),
    [(pg.PG_LOCKED, ScanResult.PAGE_LOCK), (pg.PG_PINNED, ScanResult.PAGE_COUNT)],
)
def test_a_page_that_is_held_stands_in_the_way(mm, flag, result):
    vma = small(mm)
    pfn = int(vma.pfns()[100])
    set_word(mm, pfn, on=flag)
    assert scan_pmd(vma, 0) is result
    owned = mm.nr_allocated_pages()
    assert collapse(vma) is result
    assert mm.nr_allocated_pages() == owned
    set_word(mm, pfn, off=flag)
    assert scan_pmd(vma, 0) is ScanResult.SUCCEED


def test_what_nobody_used_lately_is_left_alone(mm):
    vma = small(mm)
    set_word(mm, vma.pfns(), off=pg.PTE_YOUNG)
    assert scan_pmd(vma, 0) is ScanResult.LACK_REFERENCED_PAGE
    set_word(mm, int(vma.pfns()[511]), on=pg.PTE_YOUNG)
    assert scan_pmd(vma, 0) is ScanResult.SUCCEED


@pytest.mark.parametrize(("defrag", "mask"), [(True, gfp.GFP_TRANSHUGE), (False, gfp.GFP_TRANSHUGE_LIGHT)])
def test_without_a_block_nothing_changes(mm, defrag, mask):
    vma = small(mm)
    pages = vma.pfns().tolist()
    fill(mm)
    mm.memory.thp.khugepaged_defrag = defrag
    assert khugepaged_gfp_mask(mm.memory.thp) == mask
    before = mm.vmstat.as_dict()
    assert collapse(vma) is ScanResult.ALLOC_HUGE_PAGE_FAIL
    assert grown(mm, before)["thp_collapse_alloc_failed"] == 1
    assert vma.pfns().tolist() == pages


def swapped(n):
    """A mapping of 512 pages, the first n of them on the swap device."""
    mm = unboosted(nr_swap_pages=1000, start=True)
    vma = small(mm)
    oldest = [int(p) for p in vma.pfns()[:n]]
    set_word(mm, oldest, off=pg.PTE_YOUNG)
    to_tail(mm, reversed(oldest))
    for _ in range(2):
        for left in range(n, 0, -32):
            scan(mm, min(32, left))
        mm.sched.sleep(SEC)
    assert vma.nr_swapped == n
    return mm, vma


@pytest.mark.parametrize(("n", "result"), [(64, ScanResult.SUCCEED), (65, ScanResult.EXCEED_SWAP_PTE)])
def test_too_many_swapped_pages(n, result):
    mm, vma = swapped(n)
    assert scan_pmd(vma, 0) is result
    assert mm.vmstat.as_dict()["thp_scan_exceed_swap_pte"] == (n > 64)


def test_swapped_pages_are_read_and_a_later_pass_collapses():
    """Each attempt ends at the first page that it has to wait for; its window is in memory then."""
    mm, vma = swapped(10)
    results = []

    def passes():
        while not results or results[-1] is not ScanResult.SUCCEED:
            mm.sched.sleep(SEC)
            results.append(collapse(vma))

    run(mm, passes, 20 * SEC)
    assert results == [ScanResult.PAGE_LOCK] * (len(results) - 1) + [ScanResult.SUCCEED]
    assert 2 <= len(results) <= 10
    assert (vma.nr_swapped, vma.nr_resident) == (0, 512)
    assert mm.swap.get_nr_swap_pages() == 1000
    assert mm.vmstat.as_dict()["pswpin"] == 10
    mm.check_memory()


def test_a_mapping_that_goes_while_its_pages_are_read_is_left_alone():
    mm, vma = swapped(10)
    results = []
    mm.sched.spawn(lambda: results.append(collapse(vma)), name="khugepaged", daemon=True)
    mm.sched.spawn(vma.munmap, name="load", daemon=True)
    mm.sched.run(mm.sched.now + SEC)
    assert len(results) == 1
    assert results[0] is not ScanResult.SUCCEED
    assert vma.nr_resident == 0
    mm.check_memory()


def test_address_spaces_are_scanned_in_order_of_their_first_fault(mm):
    slots = mm.memory.mm_slots

    def body():
        mm.mmap_anonymous(1024, thp=True).touch(0, 1024)

    mm.start_time()
    tasks = [mm.sched.spawn(body, name=f"load-{i}", daemon=True) for i in range(3)]
    mm.sched.run(SEC)
    assert slots.tasks == tuple(tasks)
    for task in tasks:
        slots.collect_mm_slot(task)
    assert len(slots) == 0


def test_who_waits_for_the_first_address_space_is_woken(mm):
    woken = []

    def waiter():
        mm.memory.mm_slots.wait.wait_event(lambda: len(mm.memory.mm_slots) > 0)
        woken.append(mm.sched.now)

    def load():
        mm.sched.nanosleep(SEC)
        mm.mmap_anonymous(512, thp=True).touch(0, 1)
        mm.sched.nanosleep(SEC)

    mm.start_time()
    mm.sched.spawn(waiter, name="waiter", daemon=True)
    mm.sched.spawn(load, name="load", daemon=True)
    mm.sched.run(3 * SEC)
    assert len(woken) == 1
    assert SEC <= woken[0] < SEC + SEC // 100
