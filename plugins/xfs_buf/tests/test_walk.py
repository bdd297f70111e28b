from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mmfw import gfp
from mmfw.mm.core import Mm
from mmfw.plugins import load
from mmfw.rawrandom import Rng
from mmfw.scenario import load_scenario
from mmfw.sched import TaskState
from mmfw.system import plugin_params
from mmfw.testing import make_mm
from mmfw_xfs_buf import BufType, XfsBuftarg
from mmfw_xfs_buf.btree import BMBT, BNOBT, DABTREE, INOBT, RMAPBT, Btree, Role, level_counts, per_block
from mmfw_xfs_buf.inodewalk import InodeWalkParams
from mmfw_xfs_buf.params import XfsParams
from mmfw_xfs_buf.popularity import Popularity
from mmfw_xfs_buf.walk import BtreeWalkParams

SMALL = BtreeWalkParams(
    free_extents=50_000,
    rmap_records=100_000,
    file_extents=100_000,
    dir_entries=100_000,
    dir_block_bytes=65536,
    lookups_per_second=10_000,
)


def allocator() -> Callable[[int, int], int]:
    """Hands out blocks one behind the other."""
    at = [0]

    def lay_out(count: int, nr_bytes: int) -> int:
        first = at[0]
        at[0] += count * (nr_bytes // 512)
        return first

    return lay_out


@pytest.mark.parametrize(
    ("fmt", "nr_bytes", "leaf", "node"),
    # (4096 - 56) / 16 = 252 inode chunks at most, 69% of them: 173; keys and pointers of 8 bytes: 505, 348.
    [(INOBT, 4096, 173, 348), (BNOBT, 4096, 348, 231), (RMAPBT, 4096, 115, 62), (BMBT, 4096, 173, 173)],
)
def test_fan_out(fmt, nr_bytes, leaf, node):
    assert per_block(nr_bytes, fmt.block_header_bytes, fmt.record_bytes) == leaf
    assert per_block(nr_bytes, fmt.block_header_bytes, fmt.key_ptr_bytes) == node


def test_levels():
    assert level_counts(1, 173, 348) == [1]
    assert level_counts(173 * 348, 173, 348) == [1, 348]
    assert level_counts(173 * 348 + 1, 173, 348) == [1, 2, 349]
    # A root of 20 pointers in the inode needs no block until there are more than 20.
    assert level_counts(173 * 20, 173, 173, 20) == [20]
    assert level_counts(173 * 21, 173, 173, 20) == [1, 21]


def test_paths_of_an_ag_tree():
    tree = Btree(RMAPBT, 4096, 100_000, 2, allocator())
    # 50,000 records an AG: 435 leaves, 8 nodes, a root, and the AGF.
    assert (tree.nr_leaves, tree.nr_blocks) == (870, 2 * (435 + 8 + 1 + 1))
    assert [level.buf_type for level in tree.levels] == [BufType.AGF] + [BufType.RMAP_BTREE] * 3
    assert tree.roles.tolist() == [Role.HEADER, Role.ROOT, Role.INNER, Role.LEAF]
    leaves = np.arange(870)
    paths = tree.paths(leaves, np.zeros(870, dtype=np.int64))
    assert [len(np.unique(column)) for column in paths.T] == [2, 2, 16, 870]
    # 62 neighbours have one parent, and an AG's paths never meet another's.
    assert len(np.unique(paths[:62, 2])) == 1
    assert paths[61, 2] != paths[62, 2]
    assert not set(paths[:435].ravel()) & set(paths[435:].ravel())


def test_a_directory_reads_hash_blocks_and_then_names():
    tree = Btree(DABTREE, 65536, 1_000_000, 1, allocator(), 32)
    # 32 MB of names in blocks that are 69% full; a hash block has 5645 entries.
    assert (tree.nr_leaves, tree.nr_data) == (178, 708)
    paths = tree.paths(np.repeat(np.arange(178), 8), np.tile(np.arange(8), 178))
    assert [len(np.unique(column)) for column in paths.T] == [1, 178, 708]
    assert {level.nr_bytes for level in tree.levels} == {65536}


@given(
    st.sampled_from([INOBT, BNOBT, RMAPBT, BMBT, DABTREE]),
    st.sampled_from([512, 4096, 65536]),
    st.integers(1, 300_000),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_every_block_has_one_place(fmt, nr_bytes, nr_records, nr_trees):
    tree = Btree(fmt, nr_bytes, nr_records, nr_trees, allocator(), 32 if fmt is DABTREE else 0)
    assert len(tree.levels) == len(tree.roles)
    rng = np.random.default_rng(1)
    leaves = rng.integers(0, tree.nr_leaves, 300)
    paths = tree.paths(leaves, rng.integers(0, 1 << 31, 300))
    # Blocks of two sizes or levels never overlap: each daddr is met in one column only.
    seen = [set(column.tolist()) for column in paths.T]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert sum(map(len, seen)) <= tree.nr_blocks


def test_popularity_follows_zipfs_law():
    drawn = Popularity(Rng(1), 1000, 100).draw(100_000)
    counts = np.bincount(drawn, minlength=1000)
    order = np.sort(counts)[::-1]
    harmonic = float((1 / np.arange(1, 1001)).sum())
    assert order[0] == pytest.approx(100_000 / harmonic, rel=0.05)
    assert order[:10].sum() == pytest.approx(100_000 * 2.929 / harmonic, rel=0.03)
    assert int(counts.argmax()) == 0  # rank 0 lies at 0, rank 1 anywhere but beside it
    assert abs(int(np.argsort(counts)[-2])) > 1


@given(st.integers(1, 5000))
def test_ranks_are_scattered_over_all_numbers(size):
    popular = Popularity(Rng(7), size, 0)
    assert set(popular.draw(200).tolist()) <= set(range(size))
    ranks = np.arange(size) * 67_108_879 % size
    assert len(np.unique(ranks)) == size


# --- whole loads ----------------------------------------------------------------------------------------


class Machine:
    """A plugin's loads on a small machine."""

    def __init__(self, kernel: str, seed: int, ram: str, xfs: dict[str, Any]) -> None:
        self.plugins = load(["xfs"])
        self.mm: Mm = make_mm(ram, kernel=kernel, seed=seed, nr_cpus=2)
        params = plugin_params(self.plugins, {"xfs": {"nr_inodes": 65_536, **xfs}})
        self.plugins.module_init(self.mm, params)
        self.mm.start_time()
        self.tasks: list[Any] = []

    def spawn(self, name: str, params: Any) -> None:
        run = self.plugins.workloads()[name].run
        self.tasks.append(self.mm.sched.spawn(run, self.mm, params, name=name, daemon=True))

    def spawn_pressure(self, priority: int) -> None:
        """A task that asks all shrinkers every 10 ms, as a reclaim pass at a priority does."""

        def press() -> None:
            while True:
                self.mm.shrinkers.shrink_slab(gfp.GFP_KERNEL, 0, priority)
                self.mm.sched.nanosleep(10_000_000)

        self.tasks.append(self.mm.sched.spawn(press, name="pressure", daemon=True))

    def run(self, milliseconds: int) -> dict[str, int]:
        self.mm.sched.run(self.mm.sched.now + milliseconds * 1_000_000)
        return {name: metric.read(self.mm) for name, metric in self.plugins.metrics().items()}

    def end(self) -> None:
        for task in self.tasks:
            self.mm.sched.send_sigkill(task)
        self.mm.sched.run(self.mm.sched.now + 2_000_000_000)
        assert {task.state for task in self.tasks} == {TaskState.DEAD}
        self.mm.stop_time()
        self.plugins.module_exit(self.mm)
        self.mm.slab.shrink_kmalloc_caches()
        kept = self.mm.page_cache.nr_file_pages + self.mm.page_cache.nodes.nr_pages
        assert self.mm.nr_allocated_pages() == kept + self.mm.initramfs_pages
        self.mm.slab.validate()


@pytest.fixture
def machine() -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def build(kernel: str = "7.1", seed: int = 1, ram: str = "128M", **xfs: Any) -> Machine:
        made.append(Machine(kernel, seed, ram, xfs))
        return made[-1]

    yield build
    for each in made:
        each.mm.sched.close()


@pytest.mark.parametrize("kernel", ["6.1", "7.1"])
def test_under_pressure_leaves_go_and_roots_stay(machine, kernel):
    m = machine(kernel)
    m.spawn("xfs-btree-walk", SMALL)
    warm = m.run(1_000)
    assert warm["xfs_buf_disposed_ref2"] == 0
    m.spawn_pressure(4)
    end = m.run(1_000)
    assert end["xfs_btree_leaf_reads"] > warm["xfs_btree_leaf_reads"] + 300
    assert end["xfs_buf_disposed_ref2"] > 300
    assert end["xfs_buf_recreated"] > 0
    for name in ("xfs_btree_header_reads", "xfs_btree_root_reads", "xfs_btree_inner_reads"):
        assert end[name] == warm[name], name
    assert end["xfs_buf_disposed_ref4"] == 0
    # 6.1 has no folios, so nothing of it is ever asked for in vain.
    if kernel == "6.1":
        assert not any(end[f"xfs_buf_vmalloc_order{order}"] for order in (1, 2, 3, 4))
    losses = dict(m.mm.ledger)["xfs_buf"]
    assert losses.nr_objects_recreated == end["xfs_buf_recreated"]
    assert losses.nr_objects_evicted == sum(end[f"xfs_buf_disposed_ref{ref}"] for ref in range(5))
    m.end()


def test_lookups_keep_their_pace_once_all_is_cached(machine):
    m = machine()
    tiny = BtreeWalkParams(
        free_extents=1000, rmap_records=1000, file_extents=1000, dir_entries=1000, lookups_per_second=50_000
    )
    m.spawn("xfs-btree-walk", tiny)
    m.run(200)
    before = m.run(1)["xfs_btree_lookups"]
    end = m.run(1_000)
    assert end["xfs_btree_lookups"] - before == pytest.approx(50_000, abs=1024)
    misses = end["xfs_buf_misses"]
    assert m.run(100)["xfs_buf_misses"] == misses
    m.end()


def test_inodes_under_pressure(machine):
    m = machine(nr_dquots=200)
    m.spawn("xfs-inode-walk", InodeWalkParams(opens_per_second=10_000, unlink_percent=2, users=200))
    m.run(1_000)
    m.spawn_pressure(2)
    end = m.run(1_000)
    assert end["xfs_inode_shrunk"] > 0
    assert end["xfs_inode_skipped_dirty"] > 0
    assert end["xfs_inode_cluster_writes"] > 0
    assert end["xfs_dquot_misses"] > 100
    losses = dict(m.mm.ledger)["xfs_inode"]
    assert losses.nr_objects_evicted == end["xfs_inode_shrunk"]
    m.end()


def test_64k_directories_without_folios_lie_in_single_pages(machine):
    m = machine()
    # Every other page of free memory stays taken, so hardly any block of two pages is left.
    pfns = m.mm.alloc_pages_batch(gfp.GFP_NOWAIT | gfp.NOWARN, 0, 100_000)
    m.mm.free_pages_batch(pfns[pfns % 2 == 0], 0)
    others = ("ino_percent", "alloc_percent", "rmap_percent", "bmap_percent")
    m.spawn("xfs-btree-walk", SMALL.model_copy(update={"dir_percent": 100, **dict.fromkeys(others, 0)}))
    end = m.run(500)
    buftarg = m.mm.attached.get(XfsBuftarg)
    assert 0 < end["xfs_buf_vmalloc_order4"] <= buftarg.memory.folio_tries[4] == end["xfs_buf_misses"]
    assert end["xfs_buf_pages"] == 16 * buftarg.table.nr_bufs
    m.mm.free_pages_batch(pfns[pfns % 2 == 1], 0)
    m.end()


def test_same_seed_same_run(machine):
    def play(seed: int) -> tuple[dict[str, int], dict[str, int]]:
        m = machine(seed=seed)
        m.spawn("xfs-btree-walk", SMALL)
        m.spawn("xfs-inode-walk", InodeWalkParams())
        figures = m.run(200)
        return figures, m.mm.vmstat.as_dict()

    assert play(1) == play(1)
    assert play(1) != play(2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"block_bytes": 3000}, "3000 is no block size"),
        ({"dir_block_bytes": 131072}, "131072 is no block size"),
        ({"dir_block_bytes": 4096, "block_bytes": 8192}, "below block_bytes 8192"),
        ({"ino_percent": 21}, "add up to 101, not 100"),
        ({"lookups": 1}, "lookups"),
    ],
)
def test_wrong_parameters_are_named(wrong, message):
    with pytest.raises(ValidationError, match=message):
        BtreeWalkParams(**wrong)


def test_unknown_mount_parameter_is_refused():
    with pytest.raises(ValidationError, match="nr_ag"):
        XfsParams(nr_ag=3)


def test_scenario_states_every_size_and_its_loads_exist():
    scenario = load_scenario("xfs-metadata")
    assert (scenario.kernel, scenario.progress, scenario.default_for) == ("7.1", "xfs_btree_lookups", ["xfs"])
    assert [phase.name for phase in scenario.phases] == ["warm", "stream", "high-order"]
    loads = {each.name: each for each in scenario.workloads}
    walk = BtreeWalkParams(**loads["xfs-btree-walk"].params)
    assert (walk.dir_block_bytes, loads["xfs-btree-walk"].phase) == (65536, None)
    InodeWalkParams(**loads["xfs-inode-walk"].params)
    assert (loads["file-stream"].phase, loads["order-demand"].phase) == ("stream", "high-order")
    XfsParams(**scenario.params["xfs"])
    metrics = set(load(["xfs"]).metrics())
    assert set(scenario.metrics) <= metrics
    assert all(name.startswith("xfs_") for name in metrics)
