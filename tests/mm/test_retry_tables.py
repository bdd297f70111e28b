"""``should_reclaim_retry()`` and ``should_compact_retry()``, decision by decision (mm/page_alloc.c of 6.1)."""

from __future__ import annotations

import pytest

from mm.workbench import QUIET, events_of, fill, set_zone_field, unboosted
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.slowpath import _Attempt
from mmfw.mm.trace import CompactRetry, ReclaimRetryZone
from mmfw.types import CompactPriority, CompactResult

R, P = CompactResult, CompactPriority


@pytest.fixture
def mm():
    return unboosted()


def attempt(mm, order, mask=gfp.GFP_KERNEL, **changes):
    request = mm._freelist.request(mask, order)
    found = _Attempt(request, order, request.slow_flags)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def compact_retry(mm, order, result, prio, retries=0):
    """The decision, and the priority and count of retries after it."""
    tried = attempt(mm, order, result=result, prio=prio, compaction_retries=retries)
    answer = mm._allocator._slowpath._should_compact_retry(tried)
    return answer, tried.prio, tried.compaction_retries


@pytest.mark.parametrize(
    ("order", "result", "prio", "retries", "expected"),
    [
        # Scanners met, or the zone was passed over or left early: only a harder try makes sense.
        (2, R.COMPLETE, P.SYNC_LIGHT, 5, (True, P.SYNC_FULL, 0)),
        (2, R.COMPLETE, P.SYNC_FULL, 5, (False, P.SYNC_FULL, 5)),
        (2, R.DEFERRED, P.SYNC_LIGHT, 0, (True, P.SYNC_FULL, 0)),
        (2, R.CONTENDED, P.SYNC_FULL, 0, (False, P.SYNC_FULL, 0)),
        (2, R.PARTIAL_SKIPPED, P.SYNC_LIGHT, 7, (True, P.SYNC_FULL, 0)),
        # A costly order never gets to SYNC_FULL.
        (9, R.COMPLETE, P.SYNC_LIGHT, 0, (False, P.SYNC_LIGHT, 0)),
        (9, R.DEFERRED, P.ASYNC, 3, (True, P.SYNC_LIGHT, 0)),
        # It made progress: 16 retries, a quarter of that for a costly order, then a harder try.
        (2, R.SUCCESS, P.SYNC_LIGHT, 15, (True, P.SYNC_LIGHT, 16)),
        (2, R.SUCCESS, P.SYNC_LIGHT, 16, (True, P.SYNC_FULL, 0)),
        (2, R.SUCCESS, P.SYNC_FULL, 16, (False, P.SYNC_FULL, 17)),
        (9, R.SUCCESS, P.SYNC_LIGHT, 3, (True, P.SYNC_LIGHT, 4)),
        (9, R.SUCCESS, P.SYNC_LIGHT, 4, (False, P.SYNC_LIGHT, 5)),
        # Order 0 does not compact.
        (0, R.SUCCESS, P.SYNC_LIGHT, 0, (False, P.SYNC_LIGHT, 0)),
    ],
)
def test_compact_retry(mm, order, result, prio, retries, expected):
    assert compact_retry(mm, order, result, prio, retries) == expected


def test_skipped_retries_iff_reclaim_could_make_room_for_compaction(mm):
    """Free pages and reclaimable/order must exceed low + 2 << order (order 9: 1024)."""
    file = mm.page_cache.open(4000)
    file.read(0, 4000)
    fill(mm, mask=QUIET | gfp.MEMALLOC)
    zone = mm.pgdat.node_zones[1]
    free = zone.free_pages_snapshot()
    reclaimable = mm._vmscan.zone_reclaimable_pages(zone)
    assert reclaimable >= 3000
    # 4000 file pages are 444 at order 9, and 2000 at order 2, which needs only min + 8 pages.
    assert free + reclaimable // 9 < zone.watermark[1] + 1024
    assert compact_retry(mm, 9, R.SKIPPED, P.SYNC_LIGHT)[0] is False
    assert compact_retry(mm, 2, R.SKIPPED, P.SYNC_LIGHT) == (True, P.SYNC_LIGHT, 0)


