from __future__ import annotations

import numpy as np

from mmfw import gfp
from mmfw.mm.contiguity import nr_buddy_pages
from mmfw.testing import make_mm


def test_free_parts_of_aligned_blocks_are_counted_and_nothing_else():
    mm = make_mm("256M")
    pfn = mm.alloc_pages(gfp.GFP_KERNEL, 10)
    memory = mm.pgdat.memory
    both = np.array([pfn, pfn + 512])
    assert nr_buddy_pages(memory, both, 9).tolist() == [0, 0]
    mm.split_page(pfn, 10)
    given_back = np.concatenate([pfn + np.arange(100), pfn + 512 + np.arange(512)])
    mm.free_pages_batch(given_back, 0)
    mm.drain_all_pages()
    # The second half is one free block of order 9 now; blocks below order 10 are counted.
    assert nr_buddy_pages(memory, both[:1], 9).tolist() == [100]
    assert nr_buddy_pages(memory, both[:1], 10).tolist() == [612]
    assert nr_buddy_pages(memory, np.array([pfn, pfn + 64, pfn + 96]), 5).tolist() == [0, 0, 4]
    kept = pfn + np.arange(100, 512)
    mm.free_pages_batch(kept, 0)


def test_pages_on_a_cpus_list_are_not_free_yet():
    mm = make_mm("256M")
    pfn = mm.alloc_pages(gfp.GFP_KERNEL, 1)
    mm.split_page(pfn, 1)
    mm.free_pages(pfn, 0)
    assert nr_buddy_pages(mm.pgdat.memory, np.array([pfn]), 1).tolist() == [0]
    mm.drain_all_pages()
    assert nr_buddy_pages(mm.pgdat.memory, np.array([pfn]), 1).tolist() == [1]
    mm.free_pages(pfn + 1, 0)
