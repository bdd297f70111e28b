from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import scan_control
from mmfw import gfp
from mmfw.errors import InputError
from mmfw.jit import page as pg
from mmfw.testing import make_mm
from mmfw.types import Reclaimer


def test_reclaim_takes_size_shifted_by_priority_oldest_first():
    mm = make_mm("256M")
    file = mm.page_cache.open(10_000)
    file._add(np.arange(10_000))
    sc = scan_control(nr_to_reclaim=1 << 20, priority=5)
    mm._vmscan.lru_scan.prepare_scan_count(sc)
    mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.KSWAPD)
    assert (sc.nr_reclaimed, sc.nr_scanned) == (312, 312)
    assert file.cached(np.arange(10_000)).tolist() == [False] * 312 + [True] * (10_000 - 312)
    assert file.read_pages(np.arange(400)) == 312
    assert mm.vmstat.as_dict()["workingset_refault_file"] == 312


def test_direct_reclaim_below_the_first_priority_stops_at_its_goal():
    """Priority 12 takes 8000 >> 12 = 1 page, priority 3 would take 1000 and stops after a batch."""
    mm = make_mm("256M")
    mm.page_cache.open(8000)._add(np.arange(8000))
    for priority, reclaimed in ((12, 1), (3, 32)):
        sc = scan_control(priority=priority)
        mm._vmscan.lru_scan.prepare_scan_count(sc)
        mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.DIRECT)
        assert (sc.nr_reclaimed, sc.nr_scanned) == (reclaimed, reclaimed)


def test_a_backup_stays_in_memory_on_the_lru_until_reclaim_writes_it():
    mm = make_mm("256M", nr_swap_pages=5000, start=True)
    kept = mm.nr_allocated_pages() - mm.lruvec.nr_pages
    log = []

    def shrink() -> None:
        sc = scan_control(priority=1, may_swap=True)
        mm._vmscan.lru_scan.prepare_scan_count(sc)
        mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.KSWAPD)

    def client() -> None:
        pages = mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 1024)
        boot = mm.lruvec.size(pg.LRU_INACTIVE_ANON)
        backup = mm.swap.backup(pages)
        mm.sched.sleep(1_000_000_000)
        # No pressure: it costs as much memory as it freed, and no swap yet.
        log.append((backup.nr_in_memory, mm.lruvec.size(pg.LRU_INACTIVE_ANON) - boot))
        log.append((mm.swap.nr_shmem, mm.swap.get_nr_swap_pages()))
        # The initramfs's inactive pages are older than the backup.
        for _ in range(boot // 32 + 4):
            shrink()
            mm.sched.sleep(100_000_000)
        log.append(backup.nr_in_memory)
        swapped = 1024 - backup.nr_in_memory
        back = mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 1024)
        mm.swap.restore(backup)
        assert mm.vmstat.as_dict()["pswpin"] == swapped
        log.append(mm.swap.nr_shmem)
        mm.free_pages_batch(back, 0)

    mm.sched.spawn(client, name="client", daemon=True)
    mm.sched.run(3_000_000_000)
    assert log[:2] == [(1024, 1024), (1024, 5000)]
    assert 0 < log[2] < 1024
    assert log[3] == 0
    assert mm.nr_allocated_pages() - mm.lruvec.nr_pages == kept


def test_a_backup_that_is_written_at_once_is_clean_when_reclaim_comes():
    mm = make_mm("256M", nr_swap_pages=5000, start=True)
    backup = mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 1024), writeback=True)
    assert (mm.swap.get_nr_swap_pages(), mm.swap.nr_shmem) == (5000 - 1024, 1024)
    assert mm.vmstat.as_dict()["pswpout"] == 1024
    mm.sched.run(1_000_000_000)
    sc = scan_control(priority=1, may_swap=True, may_writepage=False)
    mm._vmscan.lru_scan.prepare_scan_count(sc)
    mm._vmscan.lru_scan.shrink_lruvec(sc, Reclaimer.KSWAPD)
    assert backup.nr_in_memory == 1024 - sc.nr_reclaimed < 1024
    mm.swap.drop(backup)
    assert mm.swap.get_nr_swap_pages() == 5000


