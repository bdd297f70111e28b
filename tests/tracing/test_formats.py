"""What every tracepoint prints, beside text put together by hand from its ``TP_printk()`` in 6.1.192."""

from __future__ import annotations

import pytest

from mmfw.jit import page as pg
from mmfw.mm import trace as tp
from mmfw.proc.tracebody import Body, format_body, parse_body
from mmfw.tracing.bodies import (
    event_body,
    page_pointer,
    scan_symbol,
    shown_comm,
    shrinker_pointer,
    victim_body,
)
from mmfw.tracing.events import TRACEPOINTS
from mmfw.tracing.rows import row_body, row_locks
from mmfw.types import CompactPriority, CompactResult

SHRINKER = f"big_def_scan_objects+0x0/0x0 {shrinker_pointer('big_def')}"
PAGE = page_pointer(0x1A2B3)
TTM = 0x192CC2

EVENTS: dict[str, tuple[tp.TraceEvent, str]] = {
    "mm_vmscan_kswapd_sleep": (tp.MmVmscanKswapdSleep(1), "nid=1"),
    "mm_vmscan_kswapd_wake": (tp.MmVmscanKswapdWake(1, 2, 9), "nid=1 order=9"),
    "mm_vmscan_wakeup_kswapd": (
        tp.MmVmscanWakeupKswapd(1, 2, 9, TTM),
        "nid=1 order=9 gfp_flags=GFP_HIGHUSER|__GFP_NOWARN|__GFP_NORETRY|__GFP_NOMEMALLOC",
    ),
    "mm_vmscan_direct_reclaim_begin": (
        tp.MmVmscanDirectReclaimBegin(3, 0x140DCA),
        "order=3 gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO",
    ),
    "mm_vmscan_direct_reclaim_end": (tp.MmVmscanDirectReclaimEnd(34), "nr_reclaimed=34"),
    "mm_shrink_slab_start": (
        tp.MmShrinkSlabStart("big_def", 0, 7, 0xCC0, 5000, 2500, 2507, 12),
        f"{SHRINKER}: nid: 0 objects to shrink 7 gfp_flags GFP_KERNEL cache items 5000 delta 2500 total_scan 2507 "
        "priority 12",
    ),
    "mm_shrink_slab_end": (
        tp.MmShrinkSlabEnd("big_def", 0, 3, 4, -343, 128),
        f"{SHRINKER}: nid: 0 unused scan count 3 new scan count 4 total_scan -343 last shrinker return val 128",
    ),
    "mm_vmscan_lru_isolate": (
        tp.MmVmscanLruIsolate(2, 1, 9, 32, 33, 1, 30, 2),
        "isolate_mode=2 classzone=1 order=9 nr_requested=32 nr_scanned=33 nr_skipped=1 nr_taken=30 lru=inactive_file",
    ),
    "mm_vmscan_lru_shrink_inactive": (
        tp.MmVmscanLruShrinkInactive(0, 32, 21, 1, 2, 3, 4, 5, 6, 7, 8, 10, True),
        "nid=0 nr_scanned=32 nr_reclaimed=21 nr_dirty=1 nr_writeback=2 nr_congested=3 nr_immediate=4 "
        "nr_activate_anon=5 nr_activate_file=6 nr_ref_keep=7 nr_unmap_fail=8 priority=10 "
        "flags=RECLAIM_WB_FILE|RECLAIM_WB_ASYNC",
    ),
    "mm_vmscan_lru_shrink_active": (
        tp.MmVmscanLruShrinkActive(0, 32, 1, 30, 2, 12, False),
        "nid=0 nr_taken=32 nr_active=1 nr_deactivated=30 nr_referenced=2 priority=12 "
        "flags=RECLAIM_WB_ANON|RECLAIM_WB_ASYNC",
    ),
    "mm_vmscan_write_folio": (
        tp.MmVmscanWriteFolio(0x1A2B3, False),
        f"page={PAGE} pfn=0x1a2b3 flags=RECLAIM_WB_ANON|RECLAIM_WB_ASYNC",
    ),
    "mm_vmscan_throttled": (
        tp.MmVmscanThrottled(0, 100_000, 4000, 2),
        "nid=0 usec_timeout=100000 usect_delayed=4000 reason=VMSCAN_THROTTLE_NOPROGRESS",
    ),
    "mm_compaction_begin": (
        tp.MmCompactionBegin(0x1000, 0x1200, 0x1FE00, 0x20000, False),
        "zone_start=0x1000 migrate_pfn=0x1200 free_pfn=0x1fe00 zone_end=0x20000, mode=async",
    ),
    "mm_compaction_end": (
        tp.MmCompactionEnd(0x1000, 0x1200, 0x1FE00, 0x20000, True, CompactResult.PARTIAL_SKIPPED),
        "zone_start=0x1000 migrate_pfn=0x1200 free_pfn=0x1fe00 zone_end=0x20000, mode=sync status=partial_skipped",
    ),
    "mm_compaction_try_to_compact_pages": (
        tp.MmCompactionTryToCompactPages(9, 0x1C24CA, CompactPriority.SYNC_LIGHT),
        "order=9 gfp_mask=GFP_TRANSHUGE priority=1",
    ),
    "mm_compaction_suitable": (
        tp.MmCompactionSuitable(0, 0, 9, CompactResult.SKIPPED),
        "node=0 zone=DMA      order=9 ret=skipped",
    ),
    "mm_compaction_finished": (
        tp.MmCompactionFinished(0, 2, 9, CompactResult.NO_SUITABLE_PAGE),
        "node=0 zone=Normal   order=9 ret=no_suitable_page",
    ),
    "mm_compaction_deferred": (
        tp.MmCompactionDeferred(0, 1, 9, 4, 3, 6),
        "node=0 zone=DMA32    order=9 order_failed=4 consider=3 limit=64",
    ),
    "mm_compaction_defer_compaction": (
        tp.MmCompactionDeferCompaction(0, 3, 9, 4, 0, 0),
        "node=0 zone=Movable  order=9 order_failed=4 consider=0 limit=1",
    ),
    "mm_compaction_defer_reset": (
        tp.MmCompactionDeferReset(0, 4, 9, 10, 0, 1),
        "node=0 zone=0x4      order=9 order_failed=10 consider=0 limit=2",
    ),
    "mm_compaction_kcompactd_sleep": (tp.MmCompactionKcompactdSleep(0), "nid=0"),
    # The kernel pads the zone's name although nothing follows.
    "mm_compaction_wakeup_kcompactd": (
        tp.MmCompactionWakeupKcompactd(0, 9, 1),
        "nid=0 order=9 classzone_idx=DMA32   ",
    ),
    "mm_compaction_kcompactd_wake": (
        tp.MmCompactionKcompactdWake(0, 9, 2),
        "nid=0 order=9 classzone_idx=Normal  ",
    ),
    "reclaim_retry_zone": (
        tp.ReclaimRetryZone(0, 1, 3, 100, 200, 50, 7, True),
        "node=0 zone=DMA32    order=3 reclaimable=100 available=200 min_wmark=50 no_progress_loops=7 wmark_check=1",
    ),
    "compact_retry": (
        tp.CompactRetry(3, CompactPriority.SYNC_FULL, CompactResult.COMPLETE, 1, 16, False),
        "order=3 priority=COMPACT_PRIO_SYNC_FULL compaction_result=failed retries=1 max_retries=16 should_retry=0",
    ),
}

