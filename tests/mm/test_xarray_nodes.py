"""Nodes of the page cache: when each is made and goes, what it costs in pages, and the shrinker of shadow nodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.workbench import events_of, fill, grown, run, scan_control, unboosted
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.trace import MmShrinkSlabStart
from mmfw.mm.vmstat import VmEvent
from mmfw.types import SHRINK_EMPTY, ShrinkControl

SC = ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0, priority=12)


def stat(mm, item):
    return mm.lruvec.node_stat(item)


def evict(mm, n):
    mm._vmscan.lru_scan.shrink_inactive_list(pg.LRU_INACTIVE_FILE, n, scan_control(), kswapd=True)


def evict_all(mm):
    while mm.lruvec.size(pg.LRU_INACTIVE_FILE):
        evict(mm, 32)


def allocations(mm, body):
    """(pfn, order, migratetype) of each block allocated by a body, in order."""
    memory = mm.pgdat.memory
    memory.take_trace()
    memory.S[pg.S_TRACE_MASK] = 1 << pg.TR_PAGE_ALLOC
    body()
    memory.S[pg.S_TRACE_MASK] = 0
    return [tuple(row[1:4].tolist()) for row in memory.take_trace()]


def naive_nodes(history):
    """Nodes after pages of one file were added in this order, none removed: straight from the rules of xas_create()."""
    nodes, height = set(), 0
    for at, index in enumerate(history):
        needed = max(1, -(-index.bit_length() // 6))
        if height == 0:
            if index == 0:
                continue  # lies in the root
            if 0 in history[:at]:
                nodes.add((0, 0))
                height = 1
        while height and height < needed:
            nodes.add((height, 0))
            height += 1
        height = max(height, needed)
        nodes |= {(level, index >> 6 * (level + 1)) for level in range(height)}
    return nodes


@pytest.mark.parametrize(
    ("indices", "nodes"),
    [
        ([0], 0),
        ([0, 1], 1),
        ([5], 1),
        ([63, 0], 1),
        ([64], 2),  # a root and leaf 1; leaf 0 is not made
        ([0, 64], 3),  # page 0 lay in the root, which becomes a leaf when the tree grows
        ([1, 64, 65], 3),
        ([4095], 2),
        ([4096], 3),
        ([1, 4096], 5),  # leaf 0 and the two above it, then a middle node and a leaf
    ],
)
def test_nodes_of_single_pages(indices, nodes):
    mm = unboosted()
    file = mm.page_cache.open(5000)
    for index in indices:
        file.read_pages(np.array([index]))
    assert file.tree.nr_nodes == len(naive_nodes(indices)) == nodes
    file.truncate()
    assert (file.tree.nr_nodes, mm.slab.caches[0].nr_objects if nodes else 0) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9000), max_size=40, unique=True), st.booleans())
def test_any_order_of_pages_makes_the_nodes_of_the_rules(indices, at_once):
    mm = unboosted()
    file = mm.page_cache.open(9001)
    if at_once:
        indices.sort()
        file._add(np.array(indices, dtype=np.int64))
    else:
        for index in indices:
            file._add(np.array([index]))
    assert file.tree.nr_nodes == len(naive_nodes(indices))
    assert sum(cache.nr_objects for cache in mm.slab.caches) == file.tree.nr_nodes
    file.close()
    assert sum(cache.nr_objects for cache in mm.slab.caches) == 0


def test_page_cache_nodes_are_reclaimable_slab_pages():
    """2048 pages need 32 + 1 nodes of 14 to an order-1 slab: 3 slabs, 6 pages of type Reclaimable."""
    mm = unboosted()
    before = mm.vmstat.as_dict()
    mm.page_cache.open(2048).read(0, 2048)
    assert grown(mm, before)["pgalloc_dma32"] == 2048 + 6
    assert stat(mm, pg.NS_SLAB_RECLAIMABLE) == 6
    (cache,) = mm.slab.caches
    assert (cache.name, cache.nr_objects, cache.geometry.oo) == ("radix_tree_node", 33, (1, 14))


def test_a_node_comes_after_the_page_that_needs_it_and_before_the_next():
    mm = unboosted()
    file = mm.page_cache.open(1000)
    # Page 0 lies in the root; page 1 makes a node, with it the first slab.
    got = allocations(mm, lambda: file._add(np.arange(3)))
    assert [(order, mt) for _, order, mt in got] == [(0, 1), (0, 1), (1, pg.RECLAIMABLE), (0, 1)]
    # Leaf 13 is the 14th object and the root the second: pages 64, 128, .. have room; the slab is full at leaf 12.
    for leaf in range(1, 13):
        assert len(allocations(mm, lambda at=64 * leaf: file._add(np.array([at])))) == 1
    got = allocations(mm, lambda: file._add(np.arange(830, 834)))
    assert [(order, mt) for _, order, mt in got] == [(0, 1), (0, 1), (0, 1), (1, pg.RECLAIMABLE), (0, 1)]


def test_a_slab_of_nodes_asks_as_the_kernel_does():
    """The captures show GFP_NOWAIT|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP|__GFP_RECLAIMABLE and order 1."""
    mm = unboosted()
    asked = []
    real = mm._freelist.request
    mm._freelist.request = lambda mask, order: asked.append((mask, order)) or real(mask, order)
    mm.page_cache.open(10)._add(np.arange(1, 3))
    first = gfp.GFP_NOWAIT | gfp.NOWARN | gfp.NORETRY | gfp.COMP | gfp.RECLAIMABLE
    assert asked[1] == (first, 1)


def test_without_memory_for_its_node_a_page_is_passed_over():
    mm = unboosted()
    file = mm.page_cache.open(300)
    file._add(np.arange(1, 5))
    nodes = mm.page_cache.nodes
    nodes.alloc = lambda mask: -2
    mm.drain_all_pages()
    before = mm.global_free_pages()
    assert file._add(np.arange(62, 66)) == 2
    assert file.cached(np.arange(62, 66)).tolist() == [True, True, False, False]
    mm.drain_all_pages()
    assert mm.global_free_pages() == before - 2


def test_when_nothing_is_free_a_node_is_asked_for_again_with_the_mappings_mask():
    mm = unboosted(start=True)
    asked = []

    def body():
        file = mm.page_cache.open(10)
        mm.page_cache.nodes.alloc(0)
        (cache,) = mm.slab.caches
        cache.kmem_cache_alloc = lambda mask: asked.append(mask) or -1
        fill(mm, 2000)
        return file.read(1, 2)

    assert run(mm, body) == 0
    # Both the window and the page that is needed after it: NOWAIT first, then what readahead's mask allows.
    assert asked[0] == gfp.GFP_NOWAIT | gfp.NOWARN
    assert asked[1] == gfp.RECLAIM | gfp.IO | gfp.NORETRY | gfp.NOWARN


def test_a_node_stays_with_its_last_shadow_and_goes_with_it():
    mm = unboosted()
    file = mm.page_cache.open(130)
    file._add(np.arange(130))
    assert (file.tree.nr_nodes, stat(mm, pg.NS_WORKINGSET_NODES)) == (4, 0)
    evict(mm, 32)
    evict(mm, 31)
    assert stat(mm, pg.NS_WORKINGSET_NODES) == 0  # page 63 is left in leaf 0
    evict(mm, 1)
    assert stat(mm, pg.NS_WORKINGSET_NODES) == 1
    evict_all(mm)
    assert (file.tree.nr_nodes, stat(mm, pg.NS_WORKINGSET_NODES)) == (4, 3)
    file._add(np.array([70]))
    assert stat(mm, pg.NS_WORKINGSET_NODES) == 2
    file.truncate()
    assert (file.tree.nr_nodes, stat(mm, pg.NS_WORKINGSET_NODES)) == (0, 0)
    assert stat(mm, pg.NS_SLAB_RECLAIMABLE) == mm.page_cache.nodes.nr_pages


def test_truncation_gives_slabs_back_but_for_those_that_are_kept():
    """500 leaves and 8 nodes above: 37 slabs; SLUB keeps the CPU's slabs and min_partial, 5, of the empty ones."""
    mm = unboosted("256M")
    file = mm.page_cache.open(32_000)
    file._add(np.arange(32_000))
    assert mm.page_cache.nodes.nr_pages == 2 * 37
    file.truncate()
    (cache,) = mm.slab.caches
    assert cache.nr_objects == 0
    assert 0 < mm.page_cache.nodes.nr_pages <= 2 * (1 + cache.geometry.cpu_partial_slabs + 5)
    mm.slab.validate()


