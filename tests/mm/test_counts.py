"""Compiled counts over pfns, against the plain way to count."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw import gfp
from mmfw.jit import count
from mmfw.jit import page as pg
from mmfw.testing import make_mm

PFNS = st.lists(st.integers(0, 1 << 20), max_size=60)


@settings(deadline=None)  # the first call may compile
@given(PFNS)
def test_blocks_of_leaves_out_only_neighbours_that_repeat(pfns):
    out = np.empty(len(pfns), dtype=np.int64)
    n = count.blocks_of(np.array(pfns, dtype=np.int64), 9, out)
    blocks = [pfn >> 9 for pfn in pfns]
    assert out[:n].tolist() == [b for i, b in enumerate(blocks) if i == 0 or blocks[i - 1] != b]


@settings(deadline=None)  # the first call may compile
@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=60), st.integers(0, (1 << 32) - 1))
def test_at_least_counts_what_is_not_below(words, mark):
    assert count.at_least(np.array(words, dtype=np.uint32), mark) == sum(word >= mark for word in words)


def test_folios_and_free_blocks_are_counted_where_they_are():
    mm = make_mm("128M")
    orders = (0, 3, 9, 9, 10)
    heads = [mm.alloc_pages(gfp.GFP_KERNEL, order) for order in orders]
    page = mm.pgdat.memory.page
    assert count.folio_pages(page, np.array(heads, dtype=np.int64), 9) == (1 + 8 + 512 + 512 + 1024, 2)
    blocks = np.arange(mm.pgdat.memory.nr_pfns >> 9, dtype=np.int64)
    free = sum(
        int(mm.pgdat.memory.S[mm.pgdat.memory.zone_offset(row) + pg.Z_NR_FREE + order]) << order - 9
        for row in mm.pgdat.memory.populated_rows
        for order in (9, 10)
    )
    assert count.nr_free_blocks(page, blocks, 9) == free > 0
    assert mm.global_free_pages() == sum(zone.free_pages_snapshot() for zone in mm.pgdat.node_zones)