def test_compaction_moves_a_backup_though_its_mask_is_not_movable():
    mm = make_mm("256M", nr_swap_pages=5000)
    backup = mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 3000))
    moved = mm.vmstat.as_dict()["pgmigrate_success"]
    mm.compact_memory()
    assert mm.vmstat.as_dict()["pgmigrate_success"] > moved
    assert backup.nr_in_memory == 3000
    owned = mm.nr_allocated_pages()
    mm.swap.drop(backup)
    assert mm.nr_allocated_pages() == owned - 3000


def test_the_slots_of_a_backup_that_is_gone_serve_the_next_of_its_size():
    mm = make_mm("256M", nr_swap_pages=5000)
    first = mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 100))
    base = first.base_slot
    mm.swap.restore(first, 60)
    mm.swap.drop(first)
    mm.swap.drop(first)  # nothing is left to drop twice
    second = mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 100))
    third = mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 100))
    assert second.base_slot == base != third.base_slot
    assert (first.nr_pages, second.nr_pages, third.nr_pages) == (0, 100, 100)
    mm.swap.drop(second)
    mm.swap.drop(third)
    assert mm.swap.nr_shmem == 0


def test_a_backup_may_be_on_the_device_from_the_start():
    mm = make_mm("256M", nr_swap_pages=1000)
    backup = mm.swap.adopt(600)
    assert (backup.nr_pages, backup.nr_in_memory, mm.swap.get_nr_swap_pages()) == (600, 0, 400)
    with pytest.raises(
        InputError, match="500 pages are to be on the swap device at the start, 400 of its 1000"
    ):
        mm.swap.adopt(500)
    mm.swap.restore(backup)
    assert mm.swap.get_nr_swap_pages() == 1000
    assert mm.vmstat.as_dict()["pswpin"] == 600


def test_a_full_device_takes_what_fits_and_leaves_the_rest():
    mm = make_mm("256M", nr_swap_pages=100)
    owned = mm.nr_allocated_pages()
    pages = mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 150)
    backup = mm.swap.backup(pages)
    assert (backup.nr_pages, mm.swap.get_nr_swap_pages()) == (100, 100)
    mm.free_pages_batch(pages[100:], 0)
    mm.swap.drop(backup)
    assert mm.swap.get_nr_swap_pages() == 100
    assert mm.nr_allocated_pages() == owned


def test_a_backup_comes_back_part_by_part_first_page_first():
    mm = make_mm("256M", nr_swap_pages=1000)
    on_device, in_memory = mm.swap.adopt(256), mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 344))
    mm.swap.restore(on_device, 200)
    assert (on_device.nr_pages, on_device.nr_in_memory, mm.swap.get_nr_swap_pages()) == (56, 0, 944)
    assert mm.vmstat.as_dict()["pswpin"] == 200
    mm.swap.restore(in_memory, 144)
    assert (in_memory.nr_pages, in_memory.nr_in_memory, mm.swap.nr_shmem) == (200, 200, 200)
    mm.swap.restore(on_device)
    mm.swap.restore(in_memory)
    assert (mm.swap.nr_shmem, mm.swap.get_nr_swap_pages()) == (0, 1000)
    assert mm.vmstat.as_dict()["pswpin"] == 256


def test_a_block_is_freed_whole_once_it_is_copied():
    mm = make_mm("256M", nr_swap_pages=1000)
    mm.drain_all_pages()
    free = mm.global_free_pages()
    pfn = mm.alloc_pages(gfp.GFP_KERNEL, 9)
    backup = mm.swap.backup_block(pfn, 9)
    mm.drain_all_pages()
    assert (backup.nr_pages, mm.swap.nr_shmem, mm.global_free_pages()) == (512, 512, free - 512)
    # Two blocks of order 9 would be asked for in vain if it had come back in pieces.
    assert mm.alloc_pages(gfp.GFP_KERNEL & ~gfp.RECLAIM, 9) == pfn


def test_a_block_is_split_where_swap_ends():
    mm = make_mm("256M", nr_swap_pages=100)
    pfn = mm.alloc_pages(gfp.GFP_KERNEL, 9)
    backup = mm.swap.backup_block(pfn, 9)
    assert (backup.nr_pages, mm.swap.get_nr_swap_pages()) == (100, 100)
    mm.free_pages_batch(np.arange(pfn + 100, pfn + 512), 0)  # what was not copied: single pages
    mm.swap.drop(backup)
    assert mm.swap.nr_shmem == 0
