"""The worker: what it moves, what it leaves, what it may cost, and whom it never disturbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mmfw import gfp
from mmfw.mm.core import Mm
from mmfw.policies import parse_policy
from mmfw.registry import LoadedPlugins
from mmfw.run import RunRequest, run
from mmfw.sched import Scheduler
from mmfw.testing import load_mm, recorded

xe = pytest.importorskip("mmfw_xe_shrinker", reason="needs mmfw-xe-shrinker")

MS = 1_000_000
TAKE = gfp.GFP_HIGHUSER & ~gfp.RECLAIM
#: 8 blocks of 2 MiB beside small ones; the low watermark of this machine is 827 pages.
EIGHT_LARGE = [2000, 1000, 0, 0, 0, 0, 0, 0, 0, 8, 0]


@dataclass
class Bench:
    """A small machine with Xe and the policy, and virtual time."""

    mm: Mm
    plugins: LoadedPlugins

    @property
    def device(self) -> Any:
        return self.mm.attached.get(xe.XeDevice)

    def fragmented(self, *sizes: int) -> Any:
        """An idle VM with objects in single pages of the machine's initial state."""
        vm = self.device.create_vm("a")
        for size in sizes:
            self.device.populate_from_reserve(self.device.create_bo(vm, size))
        return vm

    def wait(self, ms: int) -> None:
        self.mm.sched.run(self.mm.sched.now + ms * MS)

    def free_pages(self) -> int:
        self.mm.drain_all_pages()
        return self.mm.global_free_pages()

    @property
    def huge(self) -> int:
        return int(self.device.huge_pages)

    def metrics(self) -> dict[str, float]:
        return {name: metric.read(self.mm) for name, metric in self.plugins.metrics().items()}


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build a machine: ``bench(dma32=[...], names=(...), **options)``."""
    scheds: list[Scheduler] = []

    def build(
        dma32: list[int] = EIGHT_LARGE,
        names: tuple[str, ...] = ("xe", "reclaim-backoff"),
        caching: str = "cached",
        **options: Any,
    ) -> Bench:
        loaded = load_mm(
            names,
            "512M",
            params={"xe": {"caching": caching, "resident_pages": 10_000}, "reclaim-backoff": options},
            buddyinfo={"DMA32": dma32, "DMA": [0] * 11},
            unmovable_block_fraction=0.3,
            kernel="7.1",
            seed=1,
            nr_swap_pages=100_000,
        )
        scheds.append(loaded.mm.sched)
        return Bench(loaded.mm, loaded.plugins)

    yield build
    for sched in scheds:
        sched.close()


def started(b: Bench, *sizes: int) -> Any:
    vm = b.fragmented(*sizes)
    b.mm.start_time()
    return vm


def threads(b: Bench) -> list[str]:
    return [task.comm for task in b.mm.sched.tasks]


@pytest.mark.parametrize("names", [("xe", "reclaim-backoff"), ("reclaim-backoff", "xe")])
def test_idle_objects_are_moved_while_there_are_blocks(bench, names):
    b = bench(names=names)
    vm = started(b, 512, 1024, 100)
    allocated, free = b.mm.nr_allocated_pages(), b.free_pages()
    b.wait(400)
    assert b.huge == 0
    b.wait(200)
    assert [bo.tt.max_order for bo in vm.bos[:2]] == [9, 9]
    assert b.huge == 1536
    assert (b.mm.nr_allocated_pages(), b.free_pages()) == (allocated, free)
    b.mm.check_memory()
    assert b.metrics()["reclaim_backoff_defrag_pages_per_second"] == pytest.approx(1536 / 0.6)


def test_and_given_back_like_any_other(bench):
    b = bench(caching="write_combined")
    started(b, 512, 1024)
    b.wait(1000)
    assert b.huge == 1536
    b.mm.stop_time()
    b.mm.sched.close()
    b.plugins.module_exit(b.mm)
    assert b.mm.nr_allocated_pages() == 0
    b.mm.check_memory()


def test_a_run_that_ends_in_the_middle_of_a_copy_loses_no_page(bench):
    b = bench(caching="write_combined")
    (bo,) = started(b, 2048).bos
    while bo.tt.max_order < 9:
        b.mm.sched.run(b.mm.sched.now + 10_000)
    assert b.mm.nr_allocated_pages() == 10_000 + 2048
    b.mm.stop_time()
    b.mm.sched.close()
    b.plugins.module_exit(b.mm)
    assert b.mm.nr_allocated_pages() == 0
    b.mm.check_memory()


@pytest.mark.parametrize("what", ["active", "pinned", "purgeable", "backed up", "reserved"])
def test_objects_in_use_or_not_there_are_spared(bench, what):
    b = bench()
    vm = started(b, 512)
    (bo,) = vm.bos
    device = b.device

    def prepare() -> None:
        with vm.resv:
            if what == "pinned":
                device.set_pinned(bo, True)
            elif what == "purgeable":
                device.set_purgeable(bo, True)
            elif what == "backed up":
                device.shrink_bo(bo)
            elif what == "reserved":
                b.mm.sched.sleep(10_000 * MS)
        if what == "active":
            device.exec(vm, 10_000 * MS)

    b.mm.sched.spawn(prepare, name="prepare", daemon=True)
    b.wait(3000)
    assert b.huge == 0
    assert b.metrics()["reclaim_backoff_defrag_pages_per_second"] == 0


def test_an_active_object_is_moved_once_its_job_is_done(bench):
    b = bench()
    vm = started(b, 512)
    b.mm.sched.spawn(lambda: b.device.exec(vm, 1000 * MS), name="exec", daemon=True)
    b.wait(1000)
    assert b.huge == 0
    b.wait(700)
    assert b.huge == 512


def test_without_blocks_nothing_moves_until_there_are_some(bench):
    b = bench()
    vm = b.fragmented(512)
    held = b.mm.alloc_pages_batch(TAKE, 9, 64)
    b.mm.start_time()
    b.wait(2000)
    assert b.huge == 0
    b.mm.free_pages_batch(held, 9)
    b.mm.drain_all_pages()
    b.wait(600)
    assert (b.huge, vm.bos[0].tt.max_order) == (512, 9)


def test_an_object_that_wants_more_blocks_than_there_are_waits_and_others_go(bench):
    b = bench([2000, 1000, 0, 0, 0, 0, 0, 0, 0, 2, 0])
    vm = started(b, 2048, 512)
    b.wait(1000)
    assert [bo.tt.max_order >= 9 for bo in vm.bos] == [False, True]


def spare_pages(b: Bench) -> int:
    """Pages above the low watermark that a request of the worker's sees."""
    (zone,) = (each for each in b.mm.pgdat.node_zones if each.name == "DMA32")
    assert zone.watermark_boost == 0
    return int(zone.nr_free_pages - zone.wmark_pages(1) - zone.lowmem_reserve[2])


