from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp
from mmfw_xfs_buf import BufType
from mmfw_xfs_buf.backing import plan
from mmfw_xfs_buf.kernels import XFS_KERNELS
from mmfw_xfs_buf.table import BACKING_FOLIO, BACKING_KMEM, BACKING_PAGES

NO_BLOCKS = [12_000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("kernel", "nr_bytes", "backing", "order", "pieces"),
    [
        ("7.1", 512, BACKING_KMEM, 0, 0),
        ("7.1", 2048, BACKING_KMEM, 0, 0),
        ("7.1", 3072, BACKING_FOLIO, 0, 1),
        ("7.1", 4096, BACKING_FOLIO, 0, 1),
        ("7.1", 8192, BACKING_FOLIO, 1, 1),
        ("7.1", 65536, BACKING_FOLIO, 4, 1),
        ("7.1", 12288, BACKING_PAGES, 0, 3),
        ("7.1", 40960, BACKING_PAGES, 0, 10),
        ("6.1", 512, BACKING_KMEM, 0, 0),
        ("6.1", 3072, BACKING_KMEM, 0, 0),
        ("6.1", 4096, BACKING_PAGES, 0, 1),
        ("6.1", 65536, BACKING_PAGES, 0, 16),
    ],
)
def test_backing_by_size(bench, kernel, nr_bytes, backing, order, pieces):
    b = bench(kernel)
    slot = b.cached(nr_bytes)
    t = b.buftarg.table
    assert (t.backing[slot], t.order[slot], t.nr_pieces[slot]) == (backing, order, pieces)
    pages = b.buftarg.table.pfns(np.array([slot]))
    assert len(pages) == len(np.unique(pages)) == pieces << order
    assert b.buftarg.nr_pages == pieces << order


@pytest.mark.parametrize(
    ("kernel", "nr_bytes", "read_ahead", "order", "mask"),
    [
        # Wakes kswapd, never reclaims: GFP_KERNEL|NOWARN|NORETRY|COMP without DIRECT_RECLAIM.
        ("7.1", 65536, False, 4, 0x528C0),
        ("7.1", 4096, False, 0, 0x4ACC0),
        ("7.1", 12288, False, 0, 0x2CC0),
        ("7.1", 12288, True, 0, 0x12CC0),
        ("6.1", 8192, False, 0, 0x2C40),
        # 6.1's readahead has no reclaim bit at all: it does not even wake kswapd.
        ("6.1", 8192, True, 0, 0x12000),
    ],
)
def test_masks(kernel, nr_bytes, read_ahead, order, mask):
    request = plan(XFS_KERNELS[kernel], nr_bytes, read_ahead=read_ahead)
    assert (request.order, request.gfp_mask) == (order, mask)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_no_folio_means_single_pages_of_the_same_mask(bench, order):
    b = bench(dma32=NO_BLOCKS)
    slot = b.cached(4096 << order)
    assert b.buftarg.table.nr_pieces[slot] == 1 << order
    assert b.buftarg.memory.folio_fallbacks == [0] + [int(o == order) for o in (1, 2, 3, 4)]
    request = plan(XFS_KERNELS["7.1"], 4096 << order, read_ahead=False)
    assert request.fallback_gfp_mask == 0x128C0  # still without DIRECT_RECLAIM


def test_readahead_gives_up_where_others_wait(bench):
    b = bench(dma32=[6000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    b.cached(4096)
    eaten = b.mm.alloc_pages_batch(gfp.GFP_NOWAIT | gfp.NOWARN, 0, 10_000)
    assert not b.buftarg.readahead(1 << 30, 65536, BufType.DIR_BTREE)
    assert (b.buftarg.table.nr_bufs, b.buftarg.memory.retries) == (1, 0)
    waiter = b.sched.spawn(lambda: b.buftarg.get(1 << 30, 65536, BufType.DIR_BTREE), name="get")
    b.sched.run(b.sched.now + 50_000_000)
    assert b.buftarg.memory.retries == 3
    b.mm.free_pages_batch(eaten, 0)
    b.sched.run()
    assert b.buftarg.table.nr_pieces[waiter.result] == 16


@pytest.mark.parametrize(
    ("kernel", "overcount", "credit"),
    [("7.1", None, (342, 5462)), ("7.1", False, (1, 16)), ("6.1", None, (1, 16)), ("6.1", True, (342, 5462))],
)
def test_progress_that_a_freed_buffer_credits(bench, kernel, overcount, credit):
    memory = bench(kernel, overcount_progress=overcount).buftarg.memory
    small, large = (memory.progress(np.array([size], dtype=np.int32)) for size in (4096, 65536))
    assert (small, large) == credit
    assert memory.progress(np.array([4096, 65536], dtype=np.int32)) == sum(credit)


def test_progress_reaches_the_task_that_reclaims(bench):
    from mmfw import SWAP_CLUSTER_MAX

    b = bench("6.1")
    b.cached(65536, ref=0)
    b.mm.slab.shrink_kmalloc_caches()
    reclaimed = []
    b.mm.account_reclaimed_slab = reclaimed.append
    assert b.scan(SWAP_CLUSTER_MAX) == 1
    assert reclaimed == [16]


@pytest.mark.parametrize("nr_bytes", [0, 511, 513, 65537, 66048])
def test_no_such_size(bench, nr_bytes):
    with pytest.raises(ValueError, match="512 to 65536"):
        bench().buftarg.get(0, nr_bytes, BufType.SB)


def test_a_block_has_one_size(bench):
    b = bench()
    slot = b.buftarg.get(1 << 20, 4096, BufType.DIR_BTREE)
    with pytest.raises(ValueError, match="4096 bytes, not 8192"):
        b.buftarg.get(1 << 20, 8192, BufType.DIR_BTREE)
    assert b.buftarg.table.hold[slot] == 1
