"""Slab caches on a machine: pages they take, keep and give back. The lists themselves are the twin's matter."""

from __future__ import annotations

import numpy as np
import pytest

from mmfw import gfp, hookimpl
from mmfw.errors import CallerError
from mmfw.gfp import GFP_ATOMIC, GFP_KERNEL
from mmfw.jit import page as pg
from mmfw.jit import slab_lists as jit
from mmfw.mm.sanitize import CorruptMemory
from mmfw.mm.slab import BadObject
from mmfw.mm.trace import MmVmscanDirectReclaimEnd
from mmfw.proc.gauges import meminfo_of, node_stats
from mmfw.testing import make_mm, recorded

NO_RECLAIM = GFP_KERNEL & ~gfp.RECLAIM


def dentry_cache(mm):
    return mm.slab.kmem_cache_create("dentry", 192, flags=mm.slab.SLAB_RECLAIM_ACCOUNT)


#: May take the last page.
EVERYTHING = NO_RECLAIM | gfp.MEMALLOC


def fill(mm):
    """Allocate pages one by one down to the min watermarks."""
    return mm.alloc_pages_batch(NO_RECLAIM | gfp.NOMEMALLOC, 0, 1 << 17)


def fragment(mm, leave):
    """Allocate every page, then free some of which no two are neighbours."""
    mm.drain_all_pages()
    pages = np.sort(mm.alloc_pages_batch(EVERYTHING, 0, 1 << 17))
    mm.free_pages_batch(pages[1::2][:leave], 0)
    mm.drain_all_pages()


def on_slab(cache, objects):
    """The objects grouped by slab, in the order given otherwise."""
    return objects[np.argsort(cache.slab_of(objects), kind="stable")]


# --- objects ------------------------------------------------------------------------------------------


def test_a_slab_is_filled_before_the_next_is_taken_and_its_pages_are_the_caches():
    mm = make_mm("256M")
    cache = dentry_cache(mm)
    before = mm.nr_allocated_pages()
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 43)
    pfns = cache.slab_of(objects)
    assert [len(set(pfns[at : at + 21].tolist())) for at in (0, 21)] == [1, 1]
    assert (cache.nr_slabs, cache.nr_pages, cache.nr_objects, mm.nr_allocated_pages() - before) == (
        3,
        3,
        43,
        3,
    )
    assert [cache.inuse(int(pfn)) for pfn in pfns[[0, 21, 42]]] == [21, 21, 1]
    assert sorted(cache.objects_of(int(pfns[0])).tolist()) == sorted(objects[:21].tolist())
    assert mm.slab.cache_of(int(pfns[0])) is cache
    assert mm.slab.cache_of(int(pfns[0]) + 50) is None


def test_a_new_slab_is_threaded_in_a_random_order_that_the_seed_decides():
    def order(seed):
        cache = dentry_cache(make_mm("256M", seed=seed))
        return (cache.place_of(cache.kmem_cache_alloc_bulk(GFP_KERNEL, 42)) % 21).tolist()

    first = order(0)
    assert sorted(first[:21]) == sorted(first[21:]) == list(range(21))
    # one sequence a cache, begun anywhere
    turn = first[:21].index(first[21])
    assert first[:21][turn:] + first[:21][:turn] == first[21:]
    assert first[:21] != list(range(21))
    assert order(0) == first
    assert order(1) != first


def test_what_was_freed_last_is_handed_out_first():
    cache = dentry_cache(make_mm("256M"))
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 10)
    cache.kmem_cache_free_bulk(objects[[2, 7, 4]])
    assert cache.kmem_cache_alloc_bulk(GFP_KERNEL, 3).tolist() == objects[[4, 7, 2]].tolist()


def test_bulk_is_the_loop():
    one, other = (dentry_cache(make_mm("256M")) for _ in range(2))
    bulk = one.kmem_cache_alloc_bulk(GFP_KERNEL, 500)
    loop = [other.kmem_cache_alloc(GFP_KERNEL) for _ in range(500)]
    assert bulk.tolist() == loop
    one.kmem_cache_free_bulk(bulk[::3])
    for obj in loop[::3]:
        other.kmem_cache_free(obj)
    assert one.kmem_cache_alloc_bulk(GFP_KERNEL, 300).tolist() == [
        other.kmem_cache_alloc(GFP_KERNEL) for _ in range(300)
    ]
    assert (one.store.slabs == other.store.slabs).all()