def test_the_low_watermark_is_kept(bench):
    b = bench([300, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0])
    started(b, 512, 512)
    assert 512 <= spare_pages(b) < 1024
    b.wait(2000)
    # A CPU's list has got the single pages that were freed, and one more block: neither counts as free.
    assert (b.huge, b.mm.buddyinfo()["DMA32"][9]) == (512, 1)
    assert spare_pages(b) < 512
    b.mm.drain_all_pages()
    b.wait(600)
    assert b.huge == 1024


def test_near_it_nothing_moves(bench):
    b = bench([300, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0])
    started(b, 512)
    assert 0 < spare_pages(b) < 512
    b.wait(2000)
    assert (b.huge, b.mm.buddyinfo()["DMA32"][9]) == (0, 2)


def test_nobody_reclaims_or_is_woken(bench):
    b = bench()
    started(b, 4608, 1024, 1024, 512)  # one of them wants more than there is
    b.wait(1)
    events = recorded(b.mm)
    b.wait(3000)
    assert b.huge == 2560
    assert b.mm.kswapd.asleep
    names = {type(event).__name__ for event in events}
    # kswapd and kcompactd go to sleep at the start, and kcompactd looks at fragmentation now and then.
    assert not {name for name in names if ("Vmscan" in name or "Compaction" in name) and "Sleep" not in name}
    vmstat = b.mm.vmstat.as_dict()
    assert not any(
        vmstat[name] for name in vmstat if name.startswith(("allocstall", "compact_stall", "pgscan"))
    )


