"""What a policy may ask of a zone's and a node's watermarks (``zone_watermark_ok()``, ``pgdat_balanced()``)."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp
from mmfw.binding import bind_mm_ops
from mmfw.errors import CallerError, PluginError
from mmfw.jit import page as pg
from mmfw.testing import make_mm
from mmfw.types import KcompactdRequest

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


ORDERS, ZONES, PAGES = "0 to 10 is wanted", "0 to 4 is wanted", "0 to 4503599627370496 is wanted"


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        ((11, 0, 2), f"order of a question about a zone is 11; {ORDERS}"),
        ((-1, 0, 2), f"order of a question about a zone is -1; {ORDERS}"),
        ((True, 0, 2), f"order of a question about a zone is True; an int, {ORDERS}"),
        ((9.0, 0, 2), f"order of a question about a zone is 9.0; an int, {ORDERS}"),
        ((0, 0, 10**8), f"highest_zoneidx of a question about a zone is 100000000; {ZONES}"),
        ((0, 0, 5), f"highest_zoneidx of a question about a zone is 5; {ZONES}"),
        ((0, 0, -(10**8)), f"highest_zoneidx of a question about a zone is -100000000; {ZONES}"),
        ((0, 0, None), f"highest_zoneidx of a question about a zone is None; an int, {ZONES}"),
        ((0, -1, 2), f"mark of a question about a zone is -1; {PAGES}"),
        ((0, 1.5, 2), f"mark of a question about a zone is 1.5; an int, {PAGES}"),
        ((0, 1 << 63, 2), f"mark of a question about a zone is 9223372036854775808; {PAGES}"),
    ],
)
def test_a_question_that_cannot_be_is_refused(question, fault):
    pgdat = make_mm("128M").pgdat
    order, mark, highest_zoneidx = question
    asks = [pgdat.node_zones[1].zone_watermark_ok, pgdat.node_zones[2].zone_watermark_ok_safe]
    asks += [] if mark else [lambda order, _, index: pgdat.pgdat_balanced(order, index)]
    for ask in asks:
        with pytest.raises(CallerError) as refused:
            ask(order, mark, highest_zoneidx)
        assert str(refused.value) == fault


@pytest.mark.parametrize("alloc_flags", [-1, 1 << 31, True, "0"])
def test_flags_that_cannot_be_are_refused(alloc_flags):
    zone = make_mm("128M").pgdat.node_zones[1]
    with pytest.raises(CallerError, match=r"^alloc_flags of a question about a zone is "):
        zone.zone_watermark_ok(0, 0, 2, alloc_flags)


@pytest.mark.parametrize(("ask", "name", "highest"), [("nr_free", "order", 10), ("wmark_pages", "which", 3)])
def test_no_other_words_of_a_zone_are_read_than_those_asked_for(ask, name, highest):
    zone = make_mm("128M").pgdat.node_zones[1]
    read = getattr(zone, ask)
    assert read(np.int64(highest)) == read(highest) >= 0
    for value in (-1, highest + 1, 1 << 40, True, None):
        with pytest.raises(
            CallerError, match=rf"^{name} of a question about a zone is {value}; .*0 to {highest} "
        ):
            read(value)


def test_an_array_librarys_integers_are_asked_as_ints():
    zone = make_mm("128M").pgdat.node_zones[1]
    free = zone.nr_free_pages
    small = np.uint8(200)
    # Of the same width throughout, 200 + lowmem_reserve would wrap.
    assert zone.zone_watermark_ok(np.int64(0), small, np.uint8(0), np.int32(0))
    assert not zone.zone_watermark_ok_safe(np.int8(0), np.int64(free), np.int64(0))
    assert zone.pgdat.pgdat_balanced(np.int64(9), np.int64(2)) is zone.pgdat.pgdat_balanced(9, 2)


def test_a_policy_that_asks_so_is_blamed(load_source):
    source = (
        "@hookimpl\n"
        "def mmfw_should_wake_kcompactd(pgdat):\n"
        "    return pgdat.node_zones[2].zone_watermark_ok_safe(0, 0, 10**8)\n"
    )
    ops = bind_mm_ops(load_source(curious=source))
    assert ops.should_wake_kcompactd is not None
    with pytest.raises(PluginError) as blamed:
        ops.should_wake_kcompactd(make_mm("128M").pgdat, KcompactdRequest(9, 2))
    assert str(blamed.value) == (
        "plugin curious, mmfw_should_wake_kcompactd: highest_zoneidx of a question about a zone is 100000000; "
        "0 to 4 is wanted"
    )
