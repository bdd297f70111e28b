from __future__ import annotations

import dataclasses
import textwrap
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw import gfp, hookimpl, mainline
from mmfw.binding import SetUp, bind_mm_ops, bind_shrinker, hook_caller
from mmfw.errors import InputError, PluginError
from mmfw.plugins import load
from mmfw.registry import LoadedPlugins
from mmfw.types import (
    DEFAULT_SEEKS,
    SHRINK_EMPTY,
    SHRINK_STOP,
    CompactControl,
    KswapdWake,
    MigrateMode,
    ReclaimContext,
    Reclaimer,
    ScanControl,
    ScanPhase,
    ShrinkControl,
    WakePlan,
    WakeReason,
)

Load = Callable[..., LoadedPlugins]
PGDAT: Any = SimpleNamespace(node_id=0)


def wake(order: int) -> KswapdWake:
    return KswapdWake(order, gfp.GFP_KERNEL, 2, WakeReason.SLOWPATH)


def context(order: int) -> ReclaimContext:
    sc = ScanControl(32, order, 12, 2, gfp.GFP_KERNEL, may_writepage=True, may_unmap=True, may_swap=True)
    return ReclaimContext(PGDAT, sc, Reclaimer.KSWAPD)


def policy(
    body: str, *, arguments: str = "reclaim_context", composes: str = "", decorator: str = "hookimpl"
) -> str:
    others = (composes,) if composes else ()
    name = "__name__.removeprefix('mmfw_plugin_file_')"
    info = f"MMFW_PLUGIN = PluginInfo({name}, (1, 0), kind='policy', composes_with={others})\n"
    return f"{info}@{decorator}\ndef mmfw_should_shrink_slab({arguments}):\n    {body}\n"


# --- decisions ------------------------------------------------------------------------------------------


def test_without_a_policy_the_field_is_mainlines_own_function() -> None:
    ops = bind_mm_ops(load([]))
    assert ops.plan_wakeup is mainline.mmfw_plan_wakeup
    assert ops.should_shrink_slab is mainline.mmfw_should_shrink_slab


def test_mainline_plans_kswapd_at_the_order_that_failed_and_shrinks_slab() -> None:
    ops = bind_mm_ops(load([]))
    assert ops.plan_wakeup(PGDAT, wake(9)) == WakePlan(
        kswapd_order=9, kswapd_min_free_pages=0, kcompactd_order=None
    )
    assert ops.should_shrink_slab(context(9)) is True


def test_none_leaves_the_decision_to_mainline(load_source: Load) -> None:
    ops = bind_mm_ops(load_source(elide=policy("return False if reclaim_context.order > 3 else None")))
    assert [ops.should_shrink_slab(context(order)) for order in (0, 3, 4, 9)] == [True, True, False, False]
    assert ops.plan_wakeup is mainline.mmfw_plan_wakeup


def test_shrinkers_scan_for_compaction_only_where_a_policy_asks(load_source: Load) -> None:
    assert bind_mm_ops(load([])).plan_compaction_scan is None
    source = """
        from mmfw import CompactionScan
        MMFW_PLUGIN = PluginInfo("asks", (1, 0), kind="policy")

        @hookimpl
        def mmfw_plan_compaction_scan(cc, phase):
            if cc.order < 9:
                return None
            return CompactionScan.of(cc, phase, opportunistic=False)
        """
    plan = bind_mm_ops(load_source(asks=textwrap.dedent(source))).plan_compaction_scan
    assert plan is not None
    zone: Any = SimpleNamespace(zone_start_pfn=4096, spanned_pages=512, node=0)
    cc = CompactControl(zone, 9, gfp.GFP_KERNEL, 0, 0, 2, MigrateMode.ASYNC)
    scan = plan(cc, ScanPhase.FINISH)
    assert scan is not None
    assert (scan.order, scan.pfn_lo, scan.pfn_hi, scan.nr_to_free) == (9, 4096, 4608, 512)
    assert (scan.opportunistic, scan.phase, scan.mode) == (False, ScanPhase.FINISH, MigrateMode.ASYNC)
    assert plan(dataclasses.replace(cc, order=4), ScanPhase.FINISH) is None