def test_places_number_the_objects_of_a_cache_densely():
    mm = make_mm("256M")
    mm.slab.kmem_cache_create("other", 64)
    cache = dentry_cache(mm)
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 21 * 1000)
    places = cache.place_of(objects)
    assert len(np.unique(places)) == len(objects)
    assert places.max() < cache.nr_places < 3 * len(objects)
    assert cache.object_at(places).tolist() == objects.tolist()
    assert objects.min() > 1 << 32


def test_places_stay_when_the_cache_grows():
    cache = dentry_cache(make_mm("256M"))
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 100)
    pfns, places = cache.slab_of(objects), cache.nr_places
    cache.kmem_cache_alloc_bulk(GFP_KERNEL, 10_000)
    assert cache.nr_places > places
    assert cache.slab_of(objects).tolist() == pfns.tolist()


# --- what pins a page ---------------------------------------------------------------------------------


def test_freeing_all_but_one_object_of_each_slab_frees_no_page():
    mm = make_mm("256M")
    cache = dentry_cache(mm)
    objects = on_slab(cache, cache.kmem_cache_alloc_bulk(GFP_KERNEL, 21 * 2000)).reshape(2000, 21)
    owned = mm.nr_allocated_pages()
    cache.kmem_cache_free_bulk(mm.rng("order").shuffled(objects[:, 1:].ravel()))
    assert (cache.nr_objects, cache.nr_slabs, mm.nr_allocated_pages()) == (2000, 2000, owned)
    # 95% are free, and so the same number fits in without another page
    cache.kmem_cache_alloc_bulk(GFP_KERNEL, 2000 * 20)
    assert (cache.nr_slabs, mm.nr_allocated_pages()) == (2000, owned)


@pytest.mark.parametrize(("size", "share"), [(192, 0.9**21), (1176, 0.9**27)])
def test_freeing_90_percent_at_random_frees_the_pages_whose_objects_all_went(size, share):
    mm = make_mm("512M")
    cache = mm.slab.kmem_cache_create("inode", size)
    per_slab = cache.geometry.oo.objects
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, per_slab * 2000)
    gone = mm.rng("victims").shuffled(objects)[: len(objects) * 9 // 10]
    cache.kmem_cache_free_bulk(gone)
    table = cache.slabs()
    empty = int((table.inuse == 0).sum())
    freed = 2000 - cache.nr_slabs
    # 219 and 116 of 2000 are expected, give or take four standard deviations; the few empty ones are kept
    expected = 2000 * share
    assert abs(freed + empty - expected) < 4 * expected**0.5
    assert empty <= cache.geometry.min_partial + cache.geometry.cpu_partial_slabs + 1


def test_freeing_all_objects_of_some_pages_frees_these_pages():
    mm = make_mm("256M")
    cache = dentry_cache(mm)
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 21 * 2000)
    cache.kmem_cache_free_bulk(mm.rng("victims").shuffled(objects)[: len(objects) * 8 // 10])
    table = cache.slabs()
    sparse = np.argsort(np.where(table.frozen | (table.inuse == 0), 99, table.inuse), kind="stable")[:300]
    before, owned = cache.nr_slabs, mm.nr_allocated_pages()
    for pfn in table.pfn[sparse].tolist():
        cache.kmem_cache_free_bulk(cache.objects_of(pfn))
        assert cache.inuse(pfn) == 0
        assert mm.slab.cache_of(pfn) is None
    assert (before - cache.nr_slabs, owned - mm.nr_allocated_pages()) == (300, 300)
    assert not np.isin(table.pfn[sparse], cache.slabs().pfn).any()


def test_empty_slabs_are_kept_by_the_cpu_and_up_to_min_partial_by_the_node():
    # 1024 bytes on one CPU: order 1, 8 objects; min_partial 5, six slabs on the CPU's list (2 * 24 / 8).
    mm = make_mm("256M")
    cache = mm.slab.kmem_cache_create("buf", 1024)
    slabs = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 160).reshape(20, 8)
    left = []
    for objects in slabs:
        cache.kmem_cache_free_bulk(objects)
        left.append(cache.nr_slabs)
    # The first object of a full slab puts it on the CPU's list. The seventh finds six there, all empty: the node
    # keeps five, one goes. Every six slabs later six more go. The last slab is the CPU's own.
    assert left == [20] * 6 + [19] * 6 + [13] * 6 + [7] * 2
    assert cache.nr_objects == 0
    assert cache.store.C[jit.K_NR_PARTIAL] == 5
    info = cache.slabinfo()
    assert (info.num_objs, info.active_objs, info.num_slabs, info.active_slabs) == (56, 16, 7, 7)
    owned = mm.nr_allocated_pages()
    assert cache.kmem_cache_shrink() == 0
    assert (cache.nr_slabs, owned - mm.nr_allocated_pages()) == (0, 14)


def test_shrinking_keeps_slabs_in_use_and_brings_the_fullest_to_the_front():
    mm = make_mm("256M")
    cache = mm.slab.kmem_cache_create("buf", 1024)
    slabs = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 80).reshape(10, 8)
    for i, objects in enumerate(slabs):
        cache.kmem_cache_free_bulk(objects[: 1 + (3 * i) % 8])
    assert cache.kmem_cache_shrink() == 1
    free = [8 - cache.inuse(int(pfn)) for pfn in cache.store.field(jit.SL_PFN)[cache.store.partial()]]
    assert free == sorted(free)
    assert (len(free), cache.nr_slabs) == (9, 9)  # all eight objects of one slab went


