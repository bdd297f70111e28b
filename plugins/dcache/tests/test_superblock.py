"""Dentries and inodes: when they come, who keeps them, and in which order they go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl
from mmfw.gfp import FS, GFP_KERNEL, GFP_NOFS
from mmfw.testing import make_mm
from mmfw_dcache import CachedFsObjects, SuperBlock, SuperShrinker
from mmfw_dcache.objects import NONE


def ids(*numbers):
    return np.array(numbers, dtype=np.int64)


def lru_names(objects):
    return objects.lru.oldest(len(objects.lru)).tolist()


def scan(sb, nr, gfp_mask=GFP_KERNEL):
    sc = ShrinkControl(gfp_mask=gfp_mask, nid=0, nr_to_scan=nr, nr_scanned=nr)
    return SuperShrinker(sb, 100).scan_objects(sc)


@pytest.fixture
def sb():
    return SuperBlock(make_mm("256M"), "ext4")


def files_in_root(sb, nr):
    files = sb.create(np.zeros(nr, dtype=np.int64))
    assert len(files) == nr
    return files


def test_a_file_goes_to_the_young_end_when_closed_and_is_marked_only_when_used_again(sb):
    a, b, c = files_in_root(sb, 3).tolist()
    assert lru_names(sb.dentries) == []
    sb.close(ids(b))
    sb.close(ids(a, c))
    assert lru_names(sb.dentries) == [b, a, c]
    assert not sb.dentries.referenced.any()
    sb.stat(ids(b))
    # It keeps its place; only the mark is new.
    assert lru_names(sb.dentries) == [b, a, c]
    assert sb.dentries.referenced[[a, b, c]].tolist() == [False, True, False]


def test_a_walk_delists_what_is_in_use_rotates_what_was_used_and_frees_the_rest(sb):
    names = files_in_root(sb, 4)
    sb.close(names)
    opened, marked, plain, other = names.tolist()
    sb.open(ids(opened))
    sb.stat(ids(marked))
    # The one in use counts as isolated too, though nothing is freed of it.
    assert sb.prune_dcache(3) == (2, 3)
    assert sb.dentries.at[names].tolist()[2] == NONE
    assert lru_names(sb.dentries) == [other, marked]
    assert sb.dentries.nr_evicted == 1
    # Closed again, it is put at the young end, without a mark, since it was on no list.
    sb.close(ids(opened))
    assert lru_names(sb.dentries) == [other, marked, opened]
    assert not sb.dentries.referenced[opened]
    assert plain not in lru_names(sb.dentries)


def test_a_long_walk_meets_what_it_rotated_again(sb):
    names = files_in_root(sb, 5)
    sb.close(names)
    sb.stat(names)
    assert sb.prune_dcache(5) == (0, 5)
    sb.stat(names)
    assert sb.prune_dcache(8) == (3, 8)
    assert lru_names(sb.dentries) == names[3:].tolist()


def test_an_inode_waits_for_its_dentry_and_has_its_own_second_chance(sb):
    names = files_in_root(sb, 2)
    sb.close(names)
    assert len(sb.inodes.lru) == 0
    sb.prune_dcache(2)
    assert lru_names(sb.inodes) == names.tolist()
    # Looked up again the inode is found, not read; let go a second time while on the list, it is marked.
    misses = sb.counters.nr_inode_misses
    sb.stat(names[:1])
    assert sb.counters.nr_inode_misses == misses
    assert sb.prune_icache(1) == (1, 1)  # delisted, in use
    sb.prune_dcache(1)
    assert lru_names(sb.inodes) == names[::-1].tolist()
    sb.stat(names[:1])
    sb.prune_dcache(1)
    assert sb.prune_icache(2) == (1, 2)
    assert lru_names(sb.inodes) == names[:1].tolist()


def test_a_directory_stays_while_anything_below_it_is_cached_and_goes_with_the_last(sb):
    (directory,) = sb.create(ids(0))
    files = sb.create(np.full(3, directory))
    sb.close(files)
    sb.close(ids(directory))
    # Once a child goes the directory's count falls, but it is on no list before it falls to 0.
    assert lru_names(sb.dentries) == files.tolist()
    sb.prune_dcache(2)
    assert sb.dentries.at[directory] != NONE
    sb.prune_dcache(1)
    assert sb.dentries.at[directory] == NONE
    assert sb.dentries.nr_evicted == 4
    assert sb.dentries.nr_objects == 1  # the root
    # A lookup of a file brings its directory back.
    sb.stat(files[:1])
    assert sb.dentries.at[directory] != NONE


def test_a_negative_dentry_has_no_inode(sb):
    absent = sb.add_names(np.zeros(3, dtype=np.int64), exists=False)
    inodes = sb.inodes.nr_objects
    sb.stat(absent)
    assert (sb.dentries.nr_objects, sb.inodes.nr_objects) == (4, inodes)
    sb.prune_dcache(3)
    assert (sb.dentries.nr_objects, len(sb.inodes.lru)) == (1, 0)


def test_shares_are_cut_off_and_one_more_each_as_super_cache_scan_has_it(sb):
    names = files_in_root(sb, 130)
    sb.close(names)
    sb.prune_dcache(30)
    asked = []
    sb.cached_fs_objects = CachedFsObjects(
        nr_cached_objects=lambda sc: 60, free_cached_objects=lambda sc: asked.append(sc.nr_to_scan) or 5
    )
    shrinker = SuperShrinker(sb, 150)
    sc = ShrinkControl(gfp_mask=GFP_KERNEL, nid=0, nr_to_scan=20, nr_scanned=20)
    assert shrinker.count_objects(sc) == (100 + 30 + 60) * 3 // 2
    # 20 of 191: 10.47 dentries, 3.14 inodes, 6.28 of the filesystem's; one more of each.
    assert shrinker.scan_objects(sc) == 11 + 4 + 5
    assert asked == [7]
    assert (sb.dentries.nr_evicted, sb.inodes.nr_evicted) == (30 + 11, 4)
    assert sc.nr_scanned == 20


def test_without_fs_nothing_is_scanned_and_an_empty_superblock_says_so(sb):
    names = files_in_root(sb, 3)
    sc = ShrinkControl(gfp_mask=GFP_KERNEL & ~FS, nid=0, nr_to_scan=8)
    assert SuperShrinker(sb, 100).count_objects(sc) == SHRINK_EMPTY
    sb.close(names)
    assert SuperShrinker(sb, 100).count_objects(sc) == 3
    assert SuperShrinker(sb, 0).count_objects(sc) == 0
    assert scan(sb, 8, GFP_NOFS) == SHRINK_STOP
    assert sb.dentries.nr_evicted == 0


def test_what_comes_back_is_reported_with_its_age(sb):
    mm = sb.mm
    names = files_in_root(sb, 64)
    sb.close(names)
    sb.prune_dcache(64)
    sb.prune_icache(64)
    losses = dict(mm.ledger)
    assert losses["dentry"].nr_objects_evicted == losses["inode"].nr_objects_evicted == 64
    assert losses["inode"].nr_pages_evicted == sb.inodes.nr_pages_freed
    sb.stat(names)
    assert losses["dentry"].nr_objects_lost == losses["inode"].nr_objects_lost == 64
    # 64 dentries of 192 bytes fill 3 pages, 64 inodes of 1096 bytes 17.1.
    assert (losses["dentry"].nr_pages_lost, losses["inode"].nr_pages_lost) == (3, 17)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["stat", "open", "close", "create", "dcache", "icache"]),
        st.lists(st.integers(0, 99), min_size=1, max_size=20),
    ),
    max_size=60,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_counts_lists_and_slab_agree_whatever_is_done(check, steps):
    sb = SuperBlock(make_mm("128M"), "generic")
    (directory,) = sb.create(ids(0))
    sb.close(ids(directory))
    absent = sb.add_names(np.full(10, directory), exists=False)
    names = absent.tolist()
    held = []
    for what, numbers in steps:
        chosen = ids(*[names[n % len(names)] for n in numbers])
        if what == "stat":
            sb.stat(chosen)
        elif what == "open":
            held += sb.open(np.unique(chosen)).tolist()
        elif what == "close" and held:
            sb.close(ids(held.pop()))
        elif what == "create":
            new = sb.create(np.full(len(numbers), directory))
            names += new.tolist()
            sb.close(new)
        elif what == "dcache":
            sb.prune_dcache(len(numbers) * 3)
        elif what == "icache":
            sb.prune_icache(len(numbers) * 3)
        check(sb, held)
    for name in held:
        sb.close(ids(name))
    for objects in (sb.prune_dcache, sb.prune_icache):
        objects(3 * len(names))
    assert (sb.dentries.nr_objects, sb.inodes.nr_objects) == (1, 1)
