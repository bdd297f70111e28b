"""Machines that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmfw.machine import machine_from_ram
from mmfw.machine.initial import with_buddyinfo
from mmfw.mm.core import Mm
from mmfw.sched import TaskState
from mmfw.testing import make_mm

MakeMm = Callable[..., Mm]


@pytest.fixture
def machine() -> Iterator[MakeMm]:
    """Build one: ``machine(dma32=[...], ...)``, the rest as `make_mm`; 256 MiB."""
    made: list[Mm] = []

    def build(dma32: list[int] | None = None, **more: Any) -> Mm:
        base: Any = "256M"
        if dma32 is not None:
            state = machine_from_ram("256M", more.get("nr_cpus", 1)).node_state(0)
            base = with_buddyinfo(state, {"DMA32": dma32, "DMA": [0] * 11}, 0.3, 1, "test")
        made.append(make_mm(base, **more))
        return made[-1]

    yield build
    for mm in made:
        mm.sched.close()


@pytest.fixture
def call() -> Callable[[Mm, Callable[[], Any]], Any]:
    """What a function returns as a task of its own, run to its end."""

    def run(mm: Mm, fn: Callable[[], Any], flags: int = 0) -> Any:
        task = mm.sched.spawn(fn, name="test", flags=flags, daemon=False)
        mm.sched.run()
        assert task.state is TaskState.DEAD
        return task.result

    return run


@pytest.fixture
def free_pages() -> Callable[[Mm], int]:
    """Free pages, none of them on a per-CPU list."""

    def count(mm: Mm) -> int:
        mm.drain_all_pages()
        return mm.global_free_pages()

    return count


@pytest.fixture
def unowned() -> Callable[[Mm], int]:
    """Pages allocated that neither a list of the LRU nor a page table nor the page cache's index accounts for."""

    def count(mm: Mm) -> int:
        kept = mm.lruvec.nr_pages + mm.memory.nr_page_table_pages + mm.page_cache.nodes.nr_pages
        return mm.nr_allocated_pages() - kept

    return count
