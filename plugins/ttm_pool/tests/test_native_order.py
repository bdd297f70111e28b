"""Backup that keeps blocks whole: what becomes of the blocks, and what of a backup that fails midway."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp
from mmfw_ttm_pool import OperationCtx, TtmTt, ttm_pool_alloc, ttm_pool_backup, ttm_pool_restore_and_alloc

CTX = OperationCtx()
BACKUP_GFP = gfp.GFP_KERNEL | gfp.HIGH | gfp.NOWARN | gfp.RETRY_MAYFAIL
#: Small blocks, and one of 2 MiB, which an object of 512 pages gets.
ONE_LARGE = [2000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 1, 0]


def large_object(b) -> TtmTt:
    tt = TtmTt(512)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    assert [(run.order, len(run.pfns)) for run in tt.runs] == [(9, 1)]
    assert b.buddyinfo()[9] == 0
    return tt


@pytest.mark.parametrize(("native", "whole_blocks"), [(False, 0), (True, 1)])
def test_what_comes_of_the_block(bench, native, whole_blocks):
    b = bench(dma32=ONE_LARGE, nr_swap_pages=10_000, backup_native_order=native)
    tt = large_object(b)
    before = b.free_pages()
    assert ttm_pool_backup(b.pool, tt, purge=False) == 512
    assert b.buddyinfo()[9] == whole_blocks
    # Either way no page is gained before the device has written the copies.
    assert b.free_pages() == before
    assert (tt.is_backed_up, tt.nr_held, b.mm.swap.nr_shmem) == (True, 0, 512)
    assert ttm_pool_restore_and_alloc(b.pool, tt, CTX)
    assert (tt.is_populated, tt.nr_held, b.mm.swap.nr_shmem) == (True, 512, 0)


def test_the_caller_may_ask_for_whole_blocks_of_a_pool_that_splits(bench):
    b = bench(dma32=ONE_LARGE, nr_swap_pages=10_000)
    tt = large_object(b)
    assert ttm_pool_backup(b.pool, tt, purge=False, native_order=True) == 512
    assert b.buddyinfo()[9] == 1


def test_memory_that_ends_midway_lets_the_rest_follow_page_by_page(bench):
    b = bench(dma32=ONE_LARGE, nr_swap_pages=10_000, backup_native_order=True)
    tt = large_object(b)
    with b.mm.sched.memalloc_noreclaim():  # as a reclaimer, which may have the last page
        all_there_is = b.mm.alloc_pages_batch(BACKUP_GFP, 0, 100_000)
        b.mm.free_pages_batch(all_there_is[:100], 0)
        free = b.free_pages()
        assert ttm_pool_backup(b.pool, tt, purge=False) == 512
    # 100 pages were copied and freed with the block split, and 412 exchanged one by one.
    assert [backup.nr_pages for backup in tt.backups] == [100, 412]
    assert (tt.nr_held, b.mm.swap.nr_shmem, b.free_pages()) == (0, 512, free)
    b.mm.free_pages_batch(all_there_is[100:], 0)
    # Nothing is lost, and it can be done again.
    assert ttm_pool_restore_and_alloc(b.pool, tt, CTX)
    assert (tt.nr_held, b.mm.swap.nr_shmem) == (512, 0)
    assert ttm_pool_backup(b.pool, tt, purge=False) == 512


def test_not_one_page_leaves_the_block_as_it_was(bench):
    b = bench(dma32=ONE_LARGE, nr_swap_pages=10_000, backup_native_order=True)
    tt = large_object(b)
    while len(b.mm.alloc_pages_batch(BACKUP_GFP, 0, 1000)):
        pass
    assert ttm_pool_backup(b.pool, tt, purge=False) == -12
    assert (tt.is_populated, tt.max_order, tt.is_backed_up) == (True, 9, False)


def test_blocks_of_every_order_and_single_pages(bench):
    b = bench(dma32=[3000, 700, 20, 9, 5, 3, 2, 1, 0, 1, 0], nr_swap_pages=10_000, backup_native_order=True)
    tt = TtmTt(512 + 128 + 128 + 96 + 80 + 72 + 1000)
    assert ttm_pool_alloc(b.pool, tt, CTX)
    orders = {run.order for run in tt.runs}
    assert {9, 7, 1} <= orders
    pages = np.concatenate([run.page_pfns() for run in tt.runs])
    assert len(np.unique(pages)) == tt.num_pages
    before = b.free_pages()
    assert ttm_pool_backup(b.pool, tt, purge=False) == tt.num_pages
    assert (tt.nr_held, b.mm.swap.nr_shmem, b.free_pages()) == (0, tt.num_pages, before)
    b.mm.check_memory()


@pytest.mark.parametrize("native", [False, True])
def test_writeback_on_request_writes_the_copies_at_once(bench, native):
    for writeback, written in ((False, 0), (True, 512)):
        b = bench(dma32=ONE_LARGE, nr_swap_pages=10_000, backup_native_order=native)
        assert ttm_pool_backup(b.pool, large_object(b), purge=False, writeback=writeback) == 512
        assert b.mm.vmstat.as_dict()["pswpout"] == written