def test_an_object_freed_by_another_cpu_goes_to_that_cpus_list():
    mm = make_mm("256M", nr_cpus=2, start=True)
    cache = mm.slab.kmem_cache_create("buf", 2048)  # 16 objects
    seen = []

    def owner():
        objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 32)
        mm.sched.spawn(lambda: cache.kmem_cache_free(int(objects[0])), name="other", cpu=1)
        mm.sched.sleep(1_000_000)
        cache.kmem_cache_alloc_bulk(GFP_KERNEL, 1)
        seen.append((cache.nr_slabs, cache.inuse(int(cache.slab_of(objects[1:2])[0]))))

    mm.sched.spawn(owner, name="owner", cpu=0)
    mm.sched.run(10_000_000)
    # CPU 0 takes a third slab though the first has room, on CPU 1's list.
    assert seen == [(3, 15)]
    mm.slab.validate()
    mm.sched.close()


# --- pages --------------------------------------------------------------------------------------------


def test_without_the_wanted_order_the_smallest_is_taken_and_nobody_reclaims():
    mm = make_mm("256M")
    cache = mm.slab.kmem_cache_create("ext4_inode_cache", 1168, flags=mm.slab.SLAB_RECLAIM_ACCOUNT, ctor=True)
    fragment(mm, 6000)
    memory = mm.pgdat.memory
    rows, events = [], recorded(mm)
    memory.S[pg.S_TRACE_MASK] = 1 << pg.TR_PAGE_ALLOC
    memory.trace_sink = lambda taken: rows.extend(taken.tolist())
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 4)
    memory.flush_trace()
    first, fallback = (
        GFP_KERNEL & ~gfp.RECLAIM | gfp.COMP | gfp.RECLAIMABLE | gfp.NOMEMALLOC | gfp.NOWARN | gfp.NORETRY,
        GFP_KERNEL | gfp.COMP | gfp.RECLAIMABLE,
    )
    assert [(pfn >= 0, order, mt, mask) for _, pfn, order, mt, mask, _ in rows] == [
        (False, 3, 2, first),
        (True, 0, 2, fallback),
    ] * 2
    assert events == []
    table = cache.slabs()
    assert (table.order.tolist(), table.objects.tolist()) == ([0, 0], [3, 3])
    assert sorted(table.inuse.tolist()) == [1, 3]
    assert (cache.order_fallbacks, cache.nr_pages) == (2, 2)
    cache.kmem_cache_free_bulk(objects)
    cache.kmem_cache_shrink()
    mm.check_memory()