def test_the_event_tells_priority_and_retries_before_the_decision(mm):
    events = events_of(mm, CompactRetry)
    compact_retry(mm, 9, R.SUCCESS, P.SYNC_LIGHT, 1)
    compact_retry(mm, 2, R.COMPLETE, P.SYNC_LIGHT, 6)
    assert [(e.priority, e.result, e.retries, e.max_retries, e.ret) for e in events] == [
        (P.SYNC_LIGHT, R.SUCCESS, 1, 4, True),
        (P.SYNC_LIGHT, R.COMPLETE, 6, 16, True),
    ]


def reclaim_retry(mm, order, progress, loops):
    tried = attempt(mm, order, no_progress_loops=loops)
    return mm._allocator._slowpath._should_reclaim_retry(tried, progress), tried.no_progress_loops


def test_reclaim_retry_counts_rounds_without_progress(mm):
    assert reclaim_retry(mm, 0, True, 9) == (True, 0)
    assert reclaim_retry(mm, 0, False, 9) == (True, 10)
    assert reclaim_retry(mm, 0, False, 15) == (True, 16)
    assert reclaim_retry(mm, 0, False, 16) == (False, 17)


def test_reclaim_retry_of_a_costly_order_counts_progress_as_none(mm):
    assert reclaim_retry(mm, 9, True, 3) == (True, 4)
    assert reclaim_retry(mm, 9, True, 16) == (False, 17)


def test_reclaim_retry_asks_whether_everything_reclaimable_would_do(mm):
    file = mm.page_cache.open(2000)
    file.read(0, 2000)
    fill(mm, mask=QUIET | gfp.MEMALLOC)
    events = events_of(mm, ReclaimRetryZone)
    assert reclaim_retry(mm, 0, False, 0) == (True, 1)
    first = events[0]
    zone = mm.pgdat.node_zones[first.zone_idx]
    assert first.zone_idx == 1  # highest zone first, and it is enough
    assert len(events) == 1
    assert first.reclaimable == mm._vmscan.zone_reclaimable_pages(zone)
    assert first.available == first.reclaimable + zone.free_pages_snapshot()
    assert first.min_wmark == zone.watermark[0]
    # No block of order 1 is free, so no amount of order-0 pages helps order 1.
    assert not any(any(counts[1:]) for counts in mm.buddyinfo().values())
    del events[:]
    reclaim_retry(mm, 1, False, 0)
    assert [e.wmark_check for e in events] == [False, False]


def test_a_zone_without_reclaimable_pages_counts_its_free_pages_twice(mm):
    """``zone_reclaimable_pages()`` answers the free pages then, on top of which they are counted as free."""
    fill(mm)
    assert mm.alloc_pages(QUIET, 0) == -1
    events = events_of(mm, ReclaimRetryZone)
    assert reclaim_retry(mm, 0, False, 0) == (True, 1)
    (only,) = events
    assert only.reclaimable == mm.pgdat.node_zones[1].free_pages_snapshot()
    assert only.available == 2 * only.reclaimable


def test_before_it_gives_up_the_highatomic_reserve_is_returned(mm):
    pfn = mm.alloc_pages(gfp.GFP_ATOMIC, 3)
    fill(mm)
    taken = [mm.alloc_pages(gfp.GFP_ATOMIC | gfp.NOWARN, 3) for _ in range(400)]
    assert pfn >= 0
    assert taken[-1] == -1
    assert any(zone.nr_reserved_highatomic for zone in mm.pgdat.node_zones)
    # Free one page of a reserved block, so that there is something to move; the zone's last block, which the zone does
    # not span whole, would be given back and nothing moved, and the next one too.
    inside = [p for p in taken if p >= 0 and mm.pgdat.memory.pb[p >> 9] & 7 == pg.HIGHATOMIC]
    mm.free_pages(min(inside), 3)
    mm.drain_all_pages()
    before = sum(zone.nr_reserved_highatomic for zone in mm.pgdat.node_zones)
    for zone in mm.pgdat.node_zones:
        for mark in range(3):
            set_zone_field(mm, pg.Z_WMARK + mark, 1 << 30, zone.index)
    assert reclaim_retry(mm, 3, False, 0)[0] is True
    assert sum(zone.nr_reserved_highatomic for zone in mm.pgdat.node_zones) == before - 512