@pytest.mark.parametrize("arguments", ["wake", "wake, pgdat", "pgdat, wake"])
def test_implementation_may_take_fewer_arguments_in_any_order(load_source: Load, arguments: str) -> None:
    body = "return WakePlan(None, kcompactd_order=wake.order)"
    ops = bind_mm_ops(load_source(kick=f"@hookimpl\ndef mmfw_plan_wakeup({arguments}):\n    {body}"))
    assert ops.plan_wakeup(PGDAT, wake(4)) == WakePlan(None, kcompactd_order=4)


def test_trylast_does_not_put_a_policy_behind_mainline(load_source: Load) -> None:
    source = policy("return False", decorator="hookimpl(trylast=True)")
    wrapper = policy("return (yield)", decorator="hookimpl(wrapper=True)")
    assert bind_mm_ops(load_source(elide=source)).should_shrink_slab(context(0)) is False
    assert bind_mm_ops(load_source(elide=source, wrap=wrapper)).should_shrink_slab(context(0)) is False


@pytest.mark.parametrize("composes", [("", ""), ("two", ""), ("", "one")])
def test_two_plain_policies_on_one_decision_are_refused(load_source: Load, composes: tuple[str, str]) -> None:
    loaded = load_source(
        one=policy("return None", composes=composes[0]), two=policy("return None", composes=composes[1])
    )
    with pytest.raises(InputError) as refused:
        bind_mm_ops(loaded)
    assert str(refused.value) == (
        "policies 'one' and 'two' both answer mmfw_should_shrink_slab; leave one out "
        "(they may be combined once each names the other in composes_with)"
    )


def test_composing_policies_are_asked_in_order(load_source: Load) -> None:
    one = policy("return False if reclaim_context.order == 9 else None", composes="two")
    two = policy("return reclaim_context.order != 4", composes="one")
    ops = bind_mm_ops(load_source(one=one, two=two))
    assert [ops.should_shrink_slab(context(order)) for order in (9, 4, 0)] == [False, False, True]
    ops = bind_mm_ops(load_source(two=two, one=one))
    assert [ops.should_shrink_slab(context(order)) for order in (9, 4, 0)] == [True, False, True]


def test_wrapper_sees_what_the_others_answer(load_source: Load) -> None:
    negate = policy("return not (yield)", arguments="", decorator="hookimpl(wrapper=True)")
    elide = policy("return False if reclaim_context.order > 3 else None")
    ops = bind_mm_ops(load_source(negate=negate, elide=elide))
    assert [ops.should_shrink_slab(context(order)) for order in (0, 9)] == [False, True]


