"""The hint: who sets it, who clears it, how long it lasts, and what Xe makes of it."""

from __future__ import annotations

import textwrap

import pytest

from mmfw import ReclaimContext, Reclaimer, ScanControl, ShrinkControl, attach, attachment, gfp
from mmfw.run import RunRequest, run
from mmfw.testing import make_mm
from mmfw.types import KswapdRequest, KswapdWake, WakeReason
from mmfw_policy_opportunistic_compaction import OpportunisticCompaction, Params, WakerClass, waker_class
from mmfw_policy_opportunistic_compaction import plugin as policy

FAILABLE = gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN
#: Fragmented, with 25,000 pages free: order 0 is far above its watermarks, order 9 cannot be had.
PLENTY = [1000, 1000, 1000, 1000, 200, 0, 0, 0, 0, 0, 0]
#: 900 pages free: order 0 is below its low watermark.
SCARCE = [300, 100, 100, 0, 0, 0, 0, 0, 0, 0, 0]

SCENARIO = """
name = "hinted"
description = "requests, and a shrinker that notes the hint"
plugins = []
machine = "256M"
duration = "1s"

[state]
unmovable_block_fraction = 1.0

[state.buddyinfo]
DMA32 = {dma32}
DMA = [10, 10, 10, 0, 0, 0, 0, 0, 0, 0, 0]

[[workloads]]
name = "requests"
"""

#: Knows nothing of the policy's class but its name, as it must run without the policy, too.
WITNESS = """
from mmfw import SHRINK_STOP, Workload, gfp, hookimpl
from mmfw.sched import PF_KSWAPD

REQUESTS = {requests}
SEEN = []
MM = []


class Witness:
    seeks = 2

    @hookimpl
    def count_objects(self, sc):
        hint = any(type(each).__name__ == "OpportunisticCompaction" for each in sc.attached or ())
        SEEN.append((bool(MM[0].sched.current.flags & PF_KSWAPD), sc.priority, hint))
        return 0

    @hookimpl
    def scan_objects(self, sc):
        return SHRINK_STOP


@hookimpl
def mmfw_module_init(mm):
    MM.append(mm)
    mm.register_shrinker(Witness(), "witness")


def requests(mm, params):
    for order, mask in REQUESTS:
        pfn = mm.alloc_pages(mask, order)
        if pfn >= 0:
            mm.free_pages(pfn, order)
    mm.sched.nanosleep(50_000_000)


@hookimpl
def mmfw_register_workloads():
    yield Workload("requests", "asks", run=requests)


@hookimpl
def mmfw_module_exit(mm):
    print("SEEN", SEEN)
"""


@pytest.fixture
def play(tmp_path, capsys):
    """Run requests; answers the result, and (by kswapd, priority, hint) of each count."""

    def run_it(requests, *, dma32=PLENTY, policies=("opportunistic-compaction",), **options):
        witness = tmp_path / "witness.py"
        witness.write_text(WITNESS.replace("{requests}", repr(requests)))
        scenario = tmp_path / "hinted.toml"
        scenario.write_text(textwrap.dedent(SCENARIO).replace("{dma32}", repr(dma32)))
        result = run(
            RunRequest(
                scenario=str(scenario),
                plugins=policies,
                plugin_files=(witness,),
                overrides={f"opportunistic-compaction.{key}": value for key, value in options.items()},
            )
        )
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("SEEN")]
        return result, eval(line.removeprefix("SEEN "), {})  # written by this test

    return run_it


def by_kswapd(seen):
    return [hint for kswapd, _, hint in seen if kswapd]


@pytest.mark.parametrize(
    ("order", "mask", "expected"),
    [
        (0, FAILABLE, WakerClass.ORDER_0),
        (9, FAILABLE, WakerClass.FAILABLE),
        (1, gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL, WakerClass.FAILABLE),
        (3, gfp.GFP_KERNEL, WakerClass.MUST),
        (9, gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL | gfp.NOFAIL, WakerClass.MUST),
        (9, gfp.GFP_NOWAIT | gfp.NOFAIL, WakerClass.MUST),
        (9, gfp.GFP_NOWAIT, WakerClass.NO_DIRECT),
        (9, gfp.GFP_NOWAIT | gfp.NORETRY, WakerClass.FAILABLE),
    ],
)
def test_class_of_a_request(order, mask, expected):
    assert waker_class(order, mask) is expected


# --- T1 to T6 of the conformance tests, in runs ------------------------------------------------------


def test_t1_hint_at_each_priority_of_a_run_for_a_failable_waker(play):
    result, seen = play([(9, FAILABLE)])
    of_kswapd = [(priority, hint) for kswapd, priority, hint in seen if kswapd]
    assert [priority for priority, _ in of_kswapd][:4] == [12, 11, 10, 9]
    assert all(hint for _, hint in of_kswapd)
    assert result.metrics["opportunistic_compaction_hinted_run_ratio"] == 1.0
    assert result.metrics["opportunistic_compaction_failable_waker_ratio"] == 1.0


