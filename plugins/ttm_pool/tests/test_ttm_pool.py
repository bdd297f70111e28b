from __future__ import annotations

import doctest
import errno
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl, gfp
from mmfw.errors import PluginError
from mmfw_ttm_pool import (
    Caching,
    OperationCtx,
    TtmTt,
    alloc,
    ttm_pool_alloc,
    ttm_pool_backup,
    ttm_pool_drop_backed_up,
    ttm_pool_free,
    ttm_pool_restore_and_alloc,
)
from mmfw_ttm_pool.alloc import base_gfp_mask, find_order, order_gfp_mask
from mmfw_ttm_pool.kernels import TTM_KERNELS
from mmfw_ttm_pool.shrinker import TtmPoolShrinker

CTX = OperationCtx()
WC = Caching.WRITE_COMBINED
#: Free memory without a block above order 3: 1000 + 2*1000 + 4*1000 + 8*1000 pages.
SMALL_BLOCKS = [1000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 0, 0]


def orders(tt: TtmTt) -> list[tuple[int, int]]:
    return [(run.order, len(run.pfns)) for run in tt.runs]


# --- masks and ladder ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "beneficial", "order", "mask"),
    [
        ("6.1", 0, 0, 0x100CC2),
        ("6.1", 0, 1, 0x192CC2),
        ("6.1", 0, 10, 0x192CC2),
        ("7.1", 0, 0, 0x100CC2),
        ("7.1", 0, 9, 0x392CC2),
        ("7.1", 0, 10, 0x392CC2),
        ("7.2", 9, 9, 0x392CC2),
        ("7.2", 9, 10, 0x3928C2),
    ],
)
def test_masks(kernel, beneficial, order, mask):
    base = base_gfp_mask(TtmTt(1), CTX)
    assert order_gfp_mask(base, order, rules=TTM_KERNELS[kernel], beneficial_order=beneficial) == mask


def test_base_mask_of_a_user_object_of_a_32_bit_device():
    tt = TtmTt(1, dma32=True, zero_alloc=True)
    wanted = gfp.GFP_USER | gfp.DMA32 | gfp.ZERO | gfp.RETRY_MAYFAIL | gfp.NOWARN
    assert base_gfp_mask(tt, OperationCtx(gfp_retry_mayfail=True)) == wanted == 0x106DC4


@pytest.mark.parametrize(("kernel", "high"), [("6.1", 0x192CC2), ("7.1", 0x392CC2)])
def test_ladder_asks_each_order_once_from_the_top(bench, kernel, high):
    b = bench(kernel, dma32=SMALL_BLOCKS)
    tt = TtmTt(1024 + 5)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    # 1029 pages: 128 blocks of order 3, then 5 = 4 + 1.
    assert orders(tt) == [(3, 128), (2, 1), (0, 1)]
    assert b.asked == [*((order, high) for order in range(10, 1, -1)), (0, 0x100CC2)]