def test_wrappers_nest_in_policy_order(load_source: Load) -> None:
    log = "reclaim_context.pgdat.seen.append({0!r})\n    answer = yield\n    return answer"
    ops = bind_mm_ops(
        load_source(
            outer=policy(log.format("outer"), decorator="hookimpl(wrapper=True)"),
            inner=policy(log.format("inner"), decorator="hookimpl(wrapper=True)"),
        )
    )
    where = context(0)
    pgdat: Any = SimpleNamespace(seen=[])
    assert ops.should_shrink_slab(ReclaimContext(pgdat, where.sc, where.caller)) is True
    assert pgdat.seen == ["outer", "inner"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("1", "answered 1; a bool, or None to leave it to the next, is wanted"),
        ("'no'", "answered 'no'; a bool, or None to leave it to the next, is wanted"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_policy_that_misbehaves_is_named(load_source: Load, answer: str, message: str) -> None:
    ops = bind_mm_ops(load_source(elide=policy(f"return {answer}")))
    with pytest.raises(PluginError) as blamed:
        ops.should_shrink_slab(context(0))
    assert str(blamed.value) == f"plugin elide, mmfw_should_shrink_slab: {message}"
    assert (blamed.value.plugin, blamed.value.hook) == ("elide", "mmfw_should_shrink_slab")


@pytest.mark.parametrize(
    ("wrapper", "plain", "at_fault"),
    [
        ("raise RuntimeError('x')\n    yield", "return None", "wrap"),
        ("answer = yield\n    raise RuntimeError('x')", "return None", "wrap"),
        ("return (yield)", "raise RuntimeError('x')", "elide"),
    ],
)
def test_fault_under_a_wrapper_names_the_one_that_raised(
    load_source: Load, wrapper: str, plain: str, at_fault: str
) -> None:
    loaded = load_source(wrap=policy(wrapper, decorator="hookimpl(wrapper=True)"), elide=policy(plain))
    with pytest.raises(PluginError) as blamed:
        bind_mm_ops(loaded).should_shrink_slab(context(0))
    assert str(blamed.value) == f"plugin {at_fault}, mmfw_should_shrink_slab: RuntimeError: x"


WRAPS = "hookimpl(wrapper=True)"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("yield\n    return None", "answered None; a bool is wanted"),
        ("yield\n    return 1", "answered 1; a bool is wanted"),
        ("return\n    yield", "RuntimeError: a wrapper has to yield once; it did not"),
        ("return (yield (yield))", "RuntimeError: a wrapper has to yield once; it did so again"),
    ],
)
def test_wrapper_is_blamed_for_its_own_answer(load_source: Load, body: str, fault: str) -> None:
    loaded = load_source(
        outer=policy("return (yield)", decorator=WRAPS),
        wrong=policy(body, decorator=WRAPS),
        inner=policy("return (yield)", decorator=WRAPS),
        elide=policy("return False"),
    )
    with pytest.raises(PluginError) as blamed:
        bind_mm_ops(loaded).should_shrink_slab(context(0))
    assert str(blamed.value) == f"plugin wrong, mmfw_should_shrink_slab: {fault}"


def test_policy_under_a_wrapper_is_blamed_for_its_own_answer(load_source: Load) -> None:
    loaded = load_source(wrap=policy("return (yield)", decorator=WRAPS), elide=policy("return 'no'"))
    with pytest.raises(PluginError) as blamed:
        bind_mm_ops(loaded).should_shrink_slab(context(0))
    assert blamed.value.plugin == "elide"
    assert str(blamed.value).endswith("a bool, or None to leave it to the next, is wanted")


def test_wrapper_may_mend_what_the_others_fail_in(load_source: Load) -> None:
    mends = "try:\n        return (yield)\n    except Exception:\n        return True"
    loaded = load_source(wrap=policy(mends, decorator=WRAPS), elide=policy("raise RuntimeError('x')"))
    assert bind_mm_ops(loaded).should_shrink_slab(context(0)) is True


def test_wrapper_of_the_old_style_changes_the_answer_in_place(load_source: Load) -> None:
    def ops(forced: str) -> Any:
        body = f"outcome = yield\n    outcome.force_result({forced})"
        wrapper = policy(body, decorator="hookimpl(hookwrapper=True)")
        return bind_mm_ops(load_source(wrap=wrapper, elide=policy("return False")))

    assert ops("not outcome.get_result()").should_shrink_slab(context(0)) is True
    with pytest.raises(PluginError, match=r"^plugin wrap, .*answered None; a bool is wanted"):
        ops("None").should_shrink_slab(context(0))


