"""Any mixture of page cache, mappings, blocks, compaction, reclaim and swap keeps every page accounted for, once."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mm.workbench import SEC, unboosted
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.core import Mm
from mmfw.types import CompactPriority

SWAP = 9000
KERNEL = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN
PRIORITIES = st.sampled_from(list(CompactPriority))


class Load:
    """The same operations for the state machine and for runs that are compared; each is a task of its own."""

    def __init__(self, machine: str = "128M", nr_cpus: int = 1) -> None:
        self.mm: Mm = unboosted(machine, nr_swap_pages=SWAP, nr_cpus=nr_cpus, start=True)
        self.mm.oom.out_of_memory = lambda *args: False  # requests fail; nobody is killed
        self.tasks = list(self.mm.sched.tasks)
        self.files: list = []
        self.vmas: list = []
        self.blocks: list[tuple[int, int]] = []

    def run(self, body) -> None:
        task = self.mm.sched.spawn(body, name="load", daemon=True)
        self.tasks.append(task)
        while task.state.name != "DEAD":
            self.mm.sched.run(self.mm.sched.now + SEC // 10)

    def open(self, nr_pages, movable, max_order):
        mask = gfp.GFP_HIGHUSER_MOVABLE if movable else gfp.GFP_USER
        self.files.append(self.mm.page_cache.open(nr_pages, gfp_mask=mask, max_order=max_order))

    def read(self, which, start, nr):
        file = self.files[which % len(self.files)]
        self.run(lambda: file.read(start % file.nr_pages, nr))

    def write(self, which, start, nr):
        file = self.files[which % len(self.files)]
        self.run(lambda: file.write(start % file.nr_pages, nr))

    def map_file(self, which, start, nr):
        file = self.files[which % len(self.files)]
        first = start % file.nr_pages
        self.run(
            lambda: file.mmap_touch(np.arange(first, min(first + nr, file.nr_pages)), executable=nr % 2 == 0)
        )

    def drop_file(self, which, all_of_it):
        file = self.files[which % len(self.files)]
        self.run(file.truncate if all_of_it else file.invalidate)

    def mmap(self, nr_pages, thp):
        self.vmas.append(self.mm.mmap_anonymous(nr_pages, thp=thp, madvised=thp))

    def touch(self, which, start, nr):
        vma = self.vmas[which % len(self.vmas)]
        self.run(lambda: vma.touch(start % vma.nr_pages, nr))

    def dontneed(self, which, step):
        vma = self.vmas[which % len(self.vmas)]
        self.run(lambda: vma.madvise_dontneed(np.arange(0, vma.nr_pages, step)))

    def munmap(self, which):
        self.run(self.vmas.pop(which % len(self.vmas)).munmap)

    def alloc(self, order, mask):
        def body():
            pfn = self.mm.alloc_pages(mask, order)
            if pfn >= 0:
                self.blocks.append((pfn, order))

        self.run(body)

    def free(self, which):
        pfn, order = self.blocks.pop(which % len(self.blocks))
        self.run(lambda: self.mm.free_pages(pfn, order))

    def compact(self, order, priority):
        def body():
            _, pfn = self.mm.compaction.try_to_compact_pages(KERNEL, order, 0, 2, priority)
            if pfn >= 0:
                self.blocks.append((pfn, order))

        self.run(body)

    def compact_all(self):
        self.run(self.mm.compact_memory)

    def reclaim(self, mask):
        self.run(lambda: self.mm._vmscan.try_to_free_pages(0, mask))

    def wait(self, ms):
        self.mm.sched.run(self.mm.sched.now + ms * SEC // 1000)

    def digest(self) -> str:
        state = hashlib.sha256()
        state.update(self.mm.pgdat.memory.page.tobytes())
        state.update(repr((self.mm.sched.now, self.mm.vmstat.as_dict())).encode())
        return state.hexdigest()


# --- what must hold ----------------------------------------------------------------------------------------------------


def check(load: Load) -> None:
    mm = load.mm
    memory = mm.pgdat.memory
    words = memory.page[pg.WORD : 4 * memory.nr_pfns : 4]
    rmap = memory.page[pg.RMAP : 4 * memory.nr_pfns : 4]
    pfns = mm.rmap.slots[mm.rmap.slots < pg.SLOT_SHADOW].astype(np.int64)
    assert len(np.unique(pfns)) == len(pfns), "two owners hold one page"

    # Heads point back to the first of their slots, and lie together in them, but for parts that were unmapped.
    heads = np.flatnonzero((words & (pg.TYPE_MASK | pg.PG_LRU)) == pg.T_ALLOC | pg.PG_LRU)
    sizes = 1 << (words[heads] & pg.ORDER_MASK).astype(np.int64)
    left = sizes.copy()
    by_pte = (words[heads] & pg.PG_PTE_MAPPED) != 0
    for i in np.flatnonzero(by_pte):
        part = mm.rmap.slots[rmap[heads[i]] : rmap[heads[i]] + 512]
        left[i] = (part == heads[i] + np.arange(512)).sum()
    assert (left > 0).all(), "nothing is left of a huge page, and it was not freed"
    assert int(left.sum()) == len(pfns), "a page on the LRU has no owner, or an owned page is on no list"
    for k in np.unique(sizes):
        some = heads[(sizes == k) & ~by_pte]
        at = rmap[some].astype(np.int64)
        for i in (0, int(k) - 1):
            assert (mm.rmap.slots[at + i] == some + i).all(), "a slot and its page disagree"

    # Lists hold exactly these heads, each on the list its flags call for, and the counters count them.
    on_lists = []
    for which in range(pg.NR_LRU_LISTS):
        entries = memory.list_pfns(memory.owner_head(which))
        on_lists.append(entries)
        n = int((1 << (words[entries] & pg.ORDER_MASK).astype(np.int64)).sum())
        assert n == mm.lruvec.size(which)
        active = (words[entries] & pg.PG_ACTIVE) != 0
        anon = (words[entries] & pg.PG_SWAPBACKED) != 0
        if which < pg.LRU_UNEVICTABLE:
            assert (active == (which % 2 == 1)).all()
            assert (anon == (which < 2)).all()
    assert sorted(np.concatenate(on_lists).tolist()) == heads.tolist()
    per_block = np.bincount(heads >> 9, weights=sizes, minlength=len(memory.pb)).astype(np.int64)
    assert (per_block == (memory.pb >> pg.PB_LRU_SHIFT)[: len(per_block)]).all()

    flags = words[heads]

    def pages(mask, value=None):
        return int(sizes[(flags & mask) == (mask if value is None else value)].sum())

    stat = mm.lruvec.node_stat
    file = pg.PG_SWAPBACKED
    anon_mapped = (flags & (pg.PG_SWAPBACKED | pg.PG_MAPPED)) == pg.PG_SWAPBACKED | pg.PG_MAPPED
    assert stat(pg.NS_ANON_MAPPED) == left[anon_mapped].sum()
    assert stat(pg.NS_ANON_THPS) == sizes[anon_mapped & ~by_pte & (sizes == 512)].sum()
    assert stat(pg.NS_SWAPCACHE) == pages(pg.PG_SWAPCACHE)
    assert stat(pg.NS_FILE_PAGES) == sizes[~anon_mapped | ((flags & pg.PG_SWAPCACHE) != 0)].sum()
    # A device holds pages that were dropped while it wrote them.
    held = words[(words & (pg.TYPE_MASK | pg.PG_LRU | pg.PG_WRITEBACK)) == pg.T_ALLOC | pg.PG_WRITEBACK]
    held_pages = int((1 << (held & pg.ORDER_MASK).astype(np.int64)).sum())
    assert stat(pg.NS_WRITEBACK) == pages(pg.PG_WRITEBACK) + held_pages
    queued = mm.memory.deferred_split.split_queue
    assert set(queued) <= set(heads[by_pte].tolist())
    assert set(heads[by_pte & (left < 512) & ((flags & pg.PG_SWAPCACHE) == 0)].tolist()) <= set(queued)
    assert stat(pg.NS_FILE_DIRTY) == pages(pg.PG_DIRTY | file, pg.PG_DIRTY)
    assert stat(pg.NS_FILE_MAPPED) == pages(pg.PG_MAPPED | file, pg.PG_MAPPED)

    # Each slot of the device belongs to a page in the swap cache or to one that is out.
    out = 0
    for vma in load.vmas:
        out += vma.nr_swapped
    taken = SWAP - mm.swap.get_nr_swap_pages() - stat(pg.NS_SWAPCACHE) - out
    gone = mm.initramfs_pages - int((mm.rmap.slots[1 : 1 + mm.initramfs_pages] < pg.SLOT_SHADOW).sum())
    assert taken == gone


def check_time(load: Load) -> None:
    """What was charged to tasks is the time they had a CPU; a charge under way counts in full already."""
    ended = [task for task in load.tasks if task.state.name != "RUNNING"]
    for task in ended:
        assert task.charged_ns == task.sum_exec_runtime, task
    assert sum(task.charged_ns for task in ended) <= load.mm.sched.now * load.mm.sched.nr_cpus


class Machine(RuleBasedStateMachine):
    @initialize()
    def boot(self):
        self.load = Load()
        self.total = self.load.mm.check_memory()
        self.load.open(700, True, 0)
        self.load.mmap(1500, False)

    @rule(n=st.integers(1, 4000), movable=st.booleans(), max_order=st.sampled_from([0, 0, 4]))
    @precondition(lambda self: len(self.load.files) < 5)
    def open(self, n, movable, max_order):
        self.load.open(n, movable, max_order)

    @rule(which=st.integers(0, 9), start=st.integers(0, 4000), n=st.integers(1, 3000))
    def read(self, which, start, n):
        self.load.read(which, start, n)

    @rule(which=st.integers(0, 9), start=st.integers(0, 4000), n=st.integers(1, 600))
    def write(self, which, start, n):
        self.load.write(which, start, n)

    @rule(which=st.integers(0, 9), start=st.integers(0, 4000), n=st.integers(1, 300))
    def map_file(self, which, start, n):
        self.load.map_file(which, start, n)

    @rule(which=st.integers(0, 9), all_of_it=st.booleans())
    def drop_file(self, which, all_of_it):
        self.load.drop_file(which, all_of_it)

    @rule(n=st.integers(1, 9000), thp=st.booleans())
    @precondition(lambda self: len(self.load.vmas) < 5)
    def mmap(self, n, thp):
        self.load.mmap(n, thp)

    @rule(which=st.integers(0, 9), start=st.integers(0, 8000), n=st.integers(1, 9000))
    @precondition(lambda self: self.load.vmas)
    def touch(self, which, start, n):
        self.load.touch(which, start, n)

    @rule(which=st.integers(0, 9), step=st.integers(1, 7))
    @precondition(lambda self: self.load.vmas)
    def dontneed(self, which, step):
        self.load.dontneed(which, step)

    @rule(which=st.integers(0, 9))
    @precondition(lambda self: self.load.vmas)
    def munmap(self, which):
        self.load.munmap(which)

    @rule(order=st.integers(0, 10), movable=st.booleans(), comp=st.booleans())
    def alloc(self, order, movable, comp):
        self.load.alloc(order, KERNEL | (gfp.MOVABLE if movable else 0) | (gfp.COMP if comp else 0))

    @rule(which=st.integers(0, 99))
    @precondition(lambda self: self.load.blocks)
    def free(self, which):
        self.load.free(which)

    @rule(order=st.integers(1, 10), priority=PRIORITIES)
    def compact(self, order, priority):
        self.load.compact(order, priority)

    @rule()
    def compact_all(self):
        self.load.compact_all()

    @rule(mask=st.sampled_from([gfp.GFP_KERNEL, gfp.GFP_NOFS, gfp.GFP_NOIO, gfp.GFP_DMA | gfp.GFP_KERNEL]))
    def reclaim(self, mask):
        self.load.reclaim(mask)

    @rule(ms=st.integers(1, 700))
    def wait(self, ms):
        self.load.wait(ms)

    @invariant()
    def whole(self):
        if hasattr(self, "load"):
            self.load.mm.check_memory(self.total)
            check(self.load)
            check_time(self.load)

    def teardown(self):
        if hasattr(self, "load"):
            self.load.mm.sched.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def exercise(load: Load) -> str:
    rng = np.random.default_rng(7)
    load.open(3000, True, 0)
    load.open(3000, False, 0)
    load.mmap(12_000, False)
    load.mmap(2048, True)
    for _ in range(60):
        n = int(rng.integers(1, 5000))
        step = int(rng.integers(0, 9))
        if step < 2:
            load.read(n, n, n)
        elif step == 2:
            load.write(n, n, n % 300)
        elif step < 5:
            load.touch(n, n, n)
        elif step == 5:
            load.dontneed(n, 1 + n % 5)
        elif step == 6:
            load.alloc(n % 10, KERNEL)
        elif step == 7:
            load.compact(1 + n % 9, CompactPriority.SYNC_LIGHT)
        else:
            load.wait(n % 400)
    check(load)
    check_time(load)
    return load.digest()


def test_two_runs_are_equal_byte_for_byte():
    assert exercise(Load()) == exercise(Load())


def test_several_cpus_keep_the_same_rules():
    exercise(Load(nr_cpus=4))
