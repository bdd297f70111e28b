"""Who wakes kcompactd, when it looks by itself, and when it compacts proactively (``kcompactd()``, mm/compaction.c)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import MSEC, SEC, events_of, fragment, pin_all, take_large, unboosted
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.mm.fragmentation import fragmentation_score_node, fragmentation_score_wmark
from mmfw.mm.trace import (
    CompactRetry,
    MmCompactionBegin,
    MmCompactionEnd,
    MmCompactionFinished,
    MmCompactionKcompactdSleep,
    MmCompactionKcompactdWake,
    MmCompactionSuitable,
    MmCompactionWakeupKcompactd,
)
from mmfw.sched import timer_wheel_delay
from mmfw.types import CompactResult

TICK = 4 * MSEC


def timed(mm, *kinds):
    log = []
    for kind in kinds:
        mm.trace.subscribe(kind, lambda e, kind=kind: log.append((mm.sched.now, kind.__name__)))
    return log


@pytest.fixture
def fragmented():
    mm = unboosted()
    pin_all(mm)
    fragment(mm, 16)
    take_large(mm, 9)
    mm.start_time()
    return mm


def test_an_idle_kcompactd_looks_every_512_ms():
    """500 ms are 125 ticks, which the timer wheel rounds up to the next multiple of 8."""
    mm = unboosted(start=True)
    log = timed(mm, MmCompactionKcompactdSleep)
    mm.sched.run(3 * SEC)
    times = [t for t, _ in log]
    assert len(times) == 6
    for gap in np.diff(times[1:]):
        assert gap == pytest.approx(512 * MSEC, abs=1 * MSEC)


@pytest.mark.parametrize(
    ("now", "timeout", "delay"),
    [
        (0, 25 * TICK, 26 * TICK),
        (3 * MSEC, 25 * TICK, 26 * TICK - 3 * MSEC),
        (0, 125 * TICK, 128 * TICK),
        (4 * TICK, 125 * TICK, 132 * TICK),
        (0, 62 * TICK, 63 * TICK),
        (1 * TICK, 63 * TICK, 71 * TICK),
        (0, 503 * TICK, 504 * TICK),
        (0, 504 * TICK, 512 * TICK),
        (0, 8000 * TICK, 8192 * TICK),
    ],
)
def test_long_timers_fire_late(now, timeout, delay):
    assert timer_wheel_delay(now, timeout) == delay


def wake(mm, order, hzi):
    """``wakeup_kcompactd()`` from a task; whether it was woken."""
    events = events_of(mm, MmCompactionWakeupKcompactd)
    mm.sched.run(mm.sched.now + 10 * MSEC)
    mm.sched.spawn(lambda: mm.compaction.wakeup_kcompactd(order, hzi), name="waker", daemon=True)
    mm.sched.run(mm.sched.now + 1 * MSEC)
    return bool(events)


def test_order_0_wakes_nobody_and_leaves_no_trace(fragmented):
    assert not wake(fragmented, 0, 1)
    assert fragmented.pgdat.kcompactd_max_order == 0


def test_a_zone_that_compaction_could_help_wakes_it(fragmented):
    begun = events_of(fragmented, MmCompactionBegin)
    assert wake(fragmented, 9, 1)
    fragmented.sched.run(fragmented.sched.now + 200 * MSEC)
    assert {e.sync for e in begun} == {True}
    assert fragmented.pgdat.kcompactd_max_order == 0
    assert fragmented.vmstat.as_dict()["compact_daemon_wake"] == 1


def test_where_a_block_is_free_it_is_not_woken_but_remembers_and_looks_at_its_next_timeout():
    mm = unboosted(start=True)
    log = timed(mm, MmCompactionKcompactdWake)
    assert not wake(mm, 9, 1)
    assert mm.pgdat.kcompactd_max_order == 9
    mm.sched.run(2 * SEC)
    assert len(log) == 1
    assert log[0][0] == pytest.approx(512 * MSEC, abs=2 * MSEC)
    assert mm.pgdat.kcompactd_max_order == 0


def test_requests_meanwhile_take_the_largest_order_and_the_lowest_zone(fragmented):
    pgdat = fragmented.pgdat
    compaction = fragmented.compaction
    fragmented.sched.run(fragmented.sched.now + 10 * MSEC)

    def waker():
        compaction.wakeup_kcompactd(4, 2)
        compaction.wakeup_kcompactd(9, 0)
        compaction.wakeup_kcompactd(5, 1)
        return pgdat.kcompactd_max_order, pgdat.kcompactd_highest_zoneidx

    task = fragmented.sched.spawn(waker, name="waker", daemon=True)
    fragmented.sched.run(fragmented.sched.now + MSEC)
    assert task.result == (9, 0)


def test_its_failure_defers_the_zone_and_drains_every_cpu(fragmented):
    mm = fragmented
    assert wake(mm, 9, 1)
    mm.sched.run(mm.sched.now + 200 * MSEC)
    S, z = mm.pgdat.memory.S, mm.pgdat.memory.zone_offset(1)
    assert S[z + pg.Z_DEFER_SHIFT] == 1
    assert S[z + pg.Z_ORDER_FAILED] == 0  # at boot every order is "at or above failed"
    assert S[mm.pgdat.memory.pcp_offset(0, 1) + pg.C_COUNT] == 0
    # The zone is passed over once, then tried again.
    begun = events_of(mm, MmCompactionBegin)
    for expected in (0, 1):
        del begun[:]
        mm.sched.spawn(lambda: mm.compaction.kcompactd_do_work(), name="work", daemon=True)
        mm.pgdat.kcompactd_max_order, mm.pgdat.kcompactd_highest_zoneidx = 9, 1
        mm.sched.run(mm.sched.now + 100 * MSEC)
        assert len([e for e in begun if e.zone_start == 4096]) == expected


def test_each_zone_is_judged_by_its_own_index_and_then_by_the_request(fragmented):
    events = events_of(fragmented, MmCompactionSuitable)
    fragmented.pgdat.kcompactd_max_order, fragmented.pgdat.kcompactd_highest_zoneidx = 9, 1
    fragmented.sched.spawn(fragmented.compaction.kcompactd_do_work, name="work", daemon=True)
    fragmented.sched.run(fragmented.sched.now + 100 * MSEC)
    asked = [e.zone_idx for e in events]
    # Low to high; a zone that runs is asked twice.
    assert asked == sorted(asked)
    assert asked.count(1) == 2


# --- proactive ---------------------------------------------------------------------------------------------------


def test_scores_and_marks():
    assert [fragmentation_score_wmark(low, p) for p in (20, 0, 100, 97) for low in (True, False)] == [
        80,
        90,
        100,
        100,
        5,
        15,
        5,
        15,
    ]
    mm = unboosted()
    assert fragmentation_score_node(mm.pgdat) < 30
    fragment(mm, 16)
    take_large(mm, 9)
    present = [zone.present_pages for zone in mm.pgdat.node_zones if zone.present_pages]
    # Every free page is in a small block: 100 % of each zone, and rounding down of each weight.
    assert fragmentation_score_node(mm.pgdat) == sum(p * 100 // (sum(present) + 1) for p in present)


def test_a_fragmented_node_is_compacted_proactively_and_left_for_32_s_if_that_does_not_help(fragmented):
    fragmented.sched.run(10 * MSEC)  # kswapd has gone to sleep
    assert fragmented.compaction.should_proactive_compact_node()
    begun = timed(fragmented, MmCompactionBegin)
    fragmented.sched.run(70 * SEC)
    rounds = [t for i, (t, _) in enumerate(begun) if i == 0 or t - begun[i - 1][0] > SEC]
    assert rounds[0] == pytest.approx(512 * MSEC, abs=20 * MSEC)
    # 500 ms << 6 is 8000 ticks, a multiple of 64 further on; within that nothing runs.
    assert len(rounds) == 3
    for gap in np.diff(rounds):
        assert 32 * SEC <= gap <= 33 * SEC


def test_a_node_that_can_be_helped_is_compacted_down_to_the_low_mark():
    mm = unboosted()
    vma = mm.mmap_anonymous(14_900)
    vma.touch(0, 14_900)
    vma.madvise_dontneed(np.flatnonzero(np.arange(14_900) % 3))
    take_large(mm, 9)
    score = fragmentation_score_node(mm.pgdat)
    assert score > 90
    mm.start_time()
    finished = events_of(mm, MmCompactionFinished)
    mm.sched.run(5 * SEC)
    assert {e.order for e in finished} == {-1}
    assert CompactResult.SUCCESS in {e.ret for e in finished}
    assert fragmentation_score_node(mm.pgdat) <= score - 5
    # Proactive runs add nothing to the daemon's own counters in 6.1.
    assert mm.vmstat.as_dict()["compact_daemon_migrate_scanned"] == 0
    assert mm.vmstat.as_dict()["compact_migrate_scanned"] > 0


def test_while_kswapd_runs_there_is_no_proactive_compaction(fragmented):
    fragmented.sched.run(10 * MSEC)
    assert fragmented.compaction.should_proactive_compact_node()
    fragmented.compaction.kswapd_is_running = lambda: True
    assert not fragmented.compaction.should_proactive_compact_node()


def test_a_dying_task_gives_up_compaction_and_does_not_retry(fragmented):
    """``fatal_signal_pending()`` in compact_finished, try_to_compact_pages and should_compact_retry."""
    mm = fragmented
    ends = events_of(mm, MmCompactionEnd)
    retries = events_of(mm, CompactRetry)
    got = []

    def body():
        mm.sched.send_sigkill(mm.sched.current)
        got.append(mm.alloc_pages(gfp.GFP_KERNEL & ~gfp.KSWAPD_RECLAIM | gfp.NOWARN | gfp.RETRY_MAYFAIL, 9))

    mm.sched.spawn(body, name="dying", daemon=True)
    mm.sched.run(mm.sched.now + 10 * MSEC)
    assert len(got) == 1
    assert {CompactResult(e.status) for e in ends} == {CompactResult.CONTENDED}
    assert retries == []
