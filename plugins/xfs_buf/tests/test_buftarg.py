from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfw_xfs_buf import BufType, Level
from mmfw_xfs_buf.paths import read_paths
from mmfw_xfs_buf.table import DONE, LOCKED

READ_4K_NS = 80_000 + 3815  # latency, and 4096 bytes at 1 GiB/s
SWITCH_NS = 1_500


def test_a_miss_waits_for_the_device_and_a_hit_does_not(bench):
    b = bench()

    def twice():
        times = []
        for _ in range(2):
            start = b.sched.now
            slot = b.buftarg.read(1 << 20, 4096, BufType.BMAP_BTREE)
            times.append(b.sched.now - start)
            b.buftarg.rele(slot)
        return times

    assert b.call(twice) == [READ_4K_NS + SWITCH_NS, 0]
    stats = b.buftarg.stats
    assert (stats.hits, stats.misses, stats.reads, b.mount.disk.bytes_read) == (1, 1, 1, 4096)


def test_two_readers_of_a_block_wait_for_one_read(bench):
    b = bench(nr_cpus=2)
    tasks = [
        b.sched.spawn(lambda: b.buftarg.read(1 << 20, 65536, BufType.DIR_BTREE), name=f"reader{i}")
        for i in range(3)
    ]
    b.sched.run()
    (slot,) = {task.result for task in tasks}
    assert (b.buftarg.stats.reads, b.buftarg.table.hold[slot]) == (1, 3)
    assert b.buftarg.table.flags[slot] == DONE


def test_readahead_reads_without_its_caller(bench):
    b = bench()

    def ahead():
        start = b.sched.now
        assert b.buftarg.readahead(1 << 20, 8192, BufType.INODE)
        assert b.buftarg.readahead(1 << 20, 8192, BufType.INODE)  # on its way
        assert b.sched.now == start
        slot = int(b.buftarg.lookup(np.array([1 << 20]))[0])
        assert b.buftarg.table.flags[slot] == LOCKED
        assert b.scan(8) == 0  # not on the LRU before it has been read
        b.buftarg.rele(b.buftarg.read(1 << 20, 8192, BufType.INODE))
        return b.sched.now - start

    assert b.call(ahead) == 80_000 + 2 * 3815 + SWITCH_NS
    assert (b.buftarg.stats.reads, b.buftarg.nr_lru) == (1, 1)


def test_the_device_serves_as_many_as_it_has_channels(bench):
    b = bench(disk_channels=2, nr_cpus=4)
    done = []

    def reader(daddr):
        b.buftarg.read(daddr, 512, BufType.AGF)
        done.append(b.sched.now)

    for i in range(4):
        b.sched.spawn(reader, i * 8, name=f"reader{i}")
    b.sched.run()
    one = 80_000 + 512 * 3815 // 4096
    assert [round(at / one) for at in done] == [1, 1, 2, 2]


def test_eviction_and_return_are_on_the_ledger(bench):
    b = bench()

    def load():
        slot = b.buftarg.read(1 << 20, 65536, BufType.DIR_BTREE)
        b.buftarg.set_ref(slot, 1)
        b.buftarg.rele(slot)
        assert (b.scan(1), b.scan(1)) == (0, 1)
        b.sched.sleep(3_000_000_000)
        b.buftarg.rele(b.buftarg.read(1 << 20, 65536, BufType.DIR_BTREE))
        assert b.scan(16) == 0
        assert b.scan(16) == 1
        b.sched.sleep(11_000_000_000)
        b.buftarg.rele(b.buftarg.read(1 << 20, 65536, BufType.DIR_BTREE))

    b.call(load)
    losses = dict(b.mm.ledger)["xfs_buf"]
    assert (losses.nr_objects_evicted, losses.nr_pages_evicted, losses.nr_pages_located) == (2, 32, 32)
    assert (losses.nr_objects_recreated, losses.nr_pages_recreated) == (2, 32)
    assert (losses.nr_objects_lost, losses.nr_pages_lost) == (1, 16)  # 3 s after; 11 s is no working set
    assert b.buftarg.stats.recreated == 2