def test_order_never_rises_again(bench):
    b = bench(dma32=[9000, 200, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    tt = TtmTt(64)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert orders(tt) == [(5, 1), (1, 16)]
    assert [order for order, _ in b.asked] == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(("kernel", "order"), [("6.1", 0), ("7.1", 0), ("7.2", 9)])
def test_beneficial_order_by_kernel(bench, kernel, order):
    assert bench(kernel).pool.beneficial_order == order


def test_policy_answers_the_mask(bench, tmp_path: Path):
    policy = tmp_path / "no_such_bit.py"
    policy.write_text(
        "from mmfw import hookimpl\n"
        "@hookimpl(optionalhook=True)\n"
        "def ttm_pool_gfp_mask(order, flags):\n"
        "    return 1 << 30 if order == 3 else None\n"
    )
    b = bench(files=(policy,))
    tt = TtmTt(4)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    with pytest.raises(ValueError, match="0x40000000"):
        ttm_pool_alloc(b.pool, TtmTt(8), CTX)


def test_policy_skips_orders_and_hears_what_came_of_the_others(bench, tmp_path: Path):
    policy = tmp_path / "backoff.py"
    policy.write_text(
        "from mmfw import hookimpl\n"
        "from mmfw_ttm_pool import SKIP_ORDER\n"
        "heard = []\n"
        "@hookimpl(optionalhook=True)\n"
        "def ttm_pool_gfp_mask(order, flags):\n"
        "    return SKIP_ORDER if order > 4 or order == 0 else None\n"
        "@hookimpl(optionalhook=True)\n"
        "def ttm_pool_asked(pool, order, nr_wanted, nr_got):\n"
        "    pool.heard = [*getattr(pool, 'heard', []), (order, nr_wanted, nr_got)]\n"
    )
    b = bench(dma32=SMALL_BLOCKS, files=(policy,))
    tt = TtmTt(512 + 2)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert [order for order, _ in b.asked] == [9, 8, 7, 6, 5, 4, 3, 1]
    assert b.pool.heard == [(4, 32, 0), (3, 64, 64), (1, 1, 1)]
    assert orders(tt) == [(3, 64), (1, 1)]


def test_policy_that_names_no_argument_of_the_hook_is_refused(bench, tmp_path: Path):
    policy = tmp_path / "wrong.py"
    policy.write_text("from mmfw import hookimpl\n@hookimpl\ndef ttm_pool_gfp_mask(odrer): return None\n")
    with pytest.raises(PluginError, match="did you mean 'order'"):
        bench(files=(policy,))


def test_failed_ladder_gives_everything_back(bench):
    b = bench(dma32=SMALL_BLOCKS, page_pool_size=1000)
    pooled = TtmTt(16, WC)
    assert ttm_pool_alloc(b.pool, pooled, CTX)
    ttm_pool_free(b.pool, pooled)
    before = b.free_pages()
    tt = TtmTt(20_000, WC)
    assert not ttm_pool_alloc(b.pool, tt, OperationCtx(gfp_retry_mayfail=True))
    assert tt.runs == []
    assert b.pool.allocated_pages == 16
    assert b.free_pages() == before


@given(st.integers(1, 1 << 20), st.integers(0, 10))
def test_find_order_is_the_largest_that_fits(remaining, highest):
    order = find_order(highest, remaining)
    assert 1 << order <= remaining
    assert order == highest or 2 << order > remaining


# --- pools ---------------------------------------------------------------------------------------------


def fill(b, nr_pages: int, count: int = 1, caching: Caching = WC) -> None:
    """Give `count` objects of `nr_pages` pages to the pools."""
    tts = [TtmTt(nr_pages, caching) for _ in range(count)]
    for tt in tts:
        assert ttm_pool_alloc(b.pool, tt, CTX)
    for tt in tts:
        ttm_pool_free(b.pool, tt)


def scan(b, nr_to_scan: int) -> tuple[int, int]:
    sc = ShrinkControl(gfp_mask=gfp.GFP_NOFS, nid=0, nr_to_scan=nr_to_scan, nr_scanned=nr_to_scan)
    return TtmPoolShrinker(b.pool).scan_objects(sc), sc.nr_scanned


def test_cached_pages_are_not_pooled(bench):
    b = bench()
    before = b.free_pages()
    fill(b, 512, caching=Caching.CACHED)
    assert b.pool.allocated_pages == 0
    assert b.free_pages() == before


def test_pool_serves_the_next_object_without_a_system_request(bench):
    b = bench()
    fill(b, 8, caching=Caching.UNCACHED)
    b.asked.clear()
    tt = TtmTt(8, Caching.UNCACHED)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert (b.asked, b.pool.allocated_pages) == ([], 0)


@pytest.mark.parametrize(("kernel", "asked", "left"), [("6.1", [4], 0), ("7.1", [4, 3], 8)])
def test_system_page_bars_the_pools_until_an_order_fails(bench, kernel, asked, left):
    b = bench(kernel)
    fill(b, 8)
    b.asked.clear()
    assert ttm_pool_alloc(b.pool, TtmTt(24, WC), CTX)
    assert [order for order, _ in b.asked] == asked
    assert b.pool.allocated_pages == left


@pytest.mark.parametrize(("kernel", "youngest_first"), [("6.1", True), ("7.1", False)])
def test_which_block_leaves_the_pool_first(bench, kernel, youngest_first):
    b = bench(kernel)
    old, young = TtmTt(4, WC), TtmTt(4, WC)
    assert ttm_pool_alloc(b.pool, old, CTX)
    assert ttm_pool_alloc(b.pool, young, CTX)
    wanted = (young if youngest_first else old).runs[0].pfns.tolist()
    ttm_pool_free(b.pool, old)
    ttm_pool_free(b.pool, young)
    tt = TtmTt(4, WC)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert tt.runs[0].pfns.tolist() == wanted


@pytest.mark.parametrize(("kernel", "left"), [("6.1", 32), ("7.1", 0)])
def test_limit(bench, kernel, left):
    # The third block makes 48 pages; 16 are too many. 7.x takes that for a number of blocks of order 4.
    b = bench(kernel, page_pool_size=32)
    fill(b, 16, count=3)
    assert b.pool.allocated_pages == left


def test_default_limit_is_half_of_ram(bench):
    b = bench()
    managed = sum(zone.managed_pages for zone in b.mm.pgdat.node_zones)
    assert b.pool.page_pool_size == managed // 2


# --- shrinker ------------------------------------------------------------------------------------------


def test_seeks_and_batch(bench):
    new, old = TtmPoolShrinker(bench("7.1").pool), TtmPoolShrinker(bench("6.1").pool)
    assert (new.seeks, new.batch, old.seeks, old.batch) == (1, 352, 1, 0)


def test_count_is_in_pages(bench):
    b = bench()
    sc = ShrinkControl(gfp_mask=0, nid=0)
    shrinker = TtmPoolShrinker(b.pool)
    assert shrinker.count_objects(sc) == SHRINK_EMPTY
    fill(b, 512 + 4)
    assert shrinker.count_objects(sc) == 516


def test_visit_frees_items_not_pages(bench):
    b = bench()
    fill(b, 512, count=3)
    # Types are visited in turn, from order 0; the order-9 visit may free 352 blocks and finds three.
    assert scan(b, 352) == (1536, 1536)
    assert b.pool.allocated_pages == 0


def test_round_goes_on_where_it_stopped(bench):
    b = bench()
    fill(b, 1, count=5)
    fill(b, 512, count=3)
    assert scan(b, 2) == (2, 2)  # two items of order 0; the round stands behind that type now
    assert scan(b, 2) == (1024, 1024)  # two items of order 9
    assert scan(b, 100) == (3 + 512, 3 + 512)  # order 0 on the way round, then order 9
    assert scan(b, 100) == (SHRINK_STOP, 0)


def test_6_1_frees_one_block_a_call(bench):
    b = bench("6.1")
    fill(b, 1, count=2)
    fill(b, 512)
    assert [scan(b, 128) for _ in range(4)] == [(1, 128), (512, 128), (1, 128), (0, 128)]


# --- backup --------------------------------------------------------------------------------------------


def test_purge_frees_blocks_whole(bench):
    b = bench()
    before = b.buddyinfo()
    tt = TtmTt(1024 + 512)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert ttm_pool_backup(b.pool, tt, purge=True) == 1536
    assert not tt.is_populated
    assert b.buddyinfo() == before


def test_backup_and_restore(bench):
    b = bench(nr_swap_pages=10_000)
    before = b.free_pages()
    tt = TtmTt(600)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert ttm_pool_backup(b.pool, tt, purge=False) == 600
    assert (tt.is_backed_up, tt.is_populated, tt.nr_held) == (True, False, 0)
    assert b.mm.swap.nr_shmem == 600
    assert b.free_pages() == before - 600  # the copies, until the swap device has written them
    assert ttm_pool_backup(b.pool, tt, purge=False) == -errno.EBUSY
    assert ttm_pool_restore_and_alloc(b.pool, tt, CTX)
    assert (tt.is_populated, tt.nr_held, b.mm.swap.nr_shmem) == (True, 600, 0)
    ttm_pool_free(b.pool, tt)
    assert b.free_pages() == before


def test_no_swap_no_backup(bench):
    b = bench()
    tt = TtmTt(4)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert ttm_pool_backup(b.pool, tt, purge=False) == -errno.EBUSY
    assert tt.is_populated


def test_partial_backup_keeps_the_rest_and_splits_no_more_than_needed(bench):
    b = bench(nr_swap_pages=20)
    before = b.free_pages()
    tt = TtmTt(16 + 8 + 4)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert ttm_pool_backup(b.pool, tt, purge=False) == 20
    assert orders(tt) == [(0, 4), (2, 1)]
    assert tt.is_backed_up
    assert not tt.is_populated
    assert ttm_pool_restore_and_alloc(b.pool, tt, CTX)
    assert tt.nr_held == 28
    ttm_pool_free(b.pool, tt)
    assert b.free_pages() == before


def test_failed_restore_keeps_what_came_back_and_goes_on_from_there(bench):
    b = bench(dma32=SMALL_BLOCKS, nr_swap_pages=10_000)
    tt, rest = TtmTt(2000), TtmTt(13_000)
    ctx = OperationCtx(gfp_retry_mayfail=True)
    tt.adopt_backup(b.mm.swap.adopt(2000))
    assert ttm_pool_alloc(b.pool, rest, ctx)
    before = b.free_pages()
    assert before == 2000  # less than that above the watermark
    assert not ttm_pool_restore_and_alloc(b.pool, tt, ctx)
    back = tt.nr_held
    assert 0 < back < before
    assert (tt.is_backed_up, tt.is_populated, b.free_pages()) == (True, False, before - back)
    assert b.mm.swap.get_nr_swap_pages() == 10_000 - 2000 + back
    assert ttm_pool_backup(b.pool, tt, purge=False) == -errno.EBUSY
    ttm_pool_free(b.pool, rest)
    b.asked.clear()
    assert ttm_pool_restore_and_alloc(b.pool, tt, ctx)
    # The second call begins at the top of the ladder again, with what is missing.
    assert b.asked[0][0] == find_order(10, 2000 - back)
    assert (tt.is_populated, tt.nr_held, b.mm.swap.get_nr_swap_pages()) == (True, 2000, 10_000)


def test_unfinished_restore_can_be_dropped(bench):
    b = bench(dma32=SMALL_BLOCKS, nr_swap_pages=10_000)
    tt, rest = TtmTt(2000, WC), TtmTt(13_000)
    tt.adopt_backup(b.mm.swap.adopt(2000))
    assert ttm_pool_alloc(b.pool, rest, CTX)
    before = b.free_pages()
    assert not ttm_pool_restore_and_alloc(b.pool, tt, OperationCtx(gfp_retry_mayfail=True))
    back = tt.nr_held
    ttm_pool_drop_backed_up(b.pool, tt)
    assert (tt.nr_held, tt.is_backed_up, b.mm.swap.get_nr_swap_pages()) == (0, False, 10_000)
    assert b.pool.allocated_pages == back > 0  # what had come back was write-combined memory
    b.pool.free_all()
    assert b.free_pages() == before


def test_backup_breaks_a_block_that_was_whole(bench):
    b = bench(nr_swap_pages=10_000)
    tt = TtmTt(1024)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert orders(tt) == [(10, 1)]
    whole = b.buddyinfo()[10]
    assert ttm_pool_backup(b.pool, tt, purge=False) == 1024
    ttm_pool_drop_backed_up(b.pool, tt)
    assert tt.nr_held == 0
    assert b.buddyinfo()[10] == whole + 1  # all copies dropped: the pages merge again


# --- the whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["6.1", "7.1", "7.2"])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["free", "backup", "native", "purge", "scan", "restore", "drop"]),
            st.integers(1, 700),
        ),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_are_conserved(bench, kernel, steps):
    b = bench(kernel, nr_swap_pages=1500, page_pool_size=900)
    before = b.free_pages()
    alive: list[TtmTt] = []
    for kind, n in steps:
        tt = TtmTt(n, WC)
        assert ttm_pool_alloc(b.pool, tt, CTX)
        alive.append(tt)
        backed_up = [each for each in alive if each.is_backed_up]
        if kind == "free":
            ttm_pool_free(b.pool, alive.pop(0)) if not alive[0].is_backed_up else None
        elif kind == "scan":
            scan(b, n)
        elif kind == "restore" and backed_up:
            assert ttm_pool_restore_and_alloc(b.pool, backed_up[0], CTX)
            assert backed_up[0].nr_held == backed_up[0].num_pages
        elif kind == "drop" and backed_up:
            ttm_pool_drop_backed_up(b.pool, backed_up[0])
            alive.remove(backed_up[0])
        elif kind in ("backup", "native", "purge"):
            ttm_pool_backup(b.pool, tt, purge=kind == "purge", native_order=kind == "native")
        held = sum(each.nr_held for each in alive)
        assert b.pool.allocated_pages <= 900
        assert b.free_pages() == before - held - b.pool.allocated_pages - b.mm.swap.nr_shmem
    for tt in alive:
        (ttm_pool_drop_backed_up if tt.is_backed_up else ttm_pool_free)(b.pool, tt)
    b.plugins.module_exit(b.mm)
    b.mm.check_memory()
    assert b.free_pages() == before
    assert len(b.mm.shrinkers) == 0


def test_same_seed_same_pages(bench):
    def run() -> list[int]:
        b = bench(dma32=SMALL_BLOCKS, nr_swap_pages=5000)
        tt = TtmTt(1000, WC)
        assert ttm_pool_alloc(b.pool, tt, CTX)
        assert ttm_pool_backup(b.pool, tt, purge=False) == 1000
        assert ttm_pool_restore_and_alloc(b.pool, tt, CTX)
        return [pfn for each in tt.runs for pfn in each.pfns.tolist()]

    assert run() == run()


def test_examples_in_docstrings():
    results = doctest.testmod(alloc)
    assert (results.failed, results.attempted) == (0, 3)
