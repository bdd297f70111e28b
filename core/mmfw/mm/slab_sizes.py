"""What a slab cache looks like: order, objects, and how many slabs are kept (mm/slub.c, mm/slab_common.c of 6.1).

All of it follows from the object's size, the cache's flags and the number of CPUs. Debugging flags, which add to the size
of an object, are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from mmfw import gfp
from mmfw.errors import CallerError
from mmfw.state import MAX_ORDER

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
#: Largest object: ``1 << KMALLOC_SHIFT_MAX``, the largest block.
KMALLOC_MAX_SIZE: Final = PAGE_SIZE << (MAX_ORDER - 1)
MAX_OBJS_PER_PAGE: Final = 32767
#: Bounds of ``min_partial``.
MIN_PARTIAL: Final = 5
MAX_PARTIAL: Final = 10
_WORD: Final = 8
_CACHE_LINE: Final = 64

# --- slab flags (include/linux/slab.h) --------------------------------------------------------------
SLAB_HWCACHE_ALIGN: Final = 0x2000
SLAB_CACHE_DMA: Final = 0x4000
SLAB_CACHE_DMA32: Final = 0x8000
SLAB_RECLAIM_ACCOUNT: Final = 0x20000
SLAB_PANIC: Final = 0x40000
SLAB_TYPESAFE_BY_RCU: Final = 0x80000
SLAB_MEM_SPREAD: Final = 0x100000
SLAB_ACCOUNT: Final = 0x4000000
SLAB_FLAGS: Final = (
    SLAB_HWCACHE_ALIGN
    | SLAB_CACHE_DMA
    | SLAB_CACHE_DMA32
    | SLAB_RECLAIM_ACCOUNT
    | SLAB_PANIC
    | SLAB_TYPESAFE_BY_RCU
    | SLAB_MEM_SPREAD
    | SLAB_ACCOUNT
)
#: Bits of a mask that reach the page allocator (``allocate_slab()``'s caller, mm/slub.c).
_PAGE_GFP: Final = gfp.GFP_RECLAIM_MASK | gfp.GFP_CONSTRAINT_MASK
#: Bits that no slab may have (GFP_SLAB_BUG_MASK, mm/internal.h).
_BUG_GFP: Final = gfp.DMA32 | gfp.HIGHMEM | ~gfp.GFP_BITS_MASK


class OrderObjects(NamedTuple):
    """An order and the objects that a slab of it holds (``struct kmem_cache_order_objects``)."""

    order: int
    objects: int


@dataclass(frozen=True, slots=True)
class SlubParams:
    """Boot parameters of the slab allocator.

    Attributes
    ----------
    slub_min_order, slub_max_order : int
        Orders among which one is chosen. The highest is exceeded only where one object would not fit.
    slub_min_objects : int
        Objects that a slab should hold at least; 0 derives it from the number of CPUs.
    """

    slub_min_order: int = 0
    slub_max_order: int = 3
    slub_min_objects: int = 0


@dataclass(frozen=True, slots=True)
class SlabGeometry:
    """What ``kmem_cache_open()`` derives for a cache.

    Attributes
    ----------
    object_size, size : int
        Bytes asked for; bytes that each object takes.
    align : int
        Alignment of an object.
    oo : OrderObjects
        The slab that is wanted.
    min : OrderObjects
        What is taken where that order is not to be had.
    allocflags : int
        Gfp bits of every slab.
    min_partial : int
        Slabs on the node's partial list from which on an empty slab is freed and not kept.
    cpu_partial : int
        Objects that a CPU's partial list is meant for.
    cpu_partial_slabs : int
        Slabs on a CPU's partial list from which on it is moved to the node's.
    """

    object_size: int
    size: int
    align: int
    oo: OrderObjects
    min: OrderObjects
    allocflags: int
    min_partial: int
    cpu_partial: int
    cpu_partial_slabs: int


def get_order(nr_bytes: int) -> int:
    """Smallest order of that many bytes (``get_order()``).

    Examples
    --------
    >>> [get_order(n) for n in (1, 4096, 4097, 16385)]
    [0, 0, 1, 3]
    """
    return ((nr_bytes - 1) >> PAGE_SHIFT).bit_length()


def order_objects(order: int, size: int) -> int:
    """Objects of a size in a block (``order_objects()``)."""
    return (PAGE_SIZE << order) // size


def _calc_slab_order(size: int, min_objects: int, min_order: int, max_order: int, fract_leftover: int) -> int:
    """Lowest order that holds so many objects and wastes at most that fraction (``calc_slab_order()``)."""
    if order_objects(min_order, size) > MAX_OBJS_PER_PAGE:
        return get_order(size * MAX_OBJS_PER_PAGE) - 1
    order = max(min_order, get_order(min_objects * size))
    while order <= max_order and (PAGE_SIZE << order) % size > (PAGE_SIZE << order) // fract_leftover:
        order += 1
    return order


def calculate_order(size: int, nr_cpus: int, params: SlubParams | None = None) -> int:
    """Order of a cache's slabs (``calculate_order()``).

    A slab should hold 4 * (fls(CPUs) + 1) objects and waste a sixteenth of itself at most; first the waste is
    allowed to grow to a quarter, then the objects to become fewer. ``num_present_cpus()`` and ``nr_cpu_ids`` are both
    taken to be the CPUs that there are.

    Examples
    --------
    A dentry, a radix tree node and an ext4 inode on four CPUs:

    >>> [calculate_order(size, 4) for size in (192, 576, 1176)]
    [0, 2, 3]

    Raises
    ------
    CallerError
        No block holds an object of that size.
    """
    params = params or SlubParams()
    low, high = params.slub_min_order, params.slub_max_order
    min_objects = params.slub_min_objects or 4 * (nr_cpus.bit_length() + 1)
    min_objects = min(min_objects, order_objects(high, size))
    while min_objects > 1:
        for fraction in (16, 8, 4):
            order = _calc_slab_order(size, min_objects, low, high, fraction)
            if order <= high:
                return order
        min_objects -= 1
    for limit in (high, MAX_ORDER):
        order = _calc_slab_order(size, 1, low, limit, 1)
        if order <= min(limit, MAX_ORDER - 1):
            return order
    raise CallerError(f"an object of {size} bytes fits no block; the largest is {KMALLOC_MAX_SIZE}")


def _align(value: int, align: int) -> int:
    return -(-value // align) * align


def _calculate_alignment(flags: int, align: int, size: int) -> int:
    """``calculate_alignment()`` of x86-64."""
    if flags & SLAB_HWCACHE_ALIGN:
        line = _CACHE_LINE
        while size <= line // 2:
            line //= 2
        align = max(align, line)
    return _align(max(align, _WORD), _WORD)


def _cpu_partial(size: int) -> int:
    """Objects on a CPU's partial list (``set_cpu_partial()``)."""
    for least, nr_objects in ((PAGE_SIZE, 6), (1024, 24), (256, 52)):
        if size >= least:
            return nr_objects
    return 120


