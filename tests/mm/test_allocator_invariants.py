"""Any sequence of allocations, frees and drains, by any class of request, keeps the allocator whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.pages import Memory
from mmfw.mm.sanitize import CorruptMemory, check_memory
from mmfw.testing import make_mm

NORECLAIM = ~gfp.RECLAIM
MASKS = (
    gfp.GFP_KERNEL & NORECLAIM,
    gfp.GFP_HIGHUSER_MOVABLE & NORECLAIM,
    (gfp.GFP_KERNEL | gfp.RECLAIMABLE) & NORECLAIM,
    gfp.GFP_ATOMIC & NORECLAIM,
    (gfp.GFP_KERNEL | gfp.NOMEMALLOC) & NORECLAIM,
    gfp.GFP_DMA32,
    gfp.GFP_DMA,
    gfp.GFP_ATOMIC,
)


class Allocator(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[int, int]] = []

    @initialize(cpus=st.integers(1, 3), leave=st.sampled_from([None, 3000, 800]))
    def boot(self, cpus: int, leave: int | None) -> None:
        self.mm = make_mm("256M", nr_cpus=cpus)
        if leave is not None:
            n = self.mm.global_free_pages() - leave
            self.held = [(int(p), 0) for p in self.mm.alloc_pages_batch(MASKS[0], 0, n)]
        self.total = check_memory(self.mm.pgdat.memory)

    @rule(mask=st.sampled_from(MASKS), order=st.integers(0, 10), count=st.integers(1, 80))
    def allocate(self, mask: int, order: int, count: int) -> None:
        pfns = self.mm.alloc_pages_batch(mask, order, count)
        self.held += [(int(p), order) for p in pfns]

    @rule(seed=st.integers(0, 1 << 30), share=st.sampled_from([1, 2, 3, 10, 100]))
    def free_some(self, seed: int, share: int) -> None:
        order = self.mm.rng(f"free {seed}").shuffled(np.arange(len(self.held))).tolist()
        gone = set(order[: len(order) // share])
        for i in sorted(gone):
            self.mm.free_pages(*self.held[i])
        self.held = [h for i, h in enumerate(self.held) if i not in gone]

    @rule(every=st.integers(2, 40))
    def punch(self, every: int) -> None:
        for pfn, order in self.held[::every]:
            self.mm.free_pages(pfn, order)
        self.held = [h for i, h in enumerate(self.held) if i % every]

    @rule()
    def drain(self) -> None:
        self.mm.drain_all_pages()

    @invariant()
    def whole(self) -> None:
        if hasattr(self, "total"):
            check_memory(self.mm.pgdat.memory, self.total)


TestAllocator = Allocator.TestCase
TestAllocator.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def _machine() -> Memory:
    mm = make_mm("256M")
    mm.alloc_pages_batch(MASKS[0], 0, 1000)
    memory = mm.pgdat.memory
    check_memory(memory)
    return memory


def _break_counter(memory: Memory) -> None:
    memory.S[memory.zone_offset(1) + pg.Z_FREE] += 1


def _break_nr_free(memory: Memory) -> None:
    memory.S[memory.zone_offset(1) + pg.Z_NR_FREE + 10] -= 1


def _break_type(memory: Memory) -> None:
    memory.pb[40] = 3


def _break_pcp(memory: Memory) -> None:
    memory.S[memory.pcp_offset(0, 1) + pg.C_COUNT] += 1


def _break_word(memory: Memory) -> None:
    pfn = int(memory.list_pfns(memory.free_head(1, 10, 1))[0])
    memory.page[4 * pfn + pg.WORD] = pg.T_ALLOC | 10


def _break_overlap(memory: Memory) -> None:
    pfn = int(memory.list_pfns(memory.free_head(1, 10, 1))[0])
    memory.page[4 * (pfn + 4) + pg.WORD] = pg.T_ALLOC


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_break_counter, "NR_FREE_PAGES is"),
        (_break_nr_free, "order 10: nr_free is"),
        (_break_type, "nr_reserved_highatomic is 0, HighAtomic pageblocks hold 512"),
        (_break_pcp, "pcp count is"),
        (_break_word, "not marked as a free block"),
        (_break_overlap, "is allocated and lies in a free block"),
    ],
)
def test_every_kind_of_damage_is_seen(damage, message):
    memory = _machine()
    damage(memory)
    with pytest.raises(CorruptMemory, match=message):
        check_memory(memory)
