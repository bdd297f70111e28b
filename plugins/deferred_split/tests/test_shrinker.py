"""What is counted, what is split in which order, and what a split frees (mm/huge_memory.c)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfw import SHRINK_EMPTY, SHRINK_STOP
from mmfw.gfp import GFP_KERNEL
from mmfw.mm.huge_memory import aligned_run_order

ALTERNATE = range(0, 512, 2)
FIRST_HALF = range(256)


@pytest.mark.parametrize(("kernel", "answer"), [("6.1", 0), ("7.1", 0), ("7.2", SHRINK_EMPTY)])
def test_an_empty_queue(bench, kernel, answer):
    b = bench(kernel)
    assert b.count() == answer
    assert b.scan(10) == SHRINK_STOP


def test_the_count_is_of_huge_pages_and_they_are_split_first_queued_first(bench):
    b = bench()
    _, heads = b.heap(5, ALTERNATE)
    assert b.count() == 5
    assert b.scan(2) == 2
    assert b.queue == tuple(heads[2:])
    assert b.scan(128) == 3
    assert b.count() == 0
    assert b.vmstat("thp_split_page") == 5


def test_one_that_cannot_be_split_now_becomes_the_last(bench):
    b = bench()
    _, heads = b.heap(4, ALTERNATE)
    b.lock(heads[0])
    assert b.scan(2) == 1
    assert b.queue == (heads[2], heads[3], heads[0])
    assert b.scan(3) == 2
    # Nothing was split, but the queue is not empty: no reason to stop.
    assert b.scan(3) == 0
    b.lock(heads[0], unlock=True)
    assert b.scan(3) == 1
    assert b.scan(3) == SHRINK_STOP


@pytest.mark.parametrize(
    ("dropped", "grown"),
    [
        (ALTERNATE, {0: 256}),
        (FIRST_HALF, {8: 1}),
        (range(0, 512, 16), {0: 32}),
        (range(16, 48), {4: 2}),
    ],
    ids=["alternate", "half", "one-in-64-KiB", "two-runs"],
)
def test_unmapped_pages_come_free_and_join_only_where_whole_buddies_are(bench, dropped, grown):
    b = bench()
    vma, heads = b.heap(1, dropped)
    before, blocks = b.free()
    assert b.scan(1) == 1
    after, now = b.free()
    assert after - before == len(dropped)
    assert {o: n - m for o, (n, m) in enumerate(zip(now, blocks, strict=True)) if n != m} == grown
    # What is left stays where it is, as single pages.
    assert vma.pfns().tolist() == [heads[0] + k for k in range(512) if k not in dropped]


def test_what_a_loss_is_told_as(bench):
    b = bench()
    b.heap(3, FIRST_HALF)
    b.scan(2)
    losses = dict(b.mm.ledger)["deferred_split"]
    assert (losses.nr_objects_evicted, losses.nr_pages_evicted) == (2, 512)
    assert losses.nr_pages_located == 1024


def test_a_full_slab_pass_asks_by_the_arithmetic_of_seeks_two(bench):
    """20 huge pages: 2 are wanted at priority 4, 4 at 3, 10 at 2, all below the batch and the 20 that there are.

    At priority 1 20 are, and half of the 16 that were put off: enough for a scan.
    """
    b = bench()
    b.heap(20, ALTERNATE)
    asked = []
    for priority in range(12, -1, -1):
        b.mm.shrinkers.shrink_slab(GFP_KERNEL, 0, priority)
        asked.append(b.vmstat("thp_split_page"))
    assert asked == [0] * 11 + [20, 20]


def test_splits_take_time(bench):
    b = bench(start=True)
    _, _ = b.heap(4, ALTERNATE)
    before = b.mm.sched.now
    b.scan(4)
    costs = b.mm.costs
    assert b.mm.sched.now - before == 4 * 512 * costs.lru_isolate_page + 4 * 256 * costs.free_pcp


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dropped=st.sets(st.integers(0, 511), min_size=1, max_size=511))
def test_any_pattern_frees_what_was_unmapped_and_no_more(bench, dropped):
    b = bench()
    vma, heads = b.heap(1, sorted(dropped))
    free = np.isin(np.arange(512), list(dropped))
    order = b.mm.memory.deferred_split.unmapped_order(heads[0])
    assert order == aligned_run_order(free)
    runs = [free[i : i + (1 << order)].all() for i in range(0, 512, 1 << order)]
    assert any(runs)
    assert not any(free[i : i + (2 << order)].all() for i in range(0, 512, 2 << order))
    before, _ = b.free()
    assert b.scan(1) == 1
    assert b.free()[0] - before == len(dropped)
    assert vma.nr_resident == 512 - len(dropped)
