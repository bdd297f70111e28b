from __future__ import annotations

import numpy as np
import pytest

from mmfw import SHRINK_EMPTY, SHRINK_STOP, InputError, ShrinkControl, gfp
from mmfw.testing import make_mm
from mmfw_xfs_buf import XfsInodegcShrinker, XfsMount, XfsSuperShrinker
from mmfw_xfs_buf.ail import RECLAIM_WORK_NS
from mmfw_xfs_buf.inode import ABSENT, ACTIVE, NEED_INACTIVE, RECLAIMABLE
from mmfw_xfs_buf.params import XfsParams


def use(b, inos, *, change: bool = False, dqid: int = -1):
    """Open, perhaps change, and drop inodes, as a task."""

    def body():
        for ino in inos:
            assert b.inodes.iget(ino)
            if change:
                b.inodes.log(ino, dqid)
            b.inodes.irele(ino)

    b.call(body)


def control(nr_to_scan: int = 0, mask: int = gfp.GFP_KERNEL) -> ShrinkControl:
    return ShrinkControl(gfp_mask=mask, nid=0, nr_to_scan=nr_to_scan, nr_scanned=nr_to_scan)


def test_inodes_of_a_cluster_share_its_buffer(bench):
    b = bench()
    use(b, range(64))
    assert (b.buftarg.stats.reads, b.buftarg.stats.hits) == (2, 62)
    assert b.buftarg.nr_pages == 2 * 4  # 16 KiB each, one folio
    (cache,) = [cache for cache in b.mm.slab.caches if cache.name == "xfs_inode"]
    assert (cache.geometry.size, cache.nr_objects) == (1024, 64)


def test_slab_of_inodes_on_eight_cpus(bench):
    b = bench(nr_cpus=8)
    (cache,) = [cache for cache in b.mm.slab.caches if cache.name == "xfs_inode"]
    assert cache.geometry.oo == (3, 32)


def test_a_dropped_inode_is_recycled_without_a_read(bench):
    b = bench()
    use(b, [5])
    assert (b.inodes.state(5), b.inodes.nr_cached_objects()) == (RECLAIMABLE, 1)
    use(b, [5])
    assert (b.inodes.stats.misses, b.inodes.stats.recycled, b.buftarg.stats.reads) == (1, 1, 1)


def test_reclaim_goes_by_number_in_batches_of_32_and_tells_nothing(bench):
    b = bench(nr_ags=1)
    use(b, range(200, 100, -1))
    assert b.inodes.free_cached_objects(1) == 0
    assert [b.inodes.state(ino) == ABSENT for ino in (101, 132, 133)] == [True, True, False]
    assert b.inodes.free_cached_objects(33) == 0  # another batch was begun
    assert b.inodes.nr_cached_objects() == 100 - 3 * 32
    use(b, [101])
    # The walk goes on where it stopped, so what is new at a low number waits its turn.
    b.inodes.free_cached_objects(32)
    assert (b.inodes.state(101), b.inodes.nr_cached_objects()) == (RECLAIMABLE, 1)
    b.inodes.free_cached_objects(32)  # finds the end, and begins no second round
    assert b.inodes.nr_cached == 1
    b.inodes.free_cached_objects(32)
    assert b.inodes.nr_cached == 0
    losses = dict(b.mm.ledger)["xfs_inode"]
    assert (losses.nr_objects_evicted, losses.nr_objects_recreated) == (101, 1)


def test_every_ag_has_a_batch_of_its_own(bench):
    b = bench(nr_inodes=4096, nr_ags=4)
    use(b, [ag * 1024 + i for ag in range(4) for i in range(50)])
    b.inodes.free_cached_objects(1)
    assert b.inodes.nr_cached_objects() == 4 * (50 - 32)


def test_dirty_inodes_are_skipped_and_hold_their_cluster_until_written(bench):
    b = bench("6.1", nr_ags=1)
    use(b, range(8), change=True)
    slot = b.inodes.read_cluster(0)
    b.buftarg.rele(slot)
    assert b.buftarg.table.hold[slot] == 8
    b.inodes.icwalk(32, evicting=True)
    assert (b.inodes.nr_cached_objects(), b.inodes.stats.skipped_dirty) == (8, 8)
    # Scans count the buffer down and take it off the list; memory they do not get.
    assert [b.scan(1) for _ in range(3)] == [0, 0, 1]
    assert b.is_cached(slot)
    b.call(b.mount.ail.write_all)
    assert (b.inodes.stats.cluster_writes, b.mount.disk.bytes_written) == (1, 16384)
    assert not b.is_cached(slot)
    b.inodes.icwalk(None, evicting=True)  # to the end, where the last walk stopped
    b.inodes.icwalk(None, evicting=True)
    assert b.inodes.nr_cached == 0


def test_reclaim_has_dirty_inodes_written(bench):
    b = bench(nr_ags=1)
    use(b, [0, 40, 41], change=True)
    b.inodes.free_cached_objects(32)
    b.sched.run(b.sched.now + 1_000_000)
    assert (b.inodes.dirty.any(), b.inodes.stats.cluster_writes) == (False, 2)
    b.inodes.free_cached_objects(32)  # to the end, where the last walk stopped
    b.inodes.free_cached_objects(32)
    assert b.inodes.nr_cached == 0