def test_no_memory_is_null_and_what_was_got_is_kept():
    mm = make_mm("256M")
    cache = mm.slab.kmem_cache_create("buf", 1024)
    fragment(mm, 4)
    got = cache.kmem_cache_alloc_bulk(EVERYTHING, 100)
    assert len(got) == 16  # four pages of four objects
    assert cache.kmem_cache_alloc(EVERYTHING) == -1
    assert cache.nr_objects == 16
    cache.kmem_cache_free(int(got[5]))
    assert cache.kmem_cache_alloc(EVERYTHING) == got[5]


def test_slab_pages_are_counted_by_kind():
    mm = make_mm("256M")
    inodes = mm.slab.kmem_cache_create(
        "inode_cache", 600, flags=mm.slab.SLAB_RECLAIM_ACCOUNT
    )  # 13 in two pages
    names = mm.slab.kmem_cache_create("names", 4096)  # 8 in eight pages
    inodes.kmem_cache_alloc_bulk(GFP_KERNEL, 27)
    names.kmem_cache_alloc_bulk(GFP_KERNEL, 9)
    stats = dict(node_stats(mm))
    assert (stats["nr_slab_reclaimable"], stats["nr_slab_unreclaimable"]) == (6, 16)
    meminfo = {entry.name: entry.value for entry in meminfo_of(mm).entries}
    assert (meminfo["SReclaimable"], meminfo["SUnreclaim"], meminfo["Slab"]) == (24, 64, 88)
    types = [int(mm.pgdat.memory.pb[pfn >> 9]) & pg.PB_MT_MASK for pfn in inodes.slabs().pfn.tolist()]
    assert types == [2] * 3
    info = inodes.slabinfo()
    assert (info.objsize, info.objperslab, info.pagesperslab) == (600, 13, 2)
    assert (info.active_objs, info.num_objs, info.num_slabs) == (39, 39, 3)
    assert [line.name for line in mm.slab.slabinfo()] == ["names", "inode_cache"]


class DentryShrinker:
    """Frees objects in the order given; counts the pages that came back meanwhile."""

    seeks = 2

    def __init__(self, cache, objects):
        self.cache, self.objects, self.pages = cache, objects, 0

    @hookimpl
    def count_objects(self, sc):
        return len(self.objects)

    @hookimpl
    def scan_objects(self, sc):
        victims, self.objects = self.objects[: sc.nr_to_scan], self.objects[sc.nr_to_scan :]
        before = self.cache.nr_pages
        self.cache.kmem_cache_free_bulk(victims)
        self.pages += before - self.cache.nr_pages
        return len(victims)


def test_pages_of_slabs_freed_in_a_scan_are_reclaimed_pages():
    mm = make_mm("256M")
    cache = dentry_cache(mm)
    objects = cache.kmem_cache_alloc_bulk(NO_RECLAIM | gfp.NOMEMALLOC, 1 << 21)
    assert 21 * cache.nr_slabs == len(objects)
    shrinker = DentryShrinker(cache, objects)
    mm.register_shrinker(shrinker, "sb-ext4")
    ends = []
    mm.trace.subscribe(MmVmscanDirectReclaimEnd, lambda event: ends.append(event.nr_reclaimed))
    assert mm.alloc_pages(GFP_KERNEL, 0) >= 0
    assert ends == [shrinker.pages]
    assert shrinker.pages >= 32
    # outside of reclaim nobody is credited
    cache.kmem_cache_free_bulk(shrinker.objects)
    assert mm._vmscan._reclaimed_slab == {}


def test_another_task_may_use_the_cache_while_one_waits_for_a_slab():
    mm = make_mm("256M", start=True)
    cache = dentry_cache(mm)
    pages = fill(mm)
    log = []

    class Slow:
        seeks = 2

        def __init__(self, pages):
            self.pages = pages

        @hookimpl
        def count_objects(self, sc):
            return len(self.pages)

        @hookimpl
        def scan_objects(self, sc):
            taken, self.pages = self.pages[:128], self.pages[128:]
            log.append("reclaim waits")
            mm.sched.sleep(1_000_000)
            mm.free_pages_batch(taken, 0)
            return 128

    mm.register_shrinker(Slow(pages[:3000]), "slow")

    def waits():
        obj = cache.kmem_cache_alloc(GFP_KERNEL)
        log.append(("slab after reclaim", int(cache.slab_of(np.array([obj]))[0])))

    def passes():
        mm.sched.sleep(300_000)
        obj = cache.kmem_cache_alloc(GFP_ATOMIC)
        log.append(("slab from reserves", int(cache.slab_of(np.array([obj]))[0])))

    for fn in (waits, passes):
        mm.sched.spawn(fn, name=fn.__name__)
    mm.sched.run(400_000_000)
    texts = [entry if isinstance(entry, str) else entry[0] for entry in log]
    assert (
        texts.index("reclaim waits") < texts.index("slab from reserves") < texts.index("slab after reclaim")
    )
    slabs = dict(entry for entry in log if not isinstance(entry, str))
    # He who waited comes back with a slab of his own; the other one leaves the CPU for the node's list.
    listed = cache.store.field(jit.SL_PFN)[cache.store.partial()].tolist()
    assert listed == [slabs["slab from reserves"]]
    assert (cache.nr_slabs, cache.nr_objects) == (2, 2)
    mm.slab.validate()
    mm.sched.close()


