"""What a policy may decide about kcompactd: whether it hears of a request, and what it does about one."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest

from mm.workbench import MSEC, events_of, fragment, pin_all, take_large, unboosted
from mmfw import KcompactdRequest, KcompactdWork, MigrateMode, PluginError, gfp, mainline
from mmfw.binding import bind_mm_ops
from mmfw.mm.trace import (
    MmCompactionBegin,
    MmCompactionEnd,
    MmCompactionKcompactdWake,
    MmCompactionWakeupKcompactd,
)
from mmfw.testing import make_mm
from mmfw.types import MmOps

MAINLINE = MmOps(mainline.mmfw_plan_wakeup, mainline.mmfw_should_shrink_slab)


@pytest.fixture
def play():
    """Ask kcompactd of a fragmented machine for orders, and let it work."""

    def once(*orders: int, **decisions):
        mm = unboosted("256M", ops=replace(MAINLINE, **decisions))
        pin_all(mm)
        fragment(mm, 16)
        take_large(mm, 9)
        mm.start_time()
        mm.sched.run(10 * MSEC)
        kinds = (
            MmCompactionWakeupKcompactd,
            MmCompactionKcompactdWake,
            MmCompactionBegin,
            MmCompactionEnd,
        )
        events = {kind: events_of(mm, kind) for kind in kinds}
        for order in orders:
            mm.sched.spawn(
                lambda order=order: mm.compaction.wakeup_kcompactd(order, 1), name="waker", daemon=True
            )
            mm.sched.run(mm.sched.now + 50 * MSEC)
        return mm, events

    return once


def test_mainline_hears_and_works(play):
    mm, events = play(9)
    assert [e.order for e in events[MmCompactionKcompactdWake]] == [9]
    assert len(events[MmCompactionBegin]) >= 1
    assert all(e.sync for e in events[MmCompactionBegin])
    assert mm.pgdat.kcompactd_max_order == 0


def test_a_request_that_a_policy_refuses_leaves_no_trace(play):
    asked = []

    def should_wake(pgdat, request):
        asked.append((pgdat.node_id, request))
        return request.order < 9

    mm, events = play(9, should_wake_kcompactd=should_wake)
    assert asked == [(0, KcompactdRequest(9, 1))]
    assert not any(events.values())
    assert mm.pgdat.kcompactd_max_order == 0
    _, events = play(9, 8, should_wake_kcompactd=should_wake)
    assert [e.order for e in events[MmCompactionKcompactdWake]] == [8]


def test_kcompactd_does_what_was_planned_and_its_request_is_served(play):
    planned = []

    def plan(pgdat, request):
        planned.append((request, pgdat.kcompactd_max_order))
        return KcompactdWork(8, 1, MigrateMode.ASYNC)

    mm, events = play(9, plan_kcompactd_work=plan)
    assert planned == [(KcompactdRequest(9, 1), 9)]
    assert [e.order for e in events[MmCompactionKcompactdWake]] == [9]
    assert {e.sync for e in events[MmCompactionBegin]} == {False}
    assert mm.pgdat.kcompactd_max_order == 0


def test_planning_nothing_compacts_nothing_and_asks_no_second_time(play):
    planned = []

    def plan(pgdat, request):
        planned.append(request)
        return KcompactdWork(0, request.highest_zoneidx)

    mm, events = play(9, 9, plan_kcompactd_work=plan)
    assert len(planned) == len(events[MmCompactionKcompactdWake]) == 2
    assert events[MmCompactionBegin] == []
    assert mm.kcompactd.asleep
    assert mm.vmstat.as_dict()["compact_daemon_wake"] == 2


@pytest.mark.parametrize("decisions", [
    {"plan_kcompactd_work": mainline.mmfw_plan_kcompactd_work},
    {"should_wake_kcompactd": mainline.mmfw_should_wake_kcompactd},
])  # fmt: skip
def test_mainline_asked_by_the_hook_is_mainline_unasked(play, decisions):
    mm, events = play(9, 3, 9)
    asked, events_asked = play(9, 3, 9, **decisions)
    assert events_asked == events
    assert asked.vmstat.as_dict() == mm.vmstat.as_dict()
    assert asked.sched.now == mm.sched.now


def test_requests_that_go_to_kcompactd_alone_are_asked_about_too():
    asked = []

    def should_wake(pgdat, request):
        asked.append(request.order)
        return False

    def plan_wakeup(pgdat, wake):
        return mainline.WakePlan(None, kcompactd_order=wake.order or None)

    mm = make_mm("256M", ops=replace(MAINLINE, plan_wakeup=plan_wakeup, should_wake_kcompactd=should_wake))
    fragment(mm, 16)
    take_large(mm, 9)
    asked.clear()
    assert mm.alloc_pages(gfp.GFP_KERNEL | gfp.NORETRY | gfp.NOWARN, 9) == -1
    assert asked
    assert set(asked) == {9}
    assert mm.pgdat.kcompactd_max_order == 0


SOURCE = """
from mmfw import KcompactdWork

@hookimpl
def mmfw_should_wake_kcompactd(request):
    return None if request.order > 3 else False

@hookimpl
def mmfw_plan_kcompactd_work(request):
    return KcompactdWork({order}, request.highest_zoneidx)
"""


def test_plugins_answer_them(load_source):
    ops = bind_mm_ops(load_source(cautious=textwrap.dedent(SOURCE.format(order="min(request.order, 9)"))))
    assert ops.should_wake_kcompactd is not None
    assert ops.plan_kcompactd_work is not None
    pgdat = make_mm("128M").pgdat
    assert ops.should_wake_kcompactd(pgdat, KcompactdRequest(3, 1)) is False
    assert ops.should_wake_kcompactd(pgdat, KcompactdRequest(4, 1)) is True
    assert ops.plan_kcompactd_work(pgdat, KcompactdRequest(10, 1)) == KcompactdWork(9, 1)


def test_an_order_that_there_is_not_is_blamed_on_who_planned_it(load_source):
    ops = bind_mm_ops(load_source(greedy=textwrap.dedent(SOURCE.format(order=11))))
    assert ops.plan_kcompactd_work is not None
    with pytest.raises(
        PluginError, match=r"greedy.*mmfw_plan_kcompactd_work.*order is 11; 0 to 10 is wanted"
    ):
        ops.plan_kcompactd_work(make_mm("128M").pgdat, KcompactdRequest(9, 1))


def test_nobody_is_asked_where_no_plugin_answers(load_source):
    ops = bind_mm_ops(load_source(idle="@hookimpl\ndef mmfw_module_exit(): ...\n"))
    assert ops.should_wake_kcompactd is None
    assert ops.plan_kcompactd_work is None
