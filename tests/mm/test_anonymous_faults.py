"""Anonymous faults: page tables, huge pages and their fallback, MADV_DONTNEED, munmap (mm/memory.c of 6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import SEC, events_of, fill, fragment, grown, lru, run, take_large, unboosted, word
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.huge_memory import ThpDefrag
from mmfw.mm.trace import MmCompactionTryToCompactPages, MmVmscanDirectReclaimBegin


@pytest.fixture
def mm():
    return unboosted()


def requests(mm):
    """(mask, order) of every request that is traced from now on."""
    seen = []
    real = mm._allocator.alloc_pages

    def alloc_pages(mask, order):
        pfn = real(mask, order)
        seen.append((mask, order, pfn))
        return pfn

    mm._allocator.alloc_pages = alloc_pages
    return seen


def test_pages_come_in_ascending_order_and_a_table_first_for_each_512(mm):
    seen = requests(mm)
    vma = mm.mmap_anonymous(1100)
    before = mm.vmstat.as_dict()
    assert vma.touch(0, 1100) == 1100
    assert vma.nr_page_tables == 3
    assert [(mask, order) for mask, order, _ in seen] == [(gfp.GFP_KERNEL_ACCOUNT | gfp.ZERO, 0)] * 3
    change = grown(mm, before)
    assert change["pgfault"] == 1100
    assert change["pgalloc_dma32"] == 1103
    newest = lru(mm, pg.LRU_INACTIVE_ANON)[:1100]
    assert newest == [int(p) for p in vma.pfns()[::-1]]


def test_a_table_is_taken_from_unmovable_and_a_page_from_movable_memory(mm):
    vma = mm.mmap_anonymous(600)
    vma.touch(0, 600)
    types = mm.pgdat.memory.pb[np.array(list(vma.page_tables.values())) >> 9] & 7
    assert set(types.tolist()) == {pg.UNMOVABLE}
    assert set((mm.pgdat.memory.pb[vma.pfns() >> 9] & 7).tolist()) == {pg.MOVABLE}


def test_touching_again_only_sets_the_accessed_bit(mm):
    vma = mm.mmap_anonymous(10)
    vma.touch(0, 10)
    pfns = vma.pfns()
    mm.lruvec.set_flags(pfns, off=pg.PTE_YOUNG)
    before = mm.vmstat.as_dict()
    assert vma.touch(0, 10) == 10
    assert grown(mm, before) == {}
    assert all(word(mm, int(p)) & pg.PTE_YOUNG for p in pfns)


# --- huge pages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("madvised", "mask"),
    [(False, gfp.GFP_TRANSHUGE_LIGHT), (True, gfp.GFP_TRANSHUGE)],
    ids=["always", "madvise"],
)
def test_the_mask_of_a_huge_page_depends_on_madvise(mm, madvised, mask):
    seen = requests(mm)
    vma = mm.mmap_anonymous(1024, thp=True, madvised=madvised)
    before = mm.vmstat.as_dict()
    assert vma.touch(0, 1024) == 1024
    huge = [(m, p) for m, order, p in seen if order == 9]
    first_try = mask | gfp.THISNODE | gfp.NORETRY
    assert [m for m, _ in huge] == [first_try, first_try]
    change = grown(mm, before)
    assert change["thp_fault_alloc"] == 2
    assert change["pgfault"] == 2
    assert mm.lruvec.node_stat(pg.NS_ANON_THPS) == 1024
    for i, (_, pfn) in enumerate(huge):
        assert word(mm, pfn) & (pg.PG_COMPOUND | pg.ORDER_MASK) == pg.PG_COMPOUND | 9
        assert vma.pfns()[512 * i : 512 * (i + 1)].tolist() == list(range(pfn, pfn + 512))


@pytest.mark.parametrize("defrag", list(ThpDefrag), ids=lambda each: each.value)
@pytest.mark.parametrize("madvised", [False, True], ids=["any", "madvised"])
def test_who_may_reclaim_asks_a_second_time_insisting_more(mm, defrag, madvised):
    """vma_alloc_folio(): this node first, without insisting; then as the table of vma_thp_gfp_mask() says."""
    light, direct, kswapd = gfp.GFP_TRANSHUGE_LIGHT, gfp.DIRECT_RECLAIM, gfp.KSWAPD_RECLAIM
    table = {
        ThpDefrag.ALWAYS: (light | direct | gfp.NORETRY, light | direct),
        ThpDefrag.DEFER: (light | kswapd, light | kswapd),
        ThpDefrag.DEFER_MADVISE: (light | kswapd, light | direct),
        ThpDefrag.MADVISE: (light, light | direct),
        ThpDefrag.NEVER: (light, light),
    }
    mask = table[defrag][madvised]
    fragment(mm, 16)
    take_large(mm, 4)
    mm.memory.thp.defrag = defrag
    seen = requests(mm)
    mm.mmap_anonymous(512, thp=True, madvised=madvised).touch(0, 1)
    first_try = mask | gfp.THISNODE | gfp.NORETRY
    asked = [m for m, order, _ in seen if order == 9]
    assert asked == ([first_try, mask] if mask & direct else [first_try])
    assert mm.vmstat.as_dict()["thp_fault_fallback"] == 1


def test_what_is_left_over_of_a_mapping_is_small(mm):
    vma = mm.mmap_anonymous(512 + 100, thp=True)
    vma.touch(0, 612)
    assert mm.vmstat.as_dict()["thp_fault_alloc"] == 1
    assert mm.lruvec.node_stat(pg.NS_ANON_THPS) == 512


@pytest.mark.parametrize("madvised", [False, True])
def test_a_failed_huge_fault_falls_back_and_only_madvise_works_for_it(mm, madvised):
    fragment(mm, 16)
    take_large(mm, 4)
    work = events_of(mm, MmCompactionTryToCompactPages, MmVmscanDirectReclaimBegin)
    vma = mm.mmap_anonymous(512, thp=True, madvised=madvised)
    before = mm.vmstat.as_dict()
    assert vma.touch(0, 512) == 512
    change = grown(mm, before)
    assert change["thp_fault_fallback"] == 1
    assert "thp_fault_alloc" not in change
    assert change["pgfault"] == 512
    assert bool(work) is madvised


def test_dropping_all_of_a_huge_page_gives_the_block_back(mm):
    vma = mm.mmap_anonymous(512, thp=True)
    vma.touch(0, 512)
    pfn = int(vma.pfns()[0])
    vma.munmap()
    mm.drain_all_pages()
    assert mm.buddyinfo()["DMA32"][9] + mm.buddyinfo()["DMA32"][10] > 0
    assert word(mm, pfn) & pg.TYPE_MASK != pg.T_ALLOC
    assert mm.lruvec.node_stat(pg.NS_ANON_THPS) == mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 0


# --- dropping -------------------------------------------------------------------------------------------------------


def test_dontneed_frees_page_by_page_in_order_onto_the_cpus_list(mm):
    vma = mm.mmap_anonymous(64)
    vma.touch(0, 64)
    pfns = vma.pfns()
    mm.drain_all_pages()
    assert vma.madvise_dontneed(np.arange(0, 40, 4)) == 10
    memory = mm.pgdat.memory
    assert memory.list_pfns(memory.pcp_head(0, 1, pg.MOVABLE)).tolist() == pfns[0:40:4][::-1].tolist()
    assert vma.nr_resident == 54
    assert vma.nr_page_tables == 1  # the table stays
    # Dropping again what is gone frees nothing.
    assert vma.madvise_dontneed(np.arange(0, 40, 4)) == 0
    before = mm.vmstat.as_dict()
    assert vma.touch(0, 64) == 64
    assert grown(mm, before)["pgfault"] == 10


def test_munmap_gives_everything_back_and_forgets_the_mapping(mm):
    mm.drain_all_pages()
    free = mm.global_free_pages()
    vma = mm.mmap_anonymous(3000)
    vma.touch(0, 3000)
    assert mm.memory.vmas == (vma,)
    assert vma.munmap() == 3000
    mm.drain_all_pages()
    assert mm.global_free_pages() == free
    assert mm.memory.vmas == ()
    assert mm.memory.nr_page_table_pages == 0
    assert mm.lruvec.node_stat(pg.NS_ANON_MAPPED) == 0


def test_a_fault_that_finds_no_memory_ends_the_touch():
    mm = unboosted(start=True)
    held = {}

    def body():
        fill(mm)
        mm.oom.out_of_memory = lambda *a: False
        vma = mm.mmap_anonymous(100)
        held["got"] = vma.touch(0, 100)
        held["resident"] = vma.nr_resident
        vma.munmap()

    run(mm, body)
    assert 0 <= held["got"] < 100
    assert held["resident"] == held["got"]


# --- a mapping that is gone -------------------------------------------------------------------------------------------


def test_a_killed_task_faults_no_more():
    """The OOM killer meets the only task there is; it ends, and its memory goes with it."""
    mm = unboosted(start=True)

    def body():
        vma = mm.mmap_anonymous(30_000)
        return vma.touch(0, 30_000), vma

    touched, vma = run(mm, body, 20 * SEC)
    assert touched < 30_000
    assert (mm.memory.vmas, vma.nr_resident, mm.memory.nr_page_table_pages) == ((), 0, 0)


def test_a_fault_in_a_mapping_that_was_reaped_leaves_nothing_behind():
    """The mapping goes while its task waits for a page."""
    mm = unboosted(start=True)
    owned = mm.nr_allocated_pages()
    real = mm._allocator.alloc_pages_batch
    found = []

    def body():
        vma = mm.mmap_anonymous(100)
        vma.touch(0, 10)

        def alloc_pages_batch(*args):
            pfns = real(*args)
            found.append(vma.munmap())
            return pfns

        mm._allocator.alloc_pages_batch = alloc_pages_batch
        return vma.touch(0, 100), vma.munmap(), vma.touch(0, 100)

    assert run(mm, body) == (10, 0, 0)
    # The gather asks for a page of its own meanwhile, which does not ask again.
    assert found == [0, 10]
    assert mm.nr_allocated_pages() == owned
