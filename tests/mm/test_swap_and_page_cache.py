from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp
from mmfw.errors import InputError
from mmfw.gfp import GFP_KERNEL
from mmfw.testing import make_mm
from mmfw.types import ScanControl

SCAN = {"order": 9, "reclaim_idx": 2, "gfp_mask": GFP_KERNEL}


def scan(nr_to_reclaim, priority):
    return ScanControl(
        nr_to_reclaim=nr_to_reclaim,
        priority=priority,
        may_writepage=True,
        may_unmap=True,
        may_swap=True,
        **SCAN,
    )


def test_reclaim_takes_size_shifted_by_priority_oldest_first():
    mm = make_mm("256M")
    file = mm.page_cache.open(10_000)
    file.read(np.arange(10_000))
    assert mm.page_cache.shrink_lruvec(scan(1 << 20, 5)) == (312, 312)
    assert file.nrpages == 10_000 - 312
    assert file.read(np.arange(400)) == 312
    assert mm.vmstat.as_dict()["workingset_refault_file"] == 312


def test_direct_reclaim_below_the_first_priority_stops_at_its_goal():
    mm = make_mm("256M")
    mm.page_cache.open(8000).read(np.arange(8000))
    assert mm.page_cache.shrink_lruvec(scan(32, 12)) == (1, 1)
    assert mm.page_cache.shrink_lruvec(scan(32, 3)) == (32, 32)


def test_a_backup_leaves_memory_at_the_pace_of_the_device_and_comes_back_whole():
    mm = make_mm("256M", nr_swap_pages=5000, start=True)
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
    pages = mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 150)
    backup = mm.swap.backup(pages)
    assert (backup.nr_pages, mm.swap.get_nr_swap_pages()) == (100, 0)
    mm.free_pages_batch(pages[100:], 0)
    mm.swap.drop(backup)
    assert mm.swap.get_nr_swap_pages() == 100
    assert mm.nr_allocated_pages() == 0
