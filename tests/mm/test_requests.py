"""How requests fared: classes, success, latency."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp
from mmfw.mm.requests import RequestClass, RequestStats, request_class
from mmfw.testing import make_mm

NORETRY = gfp.GFP_KERNEL | gfp.NORETRY


@pytest.mark.parametrize(
    ("order", "gfp_mask", "cls"),
    [
        (0, NORETRY, RequestClass.C0),
        (9, NORETRY, RequestClass.CO),
        (1, gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL, RequestClass.CO),
        (9, NORETRY | gfp.NOFAIL, RequestClass.CM),
        (9, gfp.GFP_KERNEL, RequestClass.CM),
        (4, gfp.GFP_KERNEL & ~gfp.DIRECT_RECLAIM, RequestClass.CN),
        # A flag counts before the missing right to reclaim.
        (4, NORETRY & ~gfp.DIRECT_RECLAIM, RequestClass.CO),
    ],
)
def test_a_class_follows_from_order_and_mask(order, gfp_mask, cls):
    assert request_class(order, gfp_mask) is cls


def test_failures_and_times_by_order_and_class():
    stats = RequestStats()
    stats.note(NORETRY, 9, 98, ok=True, ns=9800)
    stats.note(NORETRY, 9, 2, ok=False, ns=2_000_000)
    stats.note(gfp.GFP_KERNEL, 9, 1, ok=True, ns=5)
    co, cm = stats.rows()[1], stats.rows()[0]
    assert (cm.cls, cm.nr, cm.nr_failed, cm.p50_ns) == (RequestClass.CM, 1, 0, 5)
    assert (co.order, co.nr, co.nr_failed, co.p50_ns, co.p99_ns) == (9, 100, 2, 100, 1_000_000)
    assert stats.success_ratio(9, 10) == pytest.approx(99 / 101)
    assert stats.success_ratio(4, 8) is None
    assert stats.nr_high_order_pages == 99 * 512


def test_order_3_is_not_costly():
    stats = RequestStats()
    stats.note(NORETRY, 3, 1, ok=True, ns=1)
    assert stats.nr_high_order_pages == 0


def test_a_machine_counts_every_request_above_order_0():
    mm = make_mm("256M", start=True)
    free = mm.buddyinfo()
    mm.alloc_pages(NORETRY, 4)
    mm.alloc_pages_batch(NORETRY, 4, 3)
    mm.alloc_pages(gfp.GFP_KERNEL, 0)
    rows = {(row.order, row.cls): row for row in mm.requests.rows()}
    assert rows.keys() == {(4, RequestClass.CO)}
    row = rows[4, RequestClass.CO]
    assert (row.nr, row.nr_failed, row.p50_ns) == (4, 0, mm.costs.alloc_buddy)
    assert free != mm.buddyinfo()


def test_a_request_that_fails_is_counted_with_the_time_of_its_slow_path():
    mm = make_mm("256M", start=True)
    mm.alloc_pages_batch(gfp.GFP_KERNEL & ~gfp.RECLAIM, 10, 1000)
    mm.alloc_pages_batch(gfp.GFP_KERNEL & ~gfp.RECLAIM, 9, 1000)
    before = {row.order: row for row in mm.requests.rows()}
    assert mm.alloc_pages(NORETRY, 10) == -1
    co = next(row for row in mm.requests.rows() if row.cls is RequestClass.CO)
    assert before.keys() == {9, 10}
    assert (co.nr, co.nr_failed) == (1, 1)
    assert mm.requests.slowpath_ns >= co.p99_ns - mm.costs.alloc_buddy > 0


def test_single_pages_are_counted_in_the_slow_path_only():
    mm = make_mm("256M", start=True)
    got = mm.alloc_pages_batch(gfp.GFP_ATOMIC, 0, 100_000)
    rows = [row for row in mm.requests.rows() if row.order == 0]
    assert len(got) < 100_000
    assert rows[0].nr_failed == 1
    assert rows[0].nr < len(got) / 10
    mm.free_pages_batch(np.asarray(got), 0)
