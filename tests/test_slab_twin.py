"""The compiled slab cache beside its plain twin: every object, every page asked for and given back, every list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.jit import slab_lists as jit
from mmfw.machine import machine_from_ram
from mmfw.mainline import mmfw_plan_wakeup, mmfw_should_shrink_slab
from mmfw.mm.context import IrqsOff, SleepingOnce
from mmfw.mm.freelist import Freelist
from mmfw.mm.mmzone import PglistData
from mmfw.mm.page_alloc import PageAllocator
from mmfw.mm.pages import Memory
from mmfw.mm.sanitize import check_memory
from mmfw.mm.shrinker import ShrinkerList
from mmfw.mm.slab_common import SlabAllocator
from mmfw.mm.slab_host import SlabHost
from mmfw.mm.slowpath import Slowpath
from mmfw.mm.trace import Tracepoints
from mmfw.mm.vmscan import Vmscan
from mmfw.mm.vmstat import VmStat
from mmfw.mm.wakeup import KswapdRequests
from mmfw.rawrandom import Rng
from mmfw.types import MmOps
from naive.slub import NaiveCache

MASK = gfp.GFP_KERNEL & ~gfp.RECLAIM
#: Bytes of an object, and what they make of a slab on one CPU: one to many objects, with and without a fallback order.
SIZES = (16, 192, 576, 1024, 1176, 3000, 6000, 9000)


class Both:
    """A cache and its twin. The twin is told which pages the cache got, and must ask for the same."""

    def __init__(self, size: int, nr_cpus: int, leave: int | None, seed: int) -> None:
        self.memory = memory = Memory(machine_from_ram("128M", nr_cpus).node_state())
        pgdat = PglistData(memory)
        trace, vmstat = Tracepoints(), VmStat(memory)
        ops = MmOps(plan_wakeup=mmfw_plan_wakeup, should_shrink_slab=mmfw_should_shrink_slab)
        self.context = context = IrqsOff()
        kswapd = KswapdRequests(pgdat, lambda *_: None, ops, SleepingOnce(), trace)
        shrinkers = ShrinkerList(trace, vmstat)
        vmscan = Vmscan(pgdat, shrinkers, None, None, None, ops, kswapd, None, context, trace, vmstat)
        freelist = Freelist(pgdat, kswapd, context)
        allocator = PageAllocator(
            freelist, Slowpath(freelist, vmscan, None, None, context, trace, vmstat), context
        )
        if leave is not None:
            held = allocator.alloc_pages_batch(MASK | gfp.NOMEMALLOC, 0, 1 << 16)
            allocator.free_pages_batch(held[: 2 * leave : 2], 0)
        nothing = lambda *_: None  # noqa: E731
        self.slab = SlabAllocator(
            SlabHost(freelist, allocator, context, nothing, nothing, nothing), lambda _: Rng(seed)
        )
        self.cache = self.slab.kmem_cache_create("twin", size)
        geometry, C = self.cache.geometry, self.cache.store.C
        self.twin = NaiveCache(
            nr_cpus,
            (geometry.oo.objects, geometry.min.objects),
            geometry.min_partial,
            geometry.cpu_partial_slabs,
            C[C[jit.K_SEQ] :].tolist(),
            int(C[jit.K_RANDOM]),
            self.take_pages,
            self.give_pages,
        )
        self.rows: list[list[int]] = []
        memory.S[pg.S_TRACE_MASK] = 1 << pg.TR_PAGE_ALLOC | 1 << pg.TR_PAGE_FREE
        memory.flush_trace()
        memory.trace_sink = lambda rows: self.rows.extend(rows.tolist())
        self.held: list[tuple[int, tuple[int, int]]] = []

    def take_pages(self, wanted: bool) -> int | None:
        kind, pfn, order, *_ = self.rows.pop(0)
        geometry = self.cache.geometry
        assert (kind, order) == (pg.TR_PAGE_ALLOC, (geometry.oo if wanted else geometry.min).order)
        return None if pfn < 0 else pfn

    def give_pages(self, pfn: int) -> None:
        assert self.rows.pop(0)[:2] == [pg.TR_PAGE_FREE, pfn]

    def alloc(self, cpu: int, count: int) -> None:
        self.context.cpu = cpu
        objects = self.cache.kmem_cache_alloc_bulk(MASK, count)
        self.memory.flush_trace()
        expected = []
        for _ in range(count):
            obj = self.twin.alloc(cpu)
            if obj is None:
                break
            expected.append(obj)
        index = self.cache.place_of(objects) % self.cache.geometry.oo.objects
        assert list(zip(self.cache.slab_of(objects).tolist(), index.tolist(), strict=True)) == expected
        self.held += zip(objects.tolist(), expected, strict=True)

    def free(self, cpu: int, which: list[int]) -> None:
        self.context.cpu = cpu
        self.cache.kmem_cache_free_bulk(np.array([self.held[i][0] for i in which], dtype=np.int64))
        self.memory.flush_trace()
        for i in which:
            self.twin.free(cpu, self.held[i][1])
        gone = set(which)
        self.held = [pair for i, pair in enumerate(self.held) if i not in gone]

    def shrink(self, cpu: int) -> None:
        self.context.cpu = cpu
        left = self.cache.kmem_cache_shrink()
        self.memory.flush_trace()
        self.twin.shrink()
        assert left == int(bool(self.twin.by_pfn))

    def compare(self) -> None:
        assert self.rows == []
        store, twin = self.cache.store, self.twin
        self.slab.validate()
        pfns = store.field(jit.SL_PFN)
        assert pfns[store.partial()].tolist() == [slab.pfn for slab in twin.node]
        table = self.cache.slabs()
        assert dict(zip(table.pfn.tolist(), table.objects.tolist(), strict=True)) == {
            slab.pfn: slab.objects for slab in twin.by_pfn.values()
        }
        for cpu, c in enumerate(twin.cpus):
            slot, _, nfree, _ = store.C[jit.K_HEADER + cpu * jit.U_SIZE :][: jit.U_SIZE].tolist()
            assert (slot and int(pfns[slot])) == (c.slab.pfn if c.slab else 0)
            assert nfree == len(c.free)
        assert self.cache.nr_objects == len(self.held)


operations = st.lists(
    st.tuples(
        st.sampled_from(["alloc", "alloc", "free", "free in order", "shrink"]),
        st.integers(0, 7),
        st.integers(1, 400),
        st.integers(0, 1 << 30),
    ),
    min_size=1,
    max_size=30,
)


@given(
    st.sampled_from(SIZES),
    st.integers(1, 3),
    st.sampled_from([None, None, 150, 20]),
    st.integers(0, 99),
    operations,
)
@settings(max_examples=60, deadline=None)
def test_any_load_is_answered_as_by_the_twin(size, nr_cpus, leave, seed, steps):
    both = Both(size, nr_cpus, leave, seed)
    total = check_memory(both.memory)
    for kind, cpu, count, number in steps:
        cpu %= nr_cpus
        if kind == "alloc":
            both.alloc(cpu, count)
        elif kind == "shrink":
            both.shrink(cpu)
        else:
            which = np.arange(len(both.held), dtype=np.int64)
            if kind == "free":
                which = Rng(number).shuffled(which)
            both.free(cpu, which[: count * 2].tolist())
        both.compare()
    check_memory(both.memory, total)


@pytest.mark.parametrize("size", SIZES)
def test_a_long_random_load_on_two_cpus(size):
    both = Both(size, 2, None, 5)
    rng = Rng(size)
    for step in range(60):
        both.alloc(step % 2, 300 + 40 * (step % 5))
        which = rng.shuffled(np.arange(len(both.held), dtype=np.int64))
        both.free(int(rng.below(2, 1)[0]), which[: len(which) * (step % 7) // 8].tolist())
    both.compare()
    both.free(1, list(range(len(both.held))))
    both.shrink(0)
    both.compare()
    assert both.twin.by_pfn == {}
