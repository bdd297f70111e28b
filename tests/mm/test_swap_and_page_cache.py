from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import scan_control
from mmfw import gfp
from mmfw.errors import InputError
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


def test_a_backup_leaves_memory_at_the_pace_of_the_device_and_comes_back_whole():
    mm = make_mm("256M", nr_swap_pages=5000, start=True)
    mm.drain_all_pages()
    free = mm.global_free_pages()
    log = []

    def client() -> None:
        pages = mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 1024)
        backup = mm.swap.backup(pages)
        log.append((backup.nr_pages, mm.swap.nr_shmem, mm.swap.get_nr_swap_pages()))
        mm.sched.sleep(512 * mm.costs.swap_out_page + 1)
        log.append((backup.nr_in_memory, mm.swap.nr_shmem))
        back = mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 1024)
        mm.swap.restore(backup)
        log.append((mm.swap.nr_shmem, mm.swap.get_nr_swap_pages()))
        mm.free_pages_batch(back, 0)

    mm.sched.spawn(client, name="client", daemon=True)
    mm.sched.run(1_000_000_000)
    assert log[0] == (1024, 1024, 5000 - 1024)
    assert log[1][0] in (256, 512)
    assert log[2] == (log[2][0], 5000)
    assert mm.swap.nr_shmem == 0
    stat = mm.vmstat.as_dict()
    assert stat["pswpin"] == 1024 - log[1][0]
    assert stat["pswpout"] >= 512
    mm.drain_all_pages()
    assert mm.global_free_pages() == free


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
    assert (backup.nr_pages, mm.swap.get_nr_swap_pages()) == (100, 0)
    mm.free_pages_batch(pages[100:], 0)
    mm.swap.drop(backup)
    assert mm.swap.get_nr_swap_pages() == 100
    assert mm.nr_allocated_pages() == owned


def test_a_backup_comes_back_part_by_part_first_page_first():
    mm = make_mm("256M", nr_swap_pages=1000)
    backup = mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 600))
    assert len(backup.take_for_device(256)) == 256  # as the device would
    mm.swap.restore(backup, 200)
    assert (backup.nr_pages, backup.nr_in_memory, mm.swap.get_nr_swap_pages()) == (400, 344, 600)
    assert mm.vmstat.as_dict()["pswpin"] == 200
    mm.swap.restore(backup, 200)  # 56 from the device, 144 from memory
    assert (backup.nr_pages, backup.nr_in_memory) == (200, 200)
    assert mm.vmstat.as_dict()["pswpin"] == 256
    assert mm.swap.drop(backup) == 0
    assert (backup.nr_pages, mm.swap.get_nr_swap_pages()) == (0, 1000)


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
    assert (backup.nr_pages, mm.swap.get_nr_swap_pages()) == (100, 0)
    mm.free_pages_batch(np.arange(pfn + 100, pfn + 512), 0)  # what was not copied: single pages
    mm.swap.drop(backup)
    assert mm.swap.nr_shmem == 0
