"""What the device gives up to compaction."""

from __future__ import annotations

import pytest

from mmfw import SHRINK_STOP, MigrateMode, gfp
from mmfw_xe_shrinker import BoState, Evictor


def states(vm) -> list[BoState]:
    return [bo.state for bo in vm.bos]


RESIDENT, PURGED, BACKED_UP = BoState.RESIDENT, BoState.PURGED, BoState.BACKED_UP


def test_opportunistic_scan_purges_what_has_the_wanted_order_and_backs_nothing_up(bench):
    b = bench()
    vm = b.vm("a", 64, 512, 512, 512)
    b.idle()
    for bo in vm.bos[:3]:
        b.device.set_purgeable(bo, True)
    assert [bo.tt.max_order for bo in vm.bos] == [6, 9, 9, 9]
    assert b.compaction_scan() == (512, 4)
    # The oldest of two that would do, and not the small one.
    assert states(vm) == [BoState.PURGEABLE, PURGED, BoState.PURGEABLE, RESIDENT]
    assert b.compaction_scan(nr_to_free=4096) == (512, 3)
    assert b.compaction_scan(nr_to_free=4096) == (0, 2)
    assert b.device.stats.bo_evictions == 0


def test_range_makes_small_objects_count(bench):
    b = bench()
    vm = b.vm("a", 64, 64)
    b.idle()
    for bo in vm.bos:
        b.device.set_purgeable(bo, True)
    first = int(vm.bos[1].tt.runs[0].pfns[0])
    assert b.compaction_scan(pfn_lo=first + 63, pfn_hi=first + 600) == (64, 2)
    assert states(vm) == [BoState.PURGEABLE, PURGED]


def test_scan_that_must_free_purges_first_then_takes_the_largest_blocks_whole(bench):
    b = bench()
    vm = b.vm("a", 32, 64, 512, 128)
    b.idle()
    b.device.set_purgeable(vm.bos[0], True)
    large = int(vm.bos[2].tt.runs[0].pfns[0])
    assert b.compaction_scan(opportunistic=False) == (32 + 512, 4)
    assert states(vm) == [PURGED, RESIDENT, BACKED_UP, RESIDENT]
    assert b.device.stats.bo_evictions_by == {
        Evictor.KSWAPD: 0,
        Evictor.DIRECT: 0,
        Evictor.COMPACTION: 1,
    }
    # Freed as one block, not page by page: a request for 2 MiB gets the very same.
    assert b.mm.alloc_pages(gfp.GFP_HIGHUSER & ~gfp.RECLAIM, 9) == large
    assert b.losses.nr_pages_evicted == 544


def test_working_set_stays_if_it_is_not_on_offer_or_filesystems_are_out_of_bounds(bench):
    b = bench()
    vm = b.vm("a", 512)
    b.idle()
    assert b.compaction_scan(opportunistic=False, offer_working_set=False) == (SHRINK_STOP, 0)
    assert b.compaction_scan(opportunistic=False, mask=gfp.GFP_NOFS) == (SHRINK_STOP, 0)
    assert b.compaction_scan() == (SHRINK_STOP, 0)
    assert states(vm) == [RESIDENT]


@pytest.mark.parametrize(
    ("mode", "freed"), [(MigrateMode.ASYNC, 0), (MigrateMode.SYNC_LIGHT, 0), (MigrateMode.SYNC, 512)]
)
def test_only_a_full_sync_scan_waits_for_the_job(bench, mode, freed):
    b = bench(started=True)
    vm = b.call(lambda: b.vm("a", 512))
    assert vm.is_active
    assert b.compaction_scan(opportunistic=False, mode=mode)[0] == freed
    assert states(vm) == [BACKED_UP if freed else RESIDENT]


def test_a_taken_reservation_is_passed_over(bench):
    b = bench()
    taken, other = b.vm("taken", 512), b.vm("other", 512)
    b.idle()
    with taken.resv:
        assert b.compaction_scan(opportunistic=False) == (512, 1)
    assert (states(taken), states(other)) == ([RESIDENT], [BACKED_UP])


def test_backup_of_a_compaction_scan_allocates_without_reclaiming(bench):
    b = bench(started=True)
    vm = b.call(lambda: b.vm("a", 512))
    b.mm.sched.run(b.mm.sched.now + 100_000_000)
    while len(b.mm.alloc_pages_batch(gfp.GFP_KERNEL & ~gfp.RECLAIM, 0, 1000)) == 1000:
        pass
    assert b.compaction_scan(opportunistic=False)[0] == 512
    assert states(vm) == [BACKED_UP]
    stat = b.mm.vmstat.as_dict()
    assert sum(count for name, count in stat.items() if name.startswith("allocstall")) == 0
