"""When compaction runs, when it ends, and what it remembers of zones and blocks (mm/compaction.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import (
    MOVABLE,
    MSEC,
    QUIET,
    SEC,
    events_of,
    fill,
    fragment,
    free_area,
    grown,
    pin_all,
    set_zone_field,
    take_large,
    unboosted,
    zone_field,
)
from mmfw import gfp
from mmfw.jit import compact_control as cct
from mmfw.jit import page as pg
from mmfw.kernels import KERNEL_6_1
from mmfw.mm.compact_fields import load_control
from mmfw.mm.fragmentation import extfrag_for_order, fragmentation_index, unusable_free_index
from mmfw.mm.trace import (
    MmCompactionBegin,
    MmCompactionDeferCompaction,
    MmCompactionDeferReset,
    MmCompactionEnd,
    MmCompactionFinished,
    MmCompactionSuitable,
)
from mmfw.sched import WaitQueue
from mmfw.types import CompactControl, CompactPriority, CompactResult, MigrateMode

KERNEL = gfp.GFP_KERNEL | gfp.NOWARN
R, P = CompactResult, CompactPriority


@pytest.fixture
def mm():
    return unboosted()


def suitable(mm, order, flags=pg.ALLOC_WMARK_MIN, hzi=2, zone=1):
    return mm.compaction.compaction_suitable(mm.pgdat.node_zones[zone], order, flags, hzi)


def leave(mm, nr_free, order_0_only=True):
    """Leave exactly so many pages of DMA32 free, as single pages."""
    held = fill(mm, mask=QUIET | gfp.MEMALLOC)
    odd = held[(held % 2 == 1) & (held >= 4096)] if order_0_only else held
    mm.free_pages_batch(odd[:nr_free], 0)
    mm.drain_all_pages()
    assert mm.pgdat.node_zones[1].free_pages_snapshot() == nr_free
    return held


# --- suitability --------------------------------------------------------------------------------------------


def test_nothing_to_do_where_the_request_would_be_met(mm):
    assert suitable(mm, 9) == R.SUCCESS


@pytest.mark.parametrize(
    ("order", "mark", "gap"),
    [(1, 0, 4), (3, 0, 16), (4, 1, 32), (9, 1, 1024)],
    ids=["order 1: min", "order 3: min", "order 4: low", "order 9: low"],
)
def test_order_0_pages_it_needs(mm, order, mark, gap):
    """More than min (a costly order: low) plus twice the request."""
    zone = mm.pgdat.node_zones[1]
    needed = zone.watermark[mark] + gap + zone.lowmem_reserve[2]
    for nr_free, expected in ((needed, R.SKIPPED), (needed + 1, R.CONTINUE)):
        other = unboosted()
        leave(other, nr_free)
        other.pgdat.memory.S[other.pgdat.memory.zone_offset(1) + pg.Z_FREE] = nr_free
        assert suitable(other, order) == expected


def test_a_costly_request_that_lacks_memory_rather_than_order_is_no_case_for_compaction(mm):
    """fragmentation_index of order 9, F free pages all single: 1000 - (1000 + F*1000/512)/F, near 998."""
    leave(mm, 3000)
    assert fragmentation_index([3000] + [0] * 10, 9) == 998
    assert suitable(mm, 9) == R.CONTINUE


def test_few_large_blocks_are_lack_of_memory(mm):
    """Seven blocks of order 8: 1000 - (1000 + 1792*1000/512)/7 = 358, at most the threshold of 500."""
    held = fill(mm, mask=QUIET | gfp.MEMALLOC)
    blocks, sizes = np.unique(held[held >= 4096] >> 9, return_counts=True)
    for block in blocks[sizes == 512][:7]:
        mm.free_pages_batch(held[(held >> 9 == block) & (held & 511 < 256)], 0)
    mm.drain_all_pages()
    counts = [mm.pgdat.node_zones[1].nr_free(order) for order in range(11)]
    assert fragmentation_index(counts, 9) == 358
    events = events_of(mm, MmCompactionSuitable)
    assert suitable(mm, 9) == R.SKIPPED
    assert events[0].ret == R.NOT_SUITABLE_ZONE  # the event tells it from too few order-0 pages
    assert suitable(mm, 3) == R.SUCCESS


def test_indices_of_worked_examples():
    # 1000 single pages: an order-3 request fails of fragmentation; of lack if there are few pages in large blocks.
    assert fragmentation_index([1000] + [0] * 10, 3) == 1000 - (1000 + 125_000) // 1000
    assert fragmentation_index([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 9) == 1000 - (1000 + 500) // 1
    assert fragmentation_index([0] * 9 + [1, 0], 9) == -1000
    assert fragmentation_index([0] * 11, 9) == 0
    assert unusable_free_index([512] + [0] * 8 + [1, 0], 9) == 500
    assert unusable_free_index([0] * 11, 9) == 1000
    assert extfrag_for_order([512 * 3] + [0] * 8 + [1, 0], 9) == 75
    assert extfrag_for_order([0] * 11, 9) == 0


# --- deferral ---------------------------------------------------------------------------------------------------


def test_deferral_doubles_up_to_64_and_is_forgotten_after_a_success(mm):
    deferral, zone = mm.compaction.deferral, mm.pgdat.node_zones[1]
    assert not deferral.compaction_deferred(zone, 9)
    passed_over = []
    for _ in range(8):
        deferral.defer_compaction(zone, 9)
        n = 0
        while deferral.compaction_deferred(zone, 9):
            n += 1
        passed_over.append(n)
    assert passed_over == [1, 3, 7, 15, 31, 63, 63, 63]
    assert deferral.compaction_restarting(zone, 9)
    assert deferral.compaction_restarting(zone, 10)
    deferral.compaction_defer_reset(zone, 9, False)
    assert not deferral.compaction_deferred(zone, 9)  # order_failed is 10 now
    assert deferral.compaction_deferred(zone, 10) is False  # considered is at its limit
    assert zone_field(mm, pg.Z_DEFER_SHIFT) == 6
    deferral.compaction_defer_reset(zone, 10, True)
    assert (zone_field(mm, pg.Z_DEFER_SHIFT), zone_field(mm, pg.Z_CONSIDERED)) == (0, 0)


def test_an_order_below_the_one_that_failed_is_not_deferred(mm):
    deferral, zone = mm.compaction.deferral, mm.pgdat.node_zones[1]
    set_zone_field(mm, pg.Z_ORDER_FAILED, 11)
    deferral.defer_compaction(zone, 5)
    deferral.defer_compaction(zone, 7)
    assert zone_field(mm, pg.Z_ORDER_FAILED) == 5
    assert not deferral.compaction_deferred(zone, 4)
    assert deferral.compaction_deferred(zone, 5)


def test_direct_compaction_defers_only_where_it_did_not_merely_try_lightly(mm):
    pin_all(mm)
    fragment(mm, 16)
    take_large(mm, 4)
    events = events_of(mm, MmCompactionDeferCompaction, MmCompactionDeferReset)
    compact = mm.compaction.try_to_compact_pages
    assert compact(KERNEL, 9, 0, 2, P.ASYNC)[0] in (R.COMPLETE, R.PARTIAL_SKIPPED)
    assert events == []
    assert compact(KERNEL, 9, 0, 2, P.SYNC_LIGHT)[0] in (R.COMPLETE, R.PARTIAL_SKIPPED)
    assert [type(e).__name__ for e in events] == ["MmCompactionDeferCompaction"] * len(events)
    assert {e.zone_idx for e in events} >= {1}
    # Deferred now, unless the request tries its hardest.
    assert compact(KERNEL, 9, 0, 2, P.SYNC_LIGHT)[0] == R.DEFERRED
    assert compact(KERNEL, 9, 0, 2, P.SYNC_FULL)[0] == R.COMPLETE


# --- the end of a run ----------------------------------------------------------------------------------------------


def finish(mm, order, migratetype, migrate_pfn=None, **changes):
    """``__compact_finished()`` for a run whose migrate scanner stands at a pfn."""
    zone = mm.pgdat.node_zones[1]
    run = mm.compaction._run(
        CompactControl(
            zone, order, KERNEL, migratetype, 0, 2, MigrateMode.SYNC_LIGHT, search_order=order, **changes
        )
    )
    run.control.migrate_pfn = zone.zone_start_pfn if migrate_pfn is None else migrate_pfn
    run.control.free_pfn = (zone.zone_end_pfn - 1) & -512
    load_control(run._cc, run.control, 1, KERNEL_6_1)
    run._cc[cct.CC_MIGRATETYPE] = migratetype
    return run._compact_finished(zone, mm.pgdat.memory.zone_offset(1))


def only_free(mm, order, migratetype):
    """Leave one block of an order free, on the list of a type."""
    taken = []
    wanted = -1
    memory = mm.pgdat.memory
    while (pfn := mm.alloc_pages(QUIET | gfp.MEMALLOC | gfp.DMA32, 9)) >= 0:
        if wanted < 0 and pfn >= 4096:
            wanted = pfn
        taken.append(pfn)
    fill(mm, mask=QUIET | gfp.MEMALLOC)
    mm.split_page(wanted, 9)
    block = wanted >> 9
    memory.pb[block] = (int(memory.pb[block]) & ~7) | migratetype
    mm.free_pages_batch(np.arange(wanted, wanted + (1 << order), dtype=np.int64), 0)
    mm.drain_all_pages()
    assert free_area(mm, order, migratetype) == [wanted]


@pytest.mark.parametrize(
    ("order", "wanted", "free_order", "free_type", "done"),
    [
        (4, pg.UNMOVABLE, 4, pg.UNMOVABLE, True),
        (4, pg.UNMOVABLE, 3, pg.UNMOVABLE, False),
        # Unmovable and Reclaimable steal any block, so any will do.
        (2, pg.UNMOVABLE, 2, pg.MOVABLE, True),
        (2, pg.RECLAIMABLE, 2, pg.MOVABLE, True),
        # Movable steals from order 4 on only.
        (2, pg.MOVABLE, 3, pg.UNMOVABLE, False),
        (2, pg.MOVABLE, 4, pg.UNMOVABLE, True),
        # HighAtomic is nobody's fallback.
        (2, pg.UNMOVABLE, 5, pg.HIGHATOMIC, False),
    ],
)
def test_a_run_ends_when_a_block_is_free_that_the_request_would_take(
    mm, order, wanted, free_order, free_type, done
):
    only_free(mm, free_order, free_type)
    events = events_of(mm, MmCompactionFinished)
    assert finish(mm, order, wanted) == (R.SUCCESS if done else R.CONTINUE)
    assert events[-1].ret == (R.SUCCESS if done else R.NO_SUITABLE_PAGE)


def test_in_the_midst_of_a_block_nothing_is_looked_at(mm):
    assert finish(mm, 4, pg.UNMOVABLE) == R.SUCCESS
    start = mm.pgdat.node_zones[1].zone_start_pfn
    assert finish(mm, 4, pg.UNMOVABLE, migrate_pfn=start + 32) == R.CONTINUE


def test_scanners_that_meet_end_a_whole_run_as_complete_and_ask_for_new_skip_bits(mm):
    zone = mm.pgdat.node_zones[1]
    end = (zone.zone_end_pfn - 1) & -512
    assert finish(mm, 9, 0, migrate_pfn=end) == R.PARTIAL_SKIPPED
    assert zone_field(mm, pg.Z_BLOCKSKIP_FLUSH) == 0  # only a direct compactor asks
    assert finish(mm, 9, 0, migrate_pfn=end, whole_zone=True, direct_compaction=True) == R.COMPLETE
    assert zone_field(mm, pg.Z_BLOCKSKIP_FLUSH) == 1
    assert (
        zone_field(mm, pg.Z_CACHED_MIGRATE) == zone_field(mm, pg.Z_CACHED_MIGRATE + 1) == zone.zone_start_pfn
    )
    assert zone_field(mm, pg.Z_CACHED_FREE) == end


def test_before_the_first_reset_of_skip_bits_a_full_sweep_is_only_partial(mm):
    pin_all(mm)
    fragment(mm, 16)
    take_large(mm, 4)
    ends = events_of(mm, MmCompactionBegin, MmCompactionEnd)
    mm.compaction.try_to_compact_pages(KERNEL, 9, 0, 1, P.SYNC_LIGHT)
    begin, end = (e for e in ends if e.zone_start == 4096)
    assert begin.migrate_pfn == 4096
    assert begin.sync
    assert end.status == R.PARTIAL_SKIPPED


def test_blocks_without_anything_to_move_are_skipped_next_time(mm):
    """The kept pages are on no LRU, so every block is marked; nothing is scanned again until the marks are reset."""
    pin_all(mm)
    fragment(mm, 16, mask=MOVABLE)
    take_large(mm, 4)

    def skip():
        return sum(1 for each in mm.pgdat.memory.pb[8:] if each & pg.PB_SKIP)

    assert skip() == 0
    before = mm.vmstat.as_dict()
    mm.compaction.try_to_compact_pages(KERNEL, 9, 0, 1, P.SYNC_LIGHT)
    first = grown(mm, before)["compact_migrate_scanned"]
    assert skip() > 20
    for zone in (0, 1):
        set_zone_field(mm, pg.Z_DEFER_SHIFT, 0, zone)
    before = mm.vmstat.as_dict()
    mm.compaction.try_to_compact_pages(KERNEL, 9, 0, 1, P.SYNC_LIGHT)
    assert grown(mm, before).get("compact_migrate_scanned", 0) < first // 10
    # kswapd is to reset them before it sleeps, since a direct compactor saw its scanners meet.
    assert zone_field(mm, pg.Z_BLOCKSKIP_FLUSH) == 1


def reset_by_the_spec(mm, skip):
    """Section 9 of compaction.md over one zone: skip bits left, and where the scanners start."""
    memory, start, end = mm.pgdat.memory, 4096, mm.pgdat.node_zones[1].zone_end_pfn

    def words(pfn):
        first = max(pfn & -512, start)
        return [int(memory.page[4 * p + pg.WORD]) for p in range(first, min((pfn & -512) + 512, end), 8)]

    def helps(pfn, source, target):
        block = pfn >> 9
        if source and target and not skip[block]:
            return True
        if target and not source and memory.pb[block] & 7 != pg.MOVABLE:
            return False
        for each in words(pfn):
            kind = each & pg.TYPE_MASK
            if (source and kind == pg.T_ALLOC and each & pg.PG_LRU) or (target and kind == pg.T_BUDDY):
                skip[block] = False
                return True
        return False

    migrate, free = start, end - 1
    first_migrate, first_free = [], []
    while migrate < free:
        if helps(migrate, True, bool(first_migrate)) and not first_migrate:
            first_migrate.append(migrate)
        if helps(free, bool(first_free), True) and not first_free:
            first_free.append(free)
        migrate, free = migrate + 512, free - 512
    return skip, first_migrate, first_free


@pytest.mark.parametrize("seed", range(6))
def test_the_marks_are_reset_from_both_ends_where_a_sample_of_every_eighth_page_promises_something(seed):
    mm = unboosted(seed=seed)
    rng = np.random.default_rng(seed)
    fragment(mm, 4 + seed, mask=MOVABLE if seed % 2 else QUIET)
    mm.page_cache.open(40).read(0, 40)
    memory = mm.pgdat.memory
    marks = rng.random(len(memory.pb)) < 0.8
    memory.pb[:] = np.where(
        marks, memory.pb | np.uint32(pg.PB_SKIP), memory.pb & np.uint32(~pg.PB_SKIP & 0xFFFFFFFF)
    )
    expected, first_migrate, first_free = reset_by_the_spec(
        mm, {b: bool(marks[b]) for b in range(len(marks))}
    )
    set_zone_field(mm, pg.Z_CACHED_MIGRATE, 123)
    mm.compaction.reset_isolation_suitable()
    assert zone_field(mm, pg.Z_CACHED_MIGRATE) == 123  # nobody asked for it yet
    set_zone_field(mm, pg.Z_BLOCKSKIP_FLUSH, 1)
    mm.compaction.reset_isolation_suitable()
    assert zone_field(mm, pg.Z_BLOCKSKIP_FLUSH) == 0
    last = mm.pgdat.node_zones[1].zone_end_pfn >> 9
    assert [bool(each & pg.PB_SKIP) for each in memory.pb[8:last]] == [expected[b] for b in range(8, last)]
    if first_migrate and first_free and first_migrate[0] < first_free[0]:
        assert zone_field(mm, pg.Z_CACHED_MIGRATE) == zone_field(mm, pg.Z_INIT_MIGRATE) == first_migrate[0]
        # The free scanner starts at the last page of the block, not at its first (a quirk of 6.1).
        assert zone_field(mm, pg.Z_CACHED_FREE) == zone_field(mm, pg.Z_INIT_FREE) == first_free[0]


def test_who_gets_the_cpu_before_the_marks_are_reset_finds_the_wish_taken_back_and_the_scanners_in_place():
    """A kcompactd that kswapd has just woken runs at the first cond_resched() of ``__reset_isolation_suitable()``."""
    mm = unboosted()
    mm.start_time()
    fragment(mm, 4)
    seen = []
    queue = WaitQueue(mm.sched, "test")

    def woken():
        queue.wait_event(lambda: bool(seen))
        seen.append((zone_field(mm, pg.Z_BLOCKSKIP_FLUSH), zone_field(mm, pg.Z_CACHED_MIGRATE)))

    def kswapd():
        mm.sched.sleep(100 * MSEC)
        mm.charge(10 * MSEC, "test")
        set_zone_field(mm, pg.Z_CACHED_MIGRATE, 123)
        set_zone_field(mm, pg.Z_BLOCKSKIP_FLUSH, 1)
        seen.append("asked")
        queue.wake_up()
        mm.compaction.reset_isolation_suitable()
        seen.append((zone_field(mm, pg.Z_BLOCKSKIP_FLUSH), zone_field(mm, pg.Z_CACHED_MIGRATE) == 123))

    mm.sched.spawn(woken, name="woken", daemon=True)
    mm.sched.spawn(kswapd, name="waker", daemon=True)
    mm.sched.run(mm.sched.now + SEC)
    assert seen == ["asked", (0, 123), (0, False)]


def test_sync_full_ignores_the_marks(mm):
    pin_all(mm)
    fragment(mm, 16)
    take_large(mm, 4)
    mm.pgdat.memory.pb[:] |= np.uint32(pg.PB_SKIP)
    before = mm.vmstat.as_dict()
    mm.compaction.try_to_compact_pages(KERNEL, 9, 0, 1, P.SYNC_LIGHT)
    light = grown(mm, before).get("compact_migrate_scanned", 0)
    before = mm.vmstat.as_dict()
    mm.compaction.try_to_compact_pages(KERNEL, 9, 0, 1, P.SYNC_FULL)
    assert grown(mm, before)["compact_migrate_scanned"] > 5 * light