def test_wrapper_may_leave_compaction_scans_to_nobody(load_source: Load) -> None:
    source = f"@{WRAPS}\ndef mmfw_plan_compaction_scan(phase):\n    scan = yield\n    return {{}}\n"
    plans = [bind_mm_ops(load_source(w=source.format(a))).plan_compaction_scan for a in ("scan", "7")]
    assert plans[0] is not None
    assert plans[1] is not None
    cc = CompactControl(PGDAT, 9, gfp.GFP_KERNEL, 0, 0, 2, MigrateMode.ASYNC)
    assert plans[0](cc, ScanPhase.FINISH) is None
    with pytest.raises(PluginError) as blamed:
        plans[1](cc, ScanPhase.FINISH)
    assert str(blamed.value).endswith("answered 7; a CompactionScan, or None to ask nobody, is wanted")


@pytest.mark.usefixtures("installed")
def test_published_hook_is_called_through_its_caller() -> None:
    ask = hook_caller(load(["pool-user"]), "pool_gfp_mask")
    assert (ask(3, 0), ask(9, 0)) == (0xCC0, None)


def test_hook_nobody_publishes() -> None:
    with pytest.raises(InputError) as refused:
        hook_caller(load([]), "ttm_pool_gfp_mask")
    assert str(refused.value) == "no loaded plugin has published a hook 'ttm_pool_gfp_mask'"


# --- shrinkers ------------------------------------------------------------------------------------------


class Fixed:
    """Shrinker whose methods return what it was given."""

    def __init__(self, count: Any = 0, freed: Any = 0) -> None:
        self.count, self.freed = count, freed

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> Any:
        return self.count

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> Any:
        return self.freed


class WithThird(Fixed):
    seeks, batch, flags = 1, 352, 1

    @hookimpl
    def compaction_scan(self, cs: Any) -> Any:
        return self.freed


def test_bound_shrinker_has_the_kernels_defaults() -> None:
    ops = bind_shrinker(Fixed(), "sb-ext4", "ext4")
    assert (ops.seeks, ops.batch, ops.flags) == (DEFAULT_SEEKS, 0, 0)
    assert (ops.name, ops.plugin, ops.compaction_scan) == ("sb-ext4", "ext4", None)


def test_bound_shrinker_keeps_what_it_says() -> None:
    ops = bind_shrinker(WithThird(freed=512), "drm-ttm_pool", "ttm")
    assert (ops.seeks, ops.batch, ops.flags) == (1, 352, 1)
    assert ops.compaction_scan is not None
    assert ops.compaction_scan(None) == 512  # type: ignore[arg-type]


def test_holding_is_a_count_without_a_sentinel() -> None:
    class Holds(WithThird):
        @hookimpl
        def compaction_holds(self, cs: Any) -> Any:
            return self.count

    assert bind_shrinker(WithThird(), "s", "p").compaction_holds is None
    held = bind_shrinker(Holds(count=7), "s", "p").compaction_holds
    assert held is not None
    assert held(None) == 7  # type: ignore[arg-type]
    stops = bind_shrinker(Holds(count=SHRINK_STOP), "s", "p").compaction_holds
    assert stops is not None
    with pytest.raises(PluginError) as blamed:
        stops(None)  # type: ignore[arg-type]
    assert str(blamed.value) == "plugin p, s.compaction_holds: returned -1; an int >= 0 is wanted"


def test_scan_sees_and_corrects_the_control_struct() -> None:
    class Pool(Fixed):
        @hookimpl
        def scan_objects(self, sc: ShrinkControl) -> int:
            sc.nr_scanned = 4 * sc.nr_to_scan
            return sc.nr_to_scan

    sc = ShrinkControl(gfp.GFP_KERNEL, 0, nr_to_scan=128, nr_scanned=128)
    assert bind_shrinker(Pool(), "pool", "ttm").scan_objects(sc) == 128
    assert sc.nr_scanned == 512


@given(st.integers(min_value=0, max_value=2**63))
def test_counts_pass_unchanged(n: int) -> None:
    ops = bind_shrinker(Fixed(n, n), "s", "p")
    sc = ShrinkControl(0, 0)
    assert (ops.count_objects(sc), ops.scan_objects(sc)) == (n, n)


