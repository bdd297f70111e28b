"""Any sequence of allocations and frees, in memory that is plenty or nearly out, keeps slab caches whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmfw import gfp
from mmfw.mm.sanitize import check_memory
from mmfw.mm.slab import BadObject
from mmfw.mm.slab_sizes import SLAB_HWCACHE_ALIGN, SLAB_RECLAIM_ACCOUNT
from mmfw.testing import make_mm

CACHES = (
    ("dentry", 192, SLAB_RECLAIM_ACCOUNT),
    ("ext4_inode_cache", 1176, SLAB_RECLAIM_ACCOUNT),
    ("names", 4096, SLAB_HWCACHE_ALIGN),
    ("buffer_head", 104, SLAB_RECLAIM_ACCOUNT),
)
MASKS = (gfp.GFP_KERNEL & ~gfp.RECLAIM, gfp.GFP_NOWAIT, gfp.GFP_ATOMIC)
index = st.integers(0, len(CACHES) - 1)


class SlabMachine(RuleBasedStateMachine):
    @initialize(cpus=st.integers(1, 3), leave=st.sampled_from([None, None, 3000, 600]))
    def boot(self, cpus: int, leave: int | None) -> None:
        self.mm = make_mm("128M", nr_cpus=cpus)
        self.owned = self.mm.nr_allocated_pages()
        self.others = np.empty(0, dtype=np.int64)
        if leave is not None:
            nr = self.mm.global_free_pages() - leave
            self.others = self.mm.alloc_pages_batch(MASKS[0] | gfp.NOMEMALLOC, 0, nr)
            self.mm.free_pages_batch(self.others[::64], 0)
            self.others = np.delete(self.others, np.s_[::64])
        self.total = check_memory(self.mm.pgdat.memory)
        create = self.mm.slab.kmem_cache_create
        self.caches = [create(name, size, flags=flags) for name, size, flags in CACHES]
        self.held = [np.empty(0, dtype=np.int64) for _ in CACHES]

    @rule(which=index, mask=st.sampled_from(MASKS), count=st.integers(1, 500))
    def allocate(self, which: int, mask: int, count: int) -> None:
        got = self.caches[which].kmem_cache_alloc_bulk(mask, count)
        both = np.concatenate([self.held[which], got])
        assert len(np.unique(both)) == len(both)
        self.held[which] = both

    @rule(which=index, seed=st.integers(0, 1 << 30), share=st.sampled_from([1, 2, 10, 100]))
    def free_at_random(self, which: int, seed: int, share: int) -> None:
        held = self.mm.rng(f"free {seed}").shuffled(self.held[which])
        nr = len(held) // share
        self.caches[which].kmem_cache_free_bulk(held[:nr])
        self.held[which] = held[nr:]

    @rule(which=index, number=st.integers(0, 1 << 30))
    def free_a_slab(self, which: int, number: int) -> None:
        pfns = self.caches[which].slabs().pfn
        if len(pfns):
            gone = self.caches[which].objects_of(int(pfns[number % len(pfns)]))
            assert np.isin(gone, self.held[which]).all()
            self.caches[which].kmem_cache_free_bulk(gone)
            self.held[which] = self.held[which][~np.isin(self.held[which], gone)]

    @rule(which=index, other=index)
    def free_what_is_not_there(self, which: int, other: int) -> None:
        if which != other and len(self.held[other]):
            with pytest.raises(BadObject):
                self.caches[which].kmem_cache_free(int(self.held[other][0]))

    @rule(which=index)
    def shrink(self, which: int) -> None:
        left = self.caches[which].kmem_cache_shrink()
        assert left == (self.caches[which].nr_slabs != 0) == (len(self.held[which]) > 0)

    @invariant()
    def whole(self) -> None:
        if not hasattr(self, "held"):
            return
        self.mm.slab.validate()
        pages = 0
        for cache, held in zip(self.caches, self.held, strict=True):
            table = cache.slabs()
            pfns, inuse = np.unique(cache.slab_of(held), return_counts=True)
            assert table.pfn[table.inuse > 0].tolist() == pfns.tolist()
            assert table.inuse[table.inuse > 0].tolist() == inuse.tolist()
            assert cache.nr_objects == len(held) <= cache.slabinfo().active_objs
            pages += cache.nr_pages
        assert self.mm.nr_allocated_pages() == self.owned + len(self.others) + pages
        check_memory(self.mm.pgdat.memory, self.total)

    def teardown(self) -> None:
        if hasattr(self, "held"):
            for cache, held in zip(self.caches, self.held, strict=True):
                cache.kmem_cache_free_bulk(held)
                self.mm.slab.kmem_cache_destroy(cache)
            assert self.mm.nr_allocated_pages() == self.owned + len(self.others)
            check_memory(self.mm.pgdat.memory, self.total)


TestSlabMachine = SlabMachine.TestCase
TestSlabMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
