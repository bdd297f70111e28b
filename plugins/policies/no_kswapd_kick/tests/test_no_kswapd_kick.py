"""Who is woken: conformance tests T1 and T3 of this policy, and what follows from either."""

from __future__ import annotations

import textwrap

import pytest

from mmfw import KswapdWake, Mm, PgdatView, WakePlan, WakeReason, gfp, mainline
from mmfw.mainline import mmfw_should_shrink_slab
from mmfw.policies import Policy
from mmfw.run import RunRequest, RunResult, run
from mmfw.testing import make_mm
from mmfw.types import MmOps
from mmfw_policy_no_kswapd_kick import Options
from mmfw_policy_no_kswapd_kick.plugin import mmfw_module_init, mmfw_plan_wakeup

NAME = "no-kswapd-kick"
MAYFAIL = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN

SCENARIO = """
name = "requests"
description = "requests above order 0 on polluted memory"
plugins = []
machine = "256M"
duration = "1s"

[state]
unmovable_block_fraction = 1.0

[state.buddyinfo]
DMA32 = [{n}, {n}, {n}, {n}, 0, 0, 0, 0, 0, 0, 0]
DMA = [10, 10, 10, 0, 0, 0, 0, 0, 0, 0, 0]

[[workloads]]
name = "requests"
"""

LOAD = """
from mmfw import Workload, hookimpl
from mmfw.mm.trace import MmCompactionWakeupKcompactd, MmVmscanWakeupKswapd

def requests(mm, params):
    kick = lambda event: print("kswapd", event.order)
    mm.trace.subscribe(MmVmscanWakeupKswapd, kick)
    mm.trace.subscribe(MmCompactionWakeupKcompactd, lambda event: print("kcompactd", event.order))
    for order, gfp_mask in {requests}:
        pfn = mm.alloc_pages(gfp_mask, order)
        if pfn >= 0:
            mm.free_pages(pfn, order)
    while True:
        mm.sched.nanosleep(1_000_000_000)

@hookimpl
def mmfw_register_workloads():
    yield Workload("requests", "asks", run=requests)
"""


@pytest.fixture
def play(tmp_path, capsys):
    def once(requests, n: int, *, policy: bool = True, **options: object) -> tuple[RunResult, list[str]]:
        (tmp_path / "load.py").write_text(LOAD.replace("{requests}", repr(requests)))
        scenario = tmp_path / "requests.toml"
        scenario.write_text(textwrap.dedent(SCENARIO.replace("{n}", str(n))))
        result = run(
            RunRequest(
                scenario=str(scenario),
                plugin_files=(tmp_path / "load.py",),
                policies=(Policy(NAME, tuple(options.items())),) if policy else (),
            )
        )
        return result, capsys.readouterr().out.splitlines()

    return once


ENOUGH, SHORT = 1000, 33  # below the low watermark, above the min one


def test_an_order_9_wake_up_goes_to_kcompactd_while_order_0_is_balanced(play):  # T1
    _, woken = play([(9, MAYFAIL)], ENOUGH, policy=False)
    assert woken[0] == "kswapd 9"
    result, woken = play([(9, MAYFAIL)], ENOUGH)
    assert woken == ["kcompactd 9"]
    assert result.metrics["no_kswapd_kick_redirected_ratio"] == 1.0
    assert result.vmstat["pageoutrun"] == 0


def test_order_0_wakes_as_in_mainline(play):
    requests = [(0, gfp.GFP_KERNEL)] * 40
    mainline = play(requests, SHORT, policy=False)
    assert mainline[0].vmstat["pageoutrun"] > 0
    assert play(requests, SHORT)[0].digest == mainline[0].digest


def short_machine(which: int, beyond: int, **options: str) -> Mm:
    """A machine whose only usable zone has so many pages beyond a watermark (0 min, 1 low, 2 high)."""
    mm = make_mm("256M", ops=MmOps(plan_or_mainline, mmfw_should_shrink_slab))
    mmfw_module_init(mm, Options(**options))
    dma, dma32 = mm.pgdat.node_zones[:2]
    for zone, flag, enough in ((dma, gfp.DMA, 0), (dma32, 0, beyond)):
        while zone.zone_watermark_ok_safe(0, zone.wmark_pages(which) + enough, 2):
            assert mm.alloc_pages(gfp.GFP_ATOMIC | gfp.MEMALLOC | gfp.NOWARN | flag, 0) >= 0
    return mm


def plan_or_mainline(pgdat: PgdatView, wake: KswapdWake) -> WakePlan:
    return mmfw_plan_wakeup(pgdat, wake) or mainline.mmfw_plan_wakeup(pgdat, wake)


def planned(which: int, beyond: int, order: int, **options: str) -> WakePlan | None:
    mm = short_machine(which, beyond, **options)
    return mmfw_plan_wakeup(mm.pgdat, KswapdWake(order, MAYFAIL, 2, WakeReason.SLOWPATH))


def test_kswapd_is_asked_for_order_0_while_order_0_is_short():  # T3
    mm = short_machine(2, 0)
    mm.pgdat.kcompactd_max_order = 0
    assert mm.alloc_pages(MAYFAIL, 9) < 0
    assert (mm.pgdat.kswapd_order, mm.pgdat.kcompactd_max_order) == (0, 9)
    assert mm.pgdat.kswapd_highest_zoneidx == 2


@pytest.mark.parametrize(("order", "which"), [(1, 2), (3, 2), (4, 2), (9, 1), (10, 1)])
def test_plans_change_at_the_watermarks(order, which):
    # Order 9 and 10 want 1024 and 2048 pages beyond the low watermark, more than lies between it and the high one.
    room = (2 << order) + 700 if which == 1 else 700
    assert planned(2, 0, order) == WakePlan(kswapd_order=0, kcompactd_order=order)
    assert planned(which, room, order) == WakePlan(kswapd_order=None, kcompactd_order=order)


def test_without_headroom_kswapd_makes_some_or_nobody_does():
    assert planned(2, 100, 9) == WakePlan(kswapd_order=0, kswapd_min_free_pages=1024, kcompactd_order=9)
    assert planned(2, 100, 9, without_headroom="nobody") == WakePlan(kswapd_order=None, kcompactd_order=9)


@pytest.mark.slow
def test_kswapd_sleeps_beside_the_aquarium():
    pytest.importorskip("mmfw_xe_shrinker", reason="the scenario is of mmfw-xe-shrinker")
    wakes, evictions = [], []
    for policies in ((), (Policy(NAME),)):
        result = run(RunRequest(scenario="webgl-aquarium", duration="1s", policies=policies))
        wakes.append(result.metrics["kswapd_wakes"])
        evictions.append(result.metrics["xe_bo_evictions"])
    assert wakes[1] < wakes[0] / 2
    assert evictions[1] < evictions[0]
