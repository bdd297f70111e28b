"""The reclaim loop on the small captured machine: 1 GiB, every 16th page unmovable, objects of 512 pages.

The expected figures are those of one kswapd pass of the 6.1.192 capture 1G-frag16-s1 (21 objects resident):
priorities 12 to 8 only put work off; at 7 one scan of 128 evicts a whole object, an order-9 block is free,
the node is balanced and the pass ends. Before that the request compacts both zones, finds reclaim unneeded since
compaction could be tried, and compacts once more, all in vain, as the second request of that capture does.
"""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import SHRINK_EMPTY, SHRINK_STOP, gfp, hookimpl
from mmfw.mm.core import Mm
from mmfw.mm.trace import (
    MmCompactionEnd,
    MmShrinkSlabEnd,
    MmShrinkSlabStart,
    MmVmscanDirectReclaimBegin,
    MmVmscanDirectReclaimEnd,
    MmVmscanKswapdWake,
    MmVmscanWakeupKswapd,
)
from mmfw.testing import make_mm, recorded

HIGH = gfp.GFP_HIGHUSER | gfp.NOMEMALLOC | gfp.NORETRY | gfp.NOWARN
LOW = gfp.GFP_HIGHUSER | gfp.NOWARN
#: What a request for a high order does without kswapd, where compaction can move nothing: two zones compacted before
#: reclaim and after.
FRUITLESS_REQUEST = [
    MmCompactionEnd,
    MmCompactionEnd,
    MmVmscanDirectReclaimBegin,
    MmVmscanDirectReclaimEnd,
    MmCompactionEnd,
    MmCompactionEnd,
]
REQUEST = (*set(FRUITLESS_REQUEST), MmVmscanWakeupKswapd, MmVmscanKswapdWake)
#: Time from the fixture on that a pass has all for itself: kcompactd looks at the node every 500 ms.
UNTIL_KCOMPACTD = 150_000_000
FILL = gfp.GFP_KERNEL & ~gfp.RECLAIM | gfp.NOWARN


class Objects:
    """The capture module's gpu shrinker: whole objects out, least recently used first."""

    seeks = 2

    def __init__(self, mm: Mm) -> None:
        self.mm = mm
        self.lru: list[list[tuple[int, int]]] = []
        self.evicted = 0

    @property
    def resident(self) -> int:
        return sum(1 << order for blocks in self.lru for _, order in blocks)

    @hookimpl
    def count_objects(self, sc):
        return self.resident or SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc):
        freed = 0
        while freed < sc.nr_to_scan and self.lru:
            for pfn, order in self.lru.pop(0):
                self.mm.free_pages(pfn, order)
                freed += 1 << order
            self.evicted += 1
        sc.nr_scanned = max(freed, sc.nr_to_scan)
        return freed or SHRINK_STOP

    def add(self, orders: tuple[int, ...]) -> None:
        blocks = []
        left = 512
        while left:
            for order in orders:
                if 1 << order <= left:
                    pfn = self.mm.alloc_pages(HIGH if order else LOW, order)
                    if pfn >= 0:
                        blocks.append((pfn, order))
                        left -= 1 << order
                        break
            else:
                raise AssertionError("no memory for an object")
        self.lru.append(blocks)


def fragment(mm: Mm, keep: int, leave: int) -> None:
    """Fill with unmovable order-0 pages down to ``leave`` free ones, then free all but every keep-th pfn.

    The order-9 blocks left over are taken too: in the capture the first objects took them. Nothing stays on the CPU's
    lists: the watermarks do not see a block there, and direct reclaim would bring it back.
    """
    held = mm.alloc_pages_batch(FILL, 0, mm.global_free_pages() - leave)
    mm.free_pages_batch(held[held % keep != 0], 0)
    mm.drain_all_pages()
    while mm.alloc_pages(HIGH & ~gfp.RECLAIM, 9) >= 0:
        mm.drain_all_pages()


@pytest.fixture
def loop() -> tuple[Mm, Objects]:
    mm = make_mm("1G")
    objects = Objects(mm)
    mm.register_shrinker(objects, "gpu")
    for _ in range(21):
        objects.add((9,))
    fragment(mm, keep=16, leave=4000)
    mm.start_time()
    mm.sched.run(300_000_000)
    return mm, objects


def run_task(mm: Mm, body, until: int) -> None:
    mm.sched.spawn(body, name="client", daemon=True)
    mm.sched.run(mm.sched.now + until)


def test_one_pass_defers_from_12_to_8_and_evicts_one_object_at_7(loop):
    mm, objects = loop
    free_before = mm.global_free_pages()
    events = recorded(mm)
    run_task(mm, lambda: mm.alloc_pages(HIGH, 9), UNTIL_KCOMPACTD)

    story = [e for e in events if isinstance(e, REQUEST)]
    assert [type(e) for e in story] == [MmVmscanWakeupKswapd, *FRUITLESS_REQUEST, MmVmscanKswapdWake]
    assert story[0].order == story[-1].order == 9
    starts = [e for e in events if isinstance(e, MmShrinkSlabStart)]
    assert [(e.priority, e.nr_objects_to_shrink, e.delta, e.total_scan) for e in starts] == [
        (12, 0, 4, 4),
        (11, 4, 10, 10),
        (10, 14, 20, 20),
        (9, 34, 42, 42),
        (8, 76, 84, 84),
        (7, 160, 168, 169),
    ]
    assert {e.cache_items for e in starts} == {10752}
    ends = [e for e in events if isinstance(e, MmShrinkSlabEnd)]
    assert [(e.new_scan, e.retval) for e in ends] == [(4, 0), (14, 0), (34, 0), (76, 0), (160, 0), (0, 512)]
    assert objects.evicted == 1
    assert mm.global_free_pages() == free_before + 512
    assert mm.vmstat.as_dict()["pageoutrun"] == 1


def test_the_loop_evicts_what_the_next_touch_brings_back_with_most_memory_free(loop):
    mm, objects = loop

    def client() -> None:
        for _ in range(60):
            objects.add((9, 4, 0))
            mm.sched.sleep(1_000_000)

    run_task(mm, client, 2_000_000_000)
    assert objects.evicted >= 30
    assert mm.global_free_pages() > mm.pgdat.node_zones[1].managed_pages // 2


def test_without_the_kswapd_bit_nothing_is_evicted(loop):
    mm, objects = loop
    events = recorded(mm)
    run_task(mm, lambda: mm.alloc_pages(HIGH & ~gfp.KSWAPD_RECLAIM, 9), UNTIL_KCOMPACTD)
    assert objects.evicted == 0
    assert [type(e) for e in events if isinstance(e, REQUEST)] == FRUITLESS_REQUEST
    assert not any(isinstance(e, MmShrinkSlabStart) for e in events)


def test_sixteen_fruitless_passes_make_the_node_hopeless():
    mm = make_mm("1G")
    fragment(mm, keep=16, leave=4000)
    mm.start_time()
    events = recorded(mm)

    def client() -> None:
        for _ in range(40):
            assert mm.alloc_pages(HIGH, 9) == -1
            mm.sched.sleep(500_000_000)

    run_task(mm, client, 30_000_000_000)
    wakes = [e for e in events if isinstance(e, MmVmscanWakeupKswapd)]
    assert mm.pgdat.kswapd_failures == 16
    assert len(wakes) == 16
    assert np.all(np.diff([e.order for e in wakes]) == 0)
