from __future__ import annotations

import numpy as np

from mmfw import ShrinkControl, gfp
from mmfw_xfs_buf import XfsQmShrinker


def scan(b, n: int, mask: int = gfp.GFP_KERNEL):
    shrinker = XfsQmShrinker(b.mm, b.dquots)
    sc = ShrinkControl(gfp_mask=mask, nid=0, nr_to_scan=n, nr_scanned=n)
    return b.call(lambda: shrinker.scan_objects(sc))


def use(b, ids, *, change: bool = False):
    def body():
        for dqid in ids:
            b.dquots.dqget(dqid)
            if change:
                b.dquots.set_dirty(dqid)
            b.dquots.dqput(dqid)

    b.call(body)


def test_dquots_of_a_block_share_its_buffer(bench):
    b = bench()
    use(b, range(60))
    assert (b.buftarg.stats.reads, b.dquots.stats.misses, b.dquots.nr_cached) == (2, 60, 60)
    use(b, range(60))
    assert (b.dquots.stats.hits, len(b.dquots.lru)) == (60, 60)


def test_clean_ones_go_at_once_and_come_back(bench):
    b = bench()
    use(b, range(10))
    assert scan(b, 4) == 4
    assert (b.dquots.nr_cached, b.dquots.stats.reclaims) == (6, 4)
    use(b, [0])
    losses = dict(b.mm.ledger)["xfs_dquot"]
    assert (losses.nr_objects_evicted, losses.nr_objects_recreated) == (4, 1)


def test_nothing_without_fs_and_direct_reclaim(bench):
    b = bench()
    use(b, range(10))
    assert scan(b, 10, gfp.GFP_NOFS) == 0
    assert scan(b, 10, gfp.GFP_KERNEL & ~gfp.DIRECT_RECLAIM) == 0
    assert b.dquots.nr_cached == 10


def test_one_in_use_is_taken_off_the_list_and_counts(bench):
    b = bench()
    use(b, [3])
    b.call(lambda: b.dquots.dqget(3))
    assert (scan(b, 1), b.dquots.stats.wants, b.dquots.nr_cached) == (1, 1, 1)
    b.dquots.dqput(3)
    assert scan(b, 1) == 1
    assert b.dquots.nr_cached == 0


def test_a_dirty_one_is_written_first_and_the_walk_begins_anew(bench):
    b = bench()
    use(b, [0, 40], change=True)
    use(b, [80])
    # 0 is written; anew: 0 passed, 40 written; anew: 0 and 40 passed, 80 freed. Six looks.
    assert scan(b, 5) == 0
    assert (b.dquots.stats.reclaim_misses, b.dquots.stats.written, b.dquots.nr_cached) == (5, 2, 3)
    assert b.mount.disk.nr_writes == 2
    assert scan(b, 3) == 3
    assert b.dquots.nr_cached == 0


def test_6_1_reads_the_block_of_a_dirty_dquot_during_reclaim(bench):
    b = bench("6.1")
    use(b, [0], change=True)
    assert (b.scan(1), b.scan(1)) == (0, 1)  # nobody holds the block, so its buffer goes
    reads = b.buftarg.stats.reads
    scan(b, 1)
    assert (b.buftarg.stats.reads, b.dquots.stats.written) == (reads + 1, 1)


def test_7_1_holds_the_block_while_the_dquot_is_dirty(bench):
    b = bench("7.1")
    use(b, [0], change=True)
    b.scan(1)
    b.scan(1)
    assert b.buftarg.table.nr_bufs == 1
    reads = b.buftarg.stats.reads
    scan(b, 1)
    assert (b.buftarg.stats.reads, b.dquots.stats.written) == (reads, 1)
    (slot,) = b.buftarg.table.in_use()
    assert b.buftarg.table.hold[slot] == 0


def test_an_inode_keeps_its_owners_dquot_until_the_vfs_drops_it(bench):
    b = bench()

    def change():
        b.inodes.iget(1)
        b.inodes.log(1, 7)

    b.call(change)
    assert (b.dquots.nr_cached, len(b.dquots.lru), bool(b.dquots.dirty[7])) == (1, 0, True)
    b.inodes.irele(1)
    assert b.dquots.lru.oldest(5).tolist() == [7]
    assert np.flatnonzero(b.dquots.dirty).tolist() == [7]
