"""Moving idle objects into large blocks: which ones, and what the driver sees of it."""

from __future__ import annotations

import pytest

from mmfw import gfp
from mmfw_xe_shrinker import BoState, MemType, XeBo, XeVm, defragment_bo, fragmented_bos

#: Small blocks, and four of 2 MiB, which the objects of these tests do not get at first.
FOUR_LARGE = [4000, 2000, 1000, 1000, 0, 0, 0, 0, 0, 4, 0]


def fragmented(b, name: str, *sizes: int) -> XeVm:
    """An idle VM with objects in small blocks."""
    large = b.mm.alloc_pages_batch(gfp.GFP_HIGHUSER & ~gfp.RECLAIM, 9, 10)
    vm = b.vm(name, *sizes)
    b.mm.free_pages_batch(large, 9)
    b.idle()
    return vm


def defragment(b, bo: XeBo, order: int = 9) -> int:
    with bo.vm.resv:
        return defragment_bo(b.device, bo, order)


def test_an_idle_object_moves_and_loses_nothing(bench):
    b = bench(dma32=FOUR_LARGE)
    vm = fragmented(b, "a", 64, 512, 64)
    bo = vm.bos[1]
    before = (b.count(), b.free_pages(), b.device.resident_pages, list(vm.lru[MemType.TT]), b.losses)
    assert defragment(b, bo) == 512
    assert (bo.state, bo.tt.max_order, b.device.huge_pages) == (BoState.RESIDENT, 9, 512)
    assert (
        b.count(),
        b.free_pages(),
        b.device.resident_pages,
        list(vm.lru[MemType.TT]),
        b.losses,
    ) == before
    assert (b.device.stats.bo_evictions, b.device.stats.bo_restores) == (0, 0)
    b.mm.check_memory()
    b.module_exit()
    assert b.mm.nr_allocated_pages() == 0


def test_the_next_exec_binds_it_again_once(bench):
    b = bench(dma32=FOUR_LARGE, started=True)
    vm = fragmented(b, "a", 512)
    (bo,) = vm.bos
    sched, costs = b.mm.sched, b.mm.sched.costs

    def took(fn) -> int:
        began = sched.now
        b.call(fn)
        return sched.now - began

    quiet = took(lambda: b.device.exec(vm, 0))
    b.idle()
    assert bo.is_bound
    assert b.call(lambda: defragment(b, bo)) == 512
    assert not bo.is_bound
    assert took(lambda: b.device.exec(vm, 0)) == quiet + costs.bind_bo
    assert bo.is_bound
    b.idle()
    assert took(lambda: b.device.exec(vm, 0)) == quiet


def test_an_object_that_is_not_bound_is_not_unbound_again(bench):
    def evicting_takes(*, moved: bool) -> int:
        b = bench(dma32=FOUR_LARGE, started=True)
        vm = fragmented(b, "a", 512)
        if moved:
            assert b.call(lambda: defragment(b, vm.bos[0])) == 512
        else:
            vm.evicted[vm.bos[0]] = None
        began = b.mm.sched.now
        b.device.set_purgeable(vm.bos[0], True)  # a purge costs no copies
        b.call(lambda: b.evict(vm.bos[0]))
        return b.mm.sched.now - began

    assert evicting_takes(moved=True) < 20_000


@pytest.mark.parametrize("what", ["active", "pinned", "purgeable", "backed up", "never populated"])
def test_objects_in_use_or_not_there_are_left_alone(bench, what):
    b = bench(dma32=FOUR_LARGE)
    vm = fragmented(b, "a", 512)
    (bo,) = vm.bos
    assert fragmented_bos(b.device, 9) == [bo]
    if what == "active":
        assert b.device.exec(vm) is not None
    elif what == "pinned":
        b.device.set_pinned(bo, True)
    elif what == "purgeable":
        b.device.set_purgeable(bo, True)
    elif what == "backed up":
        assert b.evict(bo) == 512
    else:
        b.device.destroy_bo(bo)
        bo = b.device.create_bo(vm, 512)
    blocks = [(run.order, run.pfns.tolist()) for run in bo.tt.runs]
    assert fragmented_bos(b.device, 9) == []
    assert defragment(b, bo) == 0
    assert [(run.order, run.pfns.tolist()) for run in bo.tt.runs] == blocks


def test_objects_whose_reservation_is_taken_are_not_on_the_list(bench):
    b = bench(dma32=FOUR_LARGE)
    vm, other = fragmented(b, "a", 512), fragmented(b, "b", 512)
    with vm.resv:
        assert fragmented_bos(b.device, 9) == other.bos


def test_most_fragmented_first_then_the_one_used_last(bench):
    b = bench(dma32=[12000, 2000, 1000, 1000, 0, 0, 0, 0, 0, 8, 0])
    old, young = fragmented(b, "old", 512, 300, 1024), fragmented(b, "young", 512, 512)
    assert fragmented_bos(b.device, 9) == [old.bos[2], young.bos[1], young.bos[0], old.bos[0]]
    assert b.device.exec(old) is not None
    b.idle()
    assert fragmented_bos(b.device, 9)[1] is old.bos[0]
    assert defragment(b, old.bos[2]) == 1024
    assert old.bos[2] not in fragmented_bos(b.device, 9)


def test_a_device_that_sleeps_is_not_woken(bench):
    b = bench(dma32=FOUR_LARGE, started=True, caching="write_combined", flat_ccs=True, autosuspend_ms=100)
    vm = fragmented(b, "a", 512)
    assert not b.device.pm.is_active
    assert b.device.needs_rpm(vm.bos[0])
    assert b.call(lambda: defragment(b, vm.bos[0])) == 0
    resumes = b.device.pm.nr_resumes
    b.device.pm.keep_busy(b.mm.sched.now)
    assert b.call(lambda: defragment(b, vm.bos[0])) == 512
    assert b.device.pm.nr_resumes == resumes