def test_what_is_logged_while_it_is_written_stays_dirty(bench):
    b = bench(nr_cpus=2, nr_ags=1)
    use(b, [7], change=True)
    b.sched.spawn(b.mount.ail.write_all, name="writer")
    b.sched.run(b.sched.now + 20_000)
    times = []

    def again():
        start = b.sched.now
        b.inodes.iget(7)
        b.inodes.log(7)
        times.append(b.sched.now - start)
        b.buftarg.rele(b.inodes.read_cluster(7))  # whoever reads the buffer waits for the write
        times.append(b.sched.now - start)

    b.call(again)
    assert (times[0], bool(b.inodes.dirty[7])) == (0, True)
    assert times[1] > 60_000
    b.call(b.mount.ail.write_all)
    slot = b.inodes.read_cluster(7)
    b.buftarg.rele(slot)
    assert (b.inodes.dirty.any(), int(b.buftarg.table.hold[slot])) == (False, 0)


def test_the_worker_frees_clean_inodes_every_five_seconds(bench):
    b = bench()
    use(b, range(100))
    b.sched.run(RECLAIM_WORK_NS - 1_000_000)
    assert b.inodes.nr_cached == 100
    b.sched.run(RECLAIM_WORK_NS + 1_000_000)
    assert (b.inodes.nr_cached, b.inodes.stats.shrunk) == (0, 0)
    assert dict(b.mm.ledger)["xfs_inode"].nr_objects_evicted == 0  # memory was not wanted


def test_superblock_shrinker(bench):
    b = bench(nr_ags=1)
    shrinker = XfsSuperShrinker(b.inodes, vfs_cache_pressure=50)
    assert shrinker.count_objects(control()) == SHRINK_EMPTY
    use(b, range(300))
    assert shrinker.count_objects(control()) == 150
    assert shrinker.scan_objects(control(1024, gfp.GFP_NOFS)) == SHRINK_STOP
    assert b.inodes.nr_cached == 300
    assert shrinker.scan_objects(control(100)) == 0
    # 100 * 300 / 301 = 99, and one more; 100 is reached in the fourth batch.
    assert b.inodes.nr_cached == 300 - 128


def test_whoever_has_the_superblock_has_one_shrinker(bench):
    b = bench(device="vda")
    assert b.mount.adopt_superblock() is b.inodes
    assert [s.ops.name for s in b.mm.shrinkers] == ["xfs-buf:vda", "xfs-inodegc:vda", "xfs-qm:vda"]
    quiet = bench(device="vdb", sb_shrinker=False)
    assert len(quiet.mm.shrinkers) == 3


def test_unlinked_inodes_are_inactivated_after_a_jiffy(bench):
    b = bench()

    def remove():
        assert b.inodes.iget(9)
        b.inodes.unlink(9)
        b.inodes.irele(9)
        assert not b.inodes.iget(9)  # -ENOENT
        return b.inodes.state(9)

    assert b.call(remove) == NEED_INACTIVE
    shrinker = XfsInodegcShrinker(b.mount.inodegc)
    assert shrinker.count_objects(control()) == 4096
    b.sched.run(b.sched.now + 5_000_000)
    assert (b.inodes.state(9), b.inodes.dirty[9], shrinker.count_objects(control())) == (RECLAIMABLE, True, 0)
    assert shrinker.scan_objects(control(2049)) == (1 << 63) - 1  # LONG_MAX
    use(b, [9])
    assert b.inodes.state(9) == RECLAIMABLE


def test_a_scan_hurries_inactivation_and_throttles_whoever_queues_next(bench):
    b = bench(nr_cpus=2)
    gc = b.mount.inodegc
    shrinker = XfsInodegcShrinker(gc)

    def remove(ino):
        b.inodes.iget(ino)
        b.inodes.unlink(ino)
        b.inodes.irele(ino)

    def body():
        remove(1)
        assert shrinker.scan_objects(control(2049)) == SHRINK_STOP
        assert gc.shrinker_hits == 1
        remove(2)  # waits for the worker
        return gc.nr_queued, gc.throttled, gc.inactivated

    assert b.call(body) == (0, 1, 2)


def test_many_queued_inodes_do_not_wait_for_the_jiffy(bench):
    b = bench()

    def remove():
        for ino in range(34):
            b.inodes.iget(ino)
            b.inodes.unlink(ino)
            b.inodes.irele(ino)

    b.call(remove)
    b.sched.run(b.sched.now + 1_000_000)
    assert b.mount.inodegc.inactivated == 34


def test_two_plugins_cannot_both_have_the_inodes():
    mm = make_mm("256M", kernel="7.1")
    mm.slab.kmem_cache_create("xfs_inode", 1000)
    with pytest.raises(InputError, match=r"dcache\.fs"):
        XfsMount(mm, XfsParams())
    mm.sched.close()


def test_no_such_inode(bench):
    b = bench(nr_inodes=64)
    with pytest.raises(ValueError, match="0 to 63"):
        b.inodes.iget(64)


def test_inodes_in_use_are_nobodys_prey(bench):
    b = bench(nr_ags=1)
    b.call(lambda: [b.inodes.iget(ino) for ino in range(40)])
    b.inodes.free_cached_objects(100)
    assert {b.inodes.state(ino) for ino in range(40)} == {ACTIVE}
    assert np.count_nonzero(b.inodes.dirty) == 0
