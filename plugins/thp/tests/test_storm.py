"""The storm: what the settings mean to it, and what it leaves."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmfw.mm.trace import MmVmscanDirectReclaimBegin, MmVmscanWakeupKswapd
from mmfw.run import RunRequest, run
from mmfw.sched import TaskState
from mmfw_thp.settings import ThpParams


def test_a_storm_gives_everything_back_in_every_round(bench):
    b = bench()
    free = b.free_pages()
    task = b.workload("thp-fault-storm", megabytes=40, hold_ms=100, pause_ms=100, rounds=3)
    b.run(0.1)
    assert free - b.free_pages() == 40 * 256 + 20
    b.run(3)
    assert task.state is TaskState.DEAD
    assert b.free_pages() == free
    assert b.metric("thp_storm_rounds") == 3
    assert b.metric("thp_pages_faulted") == 3 * 40 * 256
    assert b.metric("thp_fault_alloc") == 3 * 20
    # The same slots each time.
    assert len(b.mm.rmap.slots) < 3 * 40 * 256


def test_a_killed_storm_gives_back_what_it_has(bench):
    b = bench()
    free = b.free_pages()
    task = b.workload("thp-fault-storm", megabytes=40, hold_ms=100, pause_ms=10)
    b.run(0.55)
    b.mm.sched.send_sigkill(task)
    b.run(1)
    assert task.state is TaskState.DEAD
    assert b.free_pages() == free


@pytest.mark.parametrize(
    ("enabled", "madvised", "huge"),
    [
        ("always", False, True),
        ("madvise", False, False),
        ("madvise", True, True),
        ("never", True, False),
    ],
)
def test_whose_huge_pages(bench, enabled, madvised, huge):
    b = bench(enabled=enabled)
    b.workload("thp-fault-storm", megabytes=8, madvised=madvised, rounds=1)
    b.run(1)
    assert b.metric("thp_fault_alloc") == (4 if huge else 0)
    assert b.metric("thp_fault_fallback") == 0


@pytest.mark.parametrize(
    ("defrag", "madvised", "wakes", "reclaims"),
    [
        ("always", False, False, True),
        ("always", True, False, True),
        ("defer", False, True, False),
        ("defer", True, True, False),
        ("defer+madvise", False, True, False),
        ("defer+madvise", True, False, True),
        ("madvise", False, False, False),
        ("madvise", True, False, True),
        ("never", True, False, False),
    ],
)
def test_who_wakes_kswapd_and_who_compacts_by_himself(bench, defrag, madvised, wakes, reclaims):
    b = bench(defrag=defrag, khugepaged=False)
    woken, reclaimed = [], []
    b.mm.trace.subscribe(MmVmscanWakeupKswapd, lambda event: woken.append(event.order))
    b.mm.trace.subscribe(MmVmscanDirectReclaimBegin, lambda event: reclaimed.append(event.order))
    kept = b.fragment()
    taken = b.take_blocks(order=4)
    b.workload("thp-fault-storm", megabytes=4, madvised=madvised, rounds=1)
    b.run(1)
    assert b.metric("thp_fault_fallback") == 2
    assert (9 in woken) == wakes
    assert (b.metric("thp_compact_stalls") > 0 or 9 in reclaimed) == reclaims
    for pfn, order in taken:
        b.mm.free_pages(pfn, order)
    b.mm.free_pages_batch(kept, 0)


def test_a_reader_brings_back_what_was_pushed_out(bench):
    b = bench("256M")
    b.mm.sched.run(1)
    task = b.workload("thp-cache-reader", file_pages=2000, pages_per_second=50_000)
    b.run(0.2)
    assert b.mm.page_cache.nr_file_pages == 2000
    b.mm.drop_caches()
    b.run(0.2)
    assert b.mm.page_cache.nr_file_pages >= 1990
    b.mm.sched.send_sigkill(task)
    b.run(0.1)
    assert task.state is TaskState.DEAD


def test_settings_are_checked():
    with pytest.raises(ValidationError, match="defer\\+madvise"):
        ThpParams(defrag="sometimes")
    with pytest.raises(ValidationError, match="511"):
        ThpParams(max_ptes_none=512)


@pytest.mark.slow
def test_deferred_faults_wake_kswapd_at_order_nine():
    result = run(
        RunRequest(scenario="thp-storm", duration="200ms", overrides={"defrag": "defer", "megabytes": 256})
    )
    assert result.kswapd_wakes_by_order["9"] > 10
    assert result.metrics["thp_fault_fallback"] > 100
    assert result.metrics["thp_compact_stalls"] < 20
    assert result.leak_checked
