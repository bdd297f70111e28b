"""Access to a file through a mapping: what one fault maps and reads (``filemap_fault()``, mm/filemap.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import SEC, file_pfns, grown, run, set_word, unboosted, word
from mmfw.jit import page as pg
from mmfw.mm.block import BlockDevice


@pytest.fixture
def mm():
    return unboosted()


def mapped(mm, file):
    """Which pages of a file are mapped."""
    return [i for i, pfn in enumerate(file_pfns(mm, file)) if pfn >= 0 and word(mm, pfn) & pg.PG_MAPPED]


def faults(mm, file, indices):
    before = mm.vmstat.as_dict()
    file.mmap_touch(np.atleast_1d(indices))
    change = grown(mm, before)
    return change.get("pgfault", 0), change.get("pgmajfault", 0)


def test_a_fault_maps_the_cached_pages_of_its_16(mm):
    file = mm.page_cache.open(64)
    file.read_pages(np.array([15, 16, 17, 20, 31, 32]))
    assert faults(mm, file, 20) == (1, 0)
    assert mapped(mm, file) == [16, 17, 20, 31]
    assert mm.lruvec.node_stat(pg.NS_FILE_MAPPED) == 4
    # On x86 what is mapped along counts as used.
    assert all(word(mm, file_pfns(mm, file)[i]) & pg.PTE_YOUNG for i in (16, 31))
    assert faults(mm, file, [16, 31]) == (0, 0)


def test_an_absent_page_is_read_with_those_around_it(mm):
    """32 pages from 16 before it on; the fault begins anew when they are read, and is counted twice."""
    file = mm.page_cache.open(200)
    assert faults(mm, file, 100) == (2, 1)
    assert np.flatnonzero(file.cached(np.arange(200))).tolist() == list(range(84, 116))
    assert mapped(mm, file) == list(range(96, 108)) + list(range(109, 112))
    # 108 = 84 + 32 - 8 carries the readahead flag, which keeps it from being mapped along; its own fault reads on.
    flagged = [i for i, p in enumerate(file_pfns(mm, file)) if p >= 0 and word(mm, p) & pg.PG_RECLAIM]
    assert flagged == [108]
    assert faults(mm, file, 108) == (2, 0)
    assert np.flatnonzero(file.cached(np.arange(200))).tolist() == list(range(84, 148))
    assert 108 in mapped(mm, file)


def test_pages_are_read_from_the_start_of_the_file_at_the_earliest(mm):
    file = mm.page_cache.open(20)
    assert faults(mm, file, 3) == (2, 1)
    assert file.nrpages == 20


def test_after_many_misses_nothing_is_read_around(mm):
    file = mm.page_cache.open(200)
    file.ra.mmap_miss = 100
    assert faults(mm, file, 100) == (2, 1)
    assert file.nrpages == 1
    assert file.ra.mmap_miss == 100  # 101, and one found again by the retry


def test_executable_pages_are_mapped_so(mm):
    file = mm.page_cache.open(4)
    file._add(np.arange(4))
    file.mmap_touch(np.array([1]), executable=True)
    assert all(word(mm, pfn) & pg.PTE_EXEC for pfn in file_pfns(mm, file))


def test_a_touch_of_what_is_mapped_marks_it_young(mm):
    file = mm.page_cache.open(4)
    file._add(np.arange(4))
    file.mmap_touch(np.arange(4))
    pfns = file_pfns(mm, file)
    set_word(mm, pfns, off=pg.PTE_YOUNG)
    assert faults(mm, file, [2, 0]) == (0, 0)
    assert [bool(word(mm, p) & pg.PTE_YOUNG) for p in pfns] == [True, False, True, False]


def test_a_fault_waits_for_the_device():
    mm = unboosted(start=True)

    def body():
        device = BlockDevice(mm.sched, page_ns=10_000, latency_ns=1_000_000)
        file = mm.page_cache.open(200, device=device)
        before = mm.sched.now
        assert file.mmap_touch(np.array([100])) == 1
        took = mm.sched.now - before
        pfn = file_pfns(mm, file)[100]
        return took, bool(word(mm, pfn) & pg.PG_MAPPED), file.mmap_touch(np.array([101]))

    took, is_mapped, major = run(mm, body, 5 * SEC)
    assert 1_320_000 <= took < 1_500_000
    assert (is_mapped, major) == (True, 0)
