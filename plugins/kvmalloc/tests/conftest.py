"""Machines with kvmalloc on them, that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmfw.machine import machine_from_ram
from mmfw.machine.initial import with_buddyinfo
from mmfw.mm.core import Mm
from mmfw.sched import Task, TaskState
from mmfw.testing import make_mm
from mmfw_kvmalloc import Kvmalloc
from mmfw_kvmalloc.plugin import KvmallocParams, mmfw_module_init, mmfw_register_metrics
from mmfw_kvmalloc.storm import StormParams, kvmalloc_storm


class Bench:
    """A machine with the plugin set up."""

    def __init__(self, mm: Mm, rules: str | None) -> None:
        self.mm = mm
        mmfw_module_init(mm, KvmallocParams.model_validate({"rules": rules}))
        kv = mm.attached.get(Kvmalloc)
        assert kv is not None
        self.kv = kv

    def storm(self, **params: Any) -> Task:
        return self.mm.sched.spawn(
            kvmalloc_storm, self.mm, StormParams.model_validate(params), name="storm", daemon=True
        )

    def run_ms(self, milliseconds: int) -> None:
        self.mm.sched.run(self.mm.sched.now + milliseconds * 1_000_000)

    def kill(self, task: Task) -> None:
        self.mm.sched.send_sigkill(task)
        self.run_ms(50)
        assert task.state is TaskState.DEAD

    def metrics(self) -> dict[str, int | float]:
        return {metric.name: metric.read(self.mm) for metric in mmfw_register_metrics()}

    def free_pages(self) -> int:
        """Free pages, what kmalloc's caches keep for later given back."""
        self.mm.slab.shrink_kmalloc_caches()
        self.mm.drain_all_pages()
        return self.mm.global_free_pages()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build one: ``bench("6.1", dma32=[...], start=True)``; 256 MiB."""
    made: list[Bench] = []

    def build(rules: str | None = None, dma32: list[int] | None = None, **more: Any) -> Bench:
        base: Any = "256M"
        if dma32 is not None:
            state = machine_from_ram("256M").node_state(0)
            base = with_buddyinfo(state, {"DMA32": dma32, "DMA": [0] * 11}, 0.3, 1, "test")
        made.append(Bench(make_mm(base, **more), rules))
        return made[-1]

    yield build
    for each in made:
        each.mm.sched.close()