#: Rows: kind and five values; what they print; preemption depth from locks.
ROWS: dict[str, tuple[tuple[int, ...], str, int]] = {
    "mm_page_alloc": (
        (pg.TR_PAGE_ALLOC, 0x1A2B3, 0, 1, 0x1100DCA, 0),
        f"page={PAGE} pfn=0x1a2b3 order=0 migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_ZERO|0x1000000",
        0,
    ),
    "mm_page_free": ((pg.TR_PAGE_FREE, 0x1A2B3, 9, 0, 0, 0), f"page={PAGE} pfn=0x1a2b3 order=9", 0),
    "mm_page_alloc_zone_locked": (
        (pg.TR_ZONE_LOCKED, 0x1A2B3, 9, 0, 1, 0),
        f"page={PAGE} pfn=0x1a2b3 order=9 migratetype=0 percpu_refill=1",
        3,
    ),
    "mm_page_pcpu_drain": (
        (pg.TR_PCPU_DRAIN, 0x1A2B3, 0, 2, 0, 0),
        f"page={PAGE} pfn=0x1a2b3 order=0 migratetype=2",
        3,
    ),
    "mm_page_alloc_extfrag": (
        (pg.TR_EXTFRAG, 0x1A2B3, 0, 8, 0, 1),
        f"page={PAGE} pfn=0x1a2b3 alloc_order=0 fallback_order=8 pageblock_order=9 alloc_migratetype=0 "
        "fallback_migratetype=1 fragmenting=1 change_ownership=1",
        3,
    ),
    "mm_compaction_migratepages": ((pg.TR_MIGRATEPAGES, 30, 2, 0, 0, 0), "nr_migrated=30 nr_failed=2", 0),
    "mm_compaction_isolate_migratepages": (
        (pg.TR_ISOLATE_MIGRATEPAGES, 0x1000, 0x1200, 512, 32, 1),
        "range=(0x1000 ~ 0x1200) nr_scanned=512 nr_taken=32",
        0,
    ),
    "mm_compaction_isolate_freepages": (
        (pg.TR_ISOLATE_FREEPAGES, 0x1FE00, 0x1FF00, 256, 0, 0),
        "range=(0x1fe00 ~ 0x1ff00) nr_scanned=256 nr_taken=0",
        0,
    ),
}


