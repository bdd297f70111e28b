"""Geometry of slab caches, derived by hand from the rules of mm/slub.c; /proc/slabinfo of x86-64 shows the same."""

from __future__ import annotations

import pytest

from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.mm.slab_sizes import (
    SLAB_CACHE_DMA,
    SLAB_HWCACHE_ALIGN,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
    SlubParams,
    calculate_order,
    calculate_sizes,
    slab_gfp,
)


@pytest.mark.parametrize(
    ("size", "nr_cpus", "oo", "smallest"),
    [
        # dentry: 8 to 20 objects fit a page with 64 bytes to spare; 24 (16 CPUs) do not, two pages spare 128
        (192, 1, (0, 21), (0, 21)),
        (192, 8, (0, 21), (0, 21)),
        (192, 16, (1, 42), (0, 21)),
        (64, 1, (0, 64), (0, 64)),
        (64, 8, (0, 64), (0, 64)),
        (512, 1, (0, 8), (0, 8)),
        (512, 8, (2, 32), (0, 8)),
        (1024, 1, (1, 8), (0, 4)),
        (1024, 4, (2, 16), (0, 4)),
        # kmalloc-2k: 8, 16 objects
        (2048, 1, (2, 8), (0, 2)),
        (2048, 4, (3, 16), (0, 2)),
        # kmalloc-4k, -8k: no more fit order 3
        (4096, 1, (3, 8), (0, 1)),
        (8192, 8, (3, 4), (1, 1)),
        # radix_tree_node: 8 objects need two pages, which waste 128; 16 need four, which waste 256
        (576, 1, (1, 14), (0, 7)),
        (576, 4, (2, 28), (0, 7)),
        (576, 8, (2, 28), (0, 7)),
        # ext4_inode_cache: order 2 wastes 1096 of 16384, more than a sixteenth; order 3 wastes 1016 of 32768
        (1176, 1, (3, 27), (0, 3)),
        (1176, 8, (3, 27), (0, 3)),
        # proc_inode_cache, inode_cache
        (680, 1, (1, 12), (0, 6)),
        (680, 8, (2, 24), (0, 6)),
        (600, 1, (1, 13), (0, 6)),
        (600, 8, (2, 27), (0, 6)),
        # 2768 bytes of order 3 are more than a sixteenth, less than an eighth
        (3000, 1, (3, 10), (0, 1)),
        # task_struct: three fit order 3 and waste 4352, more than an eighth, less than a quarter
        (9472, 4, (3, 3), (2, 1)),
        # one object a slab
        (17000, 4, (3, 1), (3, 1)),
        (33000, 4, (4, 1), (4, 1)),
        (8, 1, (0, 512), (0, 512)),
        (1 << 22, 1, (10, 1), (10, 1)),
    ],
)
def test_slabs(size, nr_cpus, oo, smallest):
    geometry = calculate_sizes(size, nr_cpus=nr_cpus)
    assert (geometry.size, geometry.oo, geometry.min) == (size, oo, smallest)


@pytest.mark.parametrize(
    ("params", "size", "order"),
    [
        (SlubParams(slub_max_order=0), 1176, 0),  # three objects waste 568 of 4096: less than a quarter
        (SlubParams(slub_min_order=1), 192, 1),
        (SlubParams(slub_min_objects=50), 192, 2),
        (SlubParams(slub_max_order=1), 9472, 2),
    ],
)
def test_boot_parameters(params, size, order):
    assert calculate_order(size, 1, params) == order


@pytest.mark.parametrize(
    ("wanted", "size", "align"),
    [
        ({"object_size": 1}, 8, 8),
        ({"object_size": 592, "ctor": True}, 600, 8),
        ({"object_size": 592, "flags": SLAB_TYPESAFE_BY_RCU}, 600, 8),
        # xfs_inode: a constructor, and whole cache lines
        ({"object_size": 968, "ctor": True, "flags": SLAB_HWCACHE_ALIGN}, 1024, 64),
        # an object of at most half a line is aligned to that half
        ({"object_size": 24, "flags": SLAB_HWCACHE_ALIGN}, 32, 32),
        ({"object_size": 100, "align": 128}, 128, 128),
    ],
)
def test_what_is_added_to_an_object(wanted, size, align):
    geometry = calculate_sizes(**wanted, nr_cpus=1)
    assert (geometry.size, geometry.align) == (size, align)