def test_objects_cost_time_once_it_runs():
    mm = make_mm("256M")
    cache = dentry_cache(mm)
    cache.kmem_cache_alloc(GFP_KERNEL)
    assert mm.sched.now == 0
    mm.start_time()
    spent = []

    def task():
        start = mm.sched.now
        objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 20)
        spent.append(mm.sched.now - start)
        cache.kmem_cache_free_bulk(objects)
        spent.append(mm.sched.now - start - spent[0])
        cache.kmem_cache_alloc_bulk(GFP_KERNEL, 21)  # the last one needs a slab
        spent.append(mm.sched.now - start - sum(spent))

    mm.sched.spawn(task, name="task")
    mm.sched.run(1_000_000)
    assert spent == [20 * 20, 20 * 30, 21 * 20 + mm.costs.alloc_pcp]
    mm.sched.close()


def test_resident_pages_become_full_slabs():
    mm = make_mm("256M")
    cache = mm.slab.kmem_cache_create("inode_cache", 600, flags=mm.slab.SLAB_RECLAIM_ACCOUNT)
    total, owned = mm.check_memory(), mm.nr_allocated_pages()
    pfns = mm.alloc_pages_batch(GFP_KERNEL | gfp.RECLAIMABLE, 0, 500)
    objects = cache.adopt(pfns)
    assert (len(objects), cache.nr_objects, cache.nr_slabs) == (500 * 6, 3000, 500)
    assert sorted(cache.slab_of(objects[::6]).tolist()) == sorted(pfns.tolist())
    assert dict(node_stats(mm))["nr_slab_reclaimable"] == 500
    mm.slab.validate()
    cache.kmem_cache_free_bulk(objects)
    mm.slab.kmem_cache_destroy(cache)
    assert (mm.check_memory(total), mm.nr_allocated_pages()) == (total, owned)


# --- kmalloc --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "mask", "name", "slab"),
    [
        (1, GFP_KERNEL, "kmalloc-8", (0, 512)),
        (65, GFP_KERNEL, "kmalloc-96", (0, 42)),
        (97, GFP_KERNEL, "kmalloc-128", (0, 32)),
        (130, GFP_KERNEL | gfp.RECLAIMABLE, "kmalloc-rcl-192", (0, 21)),
        (193, gfp.GFP_KERNEL_ACCOUNT, "kmalloc-cg-256", (0, 16)),
        (1025, gfp.GFP_NOFS, "kmalloc-2k", (2, 8)),
        (8192, GFP_KERNEL | gfp.DMA, "dma-kmalloc-8k", (3, 4)),
    ],
)
def test_kmalloc_caches(size, mask, name, slab):
    mm = make_mm("256M")
    cache = mm.slab.kmalloc_slab(size, mask)
    assert (cache.name, cache.geometry.oo) == (name, slab)
    assert mm.slab.kmalloc_slab(size, mask) is cache
    obj = cache.kmem_cache_alloc(mask)
    assert (int(cache.slab_of(np.array([obj]))[0]) < 4096) == ("dma" in name)


def test_empty_slabs_of_kmalloc_caches_can_be_given_back():
    mm = make_mm("256M")
    owned = mm.nr_allocated_pages()
    cache, other = mm.slab.kmalloc_slab(100, GFP_KERNEL), dentry_cache(mm)
    for each in (cache, other):
        each.kmem_cache_free(each.kmem_cache_alloc(GFP_KERNEL))
    mm.slab.shrink_kmalloc_caches()
    assert (cache.nr_slabs, other.nr_slabs, mm.nr_allocated_pages() - owned) == (0, 1, 1)


