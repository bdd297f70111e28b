"""The heuristic: when it holds the working set back, and that it is mainline everywhere else."""

from __future__ import annotations

import textwrap

import pytest

from mmfw import ReclaimContext, Reclaimer, ScanControl, ShrinkControl, gfp
from mmfw.machine import machine_from_ram
from mmfw.machine.initial import with_buddyinfo
from mmfw.run import RunRequest, run
from mmfw.testing import make_mm
from mmfw_policy_xe_fragmentation_heuristic import Params, zone_maybe_fragmented
from mmfw_policy_xe_fragmentation_heuristic import plugin as policy

#: 25,000 pages free and no block above order 4; the high watermark of 256 MiB is below 2,000.
PLENTY = [1000, 1000, 1000, 1000, 200, 0, 0, 0, 0, 0, 0]
#: As many, and some blocks of 2 MiB.
WITH_BLOCKS = [1000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 10, 0]
#: 900 pages free.
SCARCE = [300, 100, 100, 0, 0, 0, 0, 0, 0, 0, 0]


def machine(dma32: list[int], **options: object):
    """A machine with memory as given and the policy's options in place."""
    state = with_buddyinfo(
        machine_from_ram("256M", 1).node_state(0), {"DMA32": dma32, "DMA": [0] * 11}, 1.0, 0, "test"
    )
    mm = make_mm(state)
    policy.mmfw_module_init(mm, Params(**options))
    return mm


def answer(mm, order: int = 9, caller: Reclaimer = Reclaimer.KSWAPD) -> bool | None:
    """What the policy says to Xe in a pass."""
    sc = ScanControl(32, order, 12, 1, gfp.GFP_KERNEL, may_writepage=True, may_unmap=True, may_swap=True)
    shrinkctl = ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0)
    policy.mmfw_init_shrink_control(shrinkctl, ReclaimContext(mm.pgdat, sc, caller))
    return policy.xe_can_backup(shrinkctl)


def test_declines_under_kswapd_while_much_is_free():
    assert answer(machine(PLENTY)) is False
    assert answer(machine(SCARCE)) is None


@pytest.mark.parametrize("caller", [Reclaimer.DIRECT, Reclaimer.MEMCG, Reclaimer.PROACTIVE])
def test_nobody_but_kswapd_is_declined(caller):
    assert answer(machine(PLENTY), caller=caller) is None


def test_order_0_is_declined_only_as_v2_did():
    assert answer(machine(PLENTY), order=0) is None
    assert answer(machine(PLENTY, min_order=0), order=0) is False


def test_blocks_of_the_beneficial_order_matter_if_so_set():
    assert answer(machine(WITH_BLOCKS)) is False
    assert answer(machine(WITH_BLOCKS, require_no_block=True)) is None
    assert answer(machine(WITH_BLOCKS, require_no_block=True, beneficial_order=10)) is False
    assert answer(machine(PLENTY, require_no_block=True)) is False


def test_more_than_twice_the_high_watermark_boost_included():
    mm = machine(PLENTY)
    zone = mm.pgdat.node_zones[1]
    exactly = zone.nr_free_pages / zone.wmark_pages(2)
    assert not zone_maybe_fragmented(zone, Params(free_over_high=exactly))
    assert zone_maybe_fragmented(zone, Params(free_over_high=exactly * 0.999))
    zone.watermark_boost = zone.nr_free_pages // 2
    assert not zone_maybe_fragmented(zone, Params())


def test_the_answer_follows_memory_between_count_and_scan():
    mm = machine(PLENTY)
    sc = ScanControl(32, 9, 12, 1, gfp.GFP_KERNEL, may_writepage=True, may_unmap=True, may_swap=True)
    shrinkctl = ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0)
    policy.mmfw_init_shrink_control(shrinkctl, ReclaimContext(mm.pgdat, sc, Reclaimer.KSWAPD))
    assert policy.xe_can_backup(shrinkctl) is False
    taken = mm.alloc_pages_batch(gfp.GFP_NOWAIT & ~gfp.RECLAIM, 0, 24_000)
    assert policy.xe_can_backup(shrinkctl) is None
    mm.free_pages_batch(taken, 0)


def test_drop_caches_is_no_pass_and_gets_no_answer():
    assert policy.xe_can_backup(ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0)) is None


BENCH = """
from mmfw import Workload, gfp, hookimpl
from mmfw_xe_shrinker import XeDevice


def load(mm, params):
    device = mm.attached.get(XeDevice)
    vm = device.create_vm("client")
    for _ in range(20):
        device.create_bo(vm, 512)
    for _ in range(30):
        assert device.exec(vm) is not None
        mm.alloc_pages(gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN, 9)
        mm.sched.nanosleep(20_000_000)


@hookimpl
def mmfw_register_workloads():
    yield Workload("load", "one client, and requests of 2 MiB", run=load)
"""


@pytest.fixture
def play(tmp_path):
    """Figures of one small client on fragmented memory."""
    pytest.importorskip("mmfw_xe_shrinker")
    bench = tmp_path / "bench.py"
    bench.write_text(BENCH)
    scenario = tmp_path / "small.toml"
    scenario.write_text(
        textwrap.dedent("""
        name = "small"
        description = "one client on fragmented memory"
        plugins = ["xe", "ttm"]
        machine = "512M"
        nr_swap_pages = 100000
        kernel = "7.1"
        duration = "2s"
        [state]
        unmovable_block_fraction = 1.0
        [state.buddyinfo]
        DMA32 = [3000, 3000, 2000, 1000, 500, 200, 100, 20, 0, 0, 0]
        DMA = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        [[workloads]]
        name = "load"
        """)
    )

    def run_it(policies, **options):
        return run(
            RunRequest(
                scenario=str(scenario),
                plugins=policies,
                plugin_files=(bench,),
                overrides={f"xe-fragmentation-heuristic.{key}": value for key, value in options.items()},
            )
        )

    return run_it


def test_working_set_stays_and_without_its_condition_the_run_is_mainlines(play):
    name = "xe-fragmentation-heuristic"
    mainline = play(())
    assert mainline.metrics["xe_bo_evictions_kswapd"] > 0
    assert play((name,)).metrics["xe_bo_evictions_kswapd"] == 0
    assert play((name,), free_over_high=1e9).digest == mainline.digest


@pytest.mark.slow
def test_fewer_objects_are_lost_in_the_aquarium():
    pytest.importorskip("mmfw_xe_shrinker")
    mainline, declined = (
        run(RunRequest(scenario="webgl-aquarium", plugins=policies, duration="2s"))
        for policies in ((), ("xe-fragmentation-heuristic",))
    )
    assert declined.metrics["xe_bo_evictions"] < mainline.metrics["xe_bo_evictions"] / 4
