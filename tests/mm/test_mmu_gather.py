"""In which order the end of a mapping frees its pages (mm/mmu_gather.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import QUIET, SEC, fill, old_mapping, run, scan, unboosted, word
from mmfw import gfp
from mmfw.jit import page as pg


@pytest.fixture
def mm():
    return unboosted("256M")


def traced(mm, body):
    """('+' or '-', pfn, order) of each block that a body allocates or frees, in order."""
    memory = mm.pgdat.memory
    memory.take_trace()
    memory.S[pg.S_TRACE_MASK] = 1 << pg.TR_PAGE_FREE | 1 << pg.TR_PAGE_ALLOC
    body()
    memory.S[pg.S_TRACE_MASK] = 0
    kinds = {pg.TR_PAGE_ALLOC: "+", pg.TR_PAGE_FREE: "-"}
    return [(kinds[row[0]], row[1], row[2]) for row in memory.take_trace().tolist()]


def freed(events):
    return [pfn for kind, pfn, _ in events if kind == "-"]


def test_8_pages_go_first_and_the_table_comes_before_the_data_of_its_batch(mm):
    vma = mm.mmap_anonymous(30)
    vma.touch(0, 30)
    pfns, table = vma.pfns().tolist(), vma.page_tables[0]
    events = traced(mm, vma.munmap)
    # The eighth page fills the bundle, so a batch is asked for before anything is freed.
    assert events[0][0] == "+"
    batch = events[0][1]
    assert freed(events) == [*pfns[7::-1], table, *pfns[:7:-1], batch]


def test_without_a_full_bundle_no_batch_is_asked_for(mm):
    vma = mm.mmap_anonymous(7)
    vma.touch(0, 7)
    pfns, table = vma.pfns().tolist(), vma.page_tables[0]
    # Seven pages and their table are eight: full.
    events = traced(mm, vma.munmap)
    assert [kind for kind, _, _ in events].count("+") == 1
    assert freed(events)[:8] == [table, *pfns[::-1]]
    vma = mm.mmap_anonymous(6)
    vma.touch(0, 6)
    assert [kind for kind, _, _ in traced(mm, vma.munmap)].count("+") == 0


def test_further_batches_hold_510_each(mm):
    n = 8 + 510 + 100
    vma = mm.mmap_anonymous(n)
    vma.touch(0, n)
    pfns, tables = vma.pfns().tolist(), [vma.page_tables[0], vma.page_tables[1]]
    events = traced(mm, vma.munmap)
    batches = [pfn for kind, pfn, _ in events if kind == "+"]
    assert len(batches) == 2
    assert freed(events) == (pfns[7::-1] + pfns[517:7:-1] + tables[::-1] + pfns[:517:-1] + batches)
    assert all(kind == "+" for kind, _, _ in events[:2])


def test_after_19_batches_what_was_gathered_is_freed_first(mm):
    n = 8 + 19 * 510 + 5
    vma = mm.mmap_anonymous(n)
    vma.touch(0, n)
    pfns, vma_tables = vma.pfns().tolist(), dict(vma.page_tables)
    events = traced(mm, vma.munmap)
    assert [kind for kind, _, _ in events].count("+") == 19
    order = freed(events)
    assert order[:8] == pfns[7::-1]
    # The last 5 pages and the tables come in a second round, from the bundle on.
    assert order[n - 5 : n + 3] == [*[vma_tables[i] for i in (2, 1, 0)], *pfns[:-6:-1]]
    assert order[-19:] == [pfn for kind, pfn, _ in events if kind == "+"]


def test_where_no_batch_can_be_had_pages_go_8_at_a_time(mm):
    vma = mm.mmap_anonymous(20)
    vma.touch(0, 20)
    pfns, table = vma.pfns().tolist(), vma.page_tables[0]
    real = mm._allocator.alloc_pages_batch
    mm._allocator.alloc_pages_batch = lambda mask, order, count: real(mask, order, 0)
    events = traced(mm, vma.munmap)
    assert freed(events) == pfns[7::-1] + pfns[15:7:-1] + [table] + pfns[:15:-1]


def test_a_batch_is_asked_for_without_waiting(mm):
    asked = []
    real = mm._allocator.alloc_pages_batch
    mm._allocator.alloc_pages_batch = lambda mask, *rest: asked.append(mask) or real(mask, *rest)
    vma = mm.mmap_anonymous(8)
    vma.touch(0, 8)
    asked.clear()
    vma.munmap()
    assert asked == [gfp.GFP_NOWAIT | gfp.NOWARN]


def test_huge_pages_go_as_they_come_and_their_tables_before_everything(mm):
    vma = mm.mmap_anonymous(512 * 2 + 10, thp=True)
    vma.touch(0, 512 * 2 + 10)
    heads = vma.pfns()[:1024:512].tolist()
    small, tables = vma.pfns()[1024:].tolist(), [vma.page_tables[i] for i in range(3)]
    order = freed(traced(mm, vma.munmap))
    assert order[:2] == tables[:2]
    # The bundle: both huge pages, then six small ones newest first.
    assert order[2:10] == heads + small[5::-1]
    assert order[10:15] == [tables[2], *small[:5:-1]]
    assert mm.memory.nr_page_table_pages == 0


def test_the_end_of_a_task_is_one_gather_over_its_mappings(mm):
    vmas = [mm.mmap_anonymous(6) for _ in range(3)]
    for vma in vmas:
        vma.touch(0, 6)
    pfns = [p for vma in vmas for p in vma.pfns().tolist()]
    tables = [vma.page_tables[0] for vma in vmas]
    freed_pages = []
    events = traced(mm, lambda: freed_pages.append(mm.memory.exit_mmap(vmas)))
    assert freed(events)[:-1] == pfns[7::-1] + tables[::-1] + pfns[:7:-1]
    assert freed_pages == [18]
    assert mm.memory.vmas == ()


def test_what_is_swapped_gives_its_slot_back_and_the_swap_cache_goes_at_once():
    mm = unboosted(nr_swap_pages=4000, start=True)

    def body():
        vma, _ = old_mapping(mm, 40)
        scan(mm, 10)
        mm.sched.sleep(SEC)
        scan(mm, 10)  # out
        scan(mm, 10)
        mm.sched.sleep(SEC)  # written, and in the swap cache still
        assert vma.nr_swapped == 10
        unmapped = [p for p in vma.pfns().tolist() if not word(mm, p) & pg.PG_MAPPED]
        mapped = [p for p in vma.pfns().tolist() if word(mm, p) & pg.PG_MAPPED]
        assert len(unmapped) == 10
        order = freed(traced(mm, vma.munmap))
        assert order[:10] == unmapped
        assert order[10:18] == mapped[7::-1]
        return mm.swap.get_nr_swap_pages()

    assert run(mm, body, 20 * SEC) == 4000


def test_dropping_pages_one_by_one_frees_each_at_once(mm):
    vma = mm.mmap_anonymous(30)
    vma.touch(0, 30)
    pfns = vma.pfns().tolist()
    assert freed(traced(mm, lambda: vma.madvise_dontneed(np.array([3, 9, 4])))) == [pfns[3], pfns[9], pfns[4]]


def test_a_full_machine_can_be_emptied(mm):
    """No batch is to be had when nothing is free; it still comes back whole."""
    owned = mm.nr_allocated_pages()
    vma = mm.mmap_anonymous(5000)
    vma.touch(0, 5000)
    held = fill(mm, mask=QUIET | gfp.MEMALLOC)
    assert vma.munmap() == 5000
    mm.free_pages_batch(held, 0)
    assert mm.nr_allocated_pages() == owned