def calculate_sizes(
    object_size: int,
    *,
    align: int = 0,
    flags: int = 0,
    ctor: bool = False,
    nr_cpus: int,
    params: SlubParams | None = None,
) -> SlabGeometry:
    """All figures of a cache (``kmem_cache_open()``, ``calculate_sizes()``).

    Parameters
    ----------
    object_size : int
        Bytes.
    align : int
        Alignment asked for, 0 for none.
    flags : int
        ``SLAB_*`` bits.
    ctor : bool
        Whether the objects have a constructor; then the free pointer needs a word of its own.
    nr_cpus : int
        CPUs.
    params : SlubParams, optional
        Boot parameters.

    Raises
    ------
    CallerError
        A size, an alignment or a flag that no cache has.
    """
    if not 0 < object_size <= KMALLOC_MAX_SIZE:
        raise CallerError(f"an object of {object_size} bytes; 1 to {KMALLOC_MAX_SIZE} can be cached")
    if align < 0 or align & (align - 1):
        raise CallerError(f"an alignment of {align} bytes is no power of two")
    if flags & ~SLAB_FLAGS:
        raise CallerError(f"slab flags {flags & ~SLAB_FLAGS:#x} are not modelled")
    align = _calculate_alignment(flags, align, object_size)
    size = _align(object_size, _WORD)
    if ctor or flags & SLAB_TYPESAFE_BY_RCU:
        size += _WORD
    size = _align(size, align)
    order = calculate_order(size, nr_cpus, params)
    allocflags = gfp.COMP if order else 0
    for flag, bits in (
        (SLAB_CACHE_DMA, gfp.GFP_DMA),
        (SLAB_CACHE_DMA32, gfp.GFP_DMA32),
        (SLAB_RECLAIM_ACCOUNT, gfp.RECLAIMABLE),
    ):
        allocflags |= bits if flags & flag else 0
    oo = OrderObjects(order, order_objects(order, size))
    fallback = get_order(size)
    cpu_partial = _cpu_partial(size)
    return SlabGeometry(
        object_size=object_size,
        size=size,
        align=align,
        oo=oo,
        min=OrderObjects(fallback, order_objects(fallback, size)),
        allocflags=allocflags,
        min_partial=max(MIN_PARTIAL, min(MAX_PARTIAL, (size.bit_length() - 1) // 2)),
        cpu_partial=cpu_partial,
        cpu_partial_slabs=-(-2 * cpu_partial // oo.objects),
    )


def slab_gfp(gfp_mask: int, geometry: SlabGeometry) -> tuple[int, int]:
    """Masks of a slab's pages: of the first attempt, and of the fallback (``allocate_slab()``).

    The first attempt gives up early. Where there is a lower order to fall back to, and the caller may reclaim, it
    neither reclaims nor wakes kswapd.

    Raises
    ------
    CallerError
        The mask has a bit that no slab may have. The kernel warns and drops it.
    """
    wrong = gfp_mask & _BUG_GFP
    if wrong:
        raise CallerError(f"slab mask {gfp_mask:#x}: no slab may have {wrong:#x} (GFP_SLAB_BUG_MASK)")
    flags = gfp_mask & _PAGE_GFP | geometry.allocflags
    first = (flags | gfp.NOWARN | gfp.NORETRY) & ~gfp.NOFAIL
    if first & gfp.DIRECT_RECLAIM and geometry.oo.order > geometry.min.order:
        first = (first | gfp.NOMEMALLOC) & ~gfp.RECLAIM
    return first, flags