def test_t3_flags_alone_decide_though_pressure_is_real(play):
    _, seen = play([(9, FAILABLE)], dma32=SCARCE)
    assert by_kswapd(seen)
    assert all(by_kswapd(seen))


@pytest.mark.parametrize(
    ("order", "mask"),
    [
        (9, gfp.GFP_KERNEL | gfp.NOWARN),
        (9, gfp.GFP_NOWAIT | gfp.NOWARN),
        (9, gfp.GFP_NOWAIT | gfp.NOFAIL | gfp.RETRY_MAYFAIL | gfp.NOWARN),
    ],
)
def test_t4_t5_no_hint_for_a_waker_that_is_not_failable(play, order, mask):
    _, seen = play([(order, mask)])
    assert by_kswapd(seen)
    assert not any(by_kswapd(seen))


def test_a_request_without_direct_reclaim_is_failable_if_so_set(play):
    _, seen = play([(9, gfp.GFP_NOWAIT | gfp.NOWARN)], no_direct_is_failable=True)
    assert by_kswapd(seen)
    assert all(by_kswapd(seen))


def test_direct_reclaim_has_the_hint_only_if_so_set(play):
    wanted = [(3, FAILABLE)]
    _, seen = play(wanted, dma32=SCARCE)
    direct = [hint for kswapd, _, hint in seen if not kswapd]
    assert direct
    assert not any(direct)
    _, seen = play(wanted, dma32=SCARCE, hint_direct=True)
    direct = [hint for kswapd, _, hint in seen if not kswapd]
    assert direct
    assert all(direct)


def test_a_load_without_failable_wakers_runs_as_under_mainline(play):
    wanted = [(9, gfp.GFP_KERNEL | gfp.NOWARN), (0, gfp.GFP_KERNEL), (4, gfp.GFP_NOWAIT | gfp.NOWARN)]
    digests = {
        play(wanted, dma32=dma32, policies=policies)[0].digest
        for dma32 in (SCARCE,)
        for policies in ((), ("opportunistic-compaction",))
    }
    assert len(digests) == 1


def test_where_nobody_looks_at_the_hint_it_changes_nothing(play):
    digests = {
        play([(9, FAILABLE)] * 5, policies=policies)[0].digest
        for policies in ((), ("opportunistic-compaction",))
    }
    assert len(digests) == 1


# --- the tri-state, hook by hook ---------------------------------------------------------------------


class Node:
    """A machine's node under the policy's hooks, called as mm calls them."""

    def __init__(self, **options: bool | str) -> None:
        self.mm = make_mm("256M")
        policy.mmfw_module_init(self.mm, Params(**options))

    def wake(self, order: int, mask: int = FAILABLE, reason: WakeReason = WakeReason.SLOWPATH) -> None:
        policy.mmfw_fold_kswapd_waker(self.mm.pgdat, KswapdWake(order, mask, 1, reason))

    def begin(self, order: int = 9) -> None:
        policy.mmfw_kswapd_begin(self.mm.pgdat, KswapdRequest(order, 1))

    def requeue(self, order: int) -> None:
        policy.mmfw_kswapd_requeue(self.mm.pgdat, KswapdRequest(order, 1))

    def hint(self, order: int = 9, caller: Reclaimer = Reclaimer.KSWAPD, mask: int = gfp.GFP_KERNEL) -> bool:
        sc = ScanControl(32, order, 12, 1, mask, may_writepage=True, may_unmap=True, may_swap=True)
        shrinkctl = ShrinkControl(gfp_mask=mask, nid=0)
        policy.mmfw_init_shrink_control(shrinkctl, ReclaimContext(self.mm.pgdat, sc, caller))
        return attachment(shrinkctl, OpportunisticCompaction) is not None


@pytest.mark.parametrize("wakers", [(9, 0), (0, 9), (9, 0, 9)])
def test_t2_an_order_0_waker_clears_the_hint_for_its_run_and_no_longer(wakers):
    node = Node()
    for order in wakers:
        node.wake(order)
    node.begin()
    assert not node.hint()
    node.wake(9)
    node.begin()
    assert node.hint()


def test_t6_hint_ends_where_kswapd_drops_the_order():
    node = Node()
    node.wake(9)
    node.begin()
    assert node.hint(9)
    assert not node.hint(0)


@pytest.mark.parametrize(("boost_counts", "expected"), [(True, False), (False, True)])
def test_a_boosted_watermark_is_a_waker_like_any_of_order_0(boost_counts, expected):
    node = Node(boost_counts=boost_counts)
    node.wake(9)
    node.wake(0, 0, WakeReason.BOOST)
    node.begin()
    assert node.hint() is expected
    node.wake(9)
    node.wake(0)
    node.begin()
    assert not node.hint()


@pytest.mark.parametrize(("reread", "expected"), [(False, True), (True, False)])
def test_a_waker_amid_a_run_counts_for_the_next_one(reread, expected):
    node = Node(reread=reread)
    node.wake(9)
    node.begin()
    assert node.hint()
    node.wake(0)
    assert node.hint() is expected
    node.begin()
    assert not node.hint()


