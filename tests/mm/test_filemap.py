"""Reads from a device, writes, and dropping of cached pages (mm/filemap.c, mm/truncate.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import MSEC, SEC, file_pfns, fill, grown, lru, run, scan, set_word, unboosted, word
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.block import BlockDevice


@pytest.fixture
def mm():
    return unboosted()


def cached(mm, n):
    file = mm.page_cache.open(n)
    file._add(np.arange(n))
    return file, file_pfns(mm, file)


def freed_by(mm, body):
    """Pages in the order in which a body frees them."""
    memory = mm.pgdat.memory
    memory.take_trace()
    memory.S[pg.S_TRACE_MASK] = 1 << pg.TR_PAGE_FREE
    body()
    memory.S[pg.S_TRACE_MASK] = 0
    return memory.take_trace()[:, 1].tolist()


# --- writing --------------------------------------------------------------------------------------------------------


def test_written_pages_are_dirty_until_the_flusher_was_there():
    mm = unboosted(start=True)
    seen = {}

    def body():
        file = mm.page_cache.open(64)
        assert file.write(0, 64) == 64
        seen["dirty"] = mm.lruvec.node_stat(pg.NS_FILE_DIRTY)
        mm.page_io.wakeup_flusher_threads()
        mm.sched.sleep(SEC)
        seen["after"] = mm.lruvec.node_stat(pg.NS_FILE_DIRTY), mm.lruvec.node_stat(pg.NS_WRITEBACK)

    run(mm, body, 5 * SEC)
    assert seen == {"dirty": 64, "after": (0, 0)}
    stat = mm.vmstat.as_dict()
    assert stat["pgpgout"] == 4 * 64
    assert stat["pgpgin"] == 0
    assert mm.lruvec.node_stat(pg.NS_WRITTEN) == mm.lruvec.node_stat(pg.NS_DIRTIED) == 64


def test_writing_twice_is_no_use_of_a_page(mm):
    file = mm.page_cache.open(10)
    for _ in range(3):
        file.write(0, 10)
    assert mm.vmstat.as_dict()["pgactivate"] == 0
    assert not any(word(mm, pfn) & pg.PG_REFERENCED for pfn in file_pfns(mm, file))


def test_writing_over_an_evicted_page_is_no_refault_and_asks_with_fs(mm):
    file, _ = cached(mm, 10)
    scan(mm, 10, pg.LRU_INACTIVE_FILE)
    assert file.nrpages == 0
    asked = []
    real = mm._allocator.alloc_pages_batch
    mm._allocator.alloc_pages_batch = lambda mask, *rest: asked.append(mask) or real(mask, *rest)
    before = mm.vmstat.as_dict()
    file.write(0, 5)
    assert set(asked) == {gfp.GFP_HIGHUSER_MOVABLE | gfp.COMP | gfp.WRITE}
    assert "workingset_refault_file" not in grown(mm, before)
    file.read_pages(np.arange(5, 10))
    assert grown(mm, before)["workingset_refault_file"] == 5


def test_the_readahead_flag_of_a_page_goes_when_it_is_dirtied(mm):
    """It is the bit that means reclaim for a page under writeback."""
    file, pfns = cached(mm, 2)
    set_word(mm, pfns, on=pg.PG_RECLAIM)
    file.write(0, 1)
    assert [bool(word(mm, pfn) & pg.PG_RECLAIM) for pfn in pfns] == [False, True]


# --- reading when memory is short -----------------------------------------------------------------------------------


def test_a_read_that_readahead_had_no_memory_for_reclaims():
    """Readahead is NORETRY and without FS; the page that is needed is asked for in full, if need be by the OOM killer."""
    mm = unboosted(start=True)
    asked = []

    def body():
        fill(mm)
        mm.oom.out_of_memory = lambda mask, order, hzi: asked.append(mask) or False
        return mm.page_cache.open(10).read(0, 1)

    assert run(mm, body) == 0
    assert asked
    assert asked[0] == gfp.GFP_HIGHUSER_MOVABLE | gfp.COMP


def test_a_killed_reader_reads_no_further():
    mm = unboosted(start=True)
    got = []

    def body():
        file = mm.page_cache.open(1000)
        got.append(file.read(0, 100))
        mm.sched.current.fatal_signal_pending = True
        got.append(file.read(100, 100))

    mm.sched.spawn(body, name="reader", daemon=True)
    mm.sched.run(mm.sched.now + SEC)
    assert got == [100, 0]


# --- reading from a device ------------------------------------------------------------------------------------------


def on_device(mm, n, page_ns=10_000):
    return mm.page_cache.open(n, device=BlockDevice(mm.sched, page_ns=page_ns, latency_ns=MSEC))


def test_only_a_page_that_is_needed_is_waited_for():
    """64 KiB of 128 KiB: the window is one request of 1.32 ms. The next window is read behind the marker meanwhile."""
    mm = unboosted(start=True)
    took = []

    def body():
        file = on_device(mm, 400)
        for start in range(0, 64, 16):
            before = mm.sched.now
            assert file.read(start, 16) == 16
            took.append(mm.sched.now - before)
        pfns = [p for p in file_pfns(mm, file) if p >= 0]
        took.append(sum(bool(word(mm, p) & pg.PG_LOCKED) for p in pfns))

    run(mm, body)
    window = MSEC + 32 * 10_000
    assert window < took[0] < window + MSEC // 2
    # Pages 16 to 31 are there; their first carries the marker, and 32 to 63 are asked for, but not waited for.
    assert took[1] < MSEC // 2
    assert MSEC // 2 < took[2] < window + MSEC // 2
    assert took[4] == 32


def test_reclaim_and_truncation_leave_a_page_to_the_device_that_reads_it():
    mm = unboosted(start=True)

    def body():
        file = on_device(mm, 8)
        file._add(np.arange(8))
        pfns = file_pfns(mm, file)
        assert scan(mm, 8, pg.LRU_INACTIVE_FILE) == 0
        assert file.invalidate() == 0
        assert file.truncate() == 0
        held = [word(mm, p) & pg.TYPE_MASK for p in pfns]
        mm.sched.sleep(SEC)
        return held, {word(mm, p) & pg.TYPE_MASK for p in pfns}

    held, later = run(mm, body, 5 * SEC)
    assert held == [pg.T_ALLOC] * 8
    assert pg.T_ALLOC not in later


# --- dropping -------------------------------------------------------------------------------------------------------


def test_a_truncated_file_frees_15_pages_at_a_time_last_first(mm):
    file, pfns = cached(mm, 40)
    assert freed_by(mm, file.truncate)[:40] == pfns[14::-1] + pfns[29:14:-1] + pfns[39:29:-1]


def test_shadows_fill_a_batch_too(mm):
    """20 shadows before 20 pages: the second batch holds 5 shadows and 10 pages (find_lock_entries())."""
    file, pfns = cached(mm, 40)
    scan(mm, 20, pg.LRU_INACTIVE_FILE)
    assert file.nrpages == 20
    assert freed_by(mm, file.truncate)[:20] == pfns[29:19:-1] + pfns[39:29:-1]


def test_large_folios_go_before_the_single_pages_of_their_batch(mm):
    file = mm.page_cache.open(20, max_order=2)
    mask = gfp.GFP_HIGHUSER_MOVABLE | gfp.COMP
    for index, order in ((0, 0), (4, 2), (8, 0), (12, 2), (16, 0)):
        assert file.add_folio(index, order, mask) >= 0
    pfns = file_pfns(mm, file)
    assert freed_by(mm, file.truncate)[:5] == [pfns[4], pfns[12], pfns[16], pfns[8], pfns[0]]


def test_truncation_and_invalidation_forget_evicted_pages(mm):
    for drop in ("truncate", "invalidate"):
        file, _ = cached(mm, 20)
        scan(mm, 12, pg.LRU_INACTIVE_FILE)
        assert file.nrpages == 8
        assert getattr(file, drop)() == 8
        before = mm.vmstat.as_dict()
        file.read_pages(np.arange(20))
        assert "workingset_refault_file" not in grown(mm, before)
        file.truncate()


def test_invalidation_leaves_what_is_dirty_or_mapped_and_truncation_nothing(mm):
    file = mm.page_cache.open(50)
    file.read(0, 50)
    pfns = mm.rmap.part(file.base_slot, 50).astype(np.int64)
    mm.page_cache.dirty(pfns[:5])
    mm.page_cache.map_pages(pfns[5:8], executable=False)
    assert file.invalidate() == 42
    assert file.nrpages == 8
    assert file.truncate() == 8
    for item in (pg.NS_FILE_PAGES, pg.NS_FILE_DIRTY, pg.NS_FILE_MAPPED):
        assert mm.lruvec.node_stat(item) == (mm.initramfs_pages if item == pg.NS_FILE_PAGES else 0)


def test_what_cannot_be_invalidated_is_deactivated_unless_mapped(mm):
    """deactivate_file_folio(): clean to the tail of the inactive list, dirty to its head and marked for reclaim.

    Pages under writeback and locked ones are not even met.
    """
    file, pfns = cached(mm, 7)
    held, dirty, mapped, active, written, locked, _ = pfns
    for _ in range(2):
        file.read_pages(np.array([3, 1]))
    set_word(mm, [held, active], on=pg.PG_PINNED)
    set_word(mm, [written], on=pg.PG_WRITEBACK)
    set_word(mm, [locked], on=pg.PG_LOCKED)
    mm.page_cache.dirty(np.array([dirty]))
    mm.page_cache.map_pages(np.array([mapped]), executable=False)
    before = mm.vmstat.as_dict()
    assert file.invalidate() == 1
    inactive = lru(mm, pg.LRU_INACTIVE_FILE)
    # In order of their indices: first 0 goes to the tail, then 3 behind it.
    assert inactive[-2:] == [held, active]
    assert inactive[0] == dirty
    assert set(inactive) == set(pfns[:6])
    assert word(mm, dirty) & pg.PG_RECLAIM
    change = grown(mm, before)
    assert change["pgrotated"] == 2
    assert change["pgdeactivate"] == 2  # pages 1 and 3 were active
