"""The order rule: in a pass for a high order nothing is split that could not give such a block (not mainline)."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import CompactionScan, MigrateMode, ScanPhase, attach
from mmfw.gfp import GFP_KERNEL
from mmfw_deferred_split import zero_filled
from mmfw_deferred_split.shrinker import WantedOrder

ALTERNATE = range(0, 512, 2)
FIRST_HALF = range(256)


@pytest.mark.parametrize("order", [9, 10])
def test_huge_pages_no_larger_than_the_order_are_kept(bench, order):
    """Test T11 of the policies: count 0, nothing split."""
    b = bench(order_aware=True)
    b.heap(3, range(511))
    assert b.count(order) == 0
    b.mm.shrinkers.shrink_slab(GFP_KERNEL, 0, 0, lambda sc: attach(sc, WantedOrder(order)))
    assert b.vmstat("thp_split_page") == 0
    assert b.count() == 3


@pytest.mark.parametrize(
    ("dropped", "largest"), [(ALTERNATE, 0), (FIRST_HALF, 8), (range(8, 24), 3), (range(1, 512), 8)]
)
def test_only_an_aligned_unmapped_run_of_the_order_counts(bench, dropped, largest):
    b = bench(order_aware=True)
    b.heap(2, dropped)
    assert [b.count(order) for order in range(10)] == [2] * (largest + 1 if largest else 1) + [0] * (
        9 - largest
    )
    if largest:
        before = b.free()[1][largest]
        assert b.scan(1, largest) == 1
        assert b.free()[1][largest] > before


def test_the_others_are_passed_over_where_they_are(bench):
    b = bench(order_aware=True)
    _, small = b.heap(2, ALTERNATE)
    _, large = b.heap(2, FIRST_HALF)
    assert b.count(4) == 2
    assert b.scan(1, 4) == 1
    assert b.queue == (*small, large[1])
    # Single pages are wanted: as mainline, the first queued first.
    assert b.scan(1) == 1
    assert b.queue == (small[1], large[1])


def test_mainline_does_not_look_at_the_order(bench):
    b = bench()
    b.heap(3, ALTERNATE)
    assert b.count(9) == 3
    assert b.scan(3, 9) == 3


def wants(b, order, *, nr_to_free=10_000, lo=0, hi=1 << 40, opportunistic=True):
    zone = next(zone for zone in b.mm.pgdat.node_zones if zone.name == "DMA32")
    cs = CompactionScan(
        zone=zone,
        nid=0,
        order=order,
        pfn_lo=lo,
        pfn_hi=hi,
        nr_to_free=nr_to_free,
        opportunistic=opportunistic,
        mode=MigrateMode.ASYNC,
        gfp_mask=GFP_KERNEL,
        migratetype=0,
        phase=ScanPhase.ENTRY,
    )
    return b.shrinker.ops.compaction_scan(cs), cs.nr_scanned


def test_compaction_is_given_runs_of_its_order_in_its_range(bench):
    b = bench()
    _, alternate = b.heap(2, ALTERNATE)
    _, half = b.heap(3, FIRST_HALF)
    assert wants(b, 9) == (0, 5)
    assert wants(b, 8, lo=half[1], hi=half[1] + 512) == (256, 1)
    assert b.queue == (*alternate, half[0], half[2])
    assert wants(b, 8, nr_to_free=256) == (256, 3)
    assert wants(b, 4) == (256, 3)
    assert b.queue == tuple(alternate)
    assert wants(b, 4) == (0, 2)


@pytest.mark.parametrize(("opportunistic", "freed"), [(True, 0), (False, 448)])
def test_underused_ones_are_split_for_compaction_only_where_memory_must_be_found(bench, opportunistic, freed):
    b = bench("7.1", max_ptes_none=400)
    vma, _ = b.heap(1)
    zero_filled(b.mm).mark(vma, np.arange(64, 512))
    assert wants(b, 8, opportunistic=opportunistic) == (freed, 1)
    # Pages 256 to 511 are a run of order 8, but no run is as large as the huge page.
    assert b.count() == (0 if freed else 1)


def test_the_rule_of_order_counts_zero_filled_runs_too(bench):
    b = bench("7.1", order_aware=True, max_ptes_none=400)
    vma, _ = b.heap(1)
    zero_filled(b.mm).mark(vma, np.arange(64, 512))
    assert [b.count(order) for order in (1, 8, 9)] == [1, 1, 0]
    assert b.scan(1, 8) == 1
