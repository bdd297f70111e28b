"""Machines with the plugin on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mmfw.gfp import GFP_KERNEL, MEMALLOC, NOWARN, RECLAIM
from mmfw.sched import Task
from mmfw.testing import make_mm
from mmfw_thp import HugeZeroPage, Khugepaged
from mmfw_thp.plugin import (
    mmfw_module_exit,
    mmfw_module_init,
    mmfw_register_metrics,
    mmfw_register_workloads,
)
from mmfw_thp.settings import ThpParams

SEC = 1_000_000_000
QUIET = GFP_KERNEL & ~RECLAIM | NOWARN | MEMALLOC


class Bench:
    """A machine whose time runs."""

    def __init__(self, machine: str = "128M", nr_swap_pages: int = 0, **params: Any) -> None:
        self.mm = make_mm(machine, nr_swap_pages=nr_swap_pages)
        mmfw_module_init(self.mm, ThpParams(**params))
        self.mm.start_time()

    @property
    def page(self) -> HugeZeroPage:
        page = self.mm.attached.get(HugeZeroPage)
        assert page is not None
        return page

    @property
    def khugepaged(self) -> Khugepaged:
        khugepaged = self.mm.attached.get(Khugepaged)
        assert khugepaged is not None
        return khugepaged

    def spawn(self, body: Callable[[], object], name: str = "load") -> Task:
        return self.mm.sched.spawn(body, name=name, daemon=True)

    def workload(self, name: str, **params: Any) -> Task:
        load = {each.name: each for each in mmfw_register_workloads()}[name]
        assert load.params is not None
        return self.spawn(lambda: load.run(self.mm, load.params(**params)), name)

    def small_heap(self, nr_huge: int) -> Callable[[], None]:
        """Body of a program whose heap is in single pages, and might be in huge ones; it lives on."""

        def body() -> None:
            self.mm.mmap_anonymous(512, thp=True).touch(0, 1)
            vma = self.mm.mmap_anonymous(512 * nr_huge)
            vma.touch(0, vma.nr_pages)
            vma.thp = True
            while True:
                self.mm.sched.nanosleep(SEC)

        return body

    def run(self, seconds: float) -> None:
        self.mm.sched.run(self.mm.sched.now + round(seconds * SEC))

    def take_blocks(self, order: int = 9) -> list[tuple[int, int]]:
        """Take every free block from an order on up."""
        taken = []
        for each in range(10, order - 1, -1):
            while (pfn := self.mm.alloc_pages(QUIET, each)) >= 0:
                taken.append((pfn, each))
        return taken

    def fragment(self) -> NDArray[np.int64]:
        """Keep every 16th page of free memory, for which nothing can be done; the pages kept."""
        self.mm.drain_all_pages()
        held = self.mm.alloc_pages_batch(QUIET & ~MEMALLOC, 0, self.mm.global_free_pages())
        self.mm.free_pages_batch(held[held % 16 != 0], 0)
        self.mm.drain_all_pages()
        return held[held % 16 == 0]

    def free_pages(self) -> int:
        self.mm.drain_all_pages()
        return self.mm.global_free_pages()

    def metric(self, name: str) -> float:
        return next(each for each in mmfw_register_metrics() if each.name == name).read(self.mm)

    def vmstat(self, name: str) -> int:
        return self.mm.vmstat.as_dict()[name]


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build one: ``bench("128M", defrag=..., ...)``."""
    made: list[Bench] = []

    def build(*machine: str, **more: Any) -> Bench:
        made.append(Bench(*machine, **more))
        return made[-1]

    yield build
    for each in made:
        each.mm.sched.close()
        mmfw_module_exit(each.mm)
        assert "thp-zero" not in [left.ops.name for left in each.mm.shrinkers]
        each.mm.check_memory()