def test_the_shadow_shrinker_is_silent_up_to_an_eighth_of_the_lru():
    """count_shadow_nodes(): nodes above (LRU + slab pages) >> 3; SHRINK_EMPTY where there are none."""
    mm = unboosted()
    nodes = mm.page_cache.nodes
    file = mm.page_cache.open(64 * 300)
    assert nodes.count_shadow_nodes(SC) == SHRINK_EMPTY
    file._add(64 * np.arange(300) + 1)
    assert nodes.count_shadow_nodes(SC) == SHRINK_EMPTY
    evict_all(mm)
    assert stat(mm, pg.NS_WORKINGSET_NODES) == 300
    pages = mm.lruvec.nr_pages + stat(mm, pg.NS_SLAB_RECLAIMABLE)
    assert nodes.count_shadow_nodes(SC) == 300 - pages // 8 > 0
    mm.page_cache.open(8000)._add(np.arange(8000))
    assert nodes.count_shadow_nodes(SC) == 0


def test_the_shadow_shrinker_frees_the_oldest_nodes_first():
    mm = unboosted()
    file = mm.page_cache.open(64 * 300)
    order = np.random.default_rng(3).permutation(300)
    for leaf in order:
        file._add(np.array([64 * leaf + 1]))
    evict_all(mm)  # oldest first: in order of insertion
    before = mm.vmstat.as_dict()
    sc = ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0, priority=12)
    sc.nr_to_scan = 100
    assert mm.page_cache.nodes.scan_shadow_nodes(sc) == 100
    assert grown(mm, before) == {"workingset_nodereclaim": 100} | {
        name: n for name, n in grown(mm, before).items() if name == "pgfree"
    }
    assert stat(mm, pg.NS_WORKINGSET_NODES) == 200
    words = mm.rmap.part(file.base_slot, file.nr_pages)
    left = set((np.flatnonzero(words != pg.SLOT_EMPTY) // 64).tolist())
    assert left == set(order[100:].tolist())
    # What they knew is forgotten: no refault.
    file._add(np.array([64 * order[0] + 1]))
    assert mm.vmstat[VmEvent.workingset_refault_file] == 0
    file._add(np.array([64 * order[200] + 1]))
    assert mm.vmstat[VmEvent.workingset_refault_file] == 1


def test_the_shadow_shrinker_wants_half_at_any_priority():
    """Seeks 0: delta is freeable / 2."""
    mm = unboosted()
    mm.page_cache.open(64 * 2000)._add(64 * np.arange(2000) + 1)
    evict_all(mm)
    events = events_of(mm, MmShrinkSlabStart)
    freeable = mm.page_cache.nodes.count_shadow_nodes(SC)
    mm.shrinkers.shrink_slab(gfp.GFP_KERNEL, 0, 12)
    assert [(e.shrinker, e.cache_items, e.delta) for e in events] == [("mm-shadow", freeable, freeable // 2)]
    assert mm.vmstat[VmEvent.workingset_nodereclaim] == freeable // 2 // 128 * 128


def test_adopted_pages_have_nodes_that_nobody_gets_back():
    mm = unboosted("256M")
    file = mm.page_cache.open(200)
    mm.page_cache.adopt(file, mm.claim_resident(200, movable=True, what="test"))
    assert (file.tree.nr_nodes, mm.slab.caches) == (5, ())
    file._add(np.arange(199, 200))
    file.truncate()
    assert file.tree.nr_nodes == 0


def test_skipped_pages_cost_less_than_isolated_ones():
    mm = unboosted(start=True)

    def body():
        mm.page_cache.open(8000).read(0, 8000)
        other = mm.page_cache.open(8)
        mm.page_cache.adopt(other, mm.alloc_pages_batch(gfp.GFP_USER | gfp.DMA, 0, 8))
        start = mm.sched.now
        sc = scan_control(reclaim_idx=0)
        mm._vmscan.lru_scan.shrink_inactive_list(pg.LRU_INACTIVE_FILE, 1, sc, kswapd=True)
        return mm.sched.now - start

    costs = mm.costs
    assert (
        run(mm, body, 5_000_000_000)
        == 8000 * costs.lru_skip_page + costs.lru_isolate_page + costs.lru_shrink_page
    )
