"""Objects freed against pages freed, and reclaim that is directed at pages."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import CompactionScan, MigrateMode, ScanPhase, ShrinkControl
from mmfw.gfp import GFP_KERNEL
from mmfw_dcache import SlabPageSuperShrinker, SuperShrinker


def prune_everything(sb):
    sb.prune_dcache(2 * len(sb.dentries.lru))
    sb.prune_icache(2 * len(sb.inodes.lru))


@pytest.mark.parametrize("q", [1, 5, 10, 20])
def test_pages_go_as_often_as_none_of_their_objects_is_held(mount, q):
    tree = mount(
        "512M", fs="generic", initial_files=200_000, initial_pinned_percent=q, files_per_directory=100_000
    )
    sb = tree.sb
    pinned = tree.nr_open / 200_000
    assert pinned == pytest.approx(q / 100, rel=0.05)
    for objects, n in ((sb.dentries, 21), (sb.inodes, sb.inodes.cache.geometry.oo.objects)):
        assert objects.cache.geometry.oo.objects == n
    before = sb.dentries.cache.nr_pages, sb.inodes.cache.nr_pages
    prune_everything(sb)
    assert sb.nr_unpinned() == 0
    assert sb.dentries.nr_evicted == sb.inodes.nr_evicted == 200_000 - tree.nr_open
    for objects, pages in zip((sb.dentries, sb.inodes), before, strict=True):
        n = objects.cache.geometry.oo.objects
        expected = (1 - pinned) ** n
        # Four standard deviations of so many slabs, and the empty slabs that are kept.
        nr_slabs = pages >> objects.cache.geometry.oo.order
        slack = 4 * (expected * (1 - expected) / nr_slabs) ** 0.5 + 25 / nr_slabs
        assert objects.nr_pages_freed / pages == pytest.approx(expected, abs=slack)


def test_nine_objects_in_ten_and_fewer_pages_than_one_in_ten(mount):
    tree = mount("512M", initial_files=120_000, initial_pinned_percent=10)
    sb = tree.sb
    unpinned, pages = sb.nr_unpinned(), sb.dentries.cache.nr_pages + sb.inodes.cache.nr_pages
    prune_everything(sb)
    freed = sb.dentries.nr_evicted + sb.inodes.nr_evicted
    assert freed > 0.9 * unpinned
    assert sb.dentries.nr_pages_freed + sb.inodes.nr_pages_freed < 0.1 * pages


def scan(shrinker, nr):
    sc = ShrinkControl(gfp_mask=GFP_KERNEL, nid=0, nr_to_scan=nr, nr_scanned=nr)
    return shrinker.scan_objects(sc)


def test_directed_at_pages_a_tenth_of_the_objects_gives_far_more_pages(mount):
    yields = []
    for directed in (False, True):
        tree = mount("512M", initial_files=100_000, initial_pinned_percent=5, seed=3)
        sb = tree.sb
        shrinker = SlabPageSuperShrinker(sb, 100, 100, True) if directed else SuperShrinker(sb, 100)
        while sb.dentries.nr_evicted + sb.inodes.nr_evicted < 20_000:
            assert scan(shrinker, 1024) > 0
        objects = sb.dentries.nr_evicted + sb.inodes.nr_evicted
        yields.append((sb.dentries.nr_pages_freed + sb.inodes.nr_pages_freed) / objects)
    assert yields[1] > 2 * yields[0]


def test_a_slab_with_one_object_that_is_held_or_was_used_keeps_them_all(mount):
    tree = mount(initial_files=210, files_per_directory=1000)
    sb = tree.sb
    files = tree.files
    dentries = sb.dentries.cache
    slab = dentries.slab_of(dentries.object_at(sb.dentries.place(files)))
    first, second, third = np.unique(slab)[2:5]
    sb.open(files[slab == first][:1])
    sb.stat(files[slab == second][:1])
    shrinker = SlabPageSuperShrinker(sb, 100, 100, True)
    zone = sb.mm.pgdat.node_zones[1]

    def compact(*, opportunistic):
        cs = CompactionScan(
            zone=zone, nid=0, order=0, pfn_lo=int(first), pfn_hi=int(first) + 1, nr_to_free=1,
            opportunistic=opportunistic, mode=MigrateMode.SYNC, gfp_mask=GFP_KERNEL, migratetype=1,
            phase=ScanPhase.PAGEBLOCK,
        )  # fmt: skip
        results = []
        for pfn in (first, second, third):
            cs.pfn_lo, cs.pfn_hi = int(pfn), int(pfn) + 1
            results.append(shrinker.compaction_scan(cs))
        return results, cs.nr_scanned

    assert dentries.inuse(int(third)) == 21
    results, nr_scanned = compact(opportunistic=True)
    assert results[:2] == [0, 0]
    assert nr_scanned == 63
    assert [dentries.inuse(int(pfn)) for pfn in (first, second, third)] == [21, 21, 0]
    compact(opportunistic=False)
    assert [dentries.inuse(int(pfn)) for pfn in (first, second)] == [21, 0]


def test_inodes_go_with_their_unused_dentries(mount):
    tree = mount(initial_files=290, files_per_directory=1000)
    sb = tree.sb
    shrinker = SlabPageSuperShrinker(sb, 100, 100, True)
    lo, hi = int(sb.inodes.cache.slabs().pfn[0]), int(sb.inodes.cache.slabs().pfn[-1]) + 8
    cs = CompactionScan(
        zone=sb.mm.pgdat.node_zones[1], nid=0, order=3, pfn_lo=lo, pfn_hi=hi, nr_to_free=64, opportunistic=False,
        mode=MigrateMode.SYNC, gfp_mask=GFP_KERNEL, migratetype=1, phase=ScanPhase.ENTRY,
    )  # fmt: skip
    before = sb.inodes.nr_objects
    freed = shrinker.compaction_scan(cs)
    assert freed == sb.dentries.nr_pages_freed + sb.inodes.nr_pages_freed > 0
    assert sb.inodes.nr_objects < before
    assert not sb.dentries.lru.holds(np.flatnonzero(sb.dentries.at == -1)).any()
