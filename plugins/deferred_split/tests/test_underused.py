"""Huge pages that hold little but zeroes (``split_underused_thp``, 6.12)."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import SHRINK_STOP
from mmfw_deferred_split import zero_filled


def heap(b, nr_huge, written):
    """Huge pages of each of which only the first pages are written."""
    vma, heads = b.heap(nr_huge)
    for first in range(0, vma.nr_pages, 512):
        zero_filled(b.mm).mark(vma, first + np.arange(written, 512))
    return vma, heads


def test_61_does_not_queue_what_is_fully_mapped(bench):
    b = bench(max_ptes_none=0)
    heap(b, 3, 1)
    assert b.count() == 0


@pytest.mark.parametrize("kernel", ["7.1", "7.2"])
def test_by_default_all_are_queued_and_none_is_underused(bench, kernel):
    """511 zero-filled pages are not more than max_ptes_none: each is looked at once, and leaves the queue."""
    b = bench(kernel)
    heap(b, 3, 1)
    assert b.count() == 3
    assert b.scan(2) == 0
    assert b.count() == 1
    assert b.scan(2) == SHRINK_STOP
    assert b.vmstat("thp_split_page") == 0


@pytest.mark.parametrize(("max_ptes_none", "split"), [(447, True), (448, False)])
def test_more_zero_filled_pages_than_max_ptes_none_are_underused(bench, max_ptes_none, split):
    b = bench("7.1", max_ptes_none=max_ptes_none)
    vma, heads = heap(b, 1, 64)
    free, _ = b.free()
    assert b.scan(1) == (1 if split else SHRINK_STOP)
    assert b.count() == 0
    assert b.free()[0] - free == (448 if split else 0)
    assert vma.nr_resident == (64 if split else 512)
    assert vma.pfns()[:64].tolist() == list(range(heads[0], heads[0] + 64))
    b.mm.check_memory()
    # The zero page is in the place of the others; writing there is a fault as any.
    assert vma.touch(0, 512) == 512


def test_a_partly_unmapped_one_loses_its_zeroes_too(bench):
    b = bench("7.1")
    vma, _ = b.heap(1, range(100))
    zero_filled(b.mm).mark(vma, np.arange(50, 150))
    free, _ = b.free()
    assert b.scan(1) == 1
    assert b.free()[0] - free == 150
    b.mm.check_memory()


def test_one_that_is_locked_is_not_looked_at_again(bench):
    b = bench("7.1", max_ptes_none=0)
    _, heads = heap(b, 2, 1)
    b.lock(heads[0])
    assert b.scan(2) == 1
    assert b.queue == ()


def test_the_switch_may_be_set_against_the_kernel(bench):
    assert bench("7.1", split_underused_thp=False).mm.memory.thp.split_underused is False
    b = bench("6.1", split_underused_thp=True, max_ptes_none=0)
    heap(b, 1, 1)
    assert b.scan(1) == 1
