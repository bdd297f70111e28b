"""A small machine with the TTM pool on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mmfw.mm.core import Mm
from mmfw.registry import LoadedPlugins
from mmfw.sched import Scheduler
from mmfw.testing import load_mm
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
        asked: list[tuple[int, int]] = []

        def listen(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            if name != "ttm_pool_gfp_mask":
                return call

            def note(pool: TtmPool, order: int, flags: int) -> Any:
                asked.append((order, flags))
                return call(pool, order, flags)

            return note

        loaded = load_mm(
            ["ttm"],
            params={"ttm": params},
            buddyinfo=None if dma32 is None else {"DMA32": dma32, "DMA": [0] * 11},
            files=files,
            kernel=kernel,
            seed=1,
            nr_swap_pages=nr_swap_pages,
            wrap_hook=listen,
        )
        scheds.append(loaded.mm.sched)
        return Bench(loaded.mm, loaded.plugins, asked)

    yield build
    for sched in scheds:
        sched.close()
