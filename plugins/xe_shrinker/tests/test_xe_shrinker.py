from __future__ import annotations

import pytest

from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl, gfp
from mmfw.errors import InputError
from mmfw.sched import Fence
from mmfw_ttm_pool import TtmPool
from mmfw_xe_shrinker import BoState, MemType, XeShrinker
from mmfw_xe_shrinker.kernels import XE_KERNELS

# --- count ---------------------------------------------------------------------------------------------


def test_count_in_every_state(bench):
    b = bench()
    vm = b.device.create_vm("a")
    bo = b.device.create_bo(vm, 512)
    seen = []

    def note() -> None:
        seen.append((bo.state, b.count(), b.count(gfp.GFP_NOFS)))

    note()
    assert b.device.exec(vm) is not None
    note()
    b.device.set_pinned(bo, True)
    note()
    b.device.set_pinned(bo, False)
    b.device.set_purgeable(bo, True)
    note()
    b.idle()
    b.device.set_purgeable(bo, False)
    b.evict(bo)
    note()
    assert b.device.exec(vm) is not None
    b.idle()
    b.device.set_purgeable(bo, True)
    b.evict(bo)
    note()
    assert seen == [
        (BoState.NEVER_POPULATED, SHRINK_EMPTY, SHRINK_EMPTY),
        (BoState.RESIDENT, 512, SHRINK_EMPTY),
        (BoState.PINNED, SHRINK_EMPTY, SHRINK_EMPTY),
        (BoState.PURGEABLE, 512, 512),
        (BoState.BACKED_UP, SHRINK_EMPTY, SHRINK_EMPTY),
        (BoState.PURGED, SHRINK_EMPTY, SHRINK_EMPTY),
    ]


def test_count_is_bounded_by_free_swap_but_purgeable_is_not(bench):
    b = bench(nr_swap_pages=300)
    vm = b.vm("a", 512, 64)
    assert b.count() == 300
    b.device.set_purgeable(vm.bos[1], True)
    assert b.count() == 300 + 64


def test_count_without_swap_offers_purgeable_only(bench):
    b = bench(nr_swap_pages=0)
    vm = b.vm("a", 512, 64)
    assert b.count() == SHRINK_EMPTY
    b.device.set_purgeable(vm.bos[1], True)
    assert b.count() == 64


def test_active_objects_are_counted(bench):
    b = bench()
    vm = b.vm("a", 512)
    assert vm.is_active
    assert b.count() == 512


# --- scan ----------------------------------------------------------------------------------------------


def test_an_object_goes_whole(bench):
    b = bench()
    vm = b.vm("a", 512, 512)
    b.idle()
    assert b.scan(128) == (512, 512)
    assert [bo.state for bo in vm.bos] == [BoState.BACKED_UP, BoState.RESIDENT]
    assert (b.device.stats.bo_evictions, b.device.stats.evicted_pages) == (1, 512)


def test_oldest_vm_first_and_exec_makes_young(bench):
    b = bench()
    old, young = b.vm("old", 16), b.vm("young", 16)
    b.idle()
    assert b.device.exec(old) is not None
    b.idle()
    assert b.scan(1) == (16, 16)
    assert (young.bos[0].state, old.bos[0].state) == (BoState.BACKED_UP, BoState.RESIDENT)


def test_purgeable_objects_go_before_any_backup(bench):
    b = bench()
    vm = b.vm("a", 64, 64, 64)
    b.idle()
    b.device.set_purgeable(vm.bos[2], True)
    assert b.scan(64, abort_on_ebusy=False) == (64, 64)
    assert [bo.state for bo in vm.bos] == [BoState.RESIDENT, BoState.RESIDENT, BoState.PURGED]
    assert b.device.stats.bo_evictions == 0


def test_ebusy_ends_the_purge_pass_at_the_first_other_object(bench):
    b = bench()
    vm = b.vm("a", 64, 64, 64)
    b.idle()
    b.device.set_purgeable(vm.bos[2], True)
    # The purge pass meets bos[0] first and ends; the second pass backs bos[0] up.
    assert b.scan(64) == (64, 64)
    assert [bo.state for bo in vm.bos] == [BoState.BACKED_UP, BoState.RESIDENT, BoState.PURGEABLE]


def test_pages_freed_before_an_ebusy_are_scanned_but_not_reported(bench):
    b = bench()
    vm = b.vm("a", 64, 64)
    b.idle()
    b.device.set_purgeable(vm.bos[0], True)
    assert b.scan(128, mask=gfp.GFP_NOFS) == (0, 64)
    assert b.device.stats.purged_pages == 64


