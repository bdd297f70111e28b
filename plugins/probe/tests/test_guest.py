from __future__ import annotations

import numpy as np
import pytest

from mmfw import SHRINK_STOP, ShrinkControl
from mmfw_probe.guest import (
    AFTER_SLEEP_NS,
    BEFORE_SLEEP_NS,
    KCOMPACTD_PERIOD_NS,
    KCOMPACTD_START_NS,
    LONGEST_WAIT_NS,
    MSEC,
    STALL_NS,
    WAKE_LATENCY_NS,
    CountedObjects,
    Pause,
    TraceBuffer,
    register_system_shrinkers,
    wait_for,
)

# --- shrinkers -----------------------------------------------------------------------------------------


def scan(shrinker, nr_to_scan):
    return shrinker.scan_objects(ShrinkControl(gfp_mask=0, nid=0, nr_to_scan=nr_to_scan))


def test_counted_objects_go_as_asked_and_then_stop():
    objects = CountedObjects(10, 2)
    sc = ShrinkControl(gfp_mask=0, nid=0)
    assert objects.count_objects(sc) == 10
    assert [scan(objects, 4), scan(objects, 4), scan(objects, 4), scan(objects, 4)] == [4, 4, 2, SHRINK_STOP]
    assert objects.count_objects(sc) == 0


def test_system_shrinkers_are_registered_in_order_and_dropped_with_the_caches(machine):
    mm = machine()
    others = len(list(mm.shrinkers))
    found = register_system_shrinkers(mm, kfree_rcu=5, kernfs=9)
    mine = list(mm.shrinkers)[others:]
    assert [(each.ops.name, each.ops.seeks, each.ops.batch) for each in mine] == [
        ("rcu-kfree", 2, 0),
        ("sb-sysfs", 0, 0),
    ]
    assert (found.kfree_rcu.nr, found.kernfs.nr) == (5, 9)
    # At priority 0 everything of seeks 2 goes at once; of seeks 0, half is asked for each time and put off until the sum
    # exceeds what there is: four of nine in each of the two passes of a drop that freed something.
    mm.drop_caches()
    assert (found.kfree_rcu.nr, found.kernfs.nr) == (0, 9)
    mm.drop_caches()
    assert (found.kfree_rcu.nr, found.kernfs.nr) == (0, 0)


# --- the trace buffer --------------------------------------------------------------------------------


def test_trace_buffer_grows_by_the_difference_and_never_shrinks(machine):
    mm = machine()
    before = mm.nr_allocated_pages()
    buffer = TraceBuffer(mm)

    def sizes():
        for kb in (10_000, 5_000, 10_000, 16_000):
            buffer.trace_on(kb)
            yield mm.nr_allocated_pages() - before

    # A page holds 4080 bytes of events; 1408 KiB, 354 pages, are there when the job begins.
    assert list(sizes()) == [2510 - 354, 2510 - 354, 2510 - 354, 4016 - 354]


# --- the captured machine's clock ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "slept"),
    [
        (0, 0),  # not known
        (KCOMPACTD_START_NS, 0),
        (KCOMPACTD_START_NS + 5_000_000_000, 5_000_000_000),
        (KCOMPACTD_START_NS + LONGEST_WAIT_NS, LONGEST_WAIT_NS),
        # A day later in kcompactd's phase.
        (
            KCOMPACTD_START_NS + LONGEST_WAIT_NS + 168_750 * KCOMPACTD_PERIOD_NS + 7 * MSEC,
            LONGEST_WAIT_NS + 7 * MSEC,
        ),
    ],
)
def test_a_load_waits_for_the_captured_ones_begin(machine, call, start, slept):
    mm = machine(start=True)
    call(mm, lambda: wait_for(mm, start))
    assert mm.sched.now == pytest.approx(slept, abs=10_000)


# --- the pause -----------------------------------------------------------------------------------------


def pauses(mm, call, n, *args):
    def body():
        pause = Pause(mm, *args)
        took = []
        for _ in range(n):
            began = mm.sched.now
            pause()
            took.append(mm.sched.now - began)
        return np.array(took)

    return call(mm, body)


@pytest.mark.parametrize(
    ("delay_us", "slack_us", "latency_ns"), [(1000, 20, WAKE_LATENCY_NS), (200, 10, 27_000)]
)
def test_mean_and_range_of_a_pause(machine, call, delay_us, slack_us, latency_ns):
    mm = machine(start=True)
    took = pauses(mm, call, 3000, delay_us, slack_us, latency_ns)
    # The switch to the idle task and back is the scheduler's.
    switch = 2 * mm.sched.costs.context_switch
    least = BEFORE_SLEEP_NS + (delay_us + slack_us) * 1000
    spread = 2 * (latency_ns + AFTER_SLEEP_NS)
    assert least <= took.min() < least + spread // 10 + switch
    assert least + spread - spread // 10 < took.max() <= least + spread + switch
    # Two even draws: the mean of 3000 is within 0.5 % of the spread, four deviations are 2 %.
    assert took.mean() == pytest.approx(least + spread / 2, abs=spread * 0.02 + switch)


def test_work_before_the_sleep_is_not_sleep(machine, call):
    mm = machine(start=True)
    states = []
    # At half of the work before the sleep another task finds the CPU taken.
    mm.sched.call_at(BEFORE_SLEEP_NS // 2, lambda: states.append(mm.sched.tasks[-1].state.name))
    pauses(mm, call, 1, 1000, 20)
    assert states == ["RUNNING"]


def test_one_pause_in_so_many_meets_a_stall(machine, call):
    mm = machine(start=True)
    took = pauses(mm, call, 4000, 200, 10, 27_000, 8)
    stalled = took > STALL_NS
    # 500 expected, standard deviation 21.
    assert 400 < stalled.sum() < 600
    assert took[stalled].mean() - took[~stalled].mean() == pytest.approx(STALL_NS, rel=0.01)
    assert not (pauses(machine(start=True), call, 1000, 200, 10, 27_000) > STALL_NS).any()


def test_a_seed_decides_every_pause(machine, call):
    first, again, other = (
        pauses(machine(seed=seed, start=True), call, 1200, 200, 10, 27_000, 40).tolist() for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other
    assert len(set(first)) > 1000
