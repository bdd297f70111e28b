"""The loads, run for a while on virtual time."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import InputError
from mmfw.gfp import GFP_NOWAIT
from mmfw.run import RunRequest, run
from mmfw.scenario import load_scenario
from mmfw.sched import TaskState
from mmfw.testing import make_mm
from mmfw_dcache.plugin import (
    DcacheParams,
    mmfw_module_init,
    mmfw_register_metrics,
    mmfw_register_workloads,
)
from mmfw_dcache.storms import CreateParams, Popularity, StatParams, WalkParams

SECOND = 1_000_000_000
LOADS = {load.name: load for load in mmfw_register_workloads()}


def play(tree, name, ns=None, **params):
    """Run a load; to its end if no time is given."""
    mm, load = tree.sb.mm, LOADS[name]
    task = mm.sched.spawn(load.run, mm, load.params(**params), name=name, daemon=ns is not None)
    mm.sched.run(None if ns is None else mm.sched.now + ns)
    if ns is not None:
        mm.sched.send_sigkill(task)
        mm.sched.run(mm.sched.now + SECOND)
    assert task.state is TaskState.DEAD


def figures(tree):
    return {metric.name: metric.read(tree.sb.mm) for metric in mmfw_register_metrics()}


def test_a_create_storm_leaves_its_files_on_the_lru_but_for_those_held_open(mount):
    tree = mount(start=True)
    play(tree, "create-storm", files=5_000, pinned_percent=20, files_per_directory=300)
    assert len(tree.files) == 5_000
    assert tree.nr_open == pytest.approx(1_000, abs=120)
    assert len(tree.sb.dentries.lru) == 5_000 - tree.nr_open
    assert tree.sb.nr_unpinned() == 2 * (5_000 - tree.nr_open)
    assert figures(tree)["dcache_files_created"] == 5_000 + 17


def test_a_stat_storm_keeps_its_pace_while_everything_is_cached(mount):
    tree = mount(start=True, initial_files=10_000)
    play(tree, "stat-storm", ns=SECOND, lookups_per_second=20_000)
    got = figures(tree)
    assert got["dcache_lookups"] == pytest.approx(20_000, abs=600)
    assert got["dcache_misses"] == 0
    assert tree.sb.dentries.referenced.any()


def test_misses_slow_a_stat_storm_down_and_are_reported(mount):
    tree = mount(start=True, initial_files=10_000)
    tree.sb.mm.drop_caches(page_cache=False)
    assert tree.sb.dentries.nr_objects == 1
    play(tree, "stat-storm", ns=SECOND, lookups_per_second=20_000, read_us=200)
    got = figures(tree)
    assert 2_000 < got["dcache_lookups"] < 15_000
    assert 2_000 < got["dcache_inode_misses"] <= 5_200
    losses = dict(tree.sb.mm.ledger)["dentry"]
    assert (
        losses.nr_objects_lost == got["dcache_misses"] + 100 - (101 - len(set())) + 1
        or losses.nr_objects_lost > 0
    )


def test_a_tree_walk_looks_at_everything_once(mount):
    tree = mount(start=True, initial_files=3_000, initial_absent=600)
    tree.sb.mm.drop_caches(page_cache=False)
    play(tree, "tree-walk")
    assert (tree.sb.dentries.nr_objects, tree.sb.inodes.nr_objects) == (1 + 36 + 3_600, 1 + 36 + 3_000)


def test_an_open_storm_holds_files_and_lets_go_when_killed(mount):
    tree = mount(start=True, initial_files=3_000)
    mm = tree.sb.mm
    load = LOADS["open-storm"]
    task = mm.sched.spawn(load.run, mm, load.params(held_open=500), name="open", daemon=True)
    mm.sched.run(SECOND)
    held = int((tree.sb.dentries.count[tree.files] > 0).sum())
    assert 100 < held <= 500 + 256
    mm.sched.send_sigkill(task)
    mm.sched.run(2 * SECOND)
    assert (tree.sb.dentries.count[tree.files] == 0).all()


def test_pressure_makes_kswapd_free_the_share_and_gives_all_back(mount):
    tree = mount(start=True, initial_files=60_000, initial_pinned_percent=10)
    mm = tree.sb.mm
    unpinned = tree.sb.nr_unpinned()
    free = mm.global_free_pages()
    play(tree, "reclaim-objects", percent=90)
    got = figures(tree)
    assert got["dcache_objects_freed"] >= 0.9 * unpinned
    assert mm.global_free_pages() >= free
    assert mm.vmstat.as_dict()["pageoutrun"] >= 1


@pytest.mark.parametrize("slab_page_reclaim", [False, True])
def test_loads_that_wait_for_memory_beside_each_other_leave_everything_whole(mount, check, slab_page_reclaim):
    tree = mount(
        start=True, nr_cpus=2, initial_files=60_000, initial_pinned_percent=2, slab_page_reclaim=slab_page_reclaim,
        slab_page_percent=60,
    )  # fmt: skip
    mm = tree.sb.mm
    pinned = tree.files[tree.sb.dentries.count[tree.files] > 0]
    taken = mm.alloc_pages_batch(GFP_NOWAIT, 0, mm.global_free_pages() - 3_000)
    loads = [
        ("stat-storm", {"read_us": 20, "hot_percent": 10}),
        ("stat-storm", {"read_us": 20, "hot_percent": 10}),
        ("tree-walk", {}),
        ("open-storm", {"read_us": 20, "held_open": 300}),
        ("reclaim-objects", {"percent": 100, "pause_us": 100}),
        ("reclaim-objects", {"percent": 100, "order": 3}),
    ]
    tasks = [
        mm.sched.spawn(LOADS[name].run, mm, LOADS[name].params(**params), name=name, daemon=True)
        for name, params in loads
    ]
    mm.sched.run(SECOND)
    assert tree.sb.dentries.nr_evicted > 20_000
    assert mm.vmstat.as_dict()["allocstall_normal"] + mm.vmstat.as_dict()["allocstall_dma32"] > 0
    for task in tasks:
        mm.sched.send_sigkill(task)
    mm.sched.run(3 * SECOND)
    assert all(task.state is TaskState.DEAD for task in tasks)
    check(tree.sb, pinned.tolist())
    mm.free_pages_batch(taken, 0)


def test_half_of_zipfs_lookups_ask_for_few_names():
    rng = make_mm("128M").rng("test")
    names = np.arange(10_000)
    drawn = Popularity(rng, names, 100).draw(100_000)
    counts = np.sort(np.bincount(drawn, minlength=10_000))[::-1]
    # The harmonic numbers: H(74)/H(10000) is a half.
    assert counts[:74].sum() / 100_000 == pytest.approx(0.5, abs=0.01)
    uniform = Popularity(rng, names, 0).draw(100_000)
    assert np.bincount(uniform, minlength=10_000).max() < 40


def test_a_load_without_names_or_without_a_filesystem_is_refused(mount):
    with pytest.raises(InputError, match="initial_files"):
        LOADS["stat-storm"].run(mount().sb.mm, StatParams())
    with pytest.raises(InputError, match="load plugin dcache"):
        LOADS["tree-walk"].run(make_mm("128M"), WalkParams())
    with pytest.raises(InputError, match="initial_absent want some 141210 pages"):
        mmfw_module_init(make_mm("256M"), DcacheParams(initial_files=300_000, initial_absent=1_000_000))
    with pytest.raises(ValueError, match="pinned_percent"):
        CreateParams(pinned_percent=101)


def test_resident_objects_lie_in_pages_of_the_state(mount):
    tree = mount("256M", initial_files=0)
    free = tree.sb.mm.global_free_pages()
    resident = mount("256M", initial_files=300, initial_absent=50, initial_memory="resident")
    assert resident.sb.dentries.nr_objects == 1 + 4 + 350
    assert resident.sb.mm.global_free_pages() >= free
    assert set(resident.sb.inodes.cache.slabs().order.tolist()) <= {0, 3}


def test_the_scenario_is_read_and_its_knob_is_there():
    scenario = load_scenario("slab-mixed-lifetimes", {"pinned_percent": 1})
    assert [phase.name for phase in scenario.phases] == ["create", "order-0", "refill", "order-9"]
    assert scenario.workloads[0].params["pinned_percent"] == 1


def test_a_small_run_of_the_scenario_frees_nine_objects_in_ten_and_not_one_page_in_ten():
    """The acceptance of the experiment, at both orders, on a hundredth of the files."""
    request = RunRequest(scenario="slab-mixed-lifetimes", machine="256M", overrides={"files": 40_000})
    result = run(request)
    create, order_0, refill, order_9 = result.phases
    for before, reclaim in ((create, order_0), (refill, order_9)):
        there = before.metrics["dcache_nr_dentries"] + before.metrics["dcache_nr_inodes"]
        # A tenth of the files, and their directories, are held.
        assert reclaim.metrics["dcache_objects_freed"] > 0.9 * 0.9 * there
        assert reclaim.metrics["dcache_slab_pages_freed"] < 0.1 * before.metrics["dcache_slab_pages"]
        assert reclaim.vmstat["slabs_scanned"] > 0
    assert refill.metrics["dcache_misses"] > 0.8 * 40_000
    assert result.leak_checked
