"""Caches by parameters: what a scan takes, what comes back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl
from mmfw.gfp import GFP_KERNEL, GFP_NOFS
from mmfw.testing import make_mm
from mmfw_generic_slab import CacheSpec, ShrinkableCache, linux_shrinkers
from mmfw_generic_slab.plugin import GenericSlabParams, share_out


def ids(*numbers):
    return np.array(numbers, dtype=np.int64)


def scan(cache, nr, gfp_mask=GFP_KERNEL):
    return cache.scan_objects(ShrinkControl(gfp_mask=gfp_mask, nid=0, nr_to_scan=nr, nr_scanned=nr))


def test_first_in_is_first_out_and_use_alone_saves_nothing(caches):
    cache = caches({"name": "fifo", "object_size": 128, "objects": 10}).caches["fifo"]
    cache.touch(np.arange(5))
    assert scan(cache, 4) == 4
    assert cache.is_cached(np.arange(10)).tolist() == [False] * 4 + [True] * 6
    assert cache.touch(ids(1, 1, 3)) == 2
    assert (cache.nr_misses, cache.nr_hits) == (2, 6)
    scan(cache, 6)
    assert np.flatnonzero(cache.is_cached(np.arange(10))).tolist() == [1, 3]


def test_a_second_chance_is_one(caches):
    cache = caches({"name": "second", "object_size": 128, "objects": 6, "second_chance": True}).caches[
        "second"
    ]
    cache.touch(ids(0, 2))
    assert scan(cache, 3) == 1
    assert np.flatnonzero(cache.is_cached(np.arange(6))).tolist() == [0, 2, 3, 4, 5]
    assert scan(cache, 4) == 4
    assert np.flatnonzero(cache.is_cached(np.arange(6))).tolist() == [2]
    # Made by this use and used by the same call again: marked.
    cache.touch(ids(4, 4))
    assert scan(cache, 2) == 1
    assert np.flatnonzero(cache.is_cached(np.arange(6))).tolist() == [4]


def test_pinned_objects_are_not_counted_and_keep_their_slabs(caches):
    spec = {"name": "pinned", "object_size": 192, "objects": 21_000, "pinned_percent": 10}
    cache = caches(spec).caches["pinned"]
    sc = ShrinkControl(gfp_mask=GFP_KERNEL, nid=0)
    on_lru = cache.count_objects(sc)
    assert on_lru == pytest.approx(18_900, abs=200)
    pages = cache.nr_pages
    assert scan(cache, 30_000) == on_lru
    assert cache.count_objects(sc) == SHRINK_EMPTY
    # (1 - 0.1)**21 is 0.109.
    assert cache.nr_pages_freed / pages == pytest.approx(0.109, abs=0.04)
    assert cache.nr_objects == 21_000 - on_lru


def test_without_fs_a_filesystems_cache_stops_and_others_do_not(caches):
    state = caches(
        {"name": "fs", "object_size": 64, "objects": 5, "needs_fs": True},
        {"name": "any", "object_size": 64, "objects": 5},
    )
    assert scan(state.caches["fs"], 5, GFP_NOFS) == SHRINK_STOP
    assert scan(state.caches["any"], 5, GFP_NOFS) == 5


def test_blocks_come_back_whole(caches):
    cache = caches({"name": "nodes", "kind": "block", "order": 6, "objects": 8}).caches["nodes"]
    assert cache.nr_pages == 8 * 64
    assert scan(cache, 3) == 3
    assert cache.nr_pages_freed == 3 * 64
    assert cache.touch(ids(0, 1, 7)) == 2
    assert cache.nr_pages == 7 * 64


def test_losses_are_reported_under_the_caches_name():
    mm = make_mm("128M")
    cache = ShrinkableCache(mm, CacheSpec(name="lost", object_size=2048), 40)
    cache.fill(resident=False)
    scan(cache, 12)
    cache.touch(np.arange(20))
    losses = dict(mm.ledger)["lost"]
    assert (losses.nr_objects_evicted, losses.nr_objects_lost, losses.nr_pages_lost) == (12, 12, 6)


def test_shares_are_of_pages_and_explicit_numbers_are_kept():
    specs = [
        CacheSpec(name="a", object_size=1024, share=3),
        CacheSpec(name="b", kind="block", order=1, share=1),
        CacheSpec(name="c", object_size=64, objects=7),
        CacheSpec(name="d", object_size=64, share=0),
    ]
    assert share_out(specs, 1000) == [750 * 4, 125, 7, 0]
    assert share_out(specs, 0) == [0, 0, 7, 0]


def test_the_table_has_forty_odd_shrinkers_each_with_a_source():
    table = linux_shrinkers()
    assert len(table) >= 40
    assert (
        len({spec.name for spec in table})
        == len({spec.slab_cache or spec.name for spec in table})
        == len(table)
    )
    assert all(spec.file and spec.size_from for spec in table)
    by_name = {spec.name: spec for spec in table}
    # Facts of 6.1's sources.
    assert (by_name["sb-ext4"].batch, by_name["x86-mmu"].seeks, by_name["nfsd-reply"].seeks) == (1024, 20, 1)
    assert (by_name["drm-i915_gem"].batch, by_name["nfs-xattr-entry"].batch) == (4096, 512)
    assert [by_name[name].needs_fs for name in ("gfs2-glock", "nfs-acl", "ext4-es")] == [True, True, False]


def test_the_whole_table_stands_on_a_small_machine(caches):
    state = caches(total_pages=12_000)
    assert len(state.caches) == len(state.shrinkers) == len(linux_shrinkers())
    assert sum(cache.nr_pages for cache in state.caches.values()) == pytest.approx(12_000, rel=0.15)
    assert all(cache.nr_objects == cache.nr_keys > 0 for cache in state.caches.values())


def test_resident_slabs_take_no_free_page(caches):
    state = caches({"name": "r", "object_size": 1096, "objects": 300}, initial_memory="resident")
    assert (state.caches["r"].nr_objects, state.caches["r"].nr_pages) == (300, 100)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"caches": [{"name": "x", "object_size": 5000}]}, "8 to 4096"),
        ({"caches": [{"name": "x", "object_size": 64}] * 2}, "two caches are named 'x'"),
        ({"leave_out": ["ext3"]}, "no 'ext3'"),
        ({"caches": [{"name": "x", "size": 64}]}, "size"),
    ],
)
def test_bad_parameters_are_refused(params, said):
    with pytest.raises(ValidationError, match=said):
        GenericSlabParams.model_validate(params)


def test_a_row_can_be_replaced_or_left_out():
    params = GenericSlabParams.model_validate(
        {
            "caches": [{"name": "mbcache", "object_size": 64}, {"name": "own", "object_size": 32}],
            "leave_out": ["f2fs"],
        }
    )
    specs = {spec.name: spec for spec in params.specs()}
    assert specs["mbcache"].object_size == 64
    assert "f2fs" not in specs
    assert list(specs)[-1] == "own"


@settings(max_examples=30, deadline=None)
@given(
    st.booleans(),
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 49), min_size=1, max_size=30)), max_size=40),
)
def test_keys_list_and_memory_agree_whatever_is_done(second_chance, steps):
    mm = make_mm("128M")
    spec = CacheSpec(name="x", object_size=600, second_chance=second_chance, pinned_percent=20)
    cache = ShrinkableCache(mm, spec, 50)
    cache.fill(resident=False)
    nr_pinned = 50 - cache.nr_on_lru
    for touching, keys in steps:
        if touching:
            cache.touch(ids(*keys))
            assert cache.is_cached(ids(*keys)).all()
        else:
            before = cache.nr_objects
            assert before - scan(cache, len(keys)) == cache.nr_objects
        assert cache.nr_objects == int(cache.is_cached(np.arange(50)).sum()) == cache.nr_on_lru + nr_pinned
        assert mm.slab.caches[-1].nr_objects == cache.nr_objects