def test_every_tracepoint_is_checked_here() -> None:
    names = [each.name for each in TRACEPOINTS]
    assert len(set(names)) == len(names)
    assert set(names) == EVENTS.keys() | ROWS.keys() | {"mark_victim"}
    assert all((each.event is None) != (each.row is None) for each in TRACEPOINTS)
    kinds = [each.row for each in TRACEPOINTS if each.row is not None]
    assert len(set(kinds)) == len(kinds)


def same_again(body: Body, text: str) -> None:
    assert format_body(body) == text
    assert parse_body(type(body), text) == body


@pytest.mark.parametrize("name", EVENTS)
def test_event_prints_what_the_kernel_prints(name: str) -> None:
    event, text = EVENTS[name]
    tracepoint = next(each for each in TRACEPOINTS if each.name == name)
    assert tracepoint.event is type(event)
    body = event_body(event)
    assert type(body) is tracepoint.body
    same_again(body, text)


@pytest.mark.parametrize("name", ROWS)
def test_row_prints_what_the_kernel_prints(name: str) -> None:
    row, text, locks = ROWS[name]
    tracepoint = next(each for each in TRACEPOINTS if each.name == name)
    assert tracepoint.row == row[0]
    body = row_body(row, lambda pfn: 0)
    assert type(body) is tracepoint.body
    same_again(body, text)
    assert row_locks(row) == locks


def test_a_failed_request_has_a_null_page_and_pfn_0() -> None:
    body = row_body((pg.TR_PAGE_ALLOC, -1, 9, 0, TTM, 0), lambda pfn: 0)
    assert format_body(body) == (
        "page=0000000000000000 pfn=0x0 order=9 migratetype=0 "
        "gfp_flags=GFP_HIGHUSER|__GFP_NOWARN|__GFP_NORETRY|__GFP_NOMEMALLOC"
    )


@pytest.mark.parametrize(
    ("fallback_order", "block_type", "said"),
    [
        (8, 1, "fragmenting=1 change_ownership=0"),
        (9, 0, "fragmenting=0 change_ownership=1"),
        (10, 1, "fragmenting=0 change_ownership=0"),
    ],
)
def test_extfrag_says_what_became_of_the_block(fallback_order: int, block_type: int, said: str) -> None:
    body = row_body((pg.TR_EXTFRAG, 0x1000, 0, fallback_order, 0, 1), lambda pfn: block_type)
    assert format_body(body).endswith(said)


