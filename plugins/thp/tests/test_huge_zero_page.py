"""The huge zero page and the shrinker "thp-zero" (mm/huge_memory.c of 6.1)."""

from __future__ import annotations

import pytest

from mmfw import CompactionScan, MigrateMode, ScanPhase
from mmfw.gfp import GFP_KERNEL


def shrink(b, priority=0):
    return b.mm.shrinkers.shrink_slab(GFP_KERNEL, 0, priority)


def test_it_is_counted_only_while_nobody_uses_it_and_goes_whole(bench):
    b = bench()
    free = b.free_pages()
    assert b.page.get()
    assert b.page.get()
    assert (b.page.refcount, free - b.free_pages()) == (3, 512)
    assert shrink(b) == 0
    b.page.put()
    b.page.put()
    assert free - b.free_pages() == 512
    assert shrink(b) == 512
    assert (b.page.refcount, b.free_pages()) == (0, free)
    assert b.vmstat("thp_zero_page_alloc") == 1


def test_priority_three_is_the_first_that_asks_for_a_batch(bench):
    """512 >> 3 is 64, times 4 by 2 seeks: 128, a batch. Above it work is put off: 64 at priority 4 and so on."""
    b = bench()
    b.page.get()
    b.page.put()
    answers = []
    for priority in range(12, 2, -1):
        answers.append(shrink(b, priority))
    assert answers == [0] * 9 + [512]


def test_somebody_may_need_it_again(bench):
    b = bench()
    b.page.get()
    b.page.put()
    shrink(b)
    b.run(2)
    assert b.page.get()
    losses = dict(b.mm.ledger)["thp_zero"]
    assert (losses.nr_pages_evicted, losses.nr_pages_recreated, losses.nr_pages_lost) == (512, 512, 512)


def test_without_a_block_the_reader_falls_back(bench):
    b = bench()
    taken = b.take_blocks()
    assert not b.page.get()
    assert (b.page.refcount, b.vmstat("thp_zero_page_alloc_failed")) == (0, 1)
    for pfn, order in taken:
        b.mm.free_pages(pfn, order)


@pytest.mark.parametrize(("order", "freed"), [(10, 0), (9, 512), (4, 512)])
def test_compaction_gets_it_for_what_it_can_serve(bench, order, freed):
    b = bench()
    b.page.get()
    zone = next(zone for zone in b.mm.pgdat.node_zones if zone.name == "DMA32")
    shrinker = next(each for each in b.mm.shrinkers if each.ops.name == "thp-zero")

    def ask(lo=0, hi=1 << 40):
        return shrinker.ops.compaction_scan(
            CompactionScan(
                zone=zone,
                nid=0,
                order=order,
                pfn_lo=lo,
                pfn_hi=hi,
                nr_to_free=1 << order,
                opportunistic=True,
                mode=MigrateMode.ASYNC,
                gfp_mask=GFP_KERNEL,
                migratetype=0,
                phase=ScanPhase.ENTRY,
            )
        )

    assert ask() == 0
    b.page.put()
    assert ask(hi=1) == 0
    assert ask() == freed


def test_short_programs_leave_it_behind(bench):
    b = bench()
    b.workload("thp-zero-reader", hold_ms=100, pause_ms=100, rounds=3)
    b.run(0.05)
    assert b.page.refcount == 2
    b.run(2)
    assert b.page.refcount == 1
    assert b.vmstat("thp_zero_page_alloc") == 1