LEVELS = (
    Level(512, BufType.AGF),
    Level(4096, BufType.ALLOC_BTREE),
    Level(8192, BufType.ATTR_BTREE),
)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 9), st.integers(0, 3)), max_size=40
    ),
    st.sampled_from(["6.1", "7.1"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_paths_at_once_are_the_same_as_one_by_one(bench, steps, kernel):
    """Against single reads, with scans in between; compares what is cached, in which order, and with which weight."""
    batch, single = bench(kernel), bench(kernel)
    first = batch.mount.lay_out(1 << 16, 4096)
    assert single.mount.lay_out(1 << 16, 4096) == first
    paths = np.array(
        [[first + a, first + 64 + 8 * m, first + 1024 + 16 * n] for a, m, n, _ in steps], dtype=np.int64
    ).reshape(-1, 3)
    scans = [scan for *_, scan in steps]

    def by_batch():
        misses = np.zeros(3, dtype=np.int64)
        at = 0
        for i, scan in enumerate(scans, 1):
            if scan == 3 or i == len(scans):
                read_paths(batch.buftarg, paths[at:i], LEVELS, misses)
                at = i
                batch.scan(7)
        return misses.tolist()

    def one_by_one():
        misses = [0, 0, 0]
        for i, (path, scan) in enumerate(zip(paths.tolist(), scans, strict=True), 1):
            held = []
            for place, (daddr, level) in enumerate(zip(path, LEVELS, strict=True)):
                before = single.buftarg.stats.misses
                held.append(single.buftarg.read(daddr, *level))
                single.buftarg.set_ref(held[-1])
                misses[place] += single.buftarg.stats.misses - before
            for slot in held:
                single.buftarg.rele(slot)
            if scan == 3 or i == len(scans):
                single.scan(7)
        return misses

    assert batch.call(by_batch) == single.call(one_by_one)
    states = []
    for b in (batch, single):
        lru = b.buftarg.lru.oldest(b.buftarg.nr_lru)
        t = b.buftarg.table
        assert not t.hold[lru].any()
        states.append(sorted(zip(t.daddr[lru].tolist(), t.lru_ref[lru].tolist(), strict=True)))
    assert states[0] == states[1]
    stats = batch.buftarg.stats
    assert stats.hits + stats.misses == paths.size
    assert stats.misses == single.buftarg.stats.misses


def test_the_path_above_a_read_is_held(bench):
    b = bench("7.1", nr_cpus=2)
    path = np.array([[1 << 20, (1 << 20) + 8, (1 << 20) + 32]])
    misses = np.zeros(3, dtype=np.int64)
    b.sched.spawn(lambda: read_paths(b.buftarg, path, LEVELS, misses), name="walker")
    b.sched.run(250_000)  # two reads are done, the third is under way
    root, inner, leaf = b.buftarg.lookup(path[0]).tolist()
    assert b.buftarg.table.hold[[root, inner, leaf]].tolist() == [1, 1, 1]
    assert b.buftarg.table.flags[leaf] == LOCKED
    assert b.scan(100) == 2  # both are taken off the list, with their weight
    b.sched.run()
    assert b.buftarg.table.lru_ref[[root, inner, leaf]].tolist() == [4, 2, 1]
    assert (b.buftarg.nr_lru, misses.tolist()) == (3, [1, 1, 1])


@pytest.mark.parametrize("kernel", ["6.1", "7.1"])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([512, 1536, 4096, 8192, 12288, 65536]), st.sampled_from("hrs"), st.integers(0, 3)
        ),
        max_size=20,
    )
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_are_conserved(bench, kernel, steps):
    b = bench(kernel)
    for nr_bytes, fate, nr_to_scan in steps:
        slot = b.buftarg.get(b.daddr(nr_bytes), nr_bytes, BufType.ATTR_BTREE)
        if fate == "s":
            b.buftarg.stale(slot)
        if fate != "h":
            b.buftarg.rele(slot)
        b.scan(nr_to_scan)
        slabs = sum(cache.nr_pages for cache in b.mm.slab.caches)
        b.mm.drain_all_pages()
        assert b.before - b.mm.global_free_pages() == b.buftarg.nr_pages + slabs