@pytest.mark.parametrize(
    ("row", "locks"),
    [
        ((pg.TR_ZONE_LOCKED, 1, 4, 0, 0, 0), 1),  # rmqueue_buddy(): zone->lock only
        ((pg.TR_EXTFRAG, 1, 4, 9, 0, 1), 1),
        ((pg.TR_EXTFRAG, 1, 3, 9, 0, 1), 3),  # rmqueue_bulk(): a pinned CPU and the list's lock too
        ((pg.TR_EXTFRAG, 1, 0, 9, 3, 1), 1),  # HighAtomic pages are on no per-CPU list
        ((pg.TR_EXTFRAG, 1, 9, 10, 1, 0), 3),
    ],
)
def test_locks_held_where_blocks_move(row: tuple[int, ...], locks: int) -> None:
    assert row_locks(row) == locks


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (CompactResult.COMPLETE, "failed"),
        (CompactResult.DEFERRED, "withdrawn"),
        (CompactResult.CONTENDED, "withdrawn"),
        (CompactResult.PARTIAL_SKIPPED, "withdrawn"),
        (CompactResult.SKIPPED, "progress"),
        (CompactResult.SUCCESS, "progress"),
        (CompactResult.CONTINUE, "progress"),
        (CompactResult.NO_SUITABLE_PAGE, "progress"),
        (CompactResult.NOT_SUITABLE_ZONE, "progress"),
    ],
)
def test_feedback_of_a_compaction(result: CompactResult, said: str) -> None:
    body = event_body(tp.CompactRetry(3, CompactPriority.ASYNC, result, 0, 16, True))
    assert format_body(body) == (
        f"order=3 priority=COMPACT_PRIO_ASYNC compaction_result={said} retries=0 max_retries=16 should_retry=1"
    )


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (CompactResult.NOT_SUITABLE_ZONE, "not_suitable_zone"),
        (CompactResult.SKIPPED, "skipped"),
        (CompactResult.DEFERRED, "deferred"),
        (CompactResult.NO_SUITABLE_PAGE, "no_suitable_page"),
        (CompactResult.CONTINUE, "continue"),
        (CompactResult.COMPLETE, "complete"),
        (CompactResult.PARTIAL_SKIPPED, "partial_skipped"),
        (CompactResult.CONTENDED, "contended"),
        (CompactResult.SUCCESS, "success"),
    ],
)
def test_status_of_a_compaction(result: CompactResult, said: str) -> None:
    body = event_body(tp.MmCompactionFinished(0, 2, 9, result))
    assert format_body(body) == f"node=0 zone=Normal   order=9 ret={said}"
    assert len(CompactResult) == 9


@pytest.mark.parametrize(
    ("number", "name"), list(enumerate(["WRITEBACK", "ISOLATED", "NOPROGRESS", "CONGESTED"]))
)
def test_reason_of_a_throttle(number: int, name: str) -> None:
    body = event_body(tp.MmVmscanThrottled(0, 1, 1, number))
    assert format_body(body).endswith(f" reason=VMSCAN_THROTTLE_{name}")


@pytest.mark.parametrize(
    ("number", "name"),
    list(enumerate(["inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"])),
)
def test_names_of_lists(number: int, name: str) -> None:
    body = event_body(tp.MmVmscanLruIsolate(0, 1, 0, 1, 1, 0, 1, number))
    assert format_body(body).endswith(f" lru={name}")


def test_a_victim_without_mappings() -> None:
    assert format_body(victim_body(7, ())) == (
        "pid=7 comm=<...> total-vm=0kB anon-rss=0kB file-rss:0kB shmem-rss:0kB uid=0 pgtables=0kB oom_score_adj=0"
    )


def test_names_and_pointers_are_what_the_kernel_could_print() -> None:
    assert scan_symbol("drm-ttm_pool é\n") == "drm_ttm_pool____scan_objects+0x0/0x0"
    assert shown_comm("webgl-aquarium-client-3") == "webgl-aquarium-"
    assert shown_comm("tâche\n\x07 ") == "t?che??"
    assert shown_comm(" \t ") == "?"
    assert shown_comm("  ") == "<...>"
    pointers = [page_pointer(pfn) for pfn in range(0, 1 << 20, 97)]
    assert len(set(pointers)) == len(pointers)
    assert {len(pointer) for pointer in pointers} == {16}
    assert "0" * 16 not in pointers  # that would be NULL
    assert shrinker_pointer("a") != shrinker_pointer("b")
    assert len(shrinker_pointer("a")) == 16
