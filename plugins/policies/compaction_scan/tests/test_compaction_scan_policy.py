"""Whom compaction asks, when, and whether it must free: conformance tests T9 and T10, and the rules of the callers."""

from __future__ import annotations

import textwrap

import pytest

from mmfw import KswapdWake, MigrateMode, ScanPhase, WakePlan, WakeReason, attachment, gfp
from mmfw.policies import Policy
from mmfw.run import RunRequest, RunResult, run
from mmfw.testing import make_mm
from mmfw.types import CompactControl
from mmfw_policy_compaction_scan import Options
from mmfw_policy_compaction_scan.plugin import (
    Scanning,
    mmfw_module_init,
    mmfw_plan_compaction_scan,
    would_compact,
)

NAME = "compaction-scan"
MAYFAIL = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN
MUST = gfp.GFP_KERNEL | gfp.NOWARN
KSWAPD, KCOMPACTD = WakePlan(9), WakePlan(None, kcompactd_order=9)

SCENARIO = """
name = "pooled"
description = "two buddies of 1 MiB in a cache, and a request for 2 MiB"
plugins = []
machine = "256M"
duration = "1s"

[state]
unmovable_block_fraction = 1.0

[state.buddyinfo]
DMA32 = [1000, 1000, 1000, 1000, 0, 0, 0, 0, 0, 1, 0]
DMA = [10, 10, 10, 0, 0, 0, 0, 0, 0, 0, 0]

[[workloads]]
name = "requests"
"""

#: A cache of two buddies; `{scan}` is what its third method does besides, `{has}` whether it has one.
LOAD = """
from mmfw import SHRINK_EMPTY, SHRINK_STOP, Workload, gfp, hookimpl

CACHE = []
TOLD = []

class Cache:
    def __init__(self, mm):
        self.mm = mm

    @hookimpl
    def count_objects(self, sc):
        return SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc):
        return SHRINK_STOP

class ScannedCache(Cache):
    @hookimpl
    def compaction_scan(self, cs):
        TOLD.append((cs.phase.value, cs.opportunistic, cs.order))
        {scan}
        nr = len(CACHE)
        while CACHE:
            self.mm.free_pages(CACHE.pop(), 8)
        return nr << 8

@hookimpl
def mmfw_module_init(mm):
    CACHE.clear(), TOLD.clear()
    mm.register_shrinker({cache}(mm), "cache")

def requests(mm, params):
    CACHE.extend(mm.alloc_pages(gfp.GFP_KERNEL, 8) for _ in range(2))
    assert CACHE[0] ^ CACHE[1] == 1 << 8
    pfn = mm.alloc_pages({gfp_mask}, 9)
    print("GOT", pfn >= 0, "ISOLATED", mm.vmstat.as_dict()["compact_isolated"])
    if pfn >= 0:
        mm.free_pages(pfn, 9)
    while True:
        mm.sched.nanosleep(1_000_000_000)

@hookimpl
def mmfw_register_workloads():
    yield Workload("requests", "asks", run=requests)

@hookimpl
def mmfw_module_exit(mm):
    print("TOLD", TOLD)
    while CACHE:
        mm.free_pages(CACHE.pop(), 8)
"""


@pytest.fixture
def play(tmp_path, capsys):
    def once(
        gfp_mask: int = MAYFAIL,
        *,
        scan: str = "pass",
        opted_in: bool = True,
        policy: bool = True,
        **options: object,
    ) -> tuple[RunResult, list[str]]:
        load = LOAD.replace("{scan}", scan).replace("{gfp_mask}", str(gfp_mask))
        (tmp_path / "load.py").write_text(load.replace("{cache}", "ScannedCache" if opted_in else "Cache"))
        scenario = tmp_path / "pooled.toml"
        scenario.write_text(textwrap.dedent(SCENARIO))
        result = run(
            RunRequest(
                scenario=str(scenario),
                plugin_files=(tmp_path / "load.py",),
                policies=(Policy(NAME, tuple(options.items())),) if policy else (),
            )
        )
        return result, capsys.readouterr().out.splitlines()

    return once


