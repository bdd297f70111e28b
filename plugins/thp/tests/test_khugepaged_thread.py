"""The pace of khugepaged and the order in which it goes through memory (mm/khugepaged.c of 6.1)."""

from __future__ import annotations

import pytest

from mmfw.mm.khugepaged import ScanResult


def test_eight_blocks_every_ten_seconds(bench):
    b = bench()
    b.spawn(b.small_heap(20))
    b.run(1)
    # The first huge page fault wakes it, before the heap is there.
    assert b.metric("thp_khugepaged_collapsed") == b.vmstat("thp_collapse_alloc") <= 8
    done = []
    for _ in range(3):
        before = b.metric("thp_khugepaged_collapsed")
        b.run(10)
        done.append(b.metric("thp_khugepaged_collapsed") - before)
    # The mapping that had the fault comes before the heap: one block of the first go is huge already.
    assert done == [7, 8, 5]


def test_a_go_takes_as_many_pages_as_it_is_told(bench):
    b = bench(pages_to_scan=512 * 100, scan_sleep_millisecs=1000)
    b.spawn(b.small_heap(20))
    b.run(3)
    assert b.metric("thp_khugepaged_collapsed") == 20
    assert b.metric("thp_khugepaged_full_scans") >= 1
    assert b.khugepaged.stats.results[ScanResult.PMD_MAPPED] >= 20


def test_after_a_failed_allocation_it_waits_a_minute_and_tries_once_more(bench):
    b = bench(pages_to_scan=512 * 100, khugepaged_defrag=False)
    b.spawn(b.small_heap(20))
    b.run(0.05)
    done = b.metric("thp_khugepaged_collapsed")
    taken = b.take_blocks()
    b.run(15)
    # It was woken by the heap's first fault, found the heap half there, and its second go met full memory.
    assert b.vmstat("thp_collapse_alloc_failed") == 1
    b.run(55)
    assert b.vmstat("thp_collapse_alloc_failed") == 2
    for pfn, order in taken:
        b.mm.free_pages(pfn, order)
    b.run(20)
    assert b.metric("thp_khugepaged_collapsed") == 20 > done


def test_address_spaces_take_turns_and_the_dead_are_dropped(bench):
    b = bench(pages_to_scan=512 * 100, scan_sleep_millisecs=1000)
    order = []

    def body(name, nr_huge):
        def run():
            vma = b.mm.mmap_anonymous(512 * (nr_huge + 1), thp=True)
            vma.touch(0, 1)
            order.append(name)
            b.mm.sched.nanosleep(3_000_000_000)
            vma.munmap()

        return run

    b.spawn(body("first", 2))
    b.spawn(body("second", 3))
    b.run(2)
    assert len(b.mm.memory.mm_slots) == 2
    # Each block was looked at in each go: one huge page each, the others without a page table.
    assert b.khugepaged.stats.results[ScanResult.PMD_MAPPED] % 2 == 0
    assert b.khugepaged.stats.results[ScanResult.PMD_NULL] % 5 == 0
    b.run(4)
    assert len(b.mm.memory.mm_slots) == 0
    scans = b.khugepaged.stats.full_scans
    b.run(5)
    # With nobody to scan it sleeps until somebody comes.
    assert b.khugepaged.stats.full_scans == scans
    b.spawn(body("third", 1))
    b.run(1)
    assert b.khugepaged.stats.full_scans == scans + 1


@pytest.mark.parametrize("more", [{"khugepaged": False}, {"enabled": "never"}])
def test_it_may_be_off(bench, more):
    b = bench(**more)
    b.spawn(b.small_heap(5))
    b.run(30)
    assert b.vmstat("thp_collapse_alloc") == 0


def test_absent_pages_are_filled_in_up_to_max_ptes_none(bench):
    for most, collapsed in ((511, 1), (100, 0)):
        b = bench(pages_to_scan=512 * 100, max_ptes_none=most)

        def body(b=b):
            b.mm.mmap_anonymous(512, thp=True).touch(0, 1)
            vma = b.mm.mmap_anonymous(512)
            vma.touch(0, 200)
            vma.thp = True
            b.mm.sched.nanosleep(60_000_000_000)

        b.spawn(body)
        b.run(25)
        assert b.metric("thp_khugepaged_collapsed") == collapsed
        assert (b.vmstat("thp_scan_exceed_none_pte") > 0) == (not collapsed)