@pytest.mark.parametrize(
    ("size", "nr_cpus", "min_partial", "cpu_partial", "slabs"),
    [
        (64, 1, 5, 120, 4),  # 2 * 120 / 64, rounded up
        (192, 1, 5, 120, 12),
        (576, 1, 5, 52, 8),
        (1176, 1, 5, 24, 2),
        (2048, 4, 5, 24, 3),
        (8192, 1, 6, 6, 3),  # 13 / 2
        (1 << 16, 1, 8, 6, 12),
        (1 << 22, 1, 10, 6, 12),
    ],
)
def test_how_many_partial_slabs_are_kept(size, nr_cpus, min_partial, cpu_partial, slabs):
    geometry = calculate_sizes(size, nr_cpus=nr_cpus)
    assert (geometry.min_partial, geometry.cpu_partial, geometry.cpu_partial_slabs) == (
        min_partial,
        cpu_partial,
        slabs,
    )


EASY = gfp.NOWARN | gfp.NORETRY


@pytest.mark.parametrize(
    ("size", "flags", "mask", "first", "fallback"),
    [
        # no lower order to fall back to: the first attempt may reclaim, once
        (192, 0, gfp.GFP_KERNEL, gfp.GFP_KERNEL | EASY, gfp.GFP_KERNEL),
        # a lower order: no reclaim, no kswapd, no reserves
        (
            1176,
            SLAB_RECLAIM_ACCOUNT,
            gfp.GFP_KERNEL,
            gfp.IO | gfp.FS | gfp.COMP | gfp.RECLAIMABLE | gfp.NOMEMALLOC | EASY,
            gfp.GFP_KERNEL | gfp.COMP | gfp.RECLAIMABLE,
        ),
        # a caller that may not reclaim keeps its right to wake kswapd
        (1176, 0, gfp.GFP_ATOMIC, gfp.GFP_ATOMIC | gfp.COMP | EASY, gfp.GFP_ATOMIC | gfp.COMP),
        (192, 0, gfp.GFP_KERNEL | gfp.NOFAIL, gfp.GFP_KERNEL | EASY, gfp.GFP_KERNEL | gfp.NOFAIL),
        # what concerns the object does not reach its slab
        (192, 0, gfp.GFP_KERNEL_ACCOUNT | gfp.ZERO | gfp.MOVABLE, gfp.GFP_KERNEL | EASY, gfp.GFP_KERNEL),
        (192, SLAB_CACHE_DMA, gfp.GFP_NOWAIT, gfp.GFP_NOWAIT | gfp.DMA | EASY, gfp.GFP_NOWAIT | gfp.DMA),
    ],
)
def test_masks_of_a_slab(size, flags, mask, first, fallback):
    geometry = calculate_sizes(size, flags=flags, nr_cpus=1)
    assert slab_gfp(mask, geometry) == (first, fallback)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"object_size": 0}, "an object of 0 bytes"),
        ({"object_size": (1 << 22) + 1}, "1 to 4194304 can be cached"),
        ({"object_size": 1 << 22, "ctor": True}, "an object of 4194312 bytes fits no block"),
        ({"object_size": 8, "align": 24}, "no power of two"),
        ({"object_size": 8, "flags": 0x800}, "slab flags 0x800 are not modelled"),
    ],
)
def test_what_cannot_be_a_cache(wrong, message):
    with pytest.raises(CallerError, match=message):
        calculate_sizes(**wrong, nr_cpus=1)


@pytest.mark.parametrize("mask", [gfp.GFP_HIGHUSER, gfp.GFP_KERNEL | gfp.DMA32, 1 << 24])
def test_what_cannot_be_a_mask(mask):
    with pytest.raises(CallerError, match="no slab may have"):
        slab_gfp(mask, calculate_sizes(8, nr_cpus=1))
