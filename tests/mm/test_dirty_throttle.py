"""How writers are slowed down, and what the flusher writes when (mm/page-writeback.c)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.workbench import SEC, run, unboosted
from mmfw.costs import HZ
from mmfw.jit import page as pg
from mmfw.mm.dirty_throttle import (
    INIT_BW,
    Bandwidth,
    DirtyState,
    TaskDirty,
    dirty_poll_interval,
    pos_ratio_polynom,
)

PAGES_PER_SECOND = (1 << 30) // 4096  #: of the file device, near enough


@given(st.integers(2, 10**7), st.data())
def test_the_rate_falls_as_more_is_dirty_and_is_even_at_the_setpoint(freerun, data):
    limit = data.draw(st.integers(freerun + 2, 2 * freerun))
    setpoint = (freerun + limit) // 2
    less, more = sorted(data.draw(st.lists(st.integers(0, limit), min_size=2, max_size=2)))
    assert pos_ratio_polynom(setpoint, setpoint, limit) == 1024
    assert 2048 >= pos_ratio_polynom(setpoint, less, limit) >= pos_ratio_polynom(setpoint, more, limit) >= 0


@pytest.mark.parametrize(
    ("dirty", "thresh", "pages"), [(0, 1, 1), (0, 3, 1), (0, 4, 2), (0, 1023, 16), (0, 1024, 32), (5, 5, 1)]
)
def test_a_task_looks_more_often_the_less_is_left(dirty, thresh, pages):
    assert dirty_poll_interval(dirty, thresh) == pages


def test_below_the_freerun_ceiling_nobody_pauses():
    task = TaskDirty(nr_dirtied=500)
    state = DirtyState(dirty=15_000, thresh=20_000, bg_thresh=10_000)
    assert Bandwidth().pause(state, task, now=1000) == (0, False)
    assert (task.nr_dirtied, task.paused_when, task.nr_dirtied_pause) == (0, 1000, 64)


def test_at_the_limit_everybody_waits_and_asks_again():
    bandwidth = Bandwidth()
    pause, again = bandwidth.pause(DirtyState(20_000, 20_000, 10_000), TaskDirty(nr_dirtied=32), now=1000)
    # wb_max_pause(): 20,000 pages, at 25,600 a second 800 in 32 jiffies: 24 + 1.
    assert (pause, again) == (25, True)
    assert bandwidth.pos_ratio(DirtyState(19_999, 20_000, 10_000)) > 0


def test_bandwidth_is_learned_within_seconds():
    """Each 51 jiffies the estimate moves by 51/1024 of its error."""
    bandwidth = Bandwidth()
    now = 0
    for n in range(1, 101):
        now += 51
        bandwidth.written += PAGES_PER_SECOND * 51 // HZ
        bandwidth.update(now)
        exact = PAGES_PER_SECOND + (INIT_BW - PAGES_PER_SECOND) * (1 - 51 / 1024) ** n
        assert bandwidth.write_bandwidth == pytest.approx(exact, rel=0.002)
    assert bandwidth.avg_write_bandwidth == pytest.approx(PAGES_PER_SECOND, rel=0.1)


def test_too_early_nothing_is_estimated():
    bandwidth = Bandwidth()
    bandwidth.written = 10**6
    bandwidth.update(HZ // 5)
    assert bandwidth.write_bandwidth == INIT_BW


def write_for(mm, seconds, nr_writers=1):
    """Pages written in a time by writers that never stop, and what was dirty meanwhile (smallest, largest, limit)."""
    done, seen = [0], []

    def writer():
        file = mm.page_cache.open(1 << 21, max_write_order=9)
        position = 0
        while mm.sched.now < seconds * SEC:
            position += file.write(position, 512)
            done[0] += 512

    def watch():
        mm.sched.sleep(2 * SEC)
        while mm.sched.now < seconds * SEC:
            state = mm.page_io._dirty_state()
            seen.append((state.dirty, state.freerun, state.thresh))
            mm.sched.sleep(SEC // 50)

    for n in range(nr_writers):
        mm.sched.spawn(writer, name=f"writer-{n}", daemon=True)
    mm.sched.spawn(watch, name="watch", daemon=True)
    mm.sched.run(seconds * SEC)
    return done[0], seen


@pytest.mark.slow
@pytest.mark.parametrize("nr_writers", [1, 3])
def test_writers_get_the_rate_of_the_device_and_stay_below_the_limit(nr_writers):
    mm = unboosted("512M", start=True, nr_cpus=4)
    written, seen = write_for(mm, 5, nr_writers)
    assert written == pytest.approx(5 * PAGES_PER_SECOND, rel=0.05)
    assert all(dirty <= thresh * 1.02 for dirty, _, thresh in seen)
    # Neither does the device run dry: what is dirty stays near the ceiling below which nobody is slowed down.
    assert all(dirty > freerun // 2 for dirty, freerun, _ in seen)


def test_what_is_dirty_for_30_seconds_is_written_at_the_next_look():
    mm = unboosted(start=True)
    dirty = []

    def body():
        mm.page_cache.open(64).write(0, 64)
        for _ in range(8):
            mm.sched.sleep(5 * SEC)
            dirty.append(mm.lruvec.node_stat(pg.NS_FILE_DIRTY))

    run(mm, body, 50 * SEC)
    assert dirty[:5] == [64] * 5
    assert dirty[-1] == 0


def test_a_page_that_reclaim_wrote_first_is_not_written_twice():
    mm = unboosted(start=True)

    def body():
        file = mm.page_cache.open(64)
        file.write(0, 64)
        file.truncate()
        file.write(0, 10)
        mm.page_io.wakeup_flusher_threads()
        mm.sched.sleep(SEC)
        return mm.lruvec.node_stat(pg.NS_WRITTEN), mm.lruvec.node_stat(pg.NS_FILE_DIRTY)

    assert run(mm, body, 5 * SEC) == (10, 0)