@pytest.mark.parametrize(
    ("requeue", "woken_for", "expected"),
    [
        ("as-order", 9, False),  # order 10 is put back, and with it who had asked
        ("as-order", 10, True),  # nothing is put back
        ("always", 10, False),
        ("never", 9, True),
    ],
)
def test_a_premature_wake_up_puts_back_who_had_asked(requeue, woken_for, expected):
    node = Node(requeue=requeue)
    node.wake(10)
    node.wake(0)
    node.begin(10)
    node.wake(woken_for)
    node.requeue(10)
    node.begin(10)
    assert node.hint() is expected


def test_an_order_that_was_dropped_brings_nobody_back():
    node = Node()
    node.wake(9)
    node.wake(0)
    node.begin(9)
    node.requeue(0)
    node.wake(9)
    node.begin(9)
    assert node.hint()


def test_a_run_that_nobody_asked_for_has_no_hint():
    node = Node()
    node.begin()
    assert not node.hint()


@pytest.mark.parametrize("caller", [Reclaimer.MEMCG, Reclaimer.PROACTIVE])
def test_reclaim_for_a_limit_never_has_the_hint(caller):
    node = Node(hint_direct=True)
    node.wake(9)
    node.begin()
    assert not node.hint(caller=caller, mask=FAILABLE)


# --- Xe ----------------------------------------------------------------------------------------------

BENCH = """
from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl, Workload, attach, gfp, hookimpl
from mmfw_policy_opportunistic_compaction import OpportunisticCompaction
from mmfw_xe_shrinker import BoState, XeDevice


def control(hint):
    sc = ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0, nr_to_scan=128, nr_scanned=128)
    if hint:
        attach(sc, OpportunisticCompaction())
    return sc


def check(mm, params):
    device = mm.attached.get(XeDevice)
    (xe,) = (each for each in mm.shrinkers if each.ops.name == "xe system shrinker")
    vm = device.create_vm("client")
    for pages in (512, 64):
        device.create_bo(vm, pages)
    assert device.exec(vm) is not None
    mm.sched.nanosleep(1_000_000_000)
    # T7: nothing purgeable, so nothing at all, and nothing is put off.
    deferred = dict(xe.nr_deferred)
    assert xe.ops.count_objects(control(False)) == 576
    assert xe.ops.count_objects(control(True)) == SHRINK_EMPTY
    assert dict(xe.nr_deferred) == deferred
    # T8: a scan under the hint though the count was without it.
    assert xe.ops.scan_objects(control(True)) == SHRINK_STOP
    assert [bo.state for bo in vm.bos] == [BoState.RESIDENT] * 2
    device.set_purgeable(vm.bos[0], True)
    assert xe.ops.count_objects(control(True)) == 512
    assert xe.ops.scan_objects(control(True)) == 512
    assert [bo.state for bo in vm.bos] == [BoState.PURGED, BoState.RESIDENT]
    assert xe.ops.scan_objects(control(False)) == 64
    print("CHECKED")


@hookimpl
def mmfw_register_workloads():
    yield Workload("check", "checks", run=check)
"""


def test_t7_t8_under_the_hint_xe_offers_and_gives_purgeable_objects_only(tmp_path, capsys):
    pytest.importorskip("mmfw_xe_shrinker")
    bench = tmp_path / "bench.py"
    bench.write_text(BENCH)
    scenario = tmp_path / "check.toml"
    scenario.write_text(
        textwrap.dedent("""
        name = "check"
        description = "one client, and two calls of its shrinker"
        plugins = ["xe", "ttm"]
        machine = "512M"
        nr_swap_pages = 100000
        kernel = "7.1"
        duration = "3s"
        [[workloads]]
        name = "check"
        """)
    )
    run(RunRequest(scenario=str(scenario), plugins=("opportunistic-compaction",), plugin_files=(bench,)))
    assert "CHECKED" in capsys.readouterr().out


@pytest.mark.slow
def test_in_the_aquarium_only_boosted_watermarks_let_the_working_set_go():
    """Fewer objects are lost under the hint; all that are left go in runs that a boosted watermark has joined."""
    pytest.importorskip("mmfw_xe_shrinker")
    name = "opportunistic-compaction"
    mainline, hinted, without_boosts = (
        run(RunRequest(scenario="webgl-aquarium", plugins=policies, duration="2s", overrides=options))
        for policies, options in (((), {}), ((name,), {}), ((name,), {f"{name}.boost_counts": False}))
    )
    lost = [result.metrics["xe_bo_evictions"] for result in (mainline, hinted, without_boosts)]
    assert lost[0] > 4 * lost[1]
    assert lost[1] > 2 * lost[2]


def test_attachment_is_the_policys_own_class():
    sc = ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0)
    attach(sc, OpportunisticCompaction())
    assert policy.xe_can_backup(sc) is False
    assert policy.xe_can_backup(ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0)) is None