def test_it_sleeps_between_passes_whatever_happens(bench):
    b = bench(defrag_interval_ms=100)
    started(b, 512, 512)
    switches: list[str] = []
    b.mm.sched.add_sched_switch_listener(
        lambda ns, cpu, before, after: switches.append("" if after is None else after.comm)
    )
    b.wait(1000)
    # 104 ms each, as the timer wheel has it.
    assert switches.count("ttm_defrag") == 10


@pytest.mark.parametrize(
    ("rate", "moved_by"), [(512, {1: 512, 2: 1024, 3: 1536}), (2048, {1: 2048, 2: 4096})]
)
def test_the_budget_is_kept(bench, rate, moved_by):
    b = bench(defrag_pages_per_second=rate, defrag_interval_ms=20)
    started(b, *[512] * 8)
    moved = []
    for second in moved_by:
        b.wait(1000)
        moved.append(b.huge)
        assert b.huge <= rate * second + 512
        assert b.huge >= min(4096, rate * second) - 512
    assert 0 < moved[0] < moved[-1]


def test_blocks_are_of_the_order_asked_for(bench):
    b = bench([2000, 1000, 0, 0, 0, 0, 8, 0, 0, 0, 0], defrag_order=6)
    vm = started(b, 100)
    b.wait(1000)
    assert vm.bos[0].tt.max_order == 6


def test_zero_pages_mean_no_worker(bench):
    b = bench(defrag_pages_per_second=0)
    started(b, 512)
    b.wait(1000)
    assert "ttm_defrag" not in threads(b)
    assert b.huge == 0
    assert b.metrics()["reclaim_backoff_defrag_pages_per_second"] == 0


SCATTERED = """
name = "scattered"
description = "objects in single pages while large blocks are free"
kernel = "7.1"
plugins = ["xe", "ttm"]
machine = "512M"
nr_swap_pages = 100000
duration = "1500ms"

[state.buddyinfo]
DMA32 = [2000, 1000, 500, 500, 100, 50, 50, 20, 10, 30, 0]

[params.xe]
resident_pages = 16384

[[workloads]]
name = "xe-client"
[workloads.params]
working_set_pages = 16384
starts = "resident"
bo_min_order = 4
bo_max_order = 10
execs_per_second = 30
"""


def test_a_run_with_it_is_repeatable_and_whole(tmp_path):
    scenario = tmp_path / "scattered.toml"
    scenario.write_text(SCATTERED)

    def result(policy: str) -> Any:
        return run(RunRequest(scenario=str(scenario), policies=parse_policy(policy), sanitize=True))

    plain = result("mainline")
    without = result("reclaim-backoff:defrag_pages_per_second=0")
    first, second = result("reclaim-backoff"), result("reclaim-backoff")
    assert plain.metrics["xe_huge_pages"] == 0
    assert without.digest == plain.digest  # nobody asks for anything
    assert first.digest == second.digest != plain.digest
    assert first.metrics["xe_huge_pages"] > 8192
    assert first.metrics["xe_resident_pages"] == 16384
    assert first.metrics["xe_execs"] >= plain.metrics["xe_execs"] - 2
    assert first.metrics["kswapd_wakes"] == 0
    assert first.leak_checked
