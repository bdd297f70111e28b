"""Whom compaction asks, when, and whether it must free: conformance tests T9 and T10, and the rules of the callers."""

from __future__ import annotations

import ast
import textwrap

import pytest

from mmfw import CompactControl, KswapdWake, MigrateMode, ScanPhase, WakePlan, WakeReason, attachment, gfp
from mmfw.mm.sysctl import SysctlVm
from mmfw.policies import Policy
from mmfw.run import RunRequest, RunResult, run
from mmfw.sched import PF_KSWAPD, PF_KTHREAD
from mmfw.testing import load_mm, make_mm
from mmfw_policy_compaction_scan import Options
from mmfw_policy_compaction_scan.plugin import (
    Scanning,
    mmfw_module_init,
    mmfw_plan_compaction_scan,
)
from mmfw_policy_compaction_scan.wakers import Wakers

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
RANGES = []

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
    def compaction_holds(self, cs):
        return sum(256 for pfn in CACHE if cs.pfn_lo <= pfn < cs.pfn_hi)

    @hookimpl
    def compaction_scan(self, cs):
        TOLD.append((cs.phase.value, cs.opportunistic, cs.order))
        RANGES.append((cs.pfn_lo, cs.pfn_hi, cs.nr_to_free))
        {scan}
        nr = len(CACHE)
        while CACHE:
            self.mm.free_pages(CACHE.pop(), 8)
        return nr << 8

@hookimpl
def mmfw_module_init(mm):
    CACHE.clear(), TOLD.clear(), RANGES.clear()
    mm.register_shrinker({cache}(mm), "cache")

def requests(mm, params):
    CACHE.extend(mm.alloc_pages(gfp.GFP_KERNEL, 8) for _ in range(2))
    assert CACHE[0] ^ CACHE[1] == 1 << 8
    print("AT", min(CACHE))
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
    print("RANGES", RANGES)
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
    ) -> tuple[RunResult, dict[str, str]]:
        load = LOAD.replace("{scan}", scan).replace("{gfp_mask}", str(gfp_mask))
        cache = "ScannedCache" if opted_in else "Cache"
        (tmp_path / "load.py").write_text(load.replace("{cache}", cache))
        scenario = tmp_path / "pooled.toml"
        scenario.write_text(textwrap.dedent(SCENARIO))
        result = run(
            RunRequest(
                scenario=str(scenario),
                plugin_files=(tmp_path / "load.py",),
                policies=(Policy(NAME, tuple(options.items())),) if policy else (),
            )
        )
        lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
        return result, lines

    return once


def told(lines: dict[str, str]) -> list[tuple[str, bool, int]]:
    return ast.literal_eval(lines["TOLD"])


def test_a_scan_frees_the_missing_buddy_and_nothing_is_moved(play):  # T9
    _, mainline = play(policy=False)
    assert mainline["GOT"].startswith("False")
    result, lines = play()
    assert lines["GOT"] == "True ISOLATED 0"
    assert told(lines)[0] == ("entry", True, 9)
    assert result.vmstat["compact_success"] == 1


def test_a_callee_that_allocates_enters_no_reclaim(play):  # T10, direct compaction
    result, lines = play(scan="self.mm.free_pages(self.mm.alloc_pages(gfp.GFP_KERNEL, 0), 0)")
    assert lines["GOT"] == "True ISOLATED 0"
    assert result.vmstat.get("allocstall_normal", 0) == result.vmstat.get("allocstall_dma32", 0) == 0


def test_where_nobody_has_the_method_it_changes_nothing(play):
    mainline, policy = play(opted_in=False, policy=False), play(opted_in=False)
    assert policy[0].digest == mainline[0].digest
    assert policy[1] == mainline[1]


def test_plain_scans_must_all_free(play):
    result, lines = play(distinguish=False)
    assert told(lines)[0] == ("entry", False, 9)
    assert result.metrics["compaction_scan_must_free_ratio"] == 1.0


ONLY_NEARBY = "if cs.phase.value != 'pageblock': return 0"


def test_what_a_finished_pageblock_holds_is_asked_for_by_its_range(play):  # R2
    """A cache that gives only what lies in the range asked for, and never to "anywhere"."""
    _, lines = play(scan=ONLY_NEARBY)
    assert lines["GOT"].startswith("True")
    at = int(lines["AT"])
    asked = list(zip(told(lines), ast.literal_eval(lines["RANGES"]), strict=True))
    assert asked[0][0] == ("entry", True, 9)
    assert (("pageblock", True, 9), (at, at + 512, 1024)) in asked
    # No other pageblock is the cache's.
    assert {lo for (phase, _, _), (lo, _, _) in asked if phase == "pageblock"} == {at}


def test_without_pageblocks_nobody_is_asked_in_between(play):
    _, lines = play(scan=ONLY_NEARBY, pageblocks=False)
    assert lines["GOT"].startswith("False")
    assert {phase for phase, _, _ in told(lines)} == {"entry", "finish"}


def test_a_cache_that_has_nothing_is_asked_once_in_a_run_over_a_zone(play):
    result, lines = play(scan="return SHRINK_STOP")
    assert lines["GOT"].startswith("False")
    assert result.vmstat["compact_migrate_scanned"] > 10 * 512
    assert len(told(lines)) < 10
    assert "pageblock" not in {phase for phase, _, _ in told(lines)}


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


def planned(mm, cc):
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
    assert planned(mm, cc) == (opportunistic, told_mode)


