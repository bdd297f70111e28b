"""Which huge pages a pass may split, by the order it works for; and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mmfw import SHRINK_STOP, ReclaimContext, Reclaimer, ScanControl, ShrinkControl, attach
from mmfw.gfp import GFP_KERNEL
from mmfw.mm.core import Mm
from mmfw.run import RunRequest, run
from mmfw.testing import make_mm
from mmfw_policy_deferred_split_order_aware.plugin import (
    WantedOrder,
    look_at_the_order,
    mmfw_init_shrink_control,
)

deferred_split = pytest.importorskip("mmfw_deferred_split.plugin", reason="needs mmfw-deferred-split")

ALTERNATE = range(0, 512, 2)
FIRST_HALF = range(256)


class Bench:
    """A machine of 128 MiB with the shrinker, patched."""

    def __init__(self) -> None:
        self.mm: Mm = make_mm("128M")
        deferred_split.mmfw_module_init(self.mm, deferred_split.DeferredSplitParams())
        look_at_the_order(self.mm)
        (self.shrinker,) = (each for each in self.mm.shrinkers if each.ops.name == "thp-deferred_split")

    def heap(self, nr_huge: int, dropped: Any) -> list[int]:
        """Huge pages of each of which some pages are dropped; their heads."""
        vma = self.mm.mmap_anonymous(512 * nr_huge, thp=True)
        assert vma.touch(0, vma.nr_pages) == vma.nr_pages
        heads = [int(pfn) for pfn in vma.pfns()[::512]]
        for first in range(0, vma.nr_pages, 512):
            vma.madvise_dontneed(first + np.array(list(dropped), dtype=np.int64))
        return heads

    @property
    def queue(self) -> tuple[int, ...]:
        return self.mm.memory.deferred_split.split_queue

    def control(self, order: int, nr_to_scan: int = 0) -> ShrinkControl:
        sc = ShrinkControl(gfp_mask=GFP_KERNEL, nid=0, nr_to_scan=nr_to_scan, nr_scanned=nr_to_scan)
        if order:
            attach(sc, WantedOrder(order))
        return sc

    def count(self, order: int) -> int:
        return self.shrinker.ops.count_objects(self.control(order))

    def scan(self, nr_to_scan: int, order: int) -> int:
        return self.shrinker.ops.scan_objects(self.control(order, nr_to_scan))


@pytest.fixture
def bench() -> Iterator[Bench]:
    b = Bench()
    yield b
    b.mm.check_memory()
    deferred_split.mmfw_module_exit(b.mm)
    b.mm.sched.close()


def shrink_slab(b: Bench, order: int) -> None:
    """A pass at the highest pressure, as ``shrink_node_memcgs()`` makes it."""
    sc = ScanControl(
        nr_to_reclaim=32, order=order, priority=0, reclaim_idx=1, gfp_mask=GFP_KERNEL,
        may_writepage=True, may_unmap=True, may_swap=True,
    )  # fmt: skip
    context = ReclaimContext(b.mm.pgdat, sc, Reclaimer.KSWAPD)
    b.mm.shrinkers.shrink_slab(GFP_KERNEL, 0, 0, amend=lambda c: mmfw_init_shrink_control(c, context))


@pytest.mark.parametrize("order", [9, 10])
def test_huge_pages_no_larger_than_the_order_are_kept(bench, order):
    """T11: only order-9 folios queued and W = 9: count 0, nothing split. Single pages still get them."""
    bench.heap(3, range(511))
    assert bench.count(order) == 0
    assert bench.scan(3, order) == SHRINK_STOP
    shrink_slab(bench, order)
    assert bench.mm.vmstat.as_dict()["thp_split_page"] == 0
    shrink_slab(bench, 0)
    assert bench.mm.vmstat.as_dict()["thp_split_page"] == 3


@pytest.mark.parametrize(
    ("dropped", "largest"), [(ALTERNATE, 0), (FIRST_HALF, 8), (range(8, 24), 3), (range(1, 512), 8)]
)
def test_only_an_aligned_unmapped_run_of_the_order_counts(bench, dropped, largest):
    bench.heap(2, dropped)
    assert [bench.count(order) for order in range(10)] == [2] * (largest + 1) + [0] * (9 - largest)


def test_a_scan_splits_the_first_that_help_and_passes_over_the_others(bench):
    small = bench.heap(2, ALTERNATE)
    large = bench.heap(3, FIRST_HALF)
    assert bench.scan(2, 8) == 2
    assert bench.queue == (*small, large[2])
    assert bench.scan(5, 4) == 1
    assert bench.scan(5, 4) == SHRINK_STOP
    # Single pages are wanted: as mainline, the first queued first.
    assert bench.scan(1, 0) == 1
    assert bench.queue == (small[1],)


def test_single_pages_are_asked_for_as_before(bench):
    sc = ShrinkControl(gfp_mask=GFP_KERNEL, nid=0)
    context = ReclaimContext(
        bench.mm.pgdat,
        ScanControl(
            nr_to_reclaim=32, order=0, priority=12, reclaim_idx=1, gfp_mask=GFP_KERNEL,
            may_writepage=True, may_unmap=True, may_swap=True,
        ),
        Reclaimer.DIRECT,
    )  # fmt: skip
    mmfw_init_shrink_control(sc, context)
    assert sc.attached is None


SCENARIO = """
name = "small"
description = "half unmapped huge pages, and anonymous memory beyond RAM"
plugins = [PLUGINS]
machine = "256M"
nr_swap_pages = 100000
duration = "1s"

[[workloads]]
name = "anon-pressure"
[workloads.params]
percent_of_ram = 110
pages_per_second = 100000
"""
HEAP = """
[[workloads]]
name = "thp-partial-unmap"
[workloads.params]
huge_pages = 30
pattern = "alternate"
unmapped_pages = 256
"""


@pytest.fixture
def scenario(tmp_path) -> Callable[..., Callable[..., Any]]:
    pytest.importorskip("mmfw_demand", reason="needs mmfw-demand")

    def build(*, heap: bool) -> Callable[..., Any]:
        path = tmp_path / "small.toml"
        names = '"demand", "deferred-split"' if heap else '"demand"'
        path.write_text(SCENARIO.replace("PLUGINS", names) + (HEAP if heap else ""))
        return lambda *plugins, **overrides: run(
            RunRequest(scenario=str(path), plugins=plugins, overrides=overrides)
        )

    return build


def test_a_run_without_the_shrinker_is_mainlines(scenario):
    run_it = scenario(heap=False)
    assert run_it("deferred-split-order-aware").digest == run_it().digest


def test_a_run_whose_passes_want_single_pages_is_mainlines(scenario):
    run_it = scenario(heap=True)
    plain = run_it()
    assert plain.shrinker_calls["thp-deferred_split"]["calls"] > 0
    assert set(plain.kswapd_wakes_by_order) == {"0"}
    assert run_it("deferred-split-order-aware").digest == plain.digest


@pytest.mark.slow
def test_on_the_shatter_scenario_it_is_the_option_of_the_plugin():
    plain, policy, option = (
        run(
            RunRequest(
                scenario="deferred-split-shatter",
                short=True,
                duration="4s",
                plugins=names,
                overrides=overrides,
            )
        )
        for names, overrides in (((), {}), (("deferred-split-order-aware",), {}), ((), {"order_aware": True}))
    )
    assert plain.phases[1].metrics["deferred_split_splits"] > 500
    assert policy.phases[1].metrics["deferred_split_splits"] == 0
    assert policy.digest == option.digest
