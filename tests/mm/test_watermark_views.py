"""What a policy may ask of a zone's and a node's watermarks (``zone_watermark_ok()``, ``pgdat_balanced()``)."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.testing import make_mm

HIGH = 2
TAKE = gfp.GFP_ATOMIC | gfp.MEMALLOC | gfp.NOWARN


@pytest.fixture
def short():
    """A machine whose DMA zone is short of single pages, so that DMA32 decides."""
    mm = make_mm("256M", nr_cpus=1)
    dma = mm.pgdat.node_zones[0]
    while dma.nr_free_pages > dma.wmark_pages(HIGH):
        mm.alloc_pages(TAKE | gfp.DMA, 0)
    return mm


def test_a_node_is_balanced_until_no_zone_has_more_than_its_high_watermark(short):
    mm, zone = short, short.pgdat.node_zones[1]
    seen = set()
    while zone.nr_free_pages > zone.wmark_pages(HIGH) // 2:
        edge = zone.wmark_pages(HIGH) + zone.lowmem_reserve[2] + zone.nr_reserved_highatomic
        balanced = mm.pgdat.pgdat_balanced(0, 2)
        assert balanced is (zone.drift_free_pages() > edge)
        seen.add(balanced)
        assert mm.alloc_pages(TAKE, 0) >= 0
    assert seen == {True, False}


def test_a_request_that_could_use_a_higher_zone_is_left_less_of_this_one(short):
    mm, zone = short, short.pgdat.node_zones[0]
    assert zone.lowmem_reserve[1] > 0
    mark = zone.nr_free_pages - 1
    assert zone.zone_watermark_ok(0, mark, 0)
    assert not zone.zone_watermark_ok(0, mark, 1)
    assert mm.pgdat.pgdat_balanced(0, 1)


def test_an_order_wants_a_block_and_not_only_pages(short):
    mm, zone = short, short.pgdat.node_zones[1]
    assert mm.pgdat.pgdat_balanced(9, 2)
    while any(zone.nr_free(order) for order in (9, 10)):
        assert mm.alloc_pages(TAKE, 9) >= 0
    for _ in range(9 * 600):
        pfn = mm.alloc_pages(TAKE, 8)
        if pfn < 0:
            break
        # A quarter of it back, the rest kept: plenty of pages, no block.
        mm.split_page(pfn, 8)
        for page in range(pfn, pfn + 256, 2):
            mm.free_pages(page, 0)
    mm.drain_all_pages()
    assert mm.pgdat.pgdat_balanced(0, 2)
    assert not mm.pgdat.pgdat_balanced(9, 2)


def test_the_safe_test_adds_up_what_the_cpus_keep_to_themselves():
    mm = make_mm("256M", nr_cpus=4)
    zone, memory = mm.pgdat.node_zones[1], mm.pgdat.memory
    memory.S[memory.zone_offset(1) + pg.Z_DRIFT_MARK] = zone.nr_free_pages + 1
    at = memory.pcp_offset(3, 1) + pg.C_FREE_DIFF
    memory.S[at] -= np.int64(100)
    mark = zone.nr_free_pages - zone.lowmem_reserve[2] - 50
    assert zone.zone_watermark_ok(0, mark, 2)
    assert not zone.zone_watermark_ok_safe(0, mark, 2)


def test_reserves_count_for_those_who_may_use_them(short):
    zone = short.pgdat.node_zones[1]
    mark = 2 * (zone.nr_free_pages - zone.lowmem_reserve[2]) - 10
    assert not zone.zone_watermark_ok(0, mark, 2)
    assert zone.zone_watermark_ok(0, mark, 2, pg.ALLOC_MIN_RESERVE)