def test_each_method_has_its_one_sentinel() -> None:
    ops = bind_shrinker(WithThird(SHRINK_EMPTY, SHRINK_STOP), "s", "p")
    sc = ShrinkControl(0, 0)
    assert (ops.count_objects(sc), ops.scan_objects(sc)) == (SHRINK_EMPTY, SHRINK_STOP)
    assert ops.compaction_scan is not None
    assert ops.compaction_scan(None) == SHRINK_STOP  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (SHRINK_STOP, "SHRINK_STOP"),
        (-3, "-3"),
        (True, "True of type bool"),
        (2.0, "2.0 of type float"),
        (None, "None of type NoneType"),
    ],
)
def test_count_returns_an_int_or_shrink_empty(answer: object, shown: str) -> None:
    ops = bind_shrinker(Fixed(count=answer), "drm-ttm_pool", "ttm")
    with pytest.raises(PluginError) as blamed:
        ops.count_objects(ShrinkControl(0, 0))
    assert str(blamed.value) == (
        f"plugin ttm, drm-ttm_pool.count_objects: returned {shown}; an int >= 0 or SHRINK_EMPTY is wanted"
    )


@pytest.mark.parametrize(
    ("answer", "shown"),
    [(SHRINK_EMPTY, "SHRINK_EMPTY"), (False, "False of type bool"), (0.5, "0.5 of type float")],
)
def test_scan_returns_an_int_or_shrink_stop(answer: object, shown: str) -> None:
    ops = bind_shrinker(WithThird(freed=answer), "xe", "xe")
    for method in ("scan_objects", "compaction_scan"):
        with pytest.raises(PluginError) as blamed:
            getattr(ops, method)(ShrinkControl(0, 0))
        assert str(blamed.value) == (
            f"plugin xe, xe.{method}: returned {shown}; an int >= 0 or SHRINK_STOP is wanted"
        )


@pytest.mark.parametrize("attribute", ["seeks", "batch", "flags"])
@pytest.mark.parametrize(
    ("value", "shown"), [(True, "True"), (-1, "-1"), (1.0, "1.0"), (None, "None"), ("2", "'2'")]
)
def test_attributes_are_ints(attribute: str, value: object, shown: str) -> None:
    shrinker = Fixed()
    setattr(shrinker, attribute, value)
    with pytest.raises(PluginError) as refused:
        bind_shrinker(shrinker, "sb-ext4", "ext4")
    assert str(refused.value) == f"plugin ext4, sb-ext4: {attribute} is {shown}; an int >= 0 is wanted"


def test_zero_seeks_is_a_value() -> None:
    shrinker = Fixed()
    shrinker.seeks = 0  # type: ignore[attr-defined]
    assert bind_shrinker(shrinker, "shadow", "workingset").seeks == 0


class Unmarked:
    def count_objects(self, sc: ShrinkControl) -> int:
        return 0

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        return 0


class UnmarkedScan(Fixed):
    def compaction_scan(self, cs: Any) -> int:
        return 0


class UnmarkedHolds(WithThird):
    def compaction_holds(self, cs: Any) -> int:
        return 1


class OnlyCount:
    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        return 0


class Misspelt(Fixed):
    @hookimpl
    def compaction_scans(self, cs: Any) -> int:
        return 0


class OtherArgument(Fixed):
    @hookimpl
    def scan_objects(self, shrinkctl: ShrinkControl) -> int:
        return 0


class NoArgument(Fixed):
    @hookimpl
    def count_objects(self) -> int:  # type: ignore[override]
        return 0


class Defaulted(Fixed):
    @hookimpl
    def count_objects(self, sc: Any = None) -> int:
        return 0