def test_what_no_kmalloc_cache_holds_comes_from_the_page_allocator():
    mm = make_mm("256M")
    with pytest.raises(CallerError, match="1 to 8192 bytes, not 8193"):
        mm.slab.kmalloc_slab(8193, GFP_KERNEL)
    owned = mm.nr_allocated_pages()
    pfn = mm.slab.kmalloc_large(8193, GFP_KERNEL)
    assert dict(node_stats(mm))["nr_slab_unreclaimable"] == 4
    mm.slab.validate()
    mm.slab.free_large_kmalloc(pfn, 8193)
    assert (dict(node_stats(mm))["nr_slab_unreclaimable"], mm.nr_allocated_pages()) == (0, owned)
    with pytest.raises(CallerError, match="kmalloc"):
        mm.slab.kmalloc_large(1 << 23, GFP_KERNEL)


# --- misuse ---------------------------------------------------------------------------------------------


def test_what_is_no_object_is_refused_by_name():
    mm = make_mm("256M")
    cache, other = dentry_cache(mm), mm.slab.kmem_cache_create("inode_cache", 600)
    a, b = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 2).tolist()
    foreign = other.kmem_cache_alloc(GFP_KERNEL)
    cache.kmem_cache_free(a)
    for obj, message in (
        (a, f"to dentry: object {a:#x} is free already"),
        (foreign, f"to dentry: object {foreign:#x} is one of inode_cache"),
        (cache.object_at(np.array([1 << 30]))[0], "is nobody's"),
        (5, "object 0x5 is nobody's"),
        (-1, "-1 is no object"),
        (1 << 70, "is no object"),
        ("x", "'x' is no object"),
        (None, "None is no object"),
    ):
        with pytest.raises(BadObject, match=message):
            cache.kmem_cache_free(obj)
    with pytest.raises(BadObject, match=r"slab_of\(\) of dentry"):
        cache.slab_of(np.array([b, a]))
    with pytest.raises(BadObject, match="is free already"):
        cache.kmem_cache_free_bulk(np.array([b, b]))
    assert cache.nr_objects == 0
    assert other.objects_of(10).tolist() == cache.objects_of(1 << 40).tolist() == []
    mm.slab.validate()


def test_a_cache_with_objects_is_not_destroyed():
    mm = make_mm("256M")
    cache, owned = dentry_cache(mm), mm.nr_allocated_pages()
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 100)
    cache.kmem_cache_free_bulk(objects[3:])
    with pytest.raises(CallerError, match="dentry: Slab cache still has objects, 3 of them"):
        mm.slab.kmem_cache_destroy(cache)
    assert mm.slab.caches == (cache,)
    cache.kmem_cache_free_bulk(objects[:3])
    mm.slab.kmem_cache_destroy(cache)
    assert (mm.slab.caches, mm.nr_allocated_pages()) == ((), owned)
    for use in (
        lambda: mm.slab.kmem_cache_destroy(cache),
        lambda: cache.kmem_cache_alloc(GFP_KERNEL),
        lambda: cache.kmem_cache_free(int(objects[0])),
        lambda: cache.adopt(objects[:0]),
    ):
        with pytest.raises(CallerError):
            use()
    assert dentry_cache(mm).kmem_cache_alloc(GFP_KERNEL) != objects[0]


def test_names_are_taken_once():
    mm = make_mm("256M")
    dentry_cache(mm)
    with pytest.raises(CallerError, match="there is a cache 'dentry' already"):
        dentry_cache(mm)


def test_only_single_pages_that_the_caller_has_are_adopted():
    mm = make_mm("256M")
    cache = dentry_cache(mm)
    obj = cache.kmem_cache_alloc(GFP_KERNEL)
    mine = mm.alloc_pages(GFP_KERNEL, 0)
    pair = mm.alloc_pages(GFP_KERNEL, 1)
    file = mm.page_cache.open(1)
    file.read(0, 1)
    cached = int(mm.rmap.part(file.base_slot, 1)[0])
    for wrong in ([pair], [pair + 1], [mine, mine], [cached], cache.slab_of(np.array([obj])), [mine + 4000]):
        with pytest.raises(CallerError, match="cannot adopt pfn"):
            cache.adopt(np.array(wrong, dtype=np.int64))
    with pytest.raises(CallerError, match="an object of 8192 bytes fits none"):
        mm.slab.kmem_cache_create("big", 8192).adopt(np.array([mine]))
    assert len(cache.adopt(np.array([mine]))) == 21


