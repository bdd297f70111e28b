"""The door to the allocator: what it answers, refuses and counts. Exactness is the replays' matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw import gfp
from mmfw.mm.page_alloc import BadPage
from mmfw.state import MigrateType, NodeState
from mmfw.statediff import first_difference
from mmfw.testing import make_mm

UNMOVABLE = gfp.GFP_KERNEL & ~gfp.RECLAIM | gfp.NOWARN


def test_fresh_memory_is_handed_out_from_the_lowest_pfn_of_an_order_10_block():
    mm = make_mm("1G")
    pfns = [mm.alloc_pages(UNMOVABLE, 10) for _ in range(3)]
    assert pfns == sorted(pfns)
    assert all(pfn % 1024 == 0 for pfn in pfns)
    assert np.all(np.diff(pfns) == 1024)


def test_a_refill_takes_a_batch_and_the_list_hands_it_out_in_order():
    mm = make_mm("1G")
    mm.drain_all_pages()
    lists = [lists[MigrateType.UNMOVABLE] for lists in _state(mm).zones[1].free_lists]
    # Smallest blocks first, each list from its head, each block from its start.
    smallest = [
        pfn + i for order, pfns in enumerate(lists) for pfn in pfns.tolist() for i in range(1 << order)
    ]
    zone = mm.pgdat.node_zones[1]
    free = zone.free_pages_snapshot()
    first = mm.alloc_pages(UNMOVABLE, 0)
    assert zone.free_pages_snapshot() == free - 63
    assert [first, *(mm.alloc_pages(UNMOVABLE, 0) for _ in range(62))] == smallest[:63]
    assert zone.free_pages_snapshot() == free - 63
    assert mm.alloc_pages(UNMOVABLE, 0) == smallest[63]
    assert zone.free_pages_snapshot() == free - 2 * 63


@pytest.mark.parametrize("order", [0, 2, 3, 4, 9, 10])
def test_a_batch_is_the_loop(order):
    one, other = make_mm("512M"), make_mm("512M")
    batch = one.alloc_pages_batch(UNMOVABLE, order, 50)
    loop = [other.alloc_pages(UNMOVABLE, order) for _ in range(50)]
    assert batch.tolist() == loop
    one.free_pages_batch(batch[::2], order)
    for pfn in loop[::2]:
        other.free_pages(pfn, order)
    assert first_difference(_state(one), _state(other)) is None


def test_an_exchange_is_an_allocation_and_a_free_page_by_page():
    one, other = make_mm("256M"), make_mm("256M")
    old = one.alloc_pages_batch(UNMOVABLE, 0, 200)
    assert other.alloc_pages_batch(UNMOVABLE, 0, 200).tolist() == old.tolist()
    new = one._allocator.exchange_pages(gfp.GFP_KERNEL, old)
    pairs = []
    for pfn in old.tolist():
        pairs.append(other.alloc_pages(gfp.GFP_KERNEL, 0))
        other.free_pages(pfn, 0)
    assert new.tolist() == pairs
    assert first_difference(_state(one), _state(other)) is None


def _state(mm) -> NodeState:
    return mm.pgdat.memory.node_state()


def test_order_11_does_not_exist_and_negative_orders_are_refused():
    mm = make_mm("256M")
    assert mm.alloc_pages(gfp.GFP_KERNEL, 11) == -1
    with pytest.raises(ValueError, match="order -1: 0 to 10 exist"):
        mm.alloc_pages(gfp.GFP_KERNEL, -1)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (1 << 30, "0x40000000 has bits that 6.1 does not have"),
        (gfp.GFP_DMA | gfp.GFP_DMA32, "two zone selectors"),
        (gfp.MOVABLE | gfp.RECLAIMABLE, "Movable and Reclaimable at once"),
    ],
)
def test_a_mask_the_kernel_would_refuse_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        make_mm("256M").alloc_pages(mask, 0)


def test_freeing_what_is_not_allocated_names_the_page():
    mm = make_mm("256M")
    pfn = mm.alloc_pages(UNMOVABLE, 2)
    with pytest.raises(BadPage, match=f"pfn {pfn:#x} is not an allocated block of order 1"):
        mm.free_pages(pfn, 1)
    mm.free_pages(pfn, 2)
    with pytest.raises(BadPage, match=f"pfn {pfn:#x}"):
        mm.free_pages(pfn, 2)
    with pytest.raises(BadPage, match=r"pfn 0x7fffffff"):
        mm.free_pages(0x7FFFFFFF, 0)


def test_a_split_block_is_freed_page_by_page_and_merges_again():
    mm = make_mm("256M")
    mm.drain_all_pages()
    before = mm.buddyinfo()
    pfn = mm.alloc_pages(UNMOVABLE, 9)
    mm.split_page(pfn, 9)
    mm.free_pages_batch(np.arange(pfn, pfn + 512), 0)
    mm.drain_all_pages()
    assert mm.buddyinfo() == before


def test_requests_that_could_use_a_higher_zone_leave_zone_dma_its_reserve():
    mm = make_mm("1G")
    assert mm.alloc_pages(UNMOVABLE | gfp.DMA, 0) < 4096
    held = mm.alloc_pages_batch(UNMOVABLE, 0, 1 << 20)
    dma = mm.pgdat.node_zones[0]
    floor = dma.watermark[0] + dma.lowmem_reserve[2]
    assert (held < 4096).any()
    assert floor - 2 <= dma.nr_free_pages <= floor + 2
    assert mm.alloc_pages(UNMOVABLE | gfp.DMA, 0) >= 0


def test_vmstat_counts_pages_not_requests():
    mm = make_mm("1G")
    pfn = mm.alloc_pages(UNMOVABLE, 3)
    mm.free_pages(pfn, 3)
    stat = mm.vmstat.as_dict()
    assert (stat["pgalloc_dma32"], stat["pgfree"]) == (8, 8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 40)), max_size=30), st.integers(0, 3))
def test_whatever_was_taken_comes_back(requests, seed):
    mm = make_mm("256M")
    mm.drain_all_pages()
    before = mm.buddyinfo()
    total = mm.global_free_pages()
    held = [(int(p), o) for o, n in requests for p in mm.alloc_pages_batch(UNMOVABLE, o, n)]
    taken = np.zeros(mm.pgdat.memory.nr_pfns, dtype=bool)
    for pfn, order in held:
        assert not taken[pfn : pfn + (1 << order)].any()
        taken[pfn : pfn + (1 << order)] = True
    for i in mm.rng(f"order {seed}").shuffled(np.arange(len(held))):
        mm.free_pages(*held[int(i)])
    mm.drain_all_pages()
    assert mm.buddyinfo() == before
    assert mm.global_free_pages() == total