class HoldsOnly(Fixed):
    @hookimpl
    def compaction_holds(self, cs: Any) -> int:
        return 1


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (HoldsOnly, "s.compaction_holds: goes with compaction_scan(cs), which is missing"),
        (Unmarked, "s.count_objects: not marked; mark it @hookimpl"),
        (UnmarkedScan, "s.compaction_scan: not marked; mark it @hookimpl"),
        (UnmarkedHolds, "s.compaction_holds: not marked; mark it @hookimpl"),
        (OnlyCount, "s.scan_objects: missing; a shrinker has count_objects(sc) and scan_objects(sc)"),
        (Misspelt, "s.compaction_scans: no such shrinker method; did you mean 'compaction_scan'?"),
        (OtherArgument, "s.scan_objects: takes an argument 'shrinkctl'; known: sc"),
        (NoArgument, "s.count_objects: takes no argument; it is given 'sc'"),
        (
            Defaulted,
            "s.count_objects: argument 'sc' has a default value and would never be passed; "
            "remove the default",
        ),
    ],
)
def test_shrinker_that_does_not_fit(cls: type, message: str) -> None:
    with pytest.raises(PluginError) as refused:
        bind_shrinker(cls(), "s", "p")
    assert str(refused.value) == f"plugin p, {message}"


def test_exception_in_a_shrinker_names_it_and_keeps_its_cause() -> None:
    class Torn(Fixed):
        @hookimpl
        def scan_objects(self, sc: ShrinkControl) -> int:
            raise KeyError("bo 7")

    with pytest.raises(PluginError) as blamed:
        bind_shrinker(Torn(), "xe system shrinker", "xe").scan_objects(ShrinkControl(0, 0))
    assert str(blamed.value) == "plugin xe, xe system shrinker.scan_objects: KeyError: 'bo 7'"
    assert isinstance(blamed.value.__cause__, KeyError)


def test_inner_plugins_blame_is_kept() -> None:
    inner = bind_shrinker(Fixed(count=0.5), "inner", "ttm")

    class Outer(Fixed):
        @hookimpl
        def scan_objects(self, sc: ShrinkControl) -> int:
            return inner.count_objects(sc)

    with pytest.raises(PluginError) as blamed:
        bind_shrinker(Outer(), "outer", "xe").scan_objects(ShrinkControl(0, 0))
    assert blamed.value.plugin == "ttm"


def test_a_pass_over_45_shrinkers_costs_less_than_pluggy() -> None:
    """Ratio within one process, best of several: the machine's load cancels."""
    import pluggy

    from mmfw.hookspecs import ShrinkerOpsSpec

    manager = pluggy.PluginManager("mmfw")
    manager.add_hookspecs(ShrinkerOpsSpec)
    manager.register(Fixed(100, 10))
    ops = [bind_shrinker(Fixed(100, 10), f"s{i}", "p") for i in range(45)]
    sc = ShrinkControl(0, 0)

    def direct() -> None:
        for each in ops:
            each.count_objects(sc)
            each.scan_objects(sc)

    def through_pluggy() -> None:
        for _ in ops:
            manager.hook.count_objects(sc=sc)
            manager.hook.scan_objects(sc=sc)

    def best(run: Callable[[], None]) -> int:
        def once() -> int:
            start = time.perf_counter_ns()
            for _ in range(20):
                run()
            return time.perf_counter_ns() - start

        return min(once() for _ in range(15))

    assert best(direct) * 4 < best(through_pluggy)


def test_until_every_plugin_is_initialised_nobody_but_mainline_decides(load_source: Load) -> None:
    """A policy's state is not there before: what a driver allocates in its own initialisation may wake kswapd."""
    fold = "@hookimpl\ndef mmfw_fold_kswapd_waker(pgdat, wake):\n    raise RuntimeError('too early')"
    set_up = SetUp()
    ops = bind_mm_ops(load_source(elide=policy("return False"), fold=fold), set_up)
    assert ops.should_shrink_slab(context(9)) is True
    assert ops.fold_kswapd_waker is not None
    ops.fold_kswapd_waker(None, None)
    set_up.done = True
    assert ops.should_shrink_slab(context(9)) is False
    with pytest.raises(PluginError, match="too early"):
        ops.fold_kswapd_waker(None, None)