def test_without_fs_only_purgeable_objects_go(bench):
    b = bench()
    vm = b.vm("a", 64, 64)
    b.idle()
    assert b.scan(mask=gfp.GFP_NOFS) == (SHRINK_STOP, 0)
    b.device.set_purgeable(vm.bos[1], True)
    assert b.scan(mask=gfp.GFP_NOFS, abort_on_ebusy=False) == (64, 64)
    assert [bo.state for bo in vm.bos] == [BoState.RESIDENT, BoState.PURGED]


def test_purge_gives_the_block_back_whole_and_backup_does_not(bench):
    b = bench()
    vm = b.vm("a", 512, 512)
    b.idle()
    b.device.set_purgeable(vm.bos[0], True)
    b.scan(512, mask=gfp.GFP_NOFS)
    b.mm.drain_all_pages()
    assert b.mm.swap.nr_shmem == 0
    b.scan(512)
    assert b.mm.swap.nr_shmem == 512


def test_nothing_suitable_is_shrink_stop(bench):
    b = bench()
    vm = b.vm("a", 64)
    b.idle()
    b.device.set_pinned(vm.bos[0], True)
    assert b.scan() == (SHRINK_STOP, 0)


def test_a_taken_reservation_is_skipped(bench):
    b = bench()
    taken, other = b.vm("taken", 64), b.vm("other", 64)
    b.idle()
    with taken.resv:
        assert b.scan(64) == (64, 64)
    assert (taken.bos[0].state, other.bos[0].state) == (BoState.RESIDENT, BoState.BACKED_UP)


def test_no_swap_backs_nothing_up_but_counts_as_scanned(bench):
    b = bench(nr_swap_pages=0)
    vm = b.vm("a", 64)
    b.idle()
    assert b.scan() == (0, 64)
    assert vm.bos[0].state is BoState.RESIDENT
    assert b.device.shrinkable_pages == 64


def test_direct_reclaim_leaves_active_objects(bench):
    b = bench(started=True)
    vm = b.call(lambda: b.vm("a", 64))
    assert vm.is_active
    assert b.scan(kswapd=False) == (SHRINK_STOP, 0)
    assert vm.bos[0].state is BoState.RESIDENT


def test_kswapd_takes_idle_objects_before_it_waits_for_active_ones(bench):
    b = bench(started=True)
    active, idle = b.call(lambda: (b.vm("active", 64), b.vm("idle", 64)))
    b.idle()
    # By age the active VM's object comes first: the other one has executed since.
    b.device.exec(idle)
    b.idle()
    active.fence = Fence(b.mm.sched, b.mm.sched.now + 1_000_000)
    assert b.device.vms == (active, idle)
    assert b.scan(64) == (64, 64)
    assert (idle.bos[0].state, active.bos[0].state) == (BoState.BACKED_UP, BoState.RESIDENT)


def test_first_version_takes_objects_as_they_come_and_waits_for_each(bench):
    b = bench(started=True)
    active, idle = b.call(lambda: (b.vm("active", 64), b.vm("idle", 64)))
    b.idle()
    b.device.exec(idle)
    b.idle()
    active.fence = Fence(b.mm.sched, b.mm.sched.now + 1_000_000)
    assert b.scan(64, staged_walk=False) == (64, 64)
    assert (idle.bos[0].state, active.bos[0].state) == (BoState.RESIDENT, BoState.BACKED_UP)


@pytest.mark.parametrize(("kernel", "staged"), [("6.1", False), ("7.1", True), ("7.2", True)])
def test_walk_by_kernel(kernel, staged):
    assert XE_KERNELS[kernel].staged_walk is staged


@pytest.mark.parametrize(("staged", "written"), [(True, 0), (False, 64)])
def test_idle_objects_are_not_written_at_once_since_there_are_stages(bench, staged, written):
    b = bench(started=True)
    b.call(lambda: b.vm("idle", 64))
    b.idle()
    assert b.scan(64, staged_walk=staged) == (64, 64)
    assert b.mm.vmstat.as_dict()["pswpout"] == written


def test_kswapd_waits_for_the_job(bench):
    b = bench(started=True)
    vm = b.call(lambda: b.vm("a", 64))
    assert vm.is_active
    started = b.mm.sched.now
    assert b.scan(64) == (64, 64)
    assert vm.bos[0].state is BoState.BACKED_UP
    assert vm.fence is not None
    assert started < vm.fence.signaled_at <= b.mm.sched.now


