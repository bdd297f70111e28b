"""The workloads, and the scenario as far as its order-9 phase."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmfw.run import RunRequest, run
from mmfw.sched import TaskState
from mmfw_deferred_split.plugin import mmfw_register_workloads
from mmfw_deferred_split.workloads import PartialUnmapParams

SEC = 1_000_000_000


def spawn(b, name, **params):
    load = {each.name: each for each in mmfw_register_workloads()}[name]
    return b.mm.sched.spawn(load.run, b.mm, load.params(**params), name=name, daemon=True)


@pytest.mark.parametrize(
    ("params", "free_when_split"),
    [
        ({"pattern": "alternate"}, 256),
        ({"pattern": "contiguous", "unmapped_pages": 100}, 100),
    ],
)
def test_a_heap_is_partly_unmapped_and_goes_with_its_task(bench, params, free_when_split):
    b = bench(start=True)
    before, _ = b.free()
    task = spawn(b, "thp-partial-unmap", huge_pages=10, **params)
    b.mm.sched.run(SEC)
    assert b.count() == 10
    free, _ = b.free()
    assert before - free == 10 * 512 + 10  # and a page table each
    assert b.scan(10) == 10
    assert b.free()[0] - free == 10 * free_when_split
    b.mm.sched.send_sigkill(task)
    b.mm.sched.run(2 * SEC)
    assert task.state is TaskState.DEAD
    assert b.free()[0] == before


def test_an_underused_heap(bench):
    b = bench("7.1", start=True, max_ptes_none=400)
    before, _ = b.free()
    task = spawn(b, "thp-underused", huge_pages=6, written_pages=12)
    b.mm.sched.run(SEC)
    free, _ = b.free()
    assert (before - free, b.count()) == (6 * 512 + 6, 6)
    assert b.scan(6) == 6
    assert b.free()[0] - free == 6 * 500
    b.mm.sched.send_sigkill(task)
    b.mm.sched.run(2 * SEC)
    assert b.free()[0] == before


def test_unmapping_all_of_it_is_refused():
    with pytest.raises(ValidationError, match="511"):
        PartialUnmapParams(pattern="contiguous", unmapped_pages=512)


@pytest.mark.slow
def test_order_nine_demand_shatters_the_heap_unless_the_order_is_looked_at():
    name = "deferred-split-shatter"
    plain = run(RunRequest(scenario=name, short=True, duration="4s"))
    aware = run(RunRequest(scenario=name, short=True, duration="4s", overrides={"order_aware": True}))
    setup, order_nine, *_ = plain.phases
    assert setup.metrics["deferred_split_queue_len"] == 2000
    assert order_nine.metrics["deferred_split_splits"] >= 500
    assert order_nine.metrics["deferred_split_splits_of_order_4"] == 0
    freed = order_nine.metrics["deferred_split_pages_freed"]
    assert freed == 256 * order_nine.metrics["deferred_split_splits"]
    assert aware.phases[1].metrics["deferred_split_splits"] == 0
    # Reclaim splits what it swaps out, whatever the shrinker does.
    assert aware.vmstat["thp_split_page"] < plain.vmstat["thp_split_page"] // 2
