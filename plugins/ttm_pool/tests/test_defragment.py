"""Moving an object's small blocks into large ones: what counts, where blocks come from and go to, all or nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw import gfp
from mmfw.testing import make_mm, recorded
from mmfw_ttm_pool import (
    Caching,
    OperationCtx,
    TtmPool,
    TtmTt,
    defragment_gfp_mask,
    nr_fragmented_pages,
    page_pfns_of,
    ttm_pool_alloc,
    ttm_pool_backup,
    ttm_pool_defragment,
    ttm_pool_free,
)
from mmfw_ttm_pool.tt import BlockRun

#: Small blocks, and three of 2 MiB.
THREE_LARGE = [3000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 3, 0]
CTX = OperationCtx()


def scattered(b, num_pages: int, caching: Caching = Caching.CACHED) -> TtmTt:
    """An object of single pages, none of them out of a large block."""
    large = b.mm.alloc_pages_batch(gfp.GFP_HIGHUSER & ~gfp.RECLAIM, 9, 10)
    tt = TtmTt(num_pages, caching, zero_alloc=True)
    tt.adopt(b.mm.alloc_pages_batch(gfp.GFP_HIGHUSER & ~gfp.RECLAIM, 0, num_pages))
    b.mm.free_pages_batch(large, 9)
    return tt


def layout(tt: TtmTt) -> list[tuple[int, int]]:
    return [(run.order, len(run.pfns)) for run in tt.runs]


def test_pages_that_fill_no_block_do_not_count(bench):
    b = bench(dma32=THREE_LARGE, nr_swap_pages=10_000)
    assert nr_fragmented_pages(TtmTt(512), 9) == 0  # nothing there
    tt = scattered(b, 1124)
    assert [nr_fragmented_pages(tt, order) for order in (3, 9, 10)] == [1120, 1024, 1024]
    assert nr_fragmented_pages(scattered(b, 511), 9) == 0
    ttm_pool_backup(b.pool, tt, purge=False)
    assert tt.is_backed_up
    assert nr_fragmented_pages(tt, 9) == 0


def test_large_blocks_count_for_nothing(bench):
    b = bench(dma32=[3000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 1, 0])
    tt = TtmTt(1536)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert layout(tt)[0] == (9, 1)
    assert nr_fragmented_pages(tt, 9) == 1024


def test_all_that_fills_blocks_moves_and_the_rest_stays(bench):
    b = bench(dma32=THREE_LARGE)
    tt = scattered(b, 1124)
    before, rest = b.free_pages(), tt.runs[0].pfns[1024:].copy()
    assert ttm_pool_defragment(b.pool, tt, 9) == 1024
    assert layout(tt) == [(9, 2), (0, 100)]
    assert (tt.runs[1].pfns == rest).all()
    assert (b.free_pages(), b.buddyinfo()[9]) == (before, 1)
    b.mm.check_memory()
    assert ttm_pool_defragment(b.pool, tt, 9) == 0  # nothing is left to gain


def test_a_large_block_that_it_has_is_not_copied(bench):
    b = bench(dma32=THREE_LARGE)
    held = b.mm.alloc_pages_batch(gfp.GFP_HIGHUSER, 9, 2)
    tt = TtmTt(1536)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    (kept,) = tt.runs[0].pfns.tolist()
    b.mm.free_pages_batch(held, 9)
    assert ttm_pool_defragment(b.pool, tt, 9) == 1024
    assert layout(tt) == [(9, 3)]
    assert int(tt.runs[0].pfns[0]) == kept


def test_old_blocks_go_where_a_free_would_put_them(bench):
    b = bench(dma32=THREE_LARGE)
    tt = scattered(b, 512, Caching.WRITE_COMBINED)
    ttm_pool_defragment(b.pool, tt, 9)
    assert b.pool.select_type(Caching.WRITE_COMBINED, False, 0).nr_blocks == 512
    b = bench(dma32=THREE_LARGE, page_pool_size=100)
    tt = scattered(b, 512, Caching.WRITE_COMBINED)
    ttm_pool_defragment(b.pool, tt, 9)
    assert b.pool.allocated_pages <= 100


def test_blocks_come_from_the_pool_first(bench):
    b = bench(dma32=THREE_LARGE)
    pooled = TtmTt(512, Caching.WRITE_COMBINED)
    assert ttm_pool_alloc(b.pool, pooled, CTX)
    (block,) = pooled.runs[0].pfns.tolist()
    ttm_pool_free(b.pool, pooled)
    tt = scattered(b, 1024, Caching.WRITE_COMBINED)
    free = b.buddyinfo()[9]
    assert ttm_pool_defragment(b.pool, tt, 9) == 1024
    assert int(tt.runs[0].pfns[0]) == block
    assert b.buddyinfo()[9] == free - 1


def test_too_few_blocks_change_nothing(bench):
    b = bench(dma32=THREE_LARGE)
    pooled = TtmTt(512, Caching.WRITE_COMBINED)
    assert ttm_pool_alloc(b.pool, pooled, CTX)
    ttm_pool_free(b.pool, pooled)
    tt = scattered(b, 2048, Caching.WRITE_COMBINED)  # three blocks are there, four would be needed
    pages, free = tt.runs[0].pfns.copy(), b.buddyinfo()
    unmapped: list[int] = []
    assert ttm_pool_defragment(b.pool, tt, 9, lambda: unmapped.append(1)) == 0
    assert layout(tt) == [(0, 2048)]
    assert (tt.runs[0].pfns == pages).all()
    assert (b.buddyinfo(), b.pool.allocated_pages, unmapped) == (free, 512, [])


def test_nobody_is_asked_to_reclaim(bench):
    b = bench(dma32=THREE_LARGE)
    tt = scattered(b, 2048)
    assert not defragment_gfp_mask(b.pool, tt, 9) & (gfp.RECLAIM | gfp.ZERO)
    events = recorded(b.mm)
    assert ttm_pool_defragment(b.pool, tt, 9) == 0
    assert ttm_pool_defragment(b.pool, scattered(b, 1024), 9) == 1024
    assert not [event for event in events if "Vmscan" in type(event).__name__]
    assert not [event for event in events if "Compaction" in type(event).__name__]


def test_each_page_moved_costs_a_copy(bench):
    b = bench(dma32=THREE_LARGE)
    tt = scattered(b, 1024)
    b.mm.start_time()
    task = b.mm.sched.spawn(lambda: ttm_pool_defragment(b.pool, tt, 9), name="defrag", daemon=False)
    began = b.mm.sched.now
    b.mm.sched.run()
    costs = b.mm.sched.costs
    blocks = 2 * costs.alloc_pcp + 1024 * costs.free_pcp
    assert task.result == 1024
    # And a context switch or two.
    assert 0 <= b.mm.sched.now - began - 1024 * costs.copy_page - blocks < 20_000


def test_only_populated_objects_move(bench):
    with pytest.raises(ValueError, match="not populated"):
        ttm_pool_defragment(bench().pool, TtmTt(512), 9)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), min_size=1, max_size=12))
def test_whatever_its_blocks_the_others_stay_in_place(bench_of_many, blocks):
    """Objects whose blocks do not lie at multiples of their size, as after a restore in several goes."""
    b = bench_of_many
    tt = TtmTt(sum(n << order for order, n in blocks))
    tt.runs = [
        BlockRun(order, b.mm.alloc_pages_batch(gfp.GFP_HIGHUSER & ~gfp.RECLAIM, order, n))
        for order, n in blocks
    ]
    before = page_pfns_of(tt.runs)
    order = 4
    wanted = nr_fragmented_pages(tt, order)
    large = sum(n << o for o, n in blocks if o >= order)
    assert wanted % (1 << order) == 0
    assert large + wanted <= tt.num_pages
    moved = ttm_pool_defragment(b.pool, tt, order)
    assert moved == wanted
    after = page_pfns_of(tt.runs)
    assert len(np.unique(after)) == tt.num_pages
    assert int((before != after).sum()) <= moved
    kept = sum(run.nr_pages for run in tt.runs if run.order < order)
    assert kept == tt.num_pages - large - moved
    assert nr_fragmented_pages(tt, order) == 0
    ttm_pool_free(b.pool, tt)


@pytest.fixture(scope="module")
def bench_of_many():
    """A machine that every example of a property test can use, since each gives back what it took."""

    class Bench:
        mm = make_mm("256M", kernel="7.1")
        pool = TtmPool(mm, 1000, 0, lambda pool, order, flags: None, lambda *args: None)

    yield Bench
    Bench.mm.check_memory()
    Bench.mm.sched.close()
