"""Compaction moves pages: the owner sees the new place, what may not move stays, a captured block skips the lists."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import (
    MOVABLE,
    QUIET,
    SEC,
    events_of,
    file_pfns,
    fill,
    free_area,
    grown,
    lru,
    run,
    set_word,
    set_zone_field,
    take_large,
    unboosted,
    word,
)
from mmfw import gfp
from mmfw.jit import compact_control as control
from mmfw.jit import compact_migrate, compact_run
from mmfw.jit import lru as jit_lru
from mmfw.jit import page as pg
from mmfw.mm.trace import MmCompactionEnd
from mmfw.types import CompactPriority, CompactResult

KERNEL = gfp.GFP_KERNEL | gfp.NOWARN
SYNC_LIGHT, ASYNC = CompactPriority.SYNC_LIGHT, CompactPriority.ASYNC


@pytest.fixture
def mm():
    mm = unboosted()
    for which in range(pg.NR_LRU_LISTS):
        set_word(mm, lru(mm, which), on=pg.PG_PINNED)
    return mm


def striped(mm, keep=3, spare=400):
    """A mapping over nearly all memory, of which every keep-th page stays: free pages between movable ones."""
    mm.alloc_pages_batch(QUIET | gfp.MEMALLOC | gfp.DMA, 0, 4000)
    mm.drain_all_pages()
    n = mm.pgdat.node_zones[1].free_pages_snapshot() - spare
    vma = mm.mmap_anonymous(n)
    assert vma.touch(0, n) == n
    index = np.arange(n)
    vma.madvise_dontneed(index[index % keep != 0])
    mm.drain_all_pages()
    assert not any(mm.buddyinfo()["DMA32"][9:])
    return vma, index[index % keep == 0]


def places(mm, vma):
    return {i: int(w) for i, w in enumerate(mm.rmap.part(vma.base_slot, vma.nr_pages)) if w < pg.SLOT_SHADOW}


def test_pages_move_their_owner_sees_it_and_none_is_lost(mm):
    vma, kept = striped(mm)
    total = mm.check_memory()
    before = places(mm, vma)
    counters = mm.vmstat.as_dict()
    pfn = mm.alloc_pages(KERNEL, 9)
    assert pfn >= 0
    after = places(mm, vma)
    assert sorted(after) == sorted(before) == kept.tolist()
    moved = [i for i in before if before[i] != after[i]]
    change = grown(mm, counters)
    assert len(moved) > 0
    assert change["pgmigrate_success"] >= len(moved)
    assert len(set(after.values())) == len(after)
    for i in after:
        owner, index = mm.rmap.owner_of(after[i])
        assert (owner, index) == (vma, i)
        assert word(mm, after[i]) & pg.PG_LRU
    assert not any(pfn <= p < pfn + 512 for p in after.values())
    assert mm.check_memory(total) == total
    assert change["compact_success"] == 1
    assert change["compact_stall"] == 1 + change.get("compact_fail", 0)


def test_flags_and_age_move_along(mm):
    vma, _ = striped(mm)
    pfns = np.array(sorted(places(mm, vma).values()))
    set_word(mm, pfns[:50], on=pg.PG_REFERENCED | pg.PG_WORKINGSET | pg.PTE_YOUNG)
    by_index = {i: word(mm, p) for i, p in places(mm, vma).items()}
    mm.compact_memory()
    after = places(mm, vma)
    keep = 0xFFFFF800
    assert {i: word(mm, p) & keep for i, p in after.items()} == {i: w & keep for i, w in by_index.items()}
    assert mm.vmstat.as_dict()["pgmigrate_success"] > 1000


def test_full_compaction_gathers_what_can_move_at_the_top(mm):
    vma, _ = striped(mm)
    free = mm.global_free_pages()
    mm.compact_memory()
    mm.drain_all_pages()
    assert mm.global_free_pages() == free
    assert sum(mm.buddyinfo()["DMA32"][9:]) >= 5
    ends = sorted(places(mm, vma).values())
    assert np.median(ends) > 4096 + (mm.pgdat.node_zones[1].zone_end_pfn - 4096) // 2


@pytest.mark.parametrize("flag", [pg.PG_LOCKED, pg.PG_PINNED], ids=["locked", "pinned"])
def test_a_page_that_is_held_stays_and_goes_back_on_its_list(mm, flag):
    vma, _ = striped(mm)
    held = sorted(places(mm, vma).values())[:200]
    set_word(mm, held, on=flag)
    lists = {p: next(w for w in range(5) if p in set(lru(mm, w))) for p in held[:5]}
    before = mm.vmstat.as_dict()
    mm.compact_memory()
    now = set(places(mm, vma).values())
    assert now >= set(held)
    for p, which in lists.items():
        assert p in lru(mm, which)
    failed = grown(mm, before).get("pgmigrate_fail", 0)
    # A pinned anonymous page is not even isolated. The initramfs, which the fixture has pinned, is; and a run may fail
    # once a zone when its scanners meet.
    assert (
        (failed <= mm.initramfs_pages + 2)
        if flag == pg.PG_PINNED
        else (failed >= mm.initramfs_pages // 2 + 200)
    )
    mm.check_memory()


def test_async_does_not_take_pages_under_writeback_and_sync_light_fails_on_none_of_them(mm):
    vma, _ = striped(mm)
    busy = sorted(places(mm, vma).values())[:300]
    set_word(mm, busy, on=pg.PG_WRITEBACK)
    for prio in (ASYNC, SYNC_LIGHT):
        mm.compaction.try_to_compact_pages(KERNEL | gfp.MOVABLE, 9, 0, 1, prio)
    assert set(places(mm, vma).values()) >= set(busy)


def test_without_fs_file_pages_stay_and_anonymous_ones_move(mm):
    file = mm.page_cache.open(6000, gfp_mask=gfp.GFP_HIGHUSER_MOVABLE)
    file.read(0, 6000)
    vma = mm.mmap_anonymous(8000)
    vma.touch(0, 8000)
    file_before = file_pfns(mm, file)
    vma.madvise_dontneed(np.flatnonzero(np.arange(8000) % 4))
    mm.drain_all_pages()
    anon_before = places(mm, vma)
    for zone in (0, 1):
        set_zone_field(mm, pg.Z_DEFER_SHIFT, 0, zone)
    mm.compaction.try_to_compact_pages(gfp.GFP_NOFS | gfp.NOWARN, 10, 0, 1, CompactPriority.SYNC_FULL)
    assert file_pfns(mm, file) == file_before
    assert places(mm, vma) != anon_before
    mm.compact_memory()
    assert file_pfns(mm, file) != file_before


def test_huge_pages_are_passed_over(mm):
    huge = mm.mmap_anonymous(512 * 4, thp=True)
    huge.touch(0, 512 * 4)
    before = places(mm, huge)
    assert mm.vmstat.as_dict()["thp_fault_alloc"] == 4
    striped(mm)
    mm.compact_memory()
    assert places(mm, huge) == before


# --- capture ------------------------------------------------------------------------------------------------------


def test_a_block_the_compactor_makes_is_handed_to_it_and_its_type_stays(mm):
    """Order 9 captures from any block; the request takes it though the free lists and watermarks are bypassed."""
    striped(mm)
    ends = events_of(mm, MmCompactionEnd)
    before = mm.vmstat.as_dict()
    pfn = mm.alloc_pages(KERNEL, 9)
    assert pfn >= 0
    change = grown(mm, before)
    assert ends[-1].status == CompactResult.SUCCESS
    # A captured block is not counted as allocated from a zone, since it never was on a list.
    assert change.get("pgalloc_dma32", 0) == 0
    assert mm.pgdat.memory.pb[pfn >> 9] & 7 == pg.MOVABLE
    assert word(mm, pfn) & (pg.TYPE_MASK | pg.ORDER_MASK) == pg.T_ALLOC | 9
    mm.free_pages(pfn, 9)
    mm.check_memory()


@pytest.mark.parametrize("order", [4, 8])
def test_below_a_pageblock_nothing_is_captured_from_a_movable_block(mm, order):
    """Such blocks go to the free lists, which the request then takes them from."""
    striped(mm, keep=2)
    take_large(mm, 1, MOVABLE)
    zone_types = mm.pgdat.memory.pb[8:] & 7
    assert not free_area(mm, order, pg.MOVABLE)
    result, captured = mm.compaction.try_to_compact_pages(KERNEL, order, 0, 1, SYNC_LIGHT)
    assert (result, captured) == (CompactResult.SUCCESS, -1)
    assert any(free_area(mm, each, pg.MOVABLE) for each in range(order, 11))
    assert (mm.pgdat.memory.pb[8:] & 7 == zone_types).all()


def test_a_block_of_another_type_than_movable_may_be_captured_below_a_pageblock(mm):
    striped(mm, keep=2)
    take_large(mm, 1, MOVABLE)
    pb = mm.pgdat.memory.pb
    movable = (pb & 7) == pg.MOVABLE
    pb[movable] = (pb[movable] & np.uint32(pg.PB_NOT_MT)) | np.uint32(pg.RECLAIMABLE)
    result, captured = mm.compaction.try_to_compact_pages(KERNEL, 4, 0, 1, CompactPriority.SYNC_FULL)
    assert result == CompactResult.SUCCESS
    assert captured >= 0
    assert word(mm, captured) & (pg.TYPE_MASK | pg.ORDER_MASK) == pg.T_ALLOC | 4
    mm.free_pages(captured, 4)
    mm.check_memory()


def test_kcompactd_captures_nothing(mm):
    striped(mm)
    mm.pgdat.kcompactd_max_order = 9
    mm.pgdat.kcompactd_highest_zoneidx = 1
    free = mm.global_free_pages()
    before = mm.vmstat.as_dict()
    mm.compaction.kcompactd_do_work()
    change = grown(mm, before)
    assert change["compact_daemon_wake"] == 1
    assert change["compact_daemon_migrate_scanned"] == change["compact_migrate_scanned"]
    mm.drain_all_pages()
    assert mm.global_free_pages() == free
    assert free_area(mm, 9, pg.MOVABLE) or free_area(mm, 10, pg.MOVABLE)
    assert mm.pgdat.kcompactd_max_order == 0


def test_free_targets_are_taken_above_the_min_watermark_only(mm):
    """``__isolate_free_page()`` leaves min and the block's size; a run that cannot take targets ends as contended."""
    vma, _ = striped(mm, keep=2)
    fill(mm, mask=QUIET | gfp.MEMALLOC)
    zone = mm.pgdat.node_zones[1]
    assert zone.free_pages_snapshot() == 0
    before = places(mm, vma)
    mm.compact_memory()
    assert places(mm, vma) == before