def _lose_object(store):
    store.chain[store.chain == jit.LIVE] = 0


def _miscount(store):
    store.C[jit.K_TOTAL_OBJECTS] += 1


def _misplace(store):
    store.field(jit.SL_STATE)[store.partial()[0]] = jit.ST_FULL


def _unlink(store):
    store.field(jit.SL_PREV)[store.partial()[1]] = 0


def _forget_slot(store):
    store.C[jit.K_FREE_SLOT] = 0


def _inuse(store):
    store.field(jit.SL_INUSE)[store.partial()[0]] -= 1


@pytest.mark.parametrize("damage", [_lose_object, _miscount, _misplace, _unlink, _forget_slot, _inuse])
def test_every_kind_of_damage_is_seen(damage):
    mm = make_mm("256M")
    cache = dentry_cache(mm)
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 21 * 40)
    cache.kmem_cache_free_bulk(objects[::4])
    mm.slab.validate()
    damage(cache.store)
    with pytest.raises(CorruptMemory, match="slab dentry"):
        mm.slab.validate()


def test_a_wrong_page_counter_is_seen():
    mm = make_mm("256M")
    dentry_cache(mm).kmem_cache_alloc(GFP_KERNEL)
    mm.pgdat.memory.S[pg.S_NODE_STAT + pg.NS_SLAB_RECLAIMABLE] += 1
    with pytest.raises(CorruptMemory, match="2 slab pages, the caches hold 1"):
        mm.slab.validate()


# --- many slabs at once -----------------------------------------------------------------------------------


def test_pages_that_freeing_gave_back_are_named():
    mm = make_mm("256M")
    cache = mm.slab.kmem_cache_create("ext4_inode_cache", 1096, flags=mm.slab.SLAB_RECLAIM_ACCOUNT)
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 29 * 60)
    before = set(cache.slabs().pfn.tolist())
    gone = []
    for part in np.array_split(objects, 7):
        gone.append(cache.kmem_cache_free_reclaimed(part))
    gone = np.concatenate(gone)
    left = set(cache.slabs().pfn.tolist())
    heads = np.array(sorted(before - left))
    assert len(left) < 12  # some empty ones are kept
    assert np.array_equal(np.sort(gone), (heads[:, None] + np.arange(8)).ravel())


def test_objects_of_many_slabs_are_those_of_each():
    mm = make_mm("256M")
    cache = dentry_cache(mm)
    objects = cache.kmem_cache_alloc_bulk(GFP_KERNEL, 2100)
    cache.kmem_cache_free_bulk(objects[::3])
    pfns = cache.slabs().pfn
    lo, hi = int(pfns[20]), int(pfns[60])
    chosen = cache.slabs_in(lo, hi)
    assert np.array_equal(chosen, pfns[20:60])
    each = np.concatenate([cache.objects_of(pfn) for pfn in chosen.tolist()])
    assert np.array_equal(cache.objects_of_slabs(chosen), each)
    assert len(cache.objects_of_slabs(np.array([hi + 1_000_000 % 65536, 3]))) <= 21
    assert len(cache.slabs_in(-5, 0)) == len(cache.slabs_in(10, 10)) == 0


def test_pages_are_counted_with_slabs_of_both_orders():
    mm = make_mm("256M")
    cache = mm.slab.kmem_cache_create("ext4_inode_cache", 1096, flags=mm.slab.SLAB_RECLAIM_ACCOUNT)
    cache.kmem_cache_alloc_bulk(GFP_KERNEL, 100)
    cache.adopt(mm.claim_resident(7, movable=False, what="test"))
    table = cache.slabs()
    assert sorted(set(table.order.tolist())) == [0, 3]
    assert cache.nr_pages == int((1 << table.order).sum()) == 4 * 8 + 7
