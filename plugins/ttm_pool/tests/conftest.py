"""A small machine with the TTM pool on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mmfw.binding import bind_mm_ops, bind_shrinker, hook_caller
from mmfw.machine import machine_from_ram
from mmfw.machine.initial import with_buddyinfo
from mmfw.mm.core import Mm, MmHost
from mmfw.plugins import load
from mmfw.registry import LoadedPlugins
from mmfw.sched import Scheduler
from mmfw.system import plugin_params
from mmfw_ttm_pool import TtmPool


@dataclass
class Bench:
    """What a test works on; `asked` has every (order, mask) of the gfp hook, in order."""

    mm: Mm
    plugins: LoadedPlugins
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def pool(self) -> TtmPool:
        pool = self.mm.attached.get(TtmPool)
        assert pool is not None
        return pool

    def free_pages(self) -> int:
        self.mm.drain_all_pages()
        return self.mm.global_free_pages()

    def buddyinfo(self) -> list[int]:
        self.mm.drain_all_pages()
        return self.mm.buddyinfo()["DMA32"]


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build a 256 MiB machine: ``bench(kernel, dma32=[...], nr_swap_pages=..., page_pool_size=...)``."""
    scheds: list[Scheduler] = []

    def build(
        kernel: str = "7.1",
        *,
        dma32: list[int] | None = None,
        nr_swap_pages: int = 0,
        files: tuple[Path, ...] = (),
        **params: Any,
    ) -> Bench:
        plugins = load(["ttm"], files)
        state = machine_from_ram("256M").node_state(0)
        if dma32 is not None:
            state = with_buddyinfo(state, {"DMA32": dma32, "DMA": [0] * 11}, 0.0, 1, "test")
        sched = Scheduler()
        scheds.append(sched)
        asked: list[tuple[int, int]] = []

        def hook(name: str) -> Callable[..., Any]:
            call = hook_caller(plugins, name)
            if name != "ttm_pool_gfp_mask":
                return call

            def note(pool: TtmPool, order: int, flags: int) -> Any:
                asked.append((order, flags))
                return call(pool, order, flags)

            return note

        host = MmHost(
            ops=bind_mm_ops(plugins),
            bind_shrinker=lambda shrinker, name: bind_shrinker(shrinker, name, plugins.owner_of(shrinker)),
            hook=hook,
        )
        mm = Mm(state, sched, host, seed=1, kernel=kernel, nr_swap_pages=nr_swap_pages)
        plugins.module_init(mm, plugin_params(plugins, {"ttm": params}))
        return Bench(mm, plugins, asked)

    yield build
    for sched in scheds:
        sched.close()
