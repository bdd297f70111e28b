"""What the pools give up to compaction."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import SHRINK_STOP, CompactionScan, MigrateMode, ScanPhase, gfp
from mmfw_ttm_pool import Caching, OperationCtx, TtmTt, ttm_pool_alloc, ttm_pool_free
from mmfw_ttm_pool.shrinker import TtmPoolShrinker

WC = Caching.WRITE_COMBINED
#: Room for two aligned pairs of order-8 blocks and nothing else above order 3.
TWO_PAIRS = [2000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 2, 0]


def pooled(b) -> dict[int, int]:
    """Blocks in the pools by order."""
    return {pt.order: pt.nr_blocks for pt in b.pool.types if pt.nr_blocks}


def ask(b, order: int = 9, *, opportunistic: bool = True, zone: str = "DMA32", **fields) -> tuple[int, int]:
    """Answer of one scan, and objects looked at."""
    (where,) = (each for each in b.mm.pgdat.node_zones if each.name == zone)
    start, end = where.zone_start_pfn, where.zone_start_pfn + where.spanned_pages
    values = {"pfn_lo": start, "pfn_hi": end, "nr_to_free": 1 << order, **fields}
    scan = CompactionScan(
        zone=where,
        nid=0,
        order=order,
        opportunistic=opportunistic,
        mode=MigrateMode.ASYNC,
        gfp_mask=gfp.GFP_HIGHUSER,
        migratetype=0,
        phase=ScanPhase.ENTRY,
        **values,
    )
    freed = TtmPoolShrinker(b.pool).compaction_scan(scan)
    return freed, scan.nr_scanned


def blocks(order: int, count: int, buddies: bool) -> list[dict[str, object]]:
    return [{"order": order, "count": count, "buddies": buddies}]


def test_initial_blocks_are_buddies_or_not(bench):
    for buddies in (True, False):
        b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, buddies))
        first, second = b.pool.types[32 + 0].blocks().tolist()  # order 8, write-combined
        assert (first ^ second == 256) is buddies
        assert (b.pool.allocated_pages, b.buddyinfo()[8:]) == (512, [0, 0, 0])
        b.plugins.module_exit(b.mm)
        assert b.buddyinfo()[8:] == [0, 2, 0]
        assert b.mm.nr_allocated_pages() == b.mm.initramfs_pages


def test_two_buddies_are_freed_together_and_merge(bench):
    b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, True))
    assert ask(b) == (512, 2)
    assert (pooled(b), b.buddyinfo()[8:]) == ({}, [0, 1, 0])


def test_two_blocks_that_are_no_buddies_stay_unless_it_must_be(bench):
    b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, False))
    assert ask(b) == (0, 2)
    assert pooled(b) == {8: 2}
    assert ask(b, opportunistic=False) == (512, 2)
    assert (pooled(b), b.buddyinfo()[8:]) == ({}, [2, 0, 0])


def test_the_missing_buddy_is_the_only_one_that_goes(bench):
    b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, False))
    keep, give = b.pool.types[32].blocks().tolist()
    b.mm.free_pages(give ^ 256, 8)
    b.mm.drain_all_pages()
    assert ask(b) == (256, 2)
    assert b.pool.types[32].blocks().tolist() == [keep]
    assert b.buddyinfo()[8:] == [0, 1, 0]


def test_a_pooled_block_that_is_large_enough_goes_before_any_merge(bench):
    b = bench(
        dma32=[2000, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4], initial_blocks=[*blocks(8, 2, True), *blocks(9, 2, True)]
    )
    assert pooled(b) == {8: 2, 9: 2}
    assert ask(b) == (512, 4)
    assert pooled(b) == {8: 2, 9: 1}
    assert ask(b, order=10)[0] == 0  # its buddy went: nothing makes an order-10 block now
    assert ask(b, nr_to_free=1024) == (1024, 3)
    assert pooled(b) == {}


def test_small_blocks_that_fill_an_aligned_block(bench):
    b = bench()
    # What boot left lies scattered: take that first.
    scattered = [b.mm.alloc_pages(gfp.GFP_KERNEL, 2) for _ in range(8)]
    tts = [TtmTt(4, WC) for _ in range(64)]
    for tt in tts:
        assert ttm_pool_alloc(b.pool, tt, OperationCtx())
    for tt in tts:
        ttm_pool_free(b.pool, tt)
    for pfn in scattered:
        b.mm.free_pages(pfn, 2)
    assert pooled(b) == {2: 64}
    heads = np.sort(np.concatenate([pt.blocks() for pt in b.pool.types]))
    assert (np.diff(heads) == 4).all()  # they came out of one large block
    freed, looked_at = ask(b, order=5)
    assert (freed, looked_at) == (32, 64)
    # The cheapest aligned block of 32 pages went whole, and nothing else.
    left = np.concatenate([pt.blocks() for pt in b.pool.types])
    gone = np.setdiff1d(heads, left)
    assert len(gone) == 8
    assert len(np.unique(gone >> 5)) == 1


def test_range_singles_out_what_lies_in_it(bench):
    b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, False))
    first, second = b.pool.types[32].blocks().tolist()
    assert ask(b, pfn_lo=first - 512, pfn_hi=first + 1) == (256, 2)
    assert b.pool.types[32].blocks().tolist() == [second]


def test_other_zones_and_an_empty_pool(bench):
    b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, True))
    assert ask(b, zone="DMA", opportunistic=False) == (0, 0)
    assert pooled(b) == {8: 2}
    b.pool.free_all()
    assert ask(b) == (SHRINK_STOP, 0)


@pytest.mark.parametrize("asks", [False, True])
def test_compaction_that_asks_ends_before_it_has_moved_a_page(bench, tmp_path, asks):
    policy = tmp_path / "asks.py"
    policy.write_text(
        "from mmfw import CompactionScan, ScanPhase, hookimpl\n"
        "@hookimpl\n"
        "def mmfw_plan_compaction_scan(cc, phase):\n"
        "    return CompactionScan.of(cc, phase, opportunistic=True) if phase is ScanPhase.ENTRY else None\n"
    )
    b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, True), files=(policy,) if asks else ())
    pfn = b.mm.alloc_pages(gfp.GFP_HIGHUSER | gfp.NORETRY | gfp.NOWARN, 9)
    stat = b.mm.vmstat.as_dict()
    assert (pfn >= 0) is asks
    assert (stat["compact_success"], stat["compact_isolated"]) == (int(asks), 0)
    assert b.pool.allocated_pages == (0 if asks else 512)
    if asks:
        b.mm.free_pages(pfn, 9)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (blocks(8, 3, True), "buddies come in pairs, count is 3"),
        (blocks(8, 4, True), "4 free blocks of order 9 are wanted at the start, the machine has 2"),
        ([{"order": 8, "count": 2, "caching": "cached"}], "cached pages have no pool"),
        (blocks(0, 5000, False), "more than ttm.page_pool_size allows"),
    ],
)
def test_initial_blocks_that_cannot_be(bench, wanted, message):
    from mmfw.errors import InputError

    with pytest.raises(InputError, match=message):
        bench(dma32=TWO_PAIRS, initial_blocks=wanted, page_pool_size=4000)


# --- the ledger ----------------------------------------------------------------------------------------


def test_what_reclaim_takes_and_an_object_wants_again_is_booked(bench):
    b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, True))
    assert ask(b) == (512, 2)
    b.mm.sched.run(5_000_000_000)
    tt = TtmTt(256, WC)
    assert ttm_pool_alloc(b.pool, tt, OperationCtx())
    late = TtmTt(256, WC)
    b.mm.sched.run(11_000_000_000)
    assert ttm_pool_alloc(b.pool, late, OperationCtx())
    (losses,) = (losses for name, losses in b.mm.ledger if name == "ttm")
    assert (losses.nr_objects_evicted, losses.nr_pages_evicted) == (2, 512)
    assert (losses.nr_objects_recreated, losses.nr_objects_lost, losses.nr_pages_lost) == (2, 1, 256)
    assert losses.nr_blocks_formed == 1
    # A third object finds the pool empty too, but nothing was lost that it could have had.
    assert ttm_pool_alloc(b.pool, TtmTt(256, WC), OperationCtx())
    assert losses.nr_objects_recreated == 2


def test_the_pools_own_limit_is_no_loss(bench):
    b = bench(page_pool_size=100)
    tt = TtmTt(512, WC)
    assert ttm_pool_alloc(b.pool, tt, OperationCtx())
    ttm_pool_free(b.pool, tt)
    assert b.pool.allocated_pages == 0
    assert [losses.nr_pages_evicted for name, losses in b.mm.ledger if name == "ttm"] == [0]


def test_it_says_what_it_holds_in_a_pageblock(bench):
    b = bench(dma32=TWO_PAIRS, initial_blocks=blocks(8, 2, True))
    first = min(b.pool.types[32 + 0].blocks().tolist())
    zone = b.mm.pgdat.node_zones[1]

    def holds(lo: int, hi: int) -> int:
        cs = CompactionScan(
            zone, 0, 9, lo, hi, 512, True, MigrateMode.ASYNC, gfp.GFP_HIGHUSER, 0, ScanPhase.PAGEBLOCK
        )
        return TtmPoolShrinker(b.pool).compaction_holds(cs)

    assert (holds(first, first + 512), holds(first, first + 256)) == (512, 256)
    assert holds(first + 512, first + 1024) == holds(first - 512, first) == 0
