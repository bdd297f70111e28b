"""Backups that need the device awake, and who wakes it."""

from __future__ import annotations

import pytest

from mmfw import SHRINK_STOP, gfp
from mmfw_xe_shrinker import BoState

SECOND = 1_000_000_000
RPM = {"flat_ccs": True, "autosuspend_ms": 1000, "resume_us": 20_000, "caching": "write_combined"}


def asleep(bench, **params):
    """A device that fell asleep over an object of 64 pages in TT."""
    b = bench(started=True, **{**RPM, **params})
    vm = b.call(lambda: b.vm("a", 64))
    assert b.device.pm.is_active
    b.mm.sched.run(b.mm.sched.now + 2 * SECOND)
    assert not b.device.pm.is_active
    return b, vm


def test_direct_reclaim_passes_the_object_over_and_a_worker_wakes_the_device(bench):
    b, vm = asleep(bench)
    assert b.scan(kswapd=False) == (SHRINK_STOP, 0)
    assert vm.bos[0].state is BoState.RESIDENT
    assert (b.device.pm.nr_queued, b.device.pm.nr_resumes) == (1, 0)
    b.mm.sched.run(b.mm.sched.now + SECOND // 2)
    assert (b.device.pm.is_active, b.device.pm.nr_resumes) == (True, 1)
    assert b.scan(kswapd=False) == (64, 64)


def test_kswapd_wakes_the_device_itself_and_waits_for_it(bench):
    b, vm = asleep(bench)
    started = b.mm.sched.now
    assert b.scan() == (64, 64)
    assert b.mm.sched.now - started >= 20_000_000
    assert vm.bos[0].state is BoState.BACKED_UP
    assert (b.device.pm.nr_queued, b.device.pm.nr_resumes) == (0, 1)


def test_kswapd_leaves_it_to_the_worker_where_waking_could_allocate(bench):
    b, vm = asleep(bench, rpm_reclaim_safe=False)
    assert b.scan() == (SHRINK_STOP, 0)
    assert b.device.pm.nr_queued == 1
    assert vm.bos[0].state is BoState.RESIDENT


def test_purgeable_objects_do_not_need_the_device(bench):
    b, vm = asleep(bench)
    with vm.resv:
        b.device.set_purgeable(vm.bos[0], True)
    assert b.scan(64, kswapd=False) == (64, 64)
    assert (vm.bos[0].state, b.device.pm.nr_queued) == (BoState.PURGED, 0)


@pytest.mark.parametrize("params", [{"flat_ccs": False}, {"caching": "cached"}])
def test_nor_do_objects_without_compression(bench, params):
    b, vm = asleep(bench, **params)
    assert b.scan(kswapd=False) == (64, 64)
    assert vm.bos[0].state is BoState.BACKED_UP


def test_nothing_is_woken_for_a_backup_that_cannot_be(bench):
    b, _ = asleep(bench, nr_swap_pages=0)
    b.scan()
    assert b.scan(mask=gfp.GFP_NOFS) == (SHRINK_STOP, 0)
    assert (b.device.pm.nr_queued, b.device.pm.nr_resumes) == (0, 0)


def test_exec_wakes_the_device_and_its_job_keeps_it_awake(bench):
    b, vm = asleep(bench)
    fence = b.call(lambda: b.device.exec(vm, 3 * SECOND))
    assert b.device.pm.nr_resumes == 1
    b.mm.sched.run(b.mm.sched.now + 2 * SECOND)
    assert b.device.pm.is_active
    b.mm.sched.run(b.mm.sched.now + 3 * SECOND)
    assert fence.is_signaled
    assert not b.device.pm.is_active


def test_a_lit_display_keeps_it_awake(bench):
    b = bench(started=True, **{**RPM, "autosuspend_ms": 0})
    b.call(lambda: b.vm("a", 64))
    b.mm.sched.run(b.mm.sched.now + 100 * SECOND)
    assert b.scan(kswapd=False) == (64, 64)