def test_proactive_compaction_and_user_space_ask_for_two_mib_opportunistically(mm):
    for mode, proactive in ((LIGHT, True), (SYNC, False)):
        scan = mmfw_plan_compaction_scan(
            control(mm, gfp.GFP_KERNEL, order=-1, mode=mode, proactive_compaction=proactive), ScanPhase.ENTRY
        )
        assert scan is not None
        assert (scan.order, scan.nr_to_free, scan.opportunistic) == (9, 1024, True)


@pytest.mark.parametrize("blocks", [1, 2, 64])
def test_a_scan_asks_for_some_blocks_of_the_order(blocks):
    mm = make_mm("256M")
    mmfw_module_init(mm, Options(budget_blocks=blocks))
    scan = mmfw_plan_compaction_scan(control(mm, order=4), ScanPhase.FINISH)
    assert scan is not None
    assert scan.nr_to_free == blocks * 16


def fold(mm, mask: int, plan: WakePlan, order: int = 9) -> None:
    wakers(mm).fold(KswapdWake(order, mask, 2, WakeReason.SLOWPATH), plan)


def wakers(mm) -> Wakers:
    state = attachment(mm.pgdat, Scanning)
    assert state is not None
    return state.wakers


def kcompactd_must(mm) -> bool:
    """Whether kcompactd must free, as it begins now."""
    wakers(mm).kcompactd_begins()
    return not planned(mm, control(mm, gfp.GFP_KERNEL))[0]


@pytest.mark.parametrize(
    ("mask", "order", "must"),
    [(MAYFAIL, 9, False), (MUST, 9, True), (gfp.GFP_NOWAIT, 9, False), (MUST, 0, False)],
)
def test_kcompactd_must_free_for_a_waker_that_must_have_its_block(mm, mask, order, must):
    fold(mm, MAYFAIL, KCOMPACTD)
    fold(mm, mask, WakePlan(0) if order == 0 else KCOMPACTD, order)
    assert kcompactd_must(mm) is must
    assert not kcompactd_must(mm)  # that request is served


def test_wakers_of_kswapd_are_kcompactds_once_kswapd_passes_them_on(mm):
    fold(mm, MUST, KSWAPD)
    wakers(mm).kswapd_passes_on()
    assert not kcompactd_must(mm)  # kswapd has not taken them yet
    wakers(mm).kswapd_begins()
    assert not kcompactd_must(mm)
    wakers(mm).kswapd_passes_on()
    assert kcompactd_must(mm)
    wakers(mm).kswapd_requeues()
    wakers(mm).kswapd_begins()
    wakers(mm).kswapd_passes_on()
    assert kcompactd_must(mm)
    wakers(mm).kswapd_begins()
    wakers(mm).kswapd_passes_on()
    assert not kcompactd_must(mm)


def test_all_zones_of_one_kcompactd_run_are_for_the_same_wakers(mm):
    fold(mm, MUST, KCOMPACTD)
    wakers(mm).kcompactd_begins()
    fold(mm, MAYFAIL, KCOMPACTD)
    cc = control(mm, gfp.GFP_KERNEL)
    assert planned(mm, cc)[0] is False
    cc.zone = mm.pgdat.node_zones[0]
    assert planned(mm, cc)[0] is False


@pytest.mark.parametrize(("flags", "passed_on"), [(PF_KTHREAD, False), (PF_KTHREAD | PF_KSWAPD, True)])
def test_what_kswapd_asks_kcompactd_it_asks_for_its_wakers(flags, passed_on):
    loaded = load_mm(
        [NAME],
        buddyinfo={"DMA32": [1000] * 5 + [0] * 6, "DMA": [10, 10, 10] + [0] * 8},
        unmovable_block_fraction=1.0,
    )
    mm, seen = loaded.mm, []
    fold(mm, MUST, KSWAPD)
    wakers(mm).kswapd_begins()
    mm.start_time()
    mm.sched.run(mm.sched.now + 1_000_000)

    def ask() -> None:
        mm.compaction.wakeup_kcompactd(9, 1)
        seen.append(wakers(mm).kcompactd)

    mm.sched.spawn(ask, name="asks", flags=flags, daemon=True)
    mm.sched.run(mm.sched.now + 100_000_000)
    assert seen == [passed_on]
    assert mm.vmstat.as_dict()["compact_daemon_wake"] == 1
    # Kcompactd has taken them along with its request.
    assert (wakers(mm).kcompactd, wakers(mm).kcompactd_run) == (False, passed_on)


def test_a_zone_that_can_serve_the_request_is_not_asked_about(mm):
    cc = control(mm, direct_compaction=True)
    assert mm.pgdat.node_zones[1].nr_free(10) > 0
    assert mmfw_plan_compaction_scan(cc, ScanPhase.ENTRY) is None


@pytest.mark.parametrize("threshold", [0, 500, 990, 1000])
def test_suitability_agrees_with_compaction_itself(threshold):
    """From a full machine to a half empty one, single pages given back so that they stay apart."""
    mm = make_mm("256M")
    mm.pgdat.memory.set_sysctls(SysctlVm(extfrag_threshold=threshold))
    mmfw_module_init(mm, Options())
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
                asked = mmfw_plan_compaction_scan(control(mm, order=order), ScanPhase.ENTRY) is not None
                assert asked is expected
                given.add(expected)
    assert answers[9] == answers[10] == ({False} if threshold == 1000 else {False, True})


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