def test_a_scan_frees_the_missing_buddy_and_nothing_is_moved(play):  # T9
    _, mainline = play(policy=False)
    assert mainline[0].startswith("GOT False")
    result, (got, told) = play()
    assert got == "GOT True ISOLATED 0"
    assert told.startswith("TOLD [('entry', True, 9)")
    assert result.vmstat["compact_success"] == 1


def test_a_callee_that_allocates_enters_no_reclaim(play):  # T10, direct compaction
    result, (got, _) = play(scan="self.mm.free_pages(self.mm.alloc_pages(gfp.GFP_KERNEL, 0), 0)")
    assert got == "GOT True ISOLATED 0"
    assert result.vmstat.get("allocstall_normal", 0) == result.vmstat.get("allocstall_dma32", 0) == 0


def test_where_nobody_has_the_method_it_changes_nothing(play):
    mainline, policy = play(opted_in=False, policy=False), play(opted_in=False)
    assert policy[0].digest == mainline[0].digest
    assert policy[1] == mainline[1]


def test_plain_scans_must_all_free(play):
    result, (_, told) = play(distinguish=False)
    assert told.startswith("TOLD [('entry', False, 9)")
    assert result.metrics["compaction_scan_must_free_ratio"] == 1.0


# --- the decision by itself ------------------------------------------------------------------------------


@pytest.fixture
def mm():
    machine = make_mm("256M")
    mmfw_module_init(machine, Options())
    return machine


def control(
    mm, mask: int = MAYFAIL, *, order: int = 9, mode: MigrateMode = MigrateMode.SYNC_LIGHT, **more: bool
):
    return CompactControl(mm.pgdat.node_zones[1], order, mask, 0, 0, 2, mode, **more)


def told(mm, cc):
    scan = mmfw_plan_compaction_scan(cc, ScanPhase.FINISH)
    assert scan is not None
    return scan.opportunistic, scan.mode


ASYNC, LIGHT, SYNC = MigrateMode.ASYNC, MigrateMode.SYNC_LIGHT, MigrateMode.SYNC


@pytest.mark.parametrize(
    ("mask", "mode", "full", "opportunistic", "told_mode"),
    [
        (MAYFAIL, ASYNC, False, True, ASYNC),
        (MAYFAIL, LIGHT, False, True, LIGHT),
        (gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL, LIGHT, False, True, LIGHT),
        (gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL | gfp.NOFAIL, LIGHT, False, False, LIGHT),
        (MUST, ASYNC, False, True, ASYNC),
        (MUST, LIGHT, False, False, LIGHT),
        (MUST, LIGHT, True, False, SYNC),
    ],
)
def test_direct_compaction_must_free_once_it_is_synchronous(mm, mask, mode, full, opportunistic, told_mode):
    cc = control(mm, mask, mode=mode, direct_compaction=True, ignore_block_suitable=full)
    assert told(mm, cc) == (opportunistic, told_mode)


def test_proactive_compaction_and_user_space_ask_for_two_mib_opportunistically(mm):
    for mode, proactive in ((LIGHT, True), (SYNC, False)):
        scan = mmfw_plan_compaction_scan(
            control(mm, gfp.GFP_KERNEL, order=-1, mode=mode, proactive_compaction=proactive), ScanPhase.ENTRY
        )
        assert scan is not None
        assert (scan.order, scan.nr_to_free, scan.opportunistic) == (9, 512, True)


def fold(mm, mask: int, plan: WakePlan, order: int = 9) -> None:
    state = attachment(mm.pgdat, Scanning)
    assert state is not None
    state.wakers.fold(KswapdWake(order, mask, 2, WakeReason.SLOWPATH), plan)


def kcompactd_must(mm) -> bool:
    return not told(mm, control(mm, gfp.GFP_KERNEL))[0]


