"""Machines with the queue's shrinker on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mmfw import ShrinkControl, attach
from mmfw.gfp import GFP_KERNEL
from mmfw.jit import page as pg
from mmfw.mm.memory import Vma
from mmfw.mm.shrinker import Shrinker
from mmfw.testing import make_mm
from mmfw_deferred_split.plugin import DeferredSplitParams, mmfw_module_exit, mmfw_module_init
from mmfw_deferred_split.shrinker import WantedOrder


class Bench:
    """A machine of 128 MiB, the shrinker registered."""

    def __init__(self, kernel: str, *, start: bool, **params: Any) -> None:
        self.mm = make_mm("128M", kernel=kernel)
        mmfw_module_init(self.mm, DeferredSplitParams(**params))
        if start:
            self.mm.start_time()

    @property
    def shrinker(self) -> Shrinker:
        return next(each for each in self.mm.shrinkers if each.ops.name == "thp-deferred_split")

    @property
    def queue(self) -> tuple[int, ...]:
        return self.mm.memory.deferred_split.split_queue

    def control(self, nr_to_scan: int = 0, order: int = 0) -> ShrinkControl:
        sc = ShrinkControl(gfp_mask=GFP_KERNEL, nid=0, nr_to_scan=nr_to_scan, nr_scanned=nr_to_scan)
        attach(sc, WantedOrder(order))
        return sc

    def count(self, order: int = 0) -> int:
        return self.shrinker.ops.count_objects(self.control(order=order))

    def scan(self, nr_to_scan: int, order: int = 0) -> int:
        sc = self.control(nr_to_scan, order)
        split = self.shrinker.ops.scan_objects(sc)
        assert sc.nr_scanned == nr_to_scan
        return split

    def heap(self, nr_huge: int, dropped: Any = ()) -> tuple[Vma, list[int]]:
        """Huge pages of each of which some pages are dropped; the mapping and their heads."""
        vma = self.mm.mmap_anonymous(512 * nr_huge, thp=True)
        assert vma.touch(0, vma.nr_pages) == vma.nr_pages
        heads = [int(pfn) for pfn in vma.pfns()[::512]]
        indices = np.array(list(dropped), dtype=np.int64)
        for first in range(0, vma.nr_pages, 512):
            vma.madvise_dontneed(first + indices)
        return vma, heads

    def lock(self, pfn: int, *, unlock: bool = False) -> None:
        flags = {"off" if unlock else "on": pg.PG_LOCKED}
        self.mm.lruvec.set_flags(np.array([pfn], dtype=np.int64), **flags)

    def free(self) -> tuple[int, list[int]]:
        """Free pages, and DMA32's free blocks by order, with nothing on the CPUs' lists."""
        self.mm.drain_all_pages()
        return self.mm.global_free_pages(), self.mm.buddyinfo()["DMA32"]

    def vmstat(self, name: str) -> int:
        return self.mm.vmstat.as_dict()[name]


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build one: ``bench(kernel, start=..., order_aware=..., max_ptes_none=...)``."""
    made: list[Bench] = []

    def build(kernel: str = "6.1", *, start: bool = False, **params: Any) -> Bench:
        made.append(Bench(kernel, start=start, **params))
        return made[-1]

    yield build
    for each in made:
        each.mm.sched.close()
        each.mm.check_memory()
        mmfw_module_exit(each.mm)
        assert "thp-deferred_split" not in [left.ops.name for left in each.mm.shrinkers]
