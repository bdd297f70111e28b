"""What subsystems lose, and whether a block forms where they lost it."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.mm.ledger import WORKING_SET_NS, YIELD_NS
from mmfw.testing import make_mm

SECOND = 1_000_000_000


def losses_of(mm, name):
    return dict(mm.ledger)[name]


def test_only_what_is_needed_again_soon_is_lost():
    mm = make_mm()
    mm.ledger.evicted("cache", nr_objects=3, nr_pages=30)
    mm.ledger.recreated("cache", nr_objects=1, nr_pages=10, age_ns=WORKING_SET_NS)
    mm.ledger.recreated("cache", nr_objects=1, nr_pages=12, age_ns=WORKING_SET_NS + 1)
    losses = losses_of(mm, "cache")
    assert (losses.nr_objects_evicted, losses.nr_pages_evicted) == (3, 30)
    assert (losses.nr_objects_recreated, losses.nr_pages_recreated) == (2, 22)
    assert (losses.nr_objects_lost, losses.nr_pages_lost) == (1, 10)


def test_accounts_come_by_name():
    mm = make_mm()
    for name in ("zswap", "dentry"):
        mm.ledger.evicted(name, nr_objects=1, nr_pages=1)
    assert [name for name, _ in mm.ledger] == ["dentry", "zswap"]


def test_who_holds_what_is_said_once_and_summed_over_samples():
    mm = make_mm()
    held = iter((5, 7))
    mm.ledger.hold("cache", lambda: next(held))
    with pytest.raises(CallerError, match="'cache'"):
        mm.ledger.hold("cache", lambda: 0)
    mm.ledger.sample()
    mm.ledger.sample()
    assert (losses_of(mm, "cache").held_page_samples, mm.ledger.nr_samples) == (12, 2)


@pytest.mark.parametrize(("freed", "formed"), [("all", 1), ("all but one", 0)])
def test_a_block_that_stands_100_ms_later_is_counted(freed, formed):
    mm = make_mm("256M", start=True)
    pfn = mm.alloc_pages(gfp.GFP_KERNEL, 9)
    mm.split_page(pfn, 9)
    pfns = np.arange(pfn, pfn + 512, dtype=np.int64)
    mm.ledger.evicted("cache", nr_objects=1, nr_pages=512, pfns=pfns)
    mm.free_pages_batch(pfns if freed == "all" else pfns[1:], 0)
    mm.drain_all_pages()
    assert losses_of(mm, "cache").nr_blocks_formed == 0
    mm.sched.run(mm.sched.now + YIELD_NS)
    losses = losses_of(mm, "cache")
    assert (losses.nr_pages_located, losses.nr_blocks_formed) == (512, formed)


def test_a_block_that_merged_to_order_10_counts_too():
    mm = make_mm("256M", start=True)
    pfn = mm.alloc_pages(gfp.GFP_KERNEL, 10)
    upper = np.arange(pfn + 512, pfn + 1024, dtype=np.int64)
    mm.ledger.evicted("cache", nr_objects=1, nr_pages=512, pfns=upper)
    mm.free_pages(pfn, 10)
    mm.sched.run(mm.sched.now + YIELD_NS)
    assert losses_of(mm, "cache").nr_blocks_formed == 1


def test_blocks_are_found_whether_named_whole_or_page_by_page():
    mm = make_mm("256M", start=True)
    large, small = mm.alloc_pages(gfp.GFP_KERNEL, 10), mm.alloc_pages(gfp.GFP_KERNEL, 9)
    blocks = [(10, np.array([large])), (9, np.array([small]))]
    mm.ledger.evicted("whole", nr_objects=1, nr_pages=1536, blocks=blocks)
    pages = np.concatenate([np.arange(pfns[0], pfns[0] + (1 << order)) for order, pfns in blocks])
    mm.ledger.evicted("single", nr_objects=1, nr_pages=1536, pfns=pages)
    mm.free_pages(large, 10)
    mm.free_pages(small, 9)
    mm.drain_all_pages()
    mm.sched.run(mm.sched.now + YIELD_NS)
    found = [(losses.nr_pages_located, losses.nr_blocks_formed) for _, losses in mm.ledger]
    assert found == [(1536, 3), (1536, 3)]
