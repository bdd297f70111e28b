"""Anonymous pages to the swap device and back: slots, counters, and what comes of pages in between."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import MSEC, SEC, grown, lru, run, scan_control, set_word, unboosted, word
from mmfw import gfp
from mmfw.jit import lru as jit
from mmfw.jit import page as pg

SWAP = 5000


@pytest.fixture
def mm():
    mm = unboosted(nr_swap_pages=SWAP, start=True)
    for which in (pg.LRU_INACTIVE_ANON, pg.LRU_ACTIVE_ANON):
        set_word(mm, lru(mm, which), on=pg.PG_LOCKED)
    return mm


def mapping(mm, n):
    """A mapping of n resident pages, none used since, the oldest of the inactive list."""
    vma = mm.mmap_anonymous(n)
    assert vma.touch(0, n) == n
    memory = mm.pgdat.memory
    pfns = [int(p) for p in vma.pfns()]
    set_word(mm, pfns, off=pg.PTE_YOUNG)
    for pfn in reversed(pfns):
        jit.lru_del(memory.page, memory.pb, memory.S, pfn)
        jit.lru_add(memory.page, memory.pb, memory.S, pfn, jit.TO_TAIL)
    return vma


def scan(mm, n):
    lru_scan = mm._vmscan.lru_scan
    return lru_scan.shrink_inactive_list(pg.LRU_INACTIVE_ANON, n, scan_control(), kswapd=True)


def swap_out(mm, n):
    """Write n pages, wait for the device, and free them."""
    for left in range(n, 0, -32):
        scan(mm, min(left, 32))
    mm.sched.sleep(SEC)
    return sum(scan(mm, min(left, 32)) for left in range(n, 0, -32))


def test_out_takes_a_slot_each_and_in_gives_it_back(mm):
    def body():
        vma = mapping(mm, 100)
        before = mm.vmstat.as_dict()
        assert swap_out(mm, 100) == 100
        change = grown(mm, before)
        assert change["pswpout"] == change["nr_vmscan_write"] == change["pgrotated"] == 100
        assert change["pgsteal_anon"] == 100
        assert change["pgscan_anon"] == 200
        assert (vma.nr_resident, vma.nr_swapped, mm.swap.get_nr_swap_pages()) == (0, 100, SWAP - 100)
        before = mm.vmstat.as_dict()
        assert vma.touch(0, 100) == 100
        change = grown(mm, before)
        assert change["pswpin"] == 100
        assert change["pswpin"] == change["pgmajfault"] + change["swap_ra"]
        assert change["workingset_refault_anon"] == 100
        assert (vma.nr_resident, vma.nr_swapped) == (100, 0)
        vma.munmap()
        assert mm.swap.get_nr_swap_pages() == SWAP

    run(mm, body, 10 * SEC)


def test_nothing_is_lost_by_unmapping_in_any_state(mm):
    """Resident, under writeback, written and still there, gone: munmap takes all and every slot comes back."""

    def body():
        mm.drain_all_pages()
        free = mm.global_free_pages()
        vma = mapping(mm, 80)
        for _ in range(2):
            scan(mm, 20)
        mm.sched.sleep(SEC)
        scan(mm, 20)  # gone
        scan(mm, 20)  # written and still there are freed
        scan(mm, 10)  # under writeback now
        assert vma.nr_swapped == 40
        assert mm.lruvec.node_stat(pg.NS_WRITEBACK) == 10
        assert vma.munmap() == 30  # the device holds those that it writes
        assert mm.swap.get_nr_swap_pages() == SWAP
        mm.sched.sleep(SEC)
        mm.drain_all_pages()
        assert mm.global_free_pages() == free
        assert mm.lruvec.node_stat(pg.NS_WRITEBACK) == 0
        assert mm.lruvec.node_stat(pg.NS_SWAPCACHE) == 0

    run(mm, body, 20 * SEC)
    mm.check_memory()


def test_dontneed_of_swapped_pages_frees_their_slots_only(mm):
    def body():
        vma = mapping(mm, 64)
        swap_out(mm, 64)
        assert vma.madvise_dontneed(np.arange(0, 64, 2)) == 0
        assert mm.swap.get_nr_swap_pages() == SWAP - 32
        assert vma.nr_swapped == 32
        # What was dropped comes back as new pages, without the device.
        before = mm.vmstat.as_dict()
        vma.touch(0, 1)
        assert "pswpin" not in grown(mm, before)

    run(mm, body, 10 * SEC)


def test_a_page_that_was_young_stays_and_an_idle_one_goes(mm):
    def body():
        vma = mapping(mm, 32)
        vma.touch(0, 16)
        assert swap_out(mm, 32) == 16
        assert (vma.nr_resident, vma.nr_swapped) == (16, 16)

    run(mm, body, 10 * SEC)


def test_reclaim_swaps_when_there_is_nothing_else():
    """More mapped than there is memory: it all fits in memory and swap, and every page is in one of them."""
    mm = unboosted(nr_swap_pages=20_000, start=True)

    def body():
        vma = mm.mmap_anonymous(18_000)
        assert vma.touch(0, 18_000) == 18_000
        assert vma.nr_resident + vma.nr_swapped == 18_000
        assert vma.nr_swapped > 1000
        # Every page on the device has a slot, and so has every page in the swap cache; the initramfs may have some.
        taken = 20_000 - mm.swap.get_nr_swap_pages() - vma.nr_swapped - mm.lruvec.node_stat(pg.NS_SWAPCACHE)
        assert 0 <= taken <= mm.initramfs_pages
        vma.munmap()
        assert 20_000 - mm.swap.get_nr_swap_pages() <= mm.initramfs_pages

    run(mm, body, 120 * SEC)
    assert mm.vmstat.as_dict()["oom_kill"] == 0
    mm.check_memory()


def test_without_swap_anonymous_lists_are_not_touched():
    mm = unboosted(start=True)

    def body():
        vma = mm.mmap_anonymous(8000)
        vma.touch(0, 8000)
        before = mm.vmstat.as_dict()
        mm._vmscan.try_to_free_pages(0, gfp.GFP_KERNEL)
        change = grown(mm, before)
        assert "pgscan_anon" not in change
        assert "pgrefill" not in change
        vma.munmap()

    run(mm, body)


def test_kswapd_ages_active_anonymous_pages_only_if_there_is_swap(mm):
    def body():
        vma = mapping(mm, 1000)
        before = mm.vmstat.as_dict()
        balancer = mm.kswapd._balancer
        # 1000 and a quarter of the initramfs (921) are inactive, three quarters of that are active.
        balancer._kswapd_age_node(scan_control())
        assert grown(mm, before) == {}
        memory = mm.pgdat.memory
        for pfn in vma.pfns()[:700]:
            jit.lru_del(memory.page, memory.pb, memory.S, int(pfn))
            set_word(mm, pfn, on=pg.PG_ACTIVE)
            jit.lru_add(memory.page, memory.pb, memory.S, int(pfn), jit.TO_HEAD)
        balancer._kswapd_age_node(scan_control())
        assert grown(mm, before)["pgrefill"] == 32
        mm.pgdat.memory.total_swap_pages = 0
        before = mm.vmstat.as_dict()
        balancer._kswapd_age_node(scan_control())
        assert grown(mm, before) == {}

    run(mm, body)


def test_writeback_takes_the_device_its_time(mm):
    log = []

    def body():
        vma = mapping(mm, 64)
        scan(mm, 32)
        pfns = [int(p) for p in vma.pfns() if word(mm, int(p)) & pg.PG_WRITEBACK]
        start = mm.sched.now
        while any(word(mm, p) & pg.PG_WRITEBACK for p in pfns):
            mm.sched.sleep(MSEC // 10)
        log.append((len(pfns), mm.sched.now - start))

    run(mm, body, 10 * SEC)
    count, took = log[0]
    assert count == 32
    assert took >= 32 * mm.costs.swap_out_page
