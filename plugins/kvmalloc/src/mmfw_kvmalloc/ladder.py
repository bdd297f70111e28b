"""kvmalloc: a block first, then vmalloc (``kvmalloc_node()``, mm/util.c of 6.1 and mm/slub.c of 6.16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw import gfp
from mmfw_kvmalloc.rules import PAGE_SIZE, Rules, kmalloc_gfp_adjust
from mmfw_kvmalloc.stats import NR_ORDERS, KvStats
from mmfw_kvmalloc.vmalloc import Vmalloc, VmStruct

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw.mm.slab import KmemCache

#: Sizes above it come from the page allocator.
KMALLOC_MAX_CACHE_SIZE: Final = 2 * PAGE_SIZE
#: Largest size here, 1 MiB: larger ones would try huge mappings before single pages.
MAX_SIZE: Final = PAGE_SIZE << (NR_ORDERS - 1)


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one call got; one of the three last is set.

    Attributes
    ----------
    size : int
        Bytes asked for.
    pfn : int
        First page of a block, -1 for none.
    slab : (KmemCache, int) or None
        Object of a cache, and the cache.
    area : VmStruct or None
        Area of vmalloc's.
    """

    size: int
    pfn: int = -1
    slab: tuple[KmemCache, int] | None = None
    area: VmStruct | None = None


class Kvmalloc:
    """kvmalloc of one machine; attached to its `Mm`.

    Parameters
    ----------
    mm : Mm
        Where memory comes from.
    rules : Rules
        Which kernel's ladder.

    Attributes
    ----------
    rules : Rules
        As given.
    vmalloc : Vmalloc
        The fallback.
    stats : KvStats
        What happened so far.
    """

    def __init__(self, mm: Mm, rules: Rules) -> None:
        self._mm = mm
        self.rules = rules
        self.vmalloc = Vmalloc(mm)
        self.stats = KvStats()

    def kvmalloc(self, size: int, gfp_mask: int = gfp.GFP_KERNEL) -> Allocation | None:
        """Get memory (``kvmalloc()``).

        Parameters
        ----------
        size : int
            Bytes, 1 to `MAX_SIZE`.
        gfp_mask : int
            What may be done to get it.

        Returns
        -------
        Allocation or None
            None where the kernel returns NULL: no block is free, and vmalloc failed or may not be used, since the caller
            may not block (6.1 and 6.16; later kernels use it then, too).
        """
        assert 0 < size <= MAX_SIZE, f"{size} bytes"
        mm, stats = self._mm, self.stats
        order = ((size - 1) // PAGE_SIZE).bit_length()
        began = mm.sched.now
        stats.calls[order] += 1
        found = self._kmalloc(size, kmalloc_gfp_adjust(gfp_mask, size, self.rules))
        if found is None and size > PAGE_SIZE and gfp.gfpflags_allow_blocking(gfp_mask):
            area = self.vmalloc.vmalloc(size, gfp_mask)
            if area is not None:
                stats.fallbacks[order] += 1
                found = Allocation(size, area=area)
        stats.failures += found is None
        stats.latencies.add(mm.sched.now - began)
        return found

    def _kmalloc(self, size: int, gfp_mask: int) -> Allocation | None:
        if size > KMALLOC_MAX_CACHE_SIZE:
            pfn = self._mm.slab.kmalloc_large(size, gfp_mask)
            return Allocation(size, pfn=pfn) if pfn >= 0 else None
        cache = self._mm.slab.kmalloc_slab(size, gfp_mask)
        found = cache.kmem_cache_alloc(gfp_mask)
        return Allocation(size, slab=(cache, found)) if found >= 0 else None

    def kvfree(self, allocation: Allocation) -> None:
        """Give memory back (``kvfree()``)."""
        if allocation.area is not None:
            self.vmalloc.vfree(allocation.area)
        elif allocation.slab is not None:
            cache, found = allocation.slab
            cache.kmem_cache_free(found)
        else:
            self._mm.slab.free_large_kmalloc(allocation.pfn, allocation.size)
