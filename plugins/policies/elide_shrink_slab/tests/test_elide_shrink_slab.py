"""When shrinkers are not called, and what follows: conformance tests T1 to T4 and T6 of this policy."""

from __future__ import annotations

import json
import textwrap

import pytest

from mmfw import ReclaimContext, Reclaimer, ScanControl, gfp
from mmfw.policies import Policy
from mmfw.run import RunRequest, RunResult, run
from mmfw.testing import make_mm
from mmfw_policy_elide_shrink_slab import Options
from mmfw_policy_elide_shrink_slab.plugin import (
    mmfw_module_init,
    mmfw_should_count_kswapd_failure,
    mmfw_should_shrink_slab,
)

NAME = "elide-shrink-slab"
ORDER9_MAYFAIL = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN

SCENARIO = """
name = "requests"
description = "requests of one order, beside a shrinker that notes what it is asked"
plugins = []
machine = "256M"
duration = "1s"

[state]
unmovable_block_fraction = 1.0

[state.buddyinfo]
DMA32 = [{nr_single}, {nr_single}, {nr_single}, {nr_single}, 0, 0, 0, 0, 0, 0, 0]
DMA = [10, 10, 10, 0, 0, 0, 0, 0, 0, 0, 0]

[[workloads]]
name = "requests"
"""

LOAD = """
import json
from mmfw import Workload, hookimpl

ASKED = []

class Witness:
    @hookimpl
    def count_objects(self, sc):
        ASKED.append(sc.priority)
        return 1 << 20

    @hookimpl
    def scan_objects(self, sc):
        return sc.nr_to_scan

@hookimpl
def mmfw_module_init(mm):
    mm.register_shrinker(Witness(), "witness")

def requests(mm, params):
    for order, gfp_mask in {requests}:
        pfn = mm.alloc_pages(gfp_mask, order)
        if pfn >= 0:
            mm.free_pages(pfn, order)
    mm.sched.nanosleep(20_000_000)
    print("FAILURES", mm.pgdat.kswapd_failures)
    while True:
        mm.sched.nanosleep(1_000_000_000)

@hookimpl
def mmfw_register_workloads():
    yield Workload("requests", "asks", run=requests)

@hookimpl
def mmfw_module_exit(mm):
    print("ASKED", json.dumps(ASKED))
"""


@pytest.fixture
def play(tmp_path, capsys):
    def once(
        requests, nr_single: int = 1000, *, policy: bool = True, **options: object
    ) -> tuple[RunResult, list[int], int]:
        (tmp_path / "load.py").write_text(LOAD.replace("{requests}", repr(requests)))
        scenario = tmp_path / "requests.toml"
        scenario.write_text(textwrap.dedent(SCENARIO.replace("{nr_single}", str(nr_single))))
        result = run(
            RunRequest(
                scenario=str(scenario),
                plugin_files=(tmp_path / "load.py",),
                policies=(Policy(NAME, tuple(options.items())),) if policy else (),
            )
        )
        lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
        return result, json.loads(lines["ASKED"]), int(lines["FAILURES"])

    return once


def test_an_order_9_wake_up_calls_no_shrinker_while_order_0_is_balanced(play):  # T1
    _, asked, _ = play([(9, ORDER9_MAYFAIL)], policy=False)
    assert asked[0] == 12
    result, asked, failures = play([(9, ORDER9_MAYFAIL)])
    assert result.kswapd_wakes_by_order["9"] == 1
    assert asked == []
    assert failures == 0
    assert result.metrics["elide_shrink_slab_elided_ratio"] == 1.0


def test_twenty_elided_passes_do_not_make_the_node_hopeless(play):
    requests = [(9, ORDER9_MAYFAIL)] * 40
    _, asked, failures = play(requests)
    assert (asked, failures) == ([], 0)


@pytest.mark.parametrize(
    "options", [{"elide_order_min": 10}, {"elide_order_min": 10, "last_resort_priority": -1}]
)
def test_below_its_order_it_changes_nothing(play, options):
    requests = [(9, ORDER9_MAYFAIL), (4, gfp.GFP_KERNEL), (0, gfp.GFP_KERNEL)] * 5
    mainline = play(requests, policy=False)
    assert mainline[1]
    assert play(requests, **options)[0].digest == mainline[0].digest