@pytest.mark.parametrize(
    ("mask", "order", "must"),
    [(MAYFAIL, 9, False), (MUST, 9, True), (gfp.GFP_NOWAIT, 9, False), (MUST, 0, False)],
)
def test_kcompactd_must_free_for_a_waker_that_must_have_its_block(mm, mask, order, must):
    fold(mm, MAYFAIL, KCOMPACTD)
    fold(mm, mask, WakePlan(0) if order == 0 else KCOMPACTD, order)
    assert kcompactd_must(mm) is must
    assert not kcompactd_must(mm)  # that request is served


def test_wakers_of_kswapd_are_kcompactds_once_kswapd_takes_its_request(mm):
    state = attachment(mm.pgdat, Scanning)
    fold(mm, MUST, KSWAPD)
    assert not kcompactd_must(mm)
    state.wakers.kswapd_begins()
    assert kcompactd_must(mm)
    state.wakers.kswapd_requeues()
    state.wakers.kswapd_begins()
    assert kcompactd_must(mm)
    state.wakers.kswapd_begins()
    assert not kcompactd_must(mm)


def test_all_zones_of_one_kcompactd_run_are_for_the_same_wakers(mm):
    fold(mm, MUST, KCOMPACTD)
    cc = control(mm, gfp.GFP_KERNEL)
    assert told(mm, cc)[0] is False
    cc.zone = mm.pgdat.node_zones[0]
    assert told(mm, cc)[0] is False


@pytest.mark.parametrize("phase", [ScanPhase.ENTRY, ScanPhase.PAGEBLOCK])
def test_a_zone_that_can_serve_the_request_is_not_asked_about(mm, phase):
    cc = control(mm, direct_compaction=True)
    assert mm.pgdat.node_zones[1].nr_free(10) > 0
    assert mmfw_plan_compaction_scan(cc, phase) is None


def test_suitability_agrees_with_compaction_itself(mm):
    """From a full machine to a half empty one, single pages given back so that they stay apart."""
    zone = mm.pgdat.node_zones[1]
    held = []
    while (pfn := mm.alloc_pages(gfp.GFP_ATOMIC | gfp.MEMALLOC | gfp.NOWARN, 0)) >= 0:
        held.append(pfn)
    answers: dict[int, set[bool]] = {order: set() for order in (1, 3, 4, 9, 10)}
    for nr_freed, pfn in enumerate(sorted(held)[::2]):
        mm.free_pages(pfn, 0)
        if nr_freed % 100 == 0:
            for order, given in answers.items():
                expected = mm.compaction.compaction_suitable(zone, order, 0, 2).name == "CONTINUE"
                assert would_compact(control(mm, order=order)) is expected
                given.add(expected)
    assert answers[9] == answers[10] == {False, True}


@pytest.mark.slow
def test_two_pooled_buddies_are_given_up_at_once():
    pytest.importorskip("mmfw_demand", reason="the scenario's requests come from mmfw-demand")
    pytest.importorskip("mmfw_ttm_pool", reason="the scenario is of mmfw-ttm-pool")
    failures = [
        run(RunRequest(scenario="ttm-order8-pair", short=True, policies=policies)).metrics["demand_failures"]
        for policies in ((), (Policy(NAME),))
    ]
    assert failures == [2, 0]


@pytest.mark.slow
def test_it_does_so_without_reclaim_and_without_kswapd_too():
    for needed in (
        "mmfw_demand",
        "mmfw_ttm_pool",
        "mmfw_policy_elide_shrink_slab",
        "mmfw_policy_no_kswapd_kick",
    ):
        pytest.importorskip(needed)
    policies = (Policy("elide-shrink-slab"), Policy(NAME), Policy("no-kswapd-kick"))
    result = run(RunRequest(scenario="ttm-order8-pair", short=True, policies=policies))
    assert (result.metrics["demand_failures"], result.vmstat["pageoutrun"]) == (0, 0)
