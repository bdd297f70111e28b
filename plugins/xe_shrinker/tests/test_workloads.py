"""The clients that scenarios other than the aquarium use, and what the ledger says of them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mmfw.sched import TaskState
from mmfw_ttm_pool import TtmPool
from mmfw_xe_shrinker import BoState
from mmfw_xe_shrinker.workloads import ChurnParams, ClientParams

MSEC = 1_000_000


def play(b, name: str, params, milliseconds: int):
    """Run one load for a while; the task."""
    load = b.plugins.workloads()[name]
    task = b.mm.sched.spawn(load.run, b.mm, params, name=name, daemon=True)
    b.mm.sched.run(b.mm.sched.now + milliseconds * MSEC)
    return task


def end(b, task) -> None:
    b.mm.sched.send_sigkill(task)
    b.mm.sched.run(b.mm.sched.now + 1000 * MSEC)
    assert task.state is TaskState.DEAD


def test_client_keeps_its_rate_and_touches_everything(bench):
    b = bench(started=True)
    task = play(b, "xe-client", ClientParams(working_set_pages=3000, execs_per_second=50), 1000)
    assert 48 <= b.device.stats.execs <= 51
    assert b.device.resident_pages == 3000
    (vm,) = b.device.vms
    b.scan(200)
    gone = b.device.stats.evicted_pages
    assert gone >= 200
    b.mm.sched.run(b.mm.sched.now + 100 * MSEC)
    assert b.device.resident_pages == 3000
    losses = b.losses
    assert (losses.nr_pages_evicted, losses.nr_pages_lost) == (gone, gone)
    assert all(age <= 100 * MSEC for age in b.device.stats.restore_ages)
    end(b, task)
    # Its memory went with it.
    assert (b.device.vms, b.device.resident_pages, b.device.shrinkable_pages) == ((), 0, 0)
    assert not vm.bos


def test_late_client_does_not_make_up_for_it(bench):
    b = bench(started=True)
    play(b, "xe-client", ClientParams(working_set_pages=64, execs_per_second=1000, gpu_job_us=10_000), 500)
    assert 48 <= b.device.stats.execs <= 50


@pytest.mark.parametrize("starts", ["resident", "backed_up"])
def test_client_starts_where_it_is_told(bench, starts):
    dma32 = [9000, 900, 500, 0, 0, 0, 0, 0, 0, 0, 0]
    b = bench(dma32=dma32, resident_pages=2000)
    b.mm.start_time()
    play(b, "xe-client", ClientParams(working_set_pages=2000, starts=starts), 200)
    assert b.device.resident_pages == 2000
    assert b.device.stats.restored_pages == (0 if starts == "resident" else 2000)
    # What had been away before the run began is nobody's loss.
    assert (b.losses.nr_pages_recreated, b.device.stats.restore_ages) == (0, [])


def test_pinned_and_purgeable_shares(bench):
    b = bench(started=True)
    params = ClientParams(
        working_set_pages=6000, bo_min_order=4, bo_max_order=5, pinned_percent=20, purgeable_percent=30
    )
    play(b, "xe-client", params, 200)
    (vm,) = b.device.vms
    states = [bo.state for bo in vm.bos]
    assert 0.1 < states.count(BoState.PINNED) / len(states) < 0.3
    assert 0.2 < states.count(BoState.PURGEABLE) / len(states) < 0.4
    pinned = sum(bo.num_pages for bo in vm.bos if bo.pinned)
    assert b.device.shrinkable_pages + b.device.purgeable_pages == 6000 - pinned
    # Everything that may go is asked for: pinned objects stay.
    b.scan(100_000, abort_on_ebusy=False)
    assert b.device.resident_pages >= pinned
    assert [bo.state for bo in vm.bos].count(BoState.PINNED) == states.count(BoState.PINNED)


def test_client_makes_anew_what_was_purged(bench):
    b = bench(started=True)
    params = ClientParams(
        working_set_pages=4000,
        bo_max_order=6,
        purgeable_percent=50,
        execs_per_second=20,
        reuse_after_execs=4,
    )
    play(b, "xe-client", params, 120)  # past the first exec, before the fourth
    purgeable = b.device.purgeable_pages
    assert b.scan(purgeable, abort_on_ebusy=False)[0] > 0
    purges = b.device.stats.bo_purges
    assert purges > 1
    b.mm.sched.run(b.mm.sched.now + 300 * MSEC)
    assert b.device.stats.bo_recreations == purges
    assert b.device.purgeable_pages == purgeable
    assert b.losses.nr_objects_lost >= purges
    assert b.device.stats.bo_restores == b.device.stats.bo_evictions


def test_churn_makes_and_drops_at_its_rate(bench):
    b = bench(started=True)
    task = play(b, "xe-churn", ChurnParams(live_bos=4), 1000)
    assert 195 <= b.device.stats.execs <= 201
    assert 3 * 512 <= b.device.resident_pages <= 4 * 512
    end(b, task)
    assert b.device.resident_pages == 0


def test_churn_of_uncached_memory_lives_on_the_pool(bench):
    b = bench(started=True, caching="write_combined")
    play(b, "xe-churn", ChurnParams(live_bos=4), 500)
    pool = b.mm.attached.get(TtmPool)
    # What is dropped serves the next object: the loads of 100 objects left a few blocks behind.
    assert 0 < pool.allocated_pages + b.device.resident_pages <= 5 * 512


def test_purged_stays_purged(bench):
    b = bench()
    vm = b.vm("a", 64, 64)
    b.idle()
    b.device.set_purgeable(vm.bos[0], True)
    b.scan(64)
    assert b.device.set_purgeable(vm.bos[1], False)
    assert not b.device.set_purgeable(vm.bos[0], False)
    assert b.device.exec(vm) is not None
    assert [bo.state for bo in vm.bos] == [BoState.PURGED, BoState.RESIDENT]
    new = b.device.recreate_bo(vm.bos[0])
    assert b.device.exec(vm) is not None
    assert (new.state, vm.bos) == (BoState.RESIDENT, [vm.bos[0], new])
    assert b.losses.nr_pages_recreated == 64


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bo_min_order": 12}, "bo_min_order 12 is above bo_max_order 11"),
        ({"pinned_percent": 60, "purgeable_percent": 50}, "more than 100 together"),
        ({"starts": "somewhere"}, "unpopulated"),
        ({"execs_per_second": 0}, "greater than or equal to 0.001"),
    ],
)
def test_parameters_that_cannot_be(params, message):
    with pytest.raises(ValidationError, match=message):
        ClientParams(**params)
