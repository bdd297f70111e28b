"""Blocks that hold the first pages of an object."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmfw_ttm_pool import first_blocks_of, page_pfns_of
from mmfw_ttm_pool.tt import BlockRun

ORDERS = st.lists(st.tuples(st.integers(0, 10), st.integers(1, 4)), max_size=5)


@given(ORDERS, st.integers(0, 5000))
def test_they_hold_these_pages_in_their_order_and_no_others(shape, nr_pages):
    runs, at = [], 0
    for order, nr_blocks in shape:
        runs.append(BlockRun(order, (at + np.arange(nr_blocks)[::-1]) << order + 2))
        at += nr_blocks + 1
    found = list(first_blocks_of(runs, nr_pages))
    pages = page_pfns_of([BlockRun(order, pfns) for order, pfns in found])
    assert pages.tolist() == page_pfns_of(runs)[:nr_pages].tolist()
    # Only the last block may come in pieces.
    whole = [order for order, _ in found[:-1]]
    assert whole == [run.order for run in runs[: len(whole)]]