def test_real_pressure_behind_an_order_9_request_is_not_elided(play):  # T3
    requests, short = [(9, ORDER9_MAYFAIL)], 20
    mainline = play(requests, short, policy=False)
    assert mainline[1]
    assert play(requests, short)[0].digest == mainline[0].digest


# --- the decision by itself ------------------------------------------------------------------------------


@pytest.fixture
def mm():
    return make_mm("256M")


def ask(mm, order, caller=Reclaimer.KSWAPD, *, gfp_mask=gfp.GFP_KERNEL, priority=12, sc=None):
    sc = sc or ScanControl(32, order, priority, 1, gfp_mask, True, True, True)
    sc.order, sc.priority = order, priority
    return mmfw_should_shrink_slab(ReclaimContext(mm.pgdat, sc, caller))


def take_all_but(mm, nr_free: int) -> None:
    """Allocate from DMA32 and DMA until so many pages are free."""
    while sum(zone.nr_free_pages for zone in mm.pgdat.node_zones) > nr_free:
        assert mm.alloc_pages(gfp.GFP_ATOMIC | gfp.MEMALLOC | gfp.NOWARN, 0) >= 0


def test_an_order_0_waker_beside_it_changes_nothing_while_order_0_is_balanced(mm):  # T2
    mmfw_module_init(mm, Options())
    assert ask(mm, 9) is False
    take_all_but(mm, 100)
    assert ask(mm, 9) is None


def test_the_literal_wording_looks_at_the_order_alone(mm):
    mmfw_module_init(mm, Options(elide_needs_order0_ok=False))
    take_all_but(mm, 100)
    assert ask(mm, 9) is False
    assert ask(mm, 0) is None


def test_order_3_is_below_a_minimum_of_4(mm):  # T4
    mmfw_module_init(mm, Options(elide_order_min=4))
    assert ask(mm, 3) is None
    assert ask(mm, 4) is False


def test_once_kswapd_drops_the_order_shrinkers_are_called(mm):  # T6
    mmfw_module_init(mm, Options())
    sc = ScanControl(32, 9, 12, 1, gfp.GFP_KERNEL, True, True, True)
    assert ask(mm, 9, sc=sc) is False
    assert mmfw_should_count_kswapd_failure(sc) is False
    assert ask(mm, 0, sc=sc) is None
    assert mmfw_should_count_kswapd_failure(sc) is None


@pytest.mark.parametrize(
    ("order", "gfp_mask", "priority", "answer"),
    [
        (3, gfp.GFP_KERNEL, 2, False),
        (3, gfp.GFP_KERNEL, 1, None),  # may end in the OOM killer
        (3, gfp.GFP_KERNEL | gfp.NORETRY, 0, False),
        (3, gfp.GFP_NOFS, 0, False),  # no OOM killer without __GFP_FS
        (4, gfp.GFP_KERNEL, 0, False),  # nor for a costly order
    ],
)
def test_the_last_resort_is_for_requests_that_could_kill(mm, order, gfp_mask, priority, answer):
    mmfw_module_init(mm, Options())
    assert ask(mm, order, Reclaimer.DIRECT, gfp_mask=gfp_mask, priority=priority) is answer


@pytest.mark.parametrize("caller", [Reclaimer.MEMCG, Reclaimer.PROACTIVE])
def test_limits_and_user_space_reclaim_are_left_alone(mm, caller):
    mmfw_module_init(mm, Options(elide_needs_order0_ok=False))
    assert ask(mm, 9, caller) is None


@pytest.mark.slow
def test_dentries_stay_beside_two_mib_objects():
    pytest.importorskip("mmfw_scenarios", reason="the scenario is of mmfw-scenarios")
    lost = []
    for policies in ((), (Policy(NAME),)):
        request = RunRequest(scenario="xe-vs-dcache", duration="1s", policies=policies)
        lost.append(run(request).metrics["dcache_objects_freed"])
    assert lost[1] < lost[0] / 10
