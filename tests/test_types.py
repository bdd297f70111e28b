"""What a plugin answers with is checked where it is made, so that the plugin is blamed and not who meets it later."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from mmfw import gfp
from mmfw.binding import bind_mm_ops
from mmfw.errors import PluginError
from mmfw.registry import LoadedPlugins
from mmfw.testing import make_mm
from mmfw.types import (
    CompactControl,
    KcompactdRequest,
    KcompactdWork,
    KswapdWake,
    MigrateMode,
    ScanPhase,
    WakePlan,
    WakeReason,
)

ASLEEP = "0 to 10, or None to leave it asleep, is wanted"
NO_WAKE_UP = "0 to 10, or None to add no wake-up, is wanted"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kswapd_order": 11}, f"kswapd_order is 11; {ASLEEP}"),
        ({"kswapd_order": -1}, f"kswapd_order is -1; {ASLEEP}"),
        ({"kswapd_order": True}, f"kswapd_order is True; an int, {ASLEEP}"),
        ({"kswapd_order": "9"}, f"kswapd_order is '9'; an int, {ASLEEP}"),
        ({"kswapd_order": 9.0}, f"kswapd_order is 9.0; an int, {ASLEEP}"),
        ({"kcompactd_order": -3}, f"kcompactd_order is -3; {NO_WAKE_UP}"),
        ({"kcompactd_order": 99}, f"kcompactd_order is 99; {NO_WAKE_UP}"),
        ({"kcompactd_order": np.True_}, f"kcompactd_order is np.True_; an int, {NO_WAKE_UP}"),
        ({"kswapd_min_free_pages": -1}, "kswapd_min_free_pages is -1; 0 to 4503599627370496 is wanted"),
        ({"kswapd_min_free_pages": 1 << 62}, "kswapd_min_free_pages is 4611686018427387904; 0 to"),
        ({"kswapd_min_free_pages": None}, "kswapd_min_free_pages is None; an int, 0 to"),
    ],
)
def test_a_wake_plan_that_cannot_be_is_refused(fields, message) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        WakePlan(**{"kswapd_order": 0, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((11, 2), "order is 11; 0 to 10 is wanted"),
        ((2.5, 2), "order is 2.5; an int, 0 to 10 is wanted"),
        ((None, 2), "order is None; an int, 0 to 10 is wanted"),
        ((9, 5), "highest_zoneidx is 5; 0 to 4 is wanted"),
        ((9, False), "highest_zoneidx is False; an int, 0 to 4 is wanted"),
        ((9, 2, "sync"), "mode is 'sync'; a MigrateMode (ASYNC, SYNC_LIGHT, SYNC) is wanted"),
        ((9, 2, None), "mode is None; a MigrateMode (ASYNC, SYNC_LIGHT, SYNC) is wanted"),
        ((9, 2, 1), "mode is 1; a MigrateMode (ASYNC, SYNC_LIGHT, SYNC) is wanted"),
    ],
)
def test_work_of_kcompactd_that_cannot_be_is_refused(fields, message) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        KcompactdWork(*fields)


def test_an_array_librarys_integers_become_ints() -> None:
    plan = WakePlan(np.int64(9), np.uint32(700), np.int8(3))
    assert plan == WakePlan(9, 700, 3)
    work = KcompactdWork(np.int64(9), np.uint8(2), MigrateMode.SYNC)
    values = (
        plan.kswapd_order,
        plan.kswapd_min_free_pages,
        plan.kcompactd_order,
        work.order,
        work.highest_zoneidx,
    )
    assert {type(value) for value in values} == {int}


def test_all_orders_and_none_can_be_planned() -> None:
    assert [WakePlan(order, kcompactd_order=order).kswapd_order for order in (None, *range(11))][-1] == 10
    assert [KcompactdWork(order, zone).order for order in (0, 10) for zone in (0, 4)] == [0, 0, 10, 10]


def test_who_plans_it_is_blamed(load_source: Callable[..., LoadedPlugins]) -> None:
    plan = "@hookimpl\ndef mmfw_plan_wakeup():\n    return WakePlan(kswapd_order=12)\n"
    work = (
        "from mmfw import KcompactdWork\n"
        "@hookimpl\n"
        "def mmfw_plan_kcompactd_work():\n"
        "    return KcompactdWork(9, 2, 'sync')\n"
    )
    ops = bind_mm_ops(load_source(eager=plan, tidy=work))
    with pytest.raises(
        PluginError, match=r"^plugin eager, mmfw_plan_wakeup: ValueError: kswapd_order is 12;"
    ):
        ops.plan_wakeup(None, KswapdWake(9, 0, 2, WakeReason.SLOWPATH))
    assert ops.plan_kcompactd_work is not None
    with pytest.raises(
        PluginError, match=r"^plugin tidy, mmfw_plan_kcompactd_work: ValueError: mode is 'sync';"
    ):
        ops.plan_kcompactd_work(None, KcompactdRequest(9, 2))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("scan.nr_to_free = None", "nr_to_free is None; an int, 0 to 4503599627370496 is wanted"),
        ("scan.order = 11", "order is 11; 0 to 10 is wanted"),
        ("scan.pfn_lo = -512", "pfn_lo is -512; 0 to 4503599627370496 is wanted"),
        ("scan.mode = 2", "mode is 2; a MigrateMode is wanted"),
        ("scan.opportunistic = None", "opportunistic is None; a bool is wanted"),
    ],
)
def test_a_scan_that_cannot_be_is_blamed_on_who_asks_for_it(
    load_source: Callable[..., LoadedPlugins], change: str, fault: str
) -> None:
    source = (
        "from mmfw import CompactionScan\n"
        "@hookimpl\n"
        "def mmfw_plan_compaction_scan(cc, phase):\n"
        "    scan = CompactionScan.of(cc, phase, opportunistic=True)\n"
        f"    {change}\n"
        "    return scan\n"
    )
    plan = bind_mm_ops(load_source(asks=source)).plan_compaction_scan
    assert plan is not None
    zone = make_mm("128M").pgdat.node_zones[1]
    with pytest.raises(PluginError) as blamed:
        plan(CompactControl(zone, 9, gfp.GFP_KERNEL, 0, 0, 2, MigrateMode.ASYNC), ScanPhase.FINISH)
    assert str(blamed.value) == (
        f"plugin asks, mmfw_plan_compaction_scan: answered a CompactionScan whose {fault}"
    )