def test_two_tasks_in_the_shrinker_at_once(bench):
    # Copies cost time, so the second task enters while the first one sleeps in its backup.
    b = bench(started=True, nr_cpus=2)
    vms = b.call(lambda: [b.vm(name, *[256] * 8) for name in ("a", "b", "c")])
    b.idle()
    shrinker = XeShrinker(b.device)
    answers = []

    def scan() -> None:
        sc = ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0, nr_to_scan=1024)
        began = b.mm.sched.now
        freed = shrinker.scan_objects(sc)
        answers.append((freed, sc.nr_scanned, began, b.mm.sched.now))

    b.spawn(scan, kswapd=True)
    b.spawn(scan)
    b.mm.sched.run()
    assert [answer[:2] for answer in answers] == [(1024, 1024)] * 2
    assert max(answer[2] for answer in answers) < min(answer[3] for answer in answers)  # at the same time
    states = [bo.state for vm in vms for bo in vm.bos]
    assert states.count(BoState.BACKED_UP) == 8
    assert b.device.stats.evicted_pages == 2048
    assert b.device.shrinkable_pages == 256 * 16 == b.device.resident_pages


# --- exec ----------------------------------------------------------------------------------------------


def test_exec_restores_what_was_evicted(bench):
    b = bench()
    vm = b.vm("a", 512, 64)
    b.idle()
    assert b.scan(1000) == (576, 576)
    assert list(vm.evicted) == vm.bos
    assert [bo.mem_type for bo in vm.bos] == [MemType.SYSTEM] * 2
    assert b.device.exec(vm) is not None
    assert [bo.state for bo in vm.bos] == [BoState.RESIDENT] * 2
    assert [bo.mem_type for bo in vm.bos] == [MemType.TT] * 2
    assert (b.device.stats.bo_restores, b.device.stats.restored_pages) == (2, 576)
    assert b.device.shrinkable_pages == 576


def test_exec_leaves_dontneed_objects_alone(bench):
    b = bench()
    vm = b.vm("a", 64)
    b.idle()
    b.device.set_purgeable(vm.bos[0], True)
    b.scan()
    assert b.device.exec(vm) is not None
    assert vm.bos[0].state is BoState.PURGED


def test_jobs_run_one_after_the_other(bench):
    b = bench()
    first, second = b.vm("a", 16), b.vm("b", 16)
    job = b.mm.sched.costs.gpu_job
    b.idle()
    assert (first.fence.signaled_at, second.fence.signaled_at) == (job, 2 * job)


def test_exec_without_memory_fails_and_is_counted(bench):
    b = bench(nr_swap_pages=0, dma32=[6000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    vm = b.device.create_vm("a")
    b.device.create_bo(vm, 8000)
    before = b.free_pages()
    assert b.call(lambda: b.device.exec(vm)) is None
    assert b.device.stats.exec_failures == 1
    assert vm.bos[0].state is BoState.NEVER_POPULATED
    assert not vm.resv.is_locked()
    assert b.free_pages() == before


# --- the whole -----------------------------------------------------------------------------------------


def test_registered_as_in_the_kernel(bench):
    b = bench()
    shrinkers = {each.ops.name: (each.ops.seeks, each.ops.batch) for each in b.mm.shrinkers}
    assert shrinkers == {"drm-ttm_pool": (1, 352), "xe system shrinker": (2, 0)}


def test_reserve_too_small_says_which_keys(bench):
    b = bench(dma32=[5000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], resident_pages=100)
    bo = b.device.create_bo(b.device.create_vm("a"), 128)
    with pytest.raises(InputError, match=r"xe\.resident_pages .*100 left"):
        b.device.populate_from_reserve(bo)


@pytest.mark.parametrize("caching", ["cached", "write_combined"])
def test_module_exit_gives_every_page_back(bench, caching):
    b = bench(dma32=[9000, 900, 500, 0, 0, 0, 0, 0, 0, 0, 0], resident_pages=700, caching=caching)
    before = b.free_pages()
    vm = b.vm("a", 512, 300, 17, 64)
    resident = b.device.create_bo(vm, 600)
    b.device.populate_from_reserve(resident)
    b.idle()
    b.device.set_purgeable(vm.bos[3], True)
    b.device.set_pinned(vm.bos[2], True)
    b.scan(400, abort_on_ebusy=False)
    b.device.destroy_bo(vm.bos[1])
    b.module_exit()
    # The claimed pages were allocated at the start; freeing them is the one gain.
    assert b.free_pages() == before + 700
    assert b.mm.nr_allocated_pages() == 0
    assert len(b.mm.shrinkers) == 0
    assert (b.device.shrinkable_pages, b.device.purgeable_pages) == (0, 0)
    assert b.mm.attached.get(TtmPool).allocated_pages == 0