def test_two_runs_of_the_same_load_move_the_same_pages():
    def load():
        mm = unboosted(start=True)
        found = {}

        def body():
            vma = mm.mmap_anonymous(14_000)
            vma.touch(0, 14_000)
            vma.madvise_dontneed(np.flatnonzero(np.arange(14_000) % 3))
            found["got"] = [mm.alloc_pages(KERNEL | gfp.RETRY_MAYFAIL, 9) for _ in range(6)]
            found["places"] = places(mm, vma)

        run(mm, body, 20 * SEC)
        return found, mm.vmstat.as_dict()

    assert load() == load()


# --- what cannot be moved -----------------------------------------------------------------------------------------


def test_held_pages_are_tried_ten_times_and_written_ones_once(mm):
    """Each try takes a page to move to and gives it back to the head, so all tries take the same one.

    Pages 0 to 5 are isolated in that order and tried from 5 down: 4 and 1 are moved, 5 and 2 held, 3 and 0 written.
    """
    vma = mm.mmap_anonymous(6)
    vma.touch(0, 6)
    memory = mm.pgdat.memory
    pfns = vma.pfns()
    set_word(mm, pfns[[2, 5]], on=pg.PG_LOCKED)
    set_word(mm, pfns[[0, 3]], on=pg.PG_WRITEBACK)
    for pfn in pfns:
        jit_lru.lru_del(memory.page, memory.pb, memory.S, int(pfn))
    targets = mm.alloc_pages_batch(QUIET, 0, 4).tolist()
    cc = np.zeros(control.CC_SIZE, dtype=np.int64)
    cc[control.CC_LIST] = listed = memory.take_owner_list()
    cc[control.CC_ROW], cc[control.CC_NR_FREEPAGES], cc[control.CC_NR_MIGRATEPAGES] = 1, 4, 6
    for pfn in reversed(targets):
        pg.list_add(memory.page, memory.owner_head(listed), pfn)
    before = mm.vmstat.as_dict()
    pages = pfns.copy()
    moved, failed = compact_run.migrate_pages(memory.page, memory.pb, memory.S, mm.rmap.slots, 0, cc, pages)
    assert (moved, failed) == (2, 4)
    assert grown(mm, before).items() >= {"pgmigrate_success": 2, "pgmigrate_fail": 4}.items()
    # Page 5 took the first target and put it back; so page 4 has it, page 1 the second.
    assert vma.pfns()[[4, 1]].tolist() == targets[:2]
    assert memory.list_pfns(memory.owner_head(listed)).tolist() == targets[2:]
    # Back on the LRU go first those that failed for good, then those that were held, each from the last isolated on.
    assert cc[control.CC_NR_MIGRATEPAGES] == 4
    assert pages[3::-1].tolist() == pfns[[3, 0, 5, 2]].tolist()


def test_without_fs_the_swap_cache_stays_and_without_a_mapping_extra_references_show():
    """``isolate_migratepages_block()``: pages of a mapping need __GFP_FS; others must be held by page tables only."""
    cc = np.zeros(control.CC_SIZE, dtype=np.int64)
    cc[control.CC_MODE] = control.MODE_SYNC
    anon = pg.PG_SWAPBACKED | pg.PG_MAPPED
    taken = {}
    for may_fs in (0, 1):
        cc[control.CC_MAY_FS] = may_fs
        taken[may_fs] = [
            bool(compact_migrate.may_isolate(cc, flags))
            for flags in (
                anon,
                anon | pg.PG_PINNED,
                anon | pg.PG_SWAPCACHE,
                pg.PG_SWAPBACKED,
                0,
                pg.PG_PINNED,
            )
        ]
    assert taken[0] == [True, False, False, False, False, False]
    # Pinned pages of a file are isolated, and found out by migration.
    assert taken[1] == [True, False, True, True, True, True]
